"""Whose frames are whose, when a consumer dies or takes long.

- A frame that nobody has shown interest in for `claim_after_s` is taken over; its payload is then read from our own
  backlog like any other, so a claimed frame takes no path of its own.
- A frame in hand is renewed while the store is working on it. Not while the store is away: a consumer that has a
  store should get it, and one that has none does not claim.
- Frames let go at the end of a run are marked idle, so that the next consumer need not wait.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable

from provd.common import clock, names
from provd.common.errors import BrokerUnavailable
from provd.consumer.broker import Broker
from provd.consumer.registry import Registry
from provd.consumer.streams import Entry, Streams, ids_by_stream

#: Frames taken over from one stream at a time.
_CLAIM_FRAMES = 100

#: Looks for abandoned frames within one `claim_after_s`, and renewals.
_LOOKS = 4

#: Longest pause between two looks, in seconds.
_LONGEST_PAUSE_S = 15.0

_START = b"0-0"

#: Ids in one XCLAIM.
_IDS = 1000


class Claims:
    """Takes over frames of consumers that are gone."""

    def __init__(
        self, broker: Broker, registry: Registry, streams: Streams, *, consumer: str, claim_after_s: float
    ) -> None:
        self._broker = broker
        self._registry = registry
        self._streams = streams
        self._consumer = consumer
        self._idle_ms = int(claim_after_s * 1000)
        self._pause_s = min(claim_after_s / _LOOKS, _LONGEST_PAUSE_S)
        self._due = 0.0
        #: Where the last look at a stream's pending frames ended: a look covers a thousand or so.
        self._cursors: dict[str, bytes] = {}

    def look(self) -> int:
        """If it is time, take over what is abandoned; returns how many frames. Nothing may be in hand."""
        if clock.monotonic() < self._due:
            return 0
        self._due = clock.monotonic() + self._pause_s
        self._registry.refresh()
        streams = self._registry.streams
        replies = self._broker.run([self._command(stream) for stream in streams])
        self._cursors.clear()
        taken = 0
        for stream, reply in zip(streams, replies, strict=True):
            # An error reply (the stream is gone, or has lost its group) is found by the next reading too.
            if not isinstance(reply, list):
                continue
            if reply[0] != _START:
                self._cursors[stream] = reply[0]
            if reply[1]:
                self._streams.rewind(stream)
            taken += len(reply[1])
        return taken

    def _command(self, stream: str) -> tuple[object, ...]:
        start = self._cursors.get(stream, _START)
        return (
            "XAUTOCLAIM", stream, names.GROUP, self._consumer, self._idle_ms, start, "COUNT", _CLAIM_FRAMES, "JUSTID",
        )  # fmt: skip

    def release(self, entries: Iterable[Entry]) -> None:
        """Let go of frames that were read and not written: anyone may claim them at once."""
        self._broker.run(_claim_commands(entries, self._consumer, ("IDLE", self._idle_ms)))


class Renewal:
    """Keeps frames in hand from being claimed while a write takes long; a thread of its own."""

    def __init__(self, broker: Broker, *, consumer: str, claim_after_s: float) -> None:
        self._broker = broker
        self._consumer = consumer
        self._pause_s = claim_after_s / _LOOKS
        self._in_hand: tuple[Entry, ...] = ()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="provd-renewal", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; harmless when it never started or has ended."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def hold(self, entries: Iterable[Entry]) -> None:
        """Renew these from now on, and no others."""
        self._in_hand = tuple(entries)

    def _run(self) -> None:
        while not self._ended.wait(self._pause_s):
            try:
                self._broker.run(_claim_commands(self._in_hand, self._consumer, ()))
            except BrokerUnavailable:
                continue  # the worker finds out by itself, and says so


def _claim_commands(
    entries: Iterable[Entry], consumer: str, options: tuple[object, ...]
) -> list[tuple[object, ...]]:
    return [
        ("XCLAIM", stream, names.GROUP, consumer, 0, *ids[start : start + _IDS], *options, "JUSTID")
        for stream, ids in ids_by_stream(entries).items()
        for start in range(0, len(ids), _IDS)
    ]
