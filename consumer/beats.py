"""Signs of life: copied from Redis into the store, so that readers need only the store.

- What consumers hold in their own spools is added to the producer's own spooled ranges, and named beside them: the
  books show both in one place.
- Only what changed since the last copy is written.
- A beat that makes no sense is passed over, so that it keeps nobody else's from the store.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from provd.common import clock, names, wire
from provd.common.ranges import Ranges
from provd.common.record import SEQ_MAX
from provd.consumer import scripts
from provd.consumer.broker import Broker
from provd.consumer.progress import Producers
from provd.store.interface import Beat, Store

log = logging.getLogger("provd.consumer")

#: Workflows in one script, and scripts in one request.
_AT_ONCE = 200
_PIECES = 16


class Beats:
    """Copies heartbeats of the workflows that have streams."""

    def __init__(self, broker: Broker, store: Store) -> None:
        self._broker = broker
        self._store = store
        self._copied: dict[str, list[Any]] = {}
        self._said: dict[str, Producers] = {}

    def copy(self, streams: Iterable[str]) -> int:
        """Copy what is new of these streams' workflows; returns how many beats. Raises when a service is away."""
        wanted = list(streams)
        known = set(wanted)
        self._copied = {stream: seen for stream, seen in self._copied.items() if stream in known}
        self._said = {stream: said for stream, said in self._said.items() if stream in known}
        return self.copy_these(wanted)

    def copy_these(self, streams: Iterable[str]) -> int:
        """Copy what is new of some of the streams; what is known of the others stays."""
        by_bucket: dict[str, list[str]] = {}
        for stream in streams:
            by_bucket.setdefault(stream.partition(":stream:")[0], []).append(stream)
        pieces = [
            bucket[start : start + _AT_ONCE]
            for bucket in by_bucket.values()
            for start in range(0, len(bucket), _AT_ONCE)
        ]
        return sum(
            self._copy_some(pieces[start : start + _PIECES]) for start in range(0, len(pieces), _PIECES)
        )

    @property
    def producers(self) -> Producers:
        """What the producers of the streams last copied say of their own messages."""
        dropped: Counter[str] = Counter()
        for said in self._said.values():
            dropped.update(said.dropped)
        return Producers(sum(said.spooled for said in self._said.values()), dict(dropped))

    def _copy_some(self, pieces: Sequence[Sequence[str]]) -> int:
        """Copy what is new of some streams, in pieces of one bucket each."""
        replies = self._broker.run([_signs_command(piece) for piece in pieces])
        beats: list[Beat] = []
        changed: dict[str, list[Any]] = {}
        now = self._broker.now_ms()
        for stream, found in _signs(pieces, map(self._broker.sound, replies)):
            if found != self._copied.get(stream):
                changed[stream] = found
                read = list(_read(names.workflow_of_stream(stream), _texts(found[0]), _texts(found[1]), now))
                self._said[stream] = _said(read)
                beats += read
        if beats:
            self._store.put_beats(beats)
        self._copied |= changed
        return len(beats)


def _signs_command(streams: Sequence[str]) -> tuple[object, ...]:
    keys = [key for k in map(names.WorkflowKeys.of_stream, streams) for key in (k.beats, k.spooled)]
    return ("EVAL", scripts.SIGNS, len(keys), *keys)


def _signs(pieces: Sequence[Sequence[str]], replies: Iterable[Any]) -> Iterator[tuple[str, list[Any]]]:
    """Streams that have signs of life, with their beats and what is spooled of theirs."""
    for streams, reply in zip(pieces, replies, strict=True):
        for place in range(0, len(reply), 3):
            yield streams[reply[place]], reply[place + 1 : place + 3]


def _read(
    workflow_id: str, beats: Mapping[str, bytes], spooled: Mapping[str, bytes], now: int
) -> Iterable[Beat]:
    """`now` stands for the beat of a producer that only the spool has heard of."""
    for producer_id in sorted(beats.keys() | spooled.keys()):
        try:
            held = Ranges.parse(spooled.get(producer_id, b"").decode("ascii", "replace"))
            fields = wire.unpack(beats[producer_id]) if producer_id in beats else {}
            yield Beat(
                producer_id=producer_id,
                workflow_id=workflow_id,
                beat_at=clock.from_datetime(clock.to_datetime(int(fields.get("at", now)))),
                sent=max(_count(fields.get("sent", 0)), held.last),
                tasks_started=_count(fields.get("started", 0)),
                tasks_ended=_count(fields.get("ended", 0)),
                spooled=held.union(_ranges(fields.get("spooled", ()))),
                dropped=_ranges(fields.get("dropped", ())),
                held=held,
                dropped_reasons=_reasons(fields),
            )
        except wire.UNPACK_ERRORS as error:
            log.warning(
                "heartbeat cannot be read: workflow=%s producer=%s error=%s", workflow_id, producer_id, error
            )


def _said(beats: Iterable[Beat]) -> Producers:
    spooled, dropped = 0, Counter[str]()
    for beat in beats:
        spooled += len(beat.spooled.minus(beat.held))
        dropped.update(beat.dropped_reasons)
    return Producers(spooled, dict(dropped))


def _reasons(fields: Mapping[str, Any]) -> dict[str, int]:
    """Counts of dropped messages by reason; what an older producer gives no reason for is `unknown`."""
    said = fields.get("dropped_reasons", {}).items()
    reasons = {str(reason): _count(count) for reason, count in said if str(reason).isprintable()}
    rest = len(_ranges(fields.get("dropped", ()))) - sum(reasons.values())
    return reasons | {"unknown": rest} if rest > 0 else reasons


def _ranges(spans: Iterable[Any]) -> Ranges:
    return Ranges.of((_count(first), _count(last)) for first, last in spans)


def _count(value: Any) -> int:
    """A whole number that stores keep and Lua tells from its neighbours. Raises `ValueError`, `OverflowError`."""
    count = int(value)
    if not 0 <= count <= SEQ_MAX:
        raise ValueError(f"{count} messages")
    return count


def _texts(flat: Sequence[bytes]) -> dict[str, bytes]:
    return {key.decode("utf-8", "replace"): value for key, value in zip(flat[::2], flat[1::2], strict=True)}
