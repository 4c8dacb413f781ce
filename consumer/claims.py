"""Whose frames are whose, when a consumer dies or takes long.

- A frame that nobody has shown interest in for `claim_after_s` is taken over; its payload is then read from our own
  backlog like any other, so a claimed frame takes no path of its own.
- A frame in hand is renewed while the store is working on it, as long as it is still ours. Not while the store is
  away: a consumer that has a store should get it, and one that has none does not claim.
- After an outage everyone's frames look abandoned. So nobody looks for such before all have had the time to come
  back and to read their own once more, which renews them.
- Frames put aside for a later schema are left alone, until a version comes that reads it.
- Frames let go at the end of a run are marked idle, so that the next consumer need not wait.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable

from provd.common import clock, names
from provd.common.errors import BrokerUnavailable
from provd.common.record import SCHEMA_VERSION
from provd.consumer import scripts
from provd.consumer.broker import Broker
from provd.consumer.outage import LONGEST_PAUSE_S
from provd.consumer.registry import Registry
from provd.consumer.streams import Entry, Streams, ids_by_stream

#: Frames taken over from one stream at a time.
_CLAIM_FRAMES = 100

#: Looks for abandoned frames within one `claim_after_s`, and renewals.
_LOOKS = 4

#: Longest pause between two looks, in seconds.
_LONGEST_PAUSE_S = 15.0

#: Seconds after an outage in which nothing is taken over: all consumers ask again within `LONGEST_PAUSE_S`.
_HOLD_OFF_S = 2 * LONGEST_PAUSE_S

#: Ids in one script.
_IDS = 1000

#: Streams in one request, or one script.
_AT_ONCE = 500


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

    @property
    def are_due(self) -> bool:
        """Whether it is time to look."""
        return clock.monotonic() >= self._due

    def look(self) -> int:
        """If it is time, take over what is abandoned; returns how many frames. Nothing may be in hand."""
        if not self.are_due:
            return 0
        self._due = clock.monotonic() + self._pause_s
        self._registry.refresh()
        streams = self._of_others()
        taken = 0
        for start in range(0, len(streams), _AT_ONCE):
            part = streams[start : start + _AT_ONCE]
            for stream, reply in zip(part, self._broker.run(list(map(self._command, part))), strict=True):
                # An error reply (the stream is gone, or has lost its group) is found by the next reading too.
                if isinstance(reply, int) and reply > 0:
                    self._streams.rewind(stream)
                    taken += reply
        return taken

    def _of_others(self) -> list[str]:
        """The streams in which others have frames pending: few among thousands."""
        chunks = self._registry.pieces(_AT_ONCE)
        replies = self._broker.run(
            [("EVAL", scripts.OF_OTHERS, len(chunk), *chunk, names.GROUP, self._consumer) for chunk in chunks]
        )
        return [
            chunk[place]
            for chunk, reply in zip(chunks, replies, strict=True)
            for place in self._broker.sound(reply)
        ]

    def hold_off(self) -> None:
        """A service was away: give the others the time to come back before taking anything from them."""
        self._due = clock.monotonic() + max(self._pause_s, _HOLD_OFF_S)

    def _command(self, stream: str) -> tuple[object, ...]:
        return (
            "EVAL", scripts.CLAIM, 1, stream,
            names.GROUP, self._consumer, self._idle_ms, _CLAIM_FRAMES, SCHEMA_VERSION,
        )  # fmt: skip

    def release(self, entries: Iterable[Entry]) -> None:
        """Let go of frames that were read and not written: anyone may claim them at once."""
        self._broker.run(_touch_commands(entries, self._consumer, self._idle_ms))


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
                self._broker.run(_touch_commands(self._in_hand, self._consumer, ""))
            except BrokerUnavailable:
                continue  # the worker finds out by itself, and says so


def _touch_commands(entries: Iterable[Entry], consumer: str, idle_ms: int | str) -> list[tuple[object, ...]]:
    return [
        ("EVAL", scripts.TOUCH, 1, stream, names.GROUP, consumer, idle_ms, *ids[start : start + _IDS])
        for stream, ids in ids_by_stream(entries).items()
        for start in range(0, len(ids), _IDS)
    ]
