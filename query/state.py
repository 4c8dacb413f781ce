"""The state of a run, derived from what its owner and its producers have said.

Invariants:

- A run whose owner has spoken has the state its owner gave; one without an owner has the state of its producers:
  running while one of them, or one of the ranks they expect, has not ended; else the worst way one of them ended.
- LOST and DEGRADED are derived here and nowhere stored.
- LOST is what somebody has watched in vain for longer than `lost_after_s` (`provd.query.present`): by Redis' clock,
  and only while a consumer ran and Redis could be reached. A run whose consumer is away is not LOST, it is unknown,
  and its state says since when.
- A node whose clock is wrong changes nothing: of a producer that was heard, only when it was heard counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from provd.common.record import DEGRADED, ENDED, LOST, Record, Status
from provd.query.present import Watch, last_sign

#: How a producer's part ended, the worst first.
_WORST_FIRST = (Status.ERROR.value, Status.CANCELLED.value, Status.FINISHED.value, Status.SKIPPED.value)


@dataclass(frozen=True, slots=True)
class State:
    """A run's status and times; `duration` is in seconds. `unknown_since`: it ran then, and nobody has looked since."""

    status: str
    started_at: datetime | None
    ended_at: datetime | None
    duration: float | None
    unknown_since: datetime | None = None


def derive_state(
    workflow: Record,
    producers: Sequence[Record],
    beats: Mapping[str, datetime],
    *,
    failed_tasks: int,
    now: datetime,
    lost_after_s: float,
    watch: Watch | None = None,
) -> State:
    """The state of one run. `workflow` may be empty, `beats` is each producer's last beat; no `watch`: all was."""
    watch = watch or Watch.without_consumers(now)
    status = _said(workflow, producers)
    started_at = workflow.get("started_at") or min(_times(producers, "started_at"), default=None)
    if status in ENDED:
        ended_at = workflow.get("ended_at") or max(_times(producers, "closed_at"), default=None)
        if status == Status.FINISHED.value and failed_tasks:
            status = DEGRADED
        return State(status, started_at, ended_at, _duration(workflow, started_at, ended_at))
    unknown_since = watch.unwatched_since(lost_after_s)
    if unknown_since is not None and started_at is not None:
        unknown_since = max(unknown_since, started_at)
    until = unknown_since or now
    if status == Status.RUNNING.value:
        heard_at = _last_sign(workflow, producers, beats)
        if heard_at is not None and watch.is_silent(heard_at, lost_after_s):
            status, until, unknown_since = LOST, heard_at, None
    return State(status, started_at, None, _seconds(started_at, until), unknown_since)


def producer_status(
    producer: Record,
    beat_at: datetime | None,
    *,
    now: datetime,
    lost_after_s: float,
    watch: Watch | None = None,
) -> str:
    """The state of one producer: how it ended, else RUNNING or LOST."""
    if "closed_at" in producer:
        return str(producer.get("status") or Status.FINISHED.value)
    heard_at = last_sign(producer, beat_at)
    if heard_at is not None and (watch or Watch.without_consumers(now)).is_silent(heard_at, lost_after_s):
        return LOST
    return Status.RUNNING.value


def _said(workflow: Record, producers: Sequence[Record]) -> str:
    """The status without the derived ones: the owner's word if there is one."""
    status = str(workflow.get("status") or Status.SUBMITTED.value)
    if status != Status.SUBMITTED.value or not producers:
        return status
    if any("closed_at" not in producer for producer in producers) or _awaits_ranks(producers):
        return Status.RUNNING.value
    endings = {producer.get("status") for producer in producers}
    return next((word for word in _WORST_FIRST if word in endings), Status.FINISHED.value)


def _awaits_ranks(producers: Iterable[Record]) -> bool:
    seen: set[Any] = set()
    expected = 0
    for producer in producers:
        if "rank" in producer:
            seen.add(producer["rank"])
        expected = max(expected, producer.get("world_size", 0))
    return any(rank not in seen for rank in range(expected))


def _last_sign(
    workflow: Record, producers: Sequence[Record], beats: Mapping[str, datetime]
) -> datetime | None:
    heard = (last_sign(producer, None) for producer in producers)
    signs = [*beats.values(), *(moment for moment in heard if moment is not None)]
    return max(signs, default=None) or workflow.get("received_at") or workflow.get("started_at")


def _times(records: Iterable[Record], field: str) -> list[datetime]:
    return [record[field] for record in records if isinstance(record.get(field), datetime)]


def _duration(workflow: Record, started_at: datetime | None, ended_at: datetime | None) -> float | None:
    measured = workflow.get("duration")
    return float(measured) if isinstance(measured, (int, float)) else _seconds(started_at, ended_at)


def _seconds(start: datetime | None, end: datetime | None) -> float | None:
    if start is None or end is None:
        return None
    return max(0.0, (end - start).total_seconds())
