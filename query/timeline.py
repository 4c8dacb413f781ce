"""When each producer of a run was at work, and at what: a lane a producer, cut into equal spans of time.

- Memory is bounded by lanes times spans, whatever the number of tasks: they are streamed once.
- What one lane did in a span is a share of that span: 1 is busy all the time, more is several tasks at once.
- Tasks are told apart by activity, or by status; beyond a handful the rarer ones are one group, `other`.
- A task that has not ended is at work until the last that is known of the run.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from provd.common import clock, names
from provd.common.record import Record, Status
from provd.query.present import Silence
from provd.query.runs import LOST_AFTER_S, read_run
from provd.store.interface import Store

BY_ACTIVITY, BY_STATUS = "activity", "status"

#: Groups that have a name of their own.
_GROUPS_MAX = 7
OTHER = "other"

#: Cells of all lanes together: with more lanes, spans are longer.
_CELLS_MAX = 1_000_000

_FIELDS = ("producer_id", "activity_id", "status", "started_at", "ended_at", "duration", "workflow_id")


@dataclass(slots=True)
class Lane:
    """One producer. `busy` is by group: of each span, the share that was worked; `seconds` is the sum of all tasks."""

    producer_id: str
    hostname: str | None
    rank: int | None
    tasks: int
    seconds: float = 0.0
    busy: dict[str, array[float]] = field(default_factory=dict)

    def share(self, span: int) -> float:
        """How busy it was in a span."""
        return sum(shares[span] for shares in self.busy.values())

    def group(self, span: int) -> str | None:
        """What took most of a span; None where nothing was done."""
        most = max(self.busy, key=lambda name: self.busy[name][span], default=None)
        return most if most is not None and self.busy[most][span] > 0 else None


@dataclass(frozen=True, slots=True)
class Timeline:
    """Lanes by host and rank, between `start` and `end`; `more` producers are not among them."""

    workflow_id: str
    start: datetime | None
    end: datetime | None
    spans: int
    by: str
    groups: tuple[str, ...]
    lanes: tuple[Lane, ...]
    more: int

    def to_document(self) -> Record:
        """The timeline as JSON has it."""
        document: dict[str, Any] = {
            "workflow_id": self.workflow_id,
            "start": self.start,
            "end": self.end,
            "spans": self.spans,
            "by": self.by,
            "groups": list(self.groups),
            "lanes": [_lane_document(lane) for lane in self.lanes],
            "more": self.more,
        }
        return {name: value for name, value in document.items() if value is not None}


def _lane_document(lane: Lane) -> Record:
    document = {
        "producer_id": lane.producer_id,
        "hostname": lane.hostname,
        "rank": lane.rank,
        "tasks": lane.tasks,
        "seconds": round(lane.seconds, 6),
        "busy": {name: [round(share, 4) for share in shares] for name, shares in lane.busy.items()},
    }
    return {name: value for name, value in document.items() if value is not None}


def read_timeline(
    store: Store,
    workflow_id: str,
    *,
    spans: int,
    lanes: int = 0,
    by: str = BY_ACTIVITY,
    lost_after_s: float = LOST_AFTER_S,
) -> Timeline:
    """The timeline of a run; `lanes` are those of the producers with the most tasks, 0 meaning all."""
    of_this = {"workflow_id": workflow_id}
    bounds = _bounds(store, workflow_id)
    shown = sorted(bounds, key=lambda one: (-bounds[one][2], one))[: lanes or None]
    start = min((first for first, _, _ in bounds.values() if first is not None), default=None)
    end = _end(store, workflow_id, [last for _, last, _ in bounds.values() if last is not None], lost_after_s)
    records = {
        record["producer_id"]: record
        for record in store.find(names.PRODUCERS, of_this, fields=("producer_id", "hostname", "rank"))
    }
    chosen = {one: _lane(one, records.get(one, {}), bounds[one][2]) for one in shown}
    spans = max(1, min(spans, _CELLS_MAX // max(1, len(chosen))))
    groups = _groups(store, workflow_id, by)
    if start is not None and end is not None:
        where: dict[str, Any] = dict(of_this)
        if len(chosen) < len(bounds):
            where["producer_id"] = {"$in": list(chosen)}
        grid = _Grid(clock.from_datetime(start) / 1000, clock.from_datetime(end) / 1000, spans)
        silence = Silence(store, lost_after_s)
        for task in store.find(names.TASKS, where, fields=_FIELDS):
            _place(task, chosen.get(task.get("producer_id", "")), grid, by, groups, silence)
    return Timeline(
        workflow_id, start, end, spans, by, _named(groups, chosen.values()),
        tuple(sorted(chosen.values(), key=_order)), len(bounds) - len(chosen),
    )  # fmt: skip


def _end(store: Store, workflow_id: str, lasts: list[datetime], lost_after_s: float) -> datetime | None:
    """The last that is known of the tasks; while some have not ended, of the run."""
    unended = {"workflow_id": workflow_id, "status": Status.RUNNING.value}
    if lasts and next(iter(store.find(names.TASKS, unended, fields=("task_id",), limit=1)), None) is not None:
        run = read_run(store, workflow_id, lost_after_s=lost_after_s)
        if run.started_at is not None and run.duration is not None:
            lasts = [*lasts, run.started_at + timedelta(seconds=run.duration)]
    return max(lasts, default=None)


def _bounds(store: Store, workflow_id: str) -> dict[str, tuple[datetime | None, datetime | None, int]]:
    """Of each producer: its first start, the last that is known of a task of its, and how many tasks it has."""
    group = {
        "_id": "$producer_id",
        "first": {"$min": "$started_at"},
        "started": {"$max": "$started_at"},
        "ended": {"$max": "$ended_at"},
        "tasks": {"$sum": 1},
    }
    found = {}
    for row in store.aggregate(names.TASKS, [{"$match": {"workflow_id": workflow_id}}, {"$group": group}]):
        last = max((row[name] for name in ("started", "ended") if row.get(name) is not None), default=None)
        found[str(row["_id"])] = (row.get("first"), last, int(row["tasks"]))
    return found


def _lane(producer_id: str, record: Mapping[str, Any], tasks: int) -> Lane:
    return Lane(producer_id, record.get("hostname"), record.get("rank"), tasks)


def _order(lane: Lane) -> tuple[str, int, str]:
    return lane.hostname or "", -1 if lane.rank is None else lane.rank, lane.producer_id


def _groups(store: Store, workflow_id: str, by: str) -> dict[str, str]:
    """What tasks are told apart by, and the group it is in: the most frequent have one of their own."""
    if by == BY_STATUS:
        return {}
    found = store.count_by(names.TASKS, {"workflow_id": workflow_id}, ("activity_id",))
    ordered = sorted(found, key=lambda one: (-found[one], str(one[0])))
    room = len(ordered) if len(ordered) <= _GROUPS_MAX + 1 else _GROUPS_MAX
    return {str(one[0] or ""): str(one[0] or "") for one in ordered[:room]}


def _named(groups: Mapping[str, str], lanes: Iterable[Lane]) -> tuple[str, ...]:
    """The groups that there are, the most frequent first."""
    seen = {name: None for lane in lanes for name in lane.busy}
    known = [name for name in groups if name in seen]
    return (*known, *sorted(name for name in seen if name not in groups))


@dataclass(frozen=True, slots=True)
class _Grid:
    """Equal spans between two moments, in seconds."""

    start: float
    end: float
    spans: int

    @property
    def width(self) -> float:
        return max(self.end - self.start, 1e-3) / self.spans


def _place(
    task: Record, lane: Lane | None, grid: _Grid, by: str, groups: Mapping[str, str], silence: Silence
) -> None:
    """Add a task to its lane."""
    began = task.get("started_at")
    if lane is None or not isinstance(began, datetime):
        return
    start = clock.from_datetime(began) / 1000
    seconds = _seconds(task, start, grid.end)
    lane.seconds += seconds
    if by == BY_STATUS:
        group = silence.status(task) or Status.SUBMITTED.value
    else:
        group = groups.get(str(task.get("activity_id") or ""), OTHER)
    shares = lane.busy.get(group)
    if shares is None:
        shares = lane.busy[group] = array("f", bytes(4 * grid.spans))
    _add(shares, grid, start, start + seconds)


def _seconds(task: Record, start: float, end: float) -> float:
    measured = task.get("duration")
    if isinstance(measured, (int, float)) and 0 <= measured < float("inf"):
        return float(measured)
    ended = task.get("ended_at")
    last = clock.from_datetime(ended) / 1000 if isinstance(ended, datetime) else end
    return max(0.0, last - start)


def _add(shares: array[float], grid: _Grid, start: float, end: float) -> None:
    """Share a task out among the spans that it lies in."""
    width = grid.width
    first = max(0, min(grid.spans - 1, int((start - grid.start) / width)))
    last = max(first, min(grid.spans - 1, int((end - grid.start) / width)))
    for span in range(first, last + 1):
        left = grid.start + span * width
        inside = min(end, left + width) - max(start, left)
        shares[span] += max(inside, 0.0) / width
