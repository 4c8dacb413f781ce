"""The state of a run, derived from what its owner and its producers have said.

Invariants:

- A run whose owner has spoken has the state its owner gave; one without an owner has the state of its producers:
  running while one of them, or one of the ranks they expect, has not ended; else the worst way one of them ended.
- LOST and DEGRADED are derived here and nowhere stored.
- Silence is measured by the broker's clock, which heartbeats carry. A reader has only its own clock and the newest
  beat in the store, and takes the later of both as the present.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from provd.common.record import DEGRADED, ENDED, LOST, Record, Status

#: How a producer's part ended, the worst first.
_WORST_FIRST = (Status.ERROR.value, Status.CANCELLED.value, Status.FINISHED.value, Status.SKIPPED.value)


@dataclass(frozen=True, slots=True)
class State:
    """A run's status and times; `duration` is in seconds."""

    status: str
    started_at: datetime | None
    ended_at: datetime | None
    duration: float | None


def derive_state(
    workflow: Record,
    producers: Sequence[Record],
    beats: Mapping[str, datetime],
    *,
    failed_tasks: int,
    now: datetime,
    lost_after_s: float,
) -> State:
    """The state of one run. `workflow` may be empty, `beats` is each producer's last beat."""
    status = _said(workflow, producers)
    started_at = workflow.get("started_at") or min(_times(producers, "started_at"), default=None)
    if status in ENDED:
        ended_at = workflow.get("ended_at") or max(_times(producers, "closed_at"), default=None)
        if status == Status.FINISHED.value and failed_tasks:
            status = DEGRADED
        return State(status, started_at, ended_at, _duration(workflow, started_at, ended_at))
    until = now
    if status == Status.RUNNING.value:
        heard_at = _last_sign(workflow, producers, beats)
        if heard_at is not None and now - heard_at > timedelta(seconds=lost_after_s):
            status, until = LOST, heard_at
    return State(status, started_at, None, _seconds(started_at, until))


def producer_status(producer: Record, beat_at: datetime | None, *, now: datetime, lost_after_s: float) -> str:
    """The state of one producer: how it ended, else RUNNING or LOST."""
    if "closed_at" in producer:
        return str(producer.get("status") or Status.FINISHED.value)
    heard_at = _later(beat_at, producer.get("started_at"))
    if heard_at is not None and now - heard_at > timedelta(seconds=lost_after_s):
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
    signs = [*beats.values(), *_times(producers, "started_at"), *_times(producers, "closed_at")]
    return max(signs, default=None) or workflow.get("started_at") or workflow.get("received_at")


def _times(records: Iterable[Record], field: str) -> list[datetime]:
    return [record[field] for record in records if isinstance(record.get(field), datetime)]


def _later(one: datetime | None, other: datetime | None) -> datetime | None:
    return max((moment for moment in (one, other) if moment is not None), default=None)


def _duration(workflow: Record, started_at: datetime | None, ended_at: datetime | None) -> float | None:
    measured = workflow.get("duration")
    return float(measured) if isinstance(measured, (int, float)) else _seconds(started_at, ended_at)


def _seconds(start: datetime | None, end: datetime | None) -> float | None:
    if start is None or end is None:
        return None
    return max(0.0, (end - start).total_seconds())
