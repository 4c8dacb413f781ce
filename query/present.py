"""The present, and how long producers have been watched: what decides whether silence means that they are lost.

- Consumers leave marks in the store (`provd.store.interface.ConsumerMark`). A mark says: at `broker_at`, by Redis'
  clock, all that producers had said was in the store, and somebody has watched since `since`.
- The present is the store's clock plus what Redis' clock was ahead of it when the newest mark was made. A reader's own
  clock does not count, nor does a producer's or a consumer's.
- Silence counts only while somebody watched. While no consumer runs, or Redis is away, nothing new is known: what was
  LOST stays so, what was RUNNING stays so, and `unwatched_since` says from when on that may be wrong.
- A consumer that serves only some workflows watches only those.
- In a store that no consumer has ever marked (filled by `provd replay`, or by an older version), the present is the
  reader's clock or the newest heartbeat, the later of both, and counts as watched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from provd.common import clock, names
from provd.common.record import LOST, Record, Status
from provd.store.interface import Store

_LONG_AGO = datetime(1970, 1, 1, tzinfo=timezone.utc)


@dataclass(frozen=True, slots=True)
class Watch:
    """The present, and the (since, until) spans in which signs of life of one run were copied into the store."""

    now: datetime
    spans: tuple[tuple[datetime, datetime], ...]

    @classmethod
    def without_consumers(cls, now: datetime) -> Watch:
        """All was watched until now."""
        return cls(now, ((_LONG_AGO, now),))

    def is_silent(self, heard_at: datetime, lost_after_s: float) -> bool:
        """Whether somebody has watched for longer than this without hearing a thing."""
        longest = timedelta(seconds=lost_after_s)
        return any(until - max(heard_at, since) > longest for since, until in self.spans)

    def unwatched_since(self, lost_after_s: float) -> datetime | None:
        """Since when nobody has watched; None while somebody does, or did a moment ago."""
        until = max((until for _, until in self.spans), default=_LONG_AGO)
        return until if self.now - until > timedelta(seconds=lost_after_s) else None


@dataclass(frozen=True, slots=True)
class Present:
    """What the store knows of the present; `marks` are the consumers', the newest first."""

    now: datetime
    marks: Sequence[Record] = ()

    def watch(self, workflow_id: str) -> Watch:
        """How one run is watched."""
        if not self.marks:
            return Watch.without_consumers(self.now)
        spans = [
            (mark["since"], mark["broker_at"])
            for mark in self.marks
            if workflow_id in mark.get("workflow_ids", (workflow_id,))
        ]
        return Watch(self.now, tuple(spans))


def read_present(store: Store) -> Present:
    """The present."""
    marks = store.consumers()
    if marks:
        newest = marks[0]
        return Present(newest["now"] + (newest["broker_at"] - newest["store_at"]), marks)
    here = clock.to_datetime(clock.now_ms())
    beats = store.find(names.BEATS, {}, fields=("beat_at",), sort=[("beat_at", -1)], limit=1)
    return Present(max([here, *(beat["beat_at"] for beat in beats)]))


def last_sign(producer: Record, beat_at: datetime | None) -> datetime | None:
    """When a producer was last heard, by Redis' clock: its last beat, or when its record came into the store.

    The times inside its record are by its own clock, and count only where there is no other.
    """
    received = producer.get("received_at")
    own = (
        [received]
        if isinstance(received, datetime)
        else [producer.get("started_at"), producer.get("closed_at")]
    )
    return max((moment for moment in (beat_at, *own) if isinstance(moment, datetime)), default=None)


class Silence:
    """Which producers have been silent for too long; asks the store once for each workflow."""

    def __init__(self, store: Store, lost_after_s: float) -> None:
        self._store = store
        self._lost_after_s = lost_after_s
        self._present: Present | None = None
        self._lost: dict[str, frozenset[str]] = {}

    def status(self, task: Record) -> str:
        """A task's status as readers see it: one that runs is LOST when its producer has fallen silent."""
        status = str(task.get("status", ""))
        if status != Status.RUNNING.value:
            return status
        return LOST if task.get("producer_id") in self.lost(task["workflow_id"]) else status

    def lost(self, workflow_id: str) -> frozenset[str]:
        """The producers of a run that have fallen silent."""
        if workflow_id not in self._lost:
            self._lost[workflow_id] = self._ask(workflow_id)
        return self._lost[workflow_id]

    def _ask(self, workflow_id: str) -> frozenset[str]:
        if self._present is None:
            self._present = read_present(self._store)
        of_this = {"workflow_id": workflow_id}
        fields = ("producer_id", "started_at", "closed_at", "received_at")
        producers = {
            record["producer_id"]: record
            for record in self._store.find(names.PRODUCERS, of_this, fields=fields)
        }
        beats = {beat["producer_id"]: beat["beat_at"] for beat in self._store.find(names.BEATS, of_this)}
        return lost_producers(producers, beats, self._present.watch(workflow_id), self._lost_after_s)


def lost_producers(
    producers: Mapping[str, Record], beats: Mapping[str, datetime], watch: Watch, lost_after_s: float
) -> frozenset[str]:
    """Those of a run's producers that have been silent for too long, closed or not."""
    signs = {name: last_sign(producers.get(name, {}), beats.get(name)) for name in {*producers, *beats}}
    return frozenset(
        name
        for name, heard_at in signs.items()
        if heard_at is not None and watch.is_silent(heard_at, lost_after_s)
    )
