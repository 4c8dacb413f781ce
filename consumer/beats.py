"""Signs of life: copied from Redis into the store, so that readers need only the store.

- What consumers hold in their own spools is added to the producer's own spooled ranges: the books show it in one
  place.
- Only what changed since the last copy is written.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from provd.common import names, wire
from provd.common.ranges import Ranges
from provd.consumer.broker import Broker
from provd.store.interface import Beat, Store

log = logging.getLogger("provd.consumer")

#: Workflows in one request.
_AT_ONCE = 200


class Beats:
    """Copies heartbeats of the workflows that have streams."""

    def __init__(self, broker: Broker, store: Store) -> None:
        self._broker = broker
        self._store = store
        self._copied: dict[str, list[Any]] = {}

    def copy(self, streams: Iterable[str]) -> int:
        """Copy what is new of these streams' workflows; returns how many beats. Raises when a service is away."""
        wanted = list(streams)
        self._copied = {stream: seen for stream, seen in self._copied.items() if stream in set(wanted)}
        copied = 0
        for start in range(0, len(wanted), _AT_ONCE):
            copied += self._copy_some(wanted[start : start + _AT_ONCE])
        return copied

    def _copy_some(self, streams: list[str]) -> int:
        keys = [names.WorkflowKeys.of_stream(stream) for stream in streams]
        replies = self._broker.run([("HGETALL", key) for k in keys for key in (k.beats, k.spooled)])
        beats: list[Beat] = []
        changed: dict[str, list[Any]] = {}
        now = self._broker.now_ms()
        for index, stream in enumerate(streams):
            found = [self._broker.sound(reply) for reply in replies[2 * index : 2 * index + 2]]
            if any(found) and found != self._copied.get(stream):
                changed[stream] = found
                beats += _read(names.workflow_of_stream(stream), _texts(found[0]), _texts(found[1]), now)
        if beats:
            self._store.put_beats(beats)
        self._copied |= changed
        return len(beats)


def _read(
    workflow_id: str, beats: Mapping[str, bytes], spooled: Mapping[str, bytes], now: int
) -> Iterable[Beat]:
    """`now` stands for the beat of a producer that only the spool has heard of."""
    for producer_id in sorted(beats.keys() | spooled.keys()):
        held = Ranges.parse(spooled.get(producer_id, b"").decode("ascii", "replace"))
        try:
            fields = wire.unpack(beats[producer_id]) if producer_id in beats else {}
            yield Beat(
                producer_id=producer_id,
                workflow_id=workflow_id,
                beat_at=int(fields.get("at", now)),
                sent=max(int(fields.get("sent", 0)), held.last),
                tasks_started=int(fields.get("started", 0)),
                tasks_ended=int(fields.get("ended", 0)),
                spooled=held.union(_ranges(fields.get("spooled", ()))),
                dropped=_ranges(fields.get("dropped", ())),
            )
        except (ValueError, TypeError, AttributeError) as error:
            log.warning(
                "heartbeat cannot be read: workflow=%s producer=%s error=%s", workflow_id, producer_id, error
            )


def _ranges(spans: Iterable[Any]) -> Ranges:
    return Ranges.of((int(first), int(last)) for first, last in spans)


def _texts(reply: list[Any] | Mapping[bytes, bytes]) -> dict[str, bytes]:
    pairs = reply.items() if isinstance(reply, Mapping) else zip(reply[::2], reply[1::2], strict=True)
    return {key.decode("utf-8", "replace"): value for key, value in pairs}
