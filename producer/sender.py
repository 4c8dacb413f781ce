"""The sender: one daemon thread per process that takes frames to Redis, and to the spool when Redis is away.

- A frame leaves memory as its `backlog` says: acknowledged, written, or counted as dropped (G2, G5).
- The user's threads never wait for a socket, nor for a disk to sync. Over the high-water mark they cut frames
  themselves and append them to a queue; when the queue has reached the buffer's bound they spool it.
- While Redis is away frames go to the spool at once, so that nothing waits in memory longer than a flush interval.
  When it is back they follow from there, in slices small enough for the program not to notice.
- With `durability: disk` everything is on disk before it is here. What Redis may have lost (another life of it, a
  stream that is gone, a gap in the receipts) is sent again from there, and a file goes when the store has confirmed it.
- Idle, with nothing owed and nothing to be confirmed, the thread wakes once per heartbeat.
- At exit `close` drains within its deadline, then spools the rest.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from provd.common import clock
from provd.common.errors import BrokerUnavailable
from provd.common.settings import Settings
from provd.producer import forks, tracing
from provd.producer.backlog import Backlog
from provd.producer.channel import ENTRY_BYTES, Channel
from provd.producer.framing import Limits
from provd.producer.journal import Journal
from provd.producer.receipts import Receipts
from provd.producer.shipping import Shipping
from provd.producer.warning import warn_once

if TYPE_CHECKING:
    from provd.producer.broker import Broker

#: Seconds before Redis is tried again after it failed, doubled each time up to the second figure, and jittered.
_RETRY_S = (0.5, 10.0)

#: Channels above which those of ended workflows are let go of at once, and not at the next heartbeat.
_CHANNELS = 64

#: Frames handed to Redis in one pipeline.
_PIPELINE = 16

#: Share of the buffer at which a caller cuts frames itself.
_HIGH_WATER = 0.125

#: Seconds that the end of the process waits for the store to confirm what was sent last (`durability: disk`), and
#: that it leaves of its deadline to what comes after.
_CONFIRM_S = 0.5
_MARGIN_S = 0.1

#: Signals of a crash, which are its thread's own.
_CRASHES = frozenset({signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT})


class _Bell:
    """A flag to wait for, which the wait takes down.

    Unlike `threading.Event` it may be rung in the middle of its own ring or wait: a signal handler or a finalizer that
    calls a captured function interrupts them anywhere, in the same thread.
    """

    def __init__(self) -> None:
        self._silent = threading.Lock()
        self._silent.acquire()

    def ring(self) -> None:
        try:
            self._silent.release()
        except RuntimeError:
            pass  # it rings already

    def wait(self, timeout_s: float) -> None:
        self._silent.acquire(timeout=timeout_s)


class Sender:
    """Sends what the channels cut."""

    def __init__(
        self,
        settings: Settings,
        broker_url: str,
        journal: Journal,
        rest: Callable[[Channel], bool],
        revive: Callable[[Channel], None],
    ) -> None:
        """`broker_url` is empty for the spool alone. The thread starts with `start`.

        `rest` is asked to let go of a channel that has nothing more to say, and may refuse; `revive` is told of one
        that says something all the same.
        """
        self.asleep = False
        self._settings = settings
        self._broker_url = broker_url
        self._broker: Broker | None = None
        self._journal = journal
        self._rest = rest
        self._revive = revive
        self._shipping = Shipping(journal, Limits(settings.frame_messages, settings.frame_bytes))
        self._receipts = Receipts(journal)
        self._channels: list[Channel] = []
        self._backlog = Backlog(journal, self._room)
        #: Rung when there is news for a sender that sleeps, and when a round cannot wait for the flush interval.
        self._bell = _Bell()
        self._hurry = _Bell()
        self._flushed = threading.Condition()
        self._flush_asked = 0
        self._flush_done = 0
        self._closing = False
        self._has_traces = False
        self._deadline = 0.0
        self._retry_at = 0.0
        self._retry_s = _RETRY_S[0]
        self._next_beat = clock.monotonic() + settings.heartbeat_s
        #: Bytes, and tasks, of a channel at which its callers cut it themselves. A frame's worth of tasks: soon after
        #: they were said they are still in the processor's cache, and few enough for the garbage collector.
        self.high_water = int(settings.buffer_bytes * _HIGH_WATER)
        self.entries_max = min(self.high_water // ENTRY_BYTES, settings.frame_messages)
        self._thread = threading.Thread(target=self._run, name="provd-sender", daemon=True)

    def start(self) -> None:
        """Start the thread. Raises `RuntimeError` when the system or the interpreter does not give one any more."""
        if sys.is_finalizing():
            raise RuntimeError("the interpreter is going down")  # `Thread.start` would wait for ever
        # The thread takes no signal away from the program, which may wait for it by `sigwait`, and a write to a Redis
        # that is gone must not end a program with SIGPIPE at its default. A mask is inherited: no gap at the start.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - _CRASHES)
        try:
            self._thread.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def add(self, channel: Channel) -> None:
        """Send for this channel from now on."""
        if channel not in self._channels:
            self._channels = [*self._channels, channel]

    def wake(self) -> None:
        """There is news: called when `asleep`."""
        self._bell.ring()

    def _wake_now(self) -> None:
        self._hurry.ring()
        self._bell.ring()

    # --- in the user's threads ---

    def seal_spool(self) -> None:
        """Close the spool file in hand, so that it can be brought in; the next message opens another."""
        self._journal.seal()

    def relieve(self, channel: Channel) -> None:
        """Cut a channel of which much waits; spool when the queue is full."""
        if channel.rests:
            self._revive(channel)
        waiting = len(channel.entries) + len(channel.light)
        if waiting < self.entries_max and channel.waiting_bytes < self.high_water:
            return
        self._backlog.add(channel)
        if self._backlog.size > self._settings.buffer_bytes:
            self._backlog.spool()
        if self._backlog.size >= self.high_water:
            self._wake_now()

    def flush(self, timeout_s: float) -> bool:
        """Wait until all that was said before is accepted by Redis or the disk; False when time ran out first."""
        if not self._thread.is_alive():
            self._spool_all()
            return True
        with self._flushed:
            self._flush_asked += 1
            ticket = self._flush_asked
            self._wake_now()
            return self._flushed.wait_for(
                lambda: self._flush_done >= ticket, min(timeout_s, threading.TIMEOUT_MAX)
            )

    def close(self, deadline_s: float) -> None:
        """Send what is left for at most `deadline_s` seconds, spool the rest and end the thread. Idempotent."""
        self._deadline = clock.monotonic() + deadline_s
        self._closing = True
        self._wake_now()
        if self._thread.is_alive():
            self._thread.join(min(deadline_s, threading.TIMEOUT_MAX))
        self._spool_all()
        self.seal_spool()

    # --- in the sender's thread ---

    def _run(self) -> None:
        try:
            while not self._closing:
                self._wait()
                self._round()
            self._retry_at = 0.0  # one attempt more: what Redis does not take now waits for `provd replay`
            self._round()  # what was said between the last round and the close
            self._part()
        except Exception as error:  # noqa: BLE001 - the thread's top level: the program must not notice
            warn_once(
                "sender",
                f"the sender stopped ({type(error).__name__}: {error}); messages go to the spool at exit",
            )

    def _wait(self) -> None:
        if not self._has_news():
            self.asleep = True
            if not self._has_news():
                self._bell.wait(max(0.0, self._next_due() - clock.monotonic()))
            self.asleep = False
        if self._has_news():
            self._hurry.wait(self._pause())

    def _pause(self) -> float:
        """Seconds for news to gather; with something to ship, less than a flush interval."""
        pause = self._settings.flush_interval_s * _jitter(0.75, 1.25)
        return min(pause, max(0.0, self._next_due() - clock.monotonic()))

    def _next_due(self) -> float:
        """When there is something to do without news."""
        due = self._next_beat
        if self._broker_url and (self._backlog or any(channel.owed for channel in self._channels)):
            due = min(due, max(self._retry_at, self._shipping.rests_until))
        if self._broker_url and self._receipts.are_awaited(self._channels):
            due = min(due, max(self._retry_at, self._receipts.due_at))
        return min(
            [due, *(channel.account.restate_at for channel in self._channels if channel.account.has_news)]
        )

    def _has_news(self) -> bool:
        return (
            self._closing
            or self._flush_done < self._flush_asked
            or any(channel.has_news or channel.awaits_announcement for channel in self._channels)
        )

    def _round(self) -> None:
        ticket = self._flush_asked
        self._look_for_traces()
        if self._closing or ticket > self._flush_done:
            self._hurry_accounts()
        for channel in self._channels:
            # A look is much cheaper than a cut, and of ten thousand workflows most are silent.
            if channel.has_news or channel.open or channel.is_durable:
                self._backlog.add(channel)
        self._journal.sync()
        self._send_backlog()
        if clock.monotonic() >= self._next_beat:
            self._next_beat = clock.monotonic() + self._settings.heartbeat_s
            self._beat(self._channels)
            self._let_go()
        elif len(self._channels) > _CHANNELS:
            self._let_go()
        self._tend_spool()
        if not self._backlog.is_refused:
            with self._flushed:
                self._flush_done = max(self._flush_done, ticket)
                self._flushed.notify_all()

    def _look_for_traces(self) -> None:
        """The program may have loaded OpenTelemetry meanwhile: once it has, it has for good."""
        if not self._has_traces and tracing.is_loaded():
            self._has_traces = True
            for channel in self._channels:
                channel.look_around()

    def _hurry_accounts(self) -> None:
        """Have all that is counted said with the next cut."""
        for channel in self._channels:
            channel.account.restate_at = 0.0

    def _let_go(self) -> None:
        """Let go of channels that have nothing more to say: a process may run a hundred thousand workflows."""
        if not self._backlog:
            settled = [channel for channel in self._channels if channel.is_settled]
            gone = {channel for channel in settled if self._rest(channel)}
            if gone:
                self._channels = [channel for channel in self._channels if channel not in gone]

    def _tend_spool(self) -> None:
        """Bring back what is on disk, and let go of what is needed there no more."""
        self._journal.sync()
        self._journal.turn()
        now = clock.monotonic()
        ships = now >= self._shipping.rests_until and any(channel.owed for channel in self._channels)
        asks = now >= self._receipts.due_at and self._receipts.are_awaited(self._channels)
        broker = self._reach_broker() if ships or asks else None
        if broker is None:
            return
        try:
            if ships:
                self._shipping.slice(broker)
                self._retry_s = _RETRY_S[0]
            if asks:
                self._receipts.ask(broker, self._channels, self._next_beat)
        except BrokerUnavailable as error:
            self._lose_broker(error)
        self._journal.trim()

    def _part(self) -> None:
        """The process ends: there is nobody to be slowed any more, only a deadline."""
        until = self._deadline - _MARGIN_S
        broker = self._reach_broker()
        if broker is None:
            return
        try:
            if any(channel.owed for channel in self._channels):
                self._shipping.slice(broker, until)
            self._receipts.wait(broker, self._channels, min(until, clock.monotonic() + _CONFIRM_S))
            self._journal.trim()
            left = [channel for channel in self._channels if channel.spooled or channel.dropped]
            if left and clock.monotonic() < until:
                broker.beat([channel for channel in left if channel.sent])
        except BrokerUnavailable as error:
            self._lose_broker(error)

    def _send_backlog(self) -> None:
        """Send what waits; what Redis does not take goes to the spool."""
        backlog = self._backlog
        broker = self._reach_broker()
        while broker is not None and (batch := backlog.first(_PIPELINE)):
            try:
                broker.send([frame for _, frame in batch])
            except BrokerUnavailable as error:
                self._lose_broker(error)
                break
            self._retry_s = _RETRY_S[0]  # not before: a Redis that is full answers all but this
            backlog.remove(batch)
            for channel, frame in batch:
                self._journal.acquit(channel, frame.span)
        if backlog:
            backlog.spool()
        else:
            backlog.is_refused = False

    def _spool_all(self) -> None:
        self._hurry_accounts()
        for channel in self._channels:
            self._backlog.add(channel)
        self._backlog.spool()

    def _room(self) -> int:
        """Bytes that may wait in memory when the disk refuses them: none where nobody would come for them."""
        return self._settings.buffer_bytes if self._broker_url and not self._closing else 0

    # --- Redis, there or away ---

    def _reach_broker(self) -> Broker | None:
        if not self._broker_url or clock.monotonic() < self._retry_at:
            return None
        try:
            if self._broker is None:
                self._broker = _broker_type()(
                    self._broker_url,
                    namespace=self._settings.namespace,
                    buckets=self._settings.buckets,
                    timeout_s=self._settings.connect_timeout_s,
                )
            self._broker.open()
        except BrokerUnavailable as error:
            self._lose_broker(error)
            return None
        except ImportError as error:
            self._broker_url = ""
            warn_once("broker", f"{error}; messages go to the spool {self._settings.spool_path}")
            return None
        for channel in self._channels:
            channel.clock_offset = self._broker.clock_offset
        generation, before = self._broker.generation, self._journal.generation
        if generation != before:
            if before is not None:
                self._receipts.doubt(self._channels)
            self._journal.generation = generation
        return self._broker

    def _lose_broker(self, error: BrokerUnavailable) -> None:
        warn_once(
            "broker",
            f"Redis {error}; messages go to the spool {self._settings.spool_path} and follow from there when it answers;"
            " what is left at exit, `provd replay` brings in",
        )
        broker, self._broker = self._broker, None
        if broker is not None:
            try:
                broker.close()  # one that refused is connected still, and the garbage collector may be off
            except BrokerUnavailable:
                pass
        self._retry_at = clock.monotonic() + self._retry_s * _jitter(0.5, 1.5)
        self._retry_s = min(2 * self._retry_s, _RETRY_S[1])

    def _beat(self, channels: Sequence[Channel]) -> None:
        broker = self._reach_broker()
        if broker is None:
            return
        try:
            broker.beat([channel for channel in channels if channel.sent])
        except BrokerUnavailable as error:
            self._lose_broker(error)


def _broker_type() -> type[Broker]:
    """Imported here, with all that talks to Redis: the program's own threads have no use for it."""
    with forks.loading_client:
        from provd.producer.broker import Broker

    return Broker


def _jitter(low: float, high: float) -> float:
    """A random factor, so that ten thousand ranks do not call at once. Importing `random` would read eight modules."""
    return low + (high - low) * int.from_bytes(os.urandom(2), "big") / 65_535
