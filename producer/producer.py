"""The producer of a process: its id, its channels, its sender.

- Nothing starts before the first workflow or task.
- A forked child is a new producer: fresh id, empty channels, no thread until it captures something.
- When the process ends, the sender drains within `exit_drain_s` (see `process`).
"""

from __future__ import annotations

import itertools
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from provd.common import ids
from provd.common.settings import Settings, load_leniently
from provd.producer import forks
from provd.producer.channel import Channel
from provd.producer.code import read_code
from provd.producer.environment import read_environment
from provd.producer.framing import Limits
from provd.producer.identity import Identity, read_identity
from provd.producer.journal import Journal
from provd.producer.marks import Marks
from provd.producer.outcome import outcome_of
from provd.producer.process import drain_at_exit, drain_on_sigterm, last_error
from provd.producer.rules import use_rules
from provd.producer.sender import Sender
from provd.producer.warning import warn_once

if TYPE_CHECKING:
    from provd.common.spool import SpoolWriter
    from provd.producer.sampler import Sampler


class Producer:
    """This process, as a producer."""

    def __init__(self, settings: Settings | None = None) -> None:
        """Reads the settings from the environment unless they are given."""
        self.settings = settings or _read_settings()
        use_rules(self.settings)
        self.identity: Identity = read_identity()
        self.id = ids.new_producer_id()
        #: Numbers the tasks of this producer, whatever their workflow.
        self._tasks = itertools.count(1)
        self._channels: dict[str, Channel] = {}
        #: Channels of ended workflows that somebody still holds, and marks of all that were let go of.
        self._resting: WeakValueDictionary[str, Channel] = WeakValueDictionary()
        self._ended = Marks()
        self._code: dict[str, Any] | None = None
        self._environment: dict[str, Any] | None = None
        self._lock = threading.RLock()  # a signal handler may interrupt its holder
        #: The sender, while it runs; `sender` starts it.
        self.running: Sender | None = None
        self._closed: Sender | None = None
        self._sampler: Sampler | None = None
        self._journal: Journal | None = None
        #: Called with the error the process ends with, if any, before goodbye: workflows that are still open.
        self.at_close: list[Callable[[BaseException | None], None]] = []

    # Not by `functools.cached_property`: up to Python 3.11 it holds a lock of its own, which a child may be born under.

    @property
    def code(self) -> dict[str, Any]:
        """Which code runs; read once."""
        if self._code is None:
            with forks.loading:
                self._code = read_code()
        return self._code

    @property
    def environment(self) -> dict[str, Any]:
        """What it runs in; read once."""
        if self._environment is None:
            with forks.loading:
                self._environment = read_environment(self.settings, self.identity.scheduler)
        return self._environment

    def channel(self, workflow_id: str, campaign_id: str | None) -> Channel:
        """This process' channel of a workflow, made on first use."""
        with self._lock:
            channel = self._channels.get(workflow_id)
            if channel is None:
                channel = self._resting.get(workflow_id) or self._new_channel(workflow_id, campaign_id)
                self._take_on(channel)
            return channel

    def _take_on(self, channel: Channel) -> None:
        """Send for a channel, a new one or one that was let go of."""
        with self._lock:
            channel.rests = False
            channel.look_around()
            self._channels[channel.workflow_id] = channel
            if self.running is not None:
                self.running.add(channel)

    def _in_use(self) -> tuple[Channel, ...]:
        """The channels as they are now: the sender's thread lets go of some while others go through them."""
        with self._lock:
            return tuple(self._channels.values())

    def _rest(self, channel: Channel) -> bool:
        """Let go of a channel, unless it has something to say after all. Called by the sender's thread."""
        with self._lock:
            channel.rests = True  # first: who says something from here on brings it back
            if not channel.is_settled:
                channel.rests = False
                return False
            self._ended.add(channel.workflow_id)
            if self._channels.get(channel.workflow_id) is channel:
                del self._channels[channel.workflow_id]
                self._resting[channel.workflow_id] = channel
            return True

    def _new_channel(self, workflow_id: str, campaign_id: str | None) -> Channel:
        limits = Limits(self.settings.frame_messages, self.settings.frame_bytes)
        # Where it may have had a channel that is gone, nobody knows its last number: to the books it is a new producer.
        producer_id = ids.new_producer_id() if workflow_id in self._ended else self.id
        facts = (
            workflow_id, campaign_id, producer_id, self.identity, limits, self._tasks, self.settings.tenant_id,
        )  # fmt: skip
        if self.settings.durability == "disk":
            from provd.producer.durable import DurableChannel

            channel: Channel = DurableChannel(*facts, journal=lambda: self.journal)
        else:
            channel = Channel(*facts)
        channel.telemetry = self.settings.telemetry_groups
        return channel

    @property
    def journal(self) -> Journal:
        """What this process has on disk; nothing is touched before there is something to write."""
        if self._journal is None:
            with self._lock:
                self._journal = self._journal or Journal(self._open_spool())
        return self._journal

    @property
    def has_sender(self) -> bool:
        """Whether this process has said anything since its last goodbye."""
        return self.running is not None

    @property
    def sender(self) -> Sender:
        """The sender, started on first use."""
        return self.running or self._start()

    def _start(self) -> Sender:
        if self._closed is not None and sys.is_finalizing():
            return self._closed  # finalizers run on when nothing can be imported, started or locked any more
        with forks.loading, self._lock:
            if self.running is None:
                sender = Sender(
                    self.settings,
                    self.settings.resolved_broker_url(),
                    self.journal,
                    self._rest,
                    self._take_on,
                )
                for channel in self._channels.values():
                    sender.add(channel)
                forks.guard_forks()
                try:
                    sender.start()
                except RuntimeError:
                    pass  # the interpreter is going down: the exit spools what is left
                drain_at_exit()
                self.running = sender
                if self.settings.drain_on_sigterm:
                    drain_on_sigterm(self.settings.exit_drain_s)
            return self.running

    def sample(self, channel: Channel) -> None:
        """Take part in sampling this node for a workflow, if that is asked for."""
        if self.settings.sample_interval_s is None:
            return
        if self._sampler is None:
            from provd.producer.sampler import Sampler

            self._sampler = Sampler(self.settings.sample_interval_s, self._wake_sender)
        self._sampler.watch(channel)

    def stop_sampling(self, channel: Channel) -> None:
        """Take the last sample for a workflow that ends in this process."""
        if self._sampler is not None:
            self._sampler.release(channel)

    def _wake_sender(self) -> None:
        if self.running is not None:
            self.running.wake()

    def _open_spool(self) -> SpoolWriter:
        from provd.common.spool import SpoolWriter

        return SpoolWriter(
            self.settings.spool_path,
            self.id,
            ceiling_bytes=self.settings.spool_ceiling_bytes,
            free_floor=self.settings.spool_free_floor,
            hostname=self.identity.hostname,
        )

    def reset_after_fork(self) -> None:
        """Become the producer of the child: the parent's messages, thread and connection are the parent's."""
        self.id = ids.new_producer_id()
        self._lock = threading.RLock()
        if self._journal is not None:
            self._journal.forget()
        self._journal = None
        self.running = None
        if self._sampler is not None:
            self._sampler.abandon()
        self._sampler = None
        self.at_close = []
        self._tasks = itertools.count(1)
        self._ended = Marks()
        for channel in [*self._channels.values(), *self._resting.values()]:
            channel.reset(self.id, self._tasks)

    def settle(self) -> None:
        """Say what is known of the loop iterations that this thread has left."""
        for channel in self._in_use():
            if channel.withheld:
                from provd.producer.leaving import settle

                settle(channel)

    def close(self, error: BaseException | None = None) -> None:
        """Say goodbye in every channel and drain. Idempotent; a later message starts a new sender.

        `error` is what ends the process, if that is known better than by what Python keeps of it.
        """
        if self.running is None:
            return
        error = error or last_error()
        for stop in list(self.at_close):
            stop(error)
        sender, self.running, self._closed = self.running, None, self.running
        for channel in self._in_use():
            if not channel.is_closed:
                channel.close(outcome_of(error))
        sender.close(self.settings.exit_drain_s)


def _read_settings() -> Settings:
    settings, wrong = load_leniently()
    for error in wrong:
        warn_once("settings", f"{error}; the program goes on with the default")
    return settings
