"""The sender: one daemon thread per process that takes frames to Redis, and to the spool when Redis is away.

- A frame leaves memory only when Redis has acknowledged it, when `write(2)` of its spool lines has returned, or when
  both refused and it was counted as dropped (G2, G5).
- The user's threads never wait for a socket. Over the high-water mark they cut frames themselves and append them to
  a queue; when the queue has reached the buffer's bound they spool it.
- While Redis is away frames go to the spool at once, so that nothing waits in memory longer than a flush interval.
- Idle, the thread wakes once per heartbeat.
- At exit `close` drains within its deadline, then spools the rest.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from provd.common import clock, wire
from provd.common.errors import BrokerUnavailable, SpoolError
from provd.common.ranges import Ranges
from provd.common.settings import Settings
from provd.producer.broker import Broker
from provd.producer.channel import Channel
from provd.producer.framing import CutFrame
from provd.producer.warning import warn_once

if TYPE_CHECKING:
    from provd.common.spool import SpoolWriter

#: Seconds before Redis is tried again after it failed, doubled each time up to the second figure, and jittered.
_RETRY_S = (0.5, 10.0)

#: Frames handed to Redis in one pipeline.
_PIPELINE = 16

#: Share of the buffer at which a caller cuts frames itself.
_HIGH_WATER = 0.125


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

    def __init__(self, settings: Settings, broker_url: str, spool: SpoolWriter) -> None:
        """`broker_url` is empty for the spool alone. The thread starts with `start`."""
        self.asleep = False
        self._settings = settings
        self._broker_url = broker_url
        self._broker: Broker | None = None
        self._spool = spool
        self._spool_lock = threading.RLock()
        self._spooling = False
        self._channels: list[Channel] = []
        self._queue: deque[tuple[Channel, CutFrame]] = deque()
        self._queued_bytes = 0
        #: Rung when there is news for a sender that sleeps, and when a round cannot wait for the flush interval.
        self._bell = _Bell()
        self._hurry = _Bell()
        self._flushed = threading.Condition()
        self._flush_asked = 0
        self._flush_done = 0
        self._closing = False
        self._retry_at = 0.0
        self._retry_s = _RETRY_S[0]
        self._next_beat = clock.monotonic() + settings.heartbeat_s
        self._high_water = int(settings.buffer_bytes * _HIGH_WATER)
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
        with self._spool_lock:
            try:
                self._spool.close()
            except SpoolError as error:
                warn_once("spool", str(error))

    def relieve(self, channel: Channel) -> None:
        """Cut a channel that is over the high-water mark; spool when the queue is full."""
        if channel.waiting_bytes < self._high_water:
            return
        self._enqueue(channel)
        if self._queued_bytes > self._settings.buffer_bytes:
            self._spool_queue()
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
        self._closing = True
        self._wake_now()
        if self._thread.is_alive():
            self._thread.join(min(deadline_s, threading.TIMEOUT_MAX))
        self._spool_all()
        self.seal_spool()

    def abandon(self) -> None:
        """Let go of the parent's files, in the child after a fork: its messages are the parent's to send."""
        self._spool.forget()

    # --- in the sender's thread ---

    def _run(self) -> None:
        try:
            while not self._closing:
                self._wait()
                self._round()
            self._round()  # what was said between the last round and the close
        except Exception as error:  # noqa: BLE001 - the thread's top level: the program must not notice
            warn_once(
                "sender",
                f"the sender stopped ({type(error).__name__}: {error}); messages go to the spool at exit",
            )

    def _wait(self) -> None:
        if not self._has_news():
            self.asleep = True
            if not self._has_news():
                self._bell.wait(max(0.0, self._next_beat - clock.monotonic()))
            self.asleep = False
        if self._has_news():
            self._hurry.wait(self._settings.flush_interval_s * _jitter(0.75, 1.25))

    def _has_news(self) -> bool:
        return (
            self._closing
            or bool(self._queue)
            or self._flush_done < self._flush_asked
            or any(channel.has_news or channel.awaits_announcement for channel in self._channels)
        )

    def _round(self) -> None:
        ticket = self._flush_asked
        for channel in self._channels:
            self._enqueue(channel)
        self._send_queue()
        if clock.monotonic() >= self._next_beat:
            self._next_beat = clock.monotonic() + self._settings.heartbeat_s
            self._beat()
        with self._flushed:
            self._flush_done = max(self._flush_done, ticket)
            self._flushed.notify_all()

    def _enqueue(self, channel: Channel) -> None:
        for frame in channel.cut():
            size = frame.size  # first: a call between reading and writing the sum would let another thread in
            self._queued_bytes += size
            self._queue.append((channel, frame))

    def _send_queue(self) -> None:
        broker = self._reach_broker()
        while self._queue and broker is not None:
            try:
                batch = [self._queue[index] for index in range(min(_PIPELINE, len(self._queue)))]
            except IndexError:
                continue  # a user's thread has spooled them meanwhile
            try:
                broker.send([frame for _, frame in batch])
            except BrokerUnavailable as error:
                self._lose_broker(error)
                break
            self._remove(batch)
        if self._queue:
            self._spool_queue()

    def _remove(self, batch: Sequence[tuple[Channel, CutFrame]]) -> None:
        """Take sent frames off the queue; a user's thread may have spooled them meanwhile, which does no harm."""
        for sent in batch:
            if self._queue and self._queue[0] is sent:
                self._take()

    def _take(self) -> tuple[Channel, CutFrame] | None:
        try:
            channel, frame = self._queue.popleft()
        except IndexError:
            return None
        size = frame.size
        self._queued_bytes -= size
        return channel, frame

    # --- Redis, there or away ---

    def _reach_broker(self) -> Broker | None:
        if not self._broker_url or clock.monotonic() < self._retry_at:
            return None
        try:
            if self._broker is None:
                self._broker = Broker(
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
        self._retry_s = _RETRY_S[0]
        for channel in self._channels:
            channel.clock_offset = self._broker.clock_offset
        return self._broker

    def _lose_broker(self, error: BrokerUnavailable) -> None:
        warn_once(
            "broker",
            f"Redis {error}; messages go to the spool {self._settings.spool_path} until it answers, and"
            " `provd replay` brings them in",
        )
        self._broker = None
        self._retry_at = clock.monotonic() + self._retry_s * _jitter(0.5, 1.5)
        self._retry_s = min(2 * self._retry_s, _RETRY_S[1])

    def _beat(self) -> None:
        broker = self._reach_broker()
        if broker is None:
            return
        try:
            broker.beat([channel for channel in self._channels if channel.sent])
        except BrokerUnavailable as error:
            self._lose_broker(error)

    # --- the spool ---

    def _spool_all(self) -> None:
        for channel in self._channels:
            self._enqueue(channel)
        self._spool_queue()

    def _spool_queue(self) -> None:
        """Move every queued frame to the spool, or to the count of the dropped."""
        with self._spool_lock:
            if self._spooling:
                return  # a signal handler has interrupted this very thread: the rest is its to write
            self._spooling = True
            try:
                wrote = False
                while (taken := self._take()) is not None:
                    wrote = self._spool_frame(*taken) or wrote
                if wrote:
                    self._sync()
            finally:
                self._spooling = False

    def _spool_frame(self, channel: Channel, frame: CutFrame) -> bool:
        span = Ranges.of([(frame.header.first_seq, frame.header.last_seq)])
        try:
            self._spool.write(wire.decode(frame.header_field, frame.body_field).messages)
        except SpoolError as error:
            channel.dropped = channel.dropped.union(span)
            warn_once("spool", f"{error}; messages are dropped and counted")
            return False
        channel.spooled = channel.spooled.union(span)
        return True

    def _sync(self) -> None:
        try:
            self._spool.sync()
        except OSError as error:
            warn_once("spool-sync", f"spool: {error.strerror}")


def _jitter(low: float, high: float) -> float:
    """A random factor, so that ten thousand ranks do not call at once. Importing `random` would read eight modules."""
    return low + (high - low) * int.from_bytes(os.urandom(2), "big") / 65_535
