"""What a workflow's tasks took, asked of MongoDB from the index `by_activity_times` alone.

- The server packs the durations of a whole group into one array: a microsecond a task, half of what a document for
  each would cost, and no task is read.
- A large workflow is asked for in windows of `started_at`, so that every answer comes soon, and fits. A window whose
  answer does not fit is halved; of a single millisecond that does not fit, the tasks come one by one.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from pymongo import errors
from pymongo.collection import Collection

from provd.common import values
from provd.common.record import STATUSES, Record
from provd.store.interface import TaskTimes

#: Tasks that one answer should be about.
_WINDOW_TASKS = 200_000

_MILLISECOND = timedelta(milliseconds=1)

#: What the server says of an answer that is too large: as a document, in memory, as an array.
_TOO_LARGE = frozenset({10334, 146, 17419, 31138})

_FIELDS = {"_id": False, "activity_id": True, "status": True, "duration": True}
_PACKED = {
    "$group": {
        "_id": {"activity": "$activity_id", "status": "$status"},
        "tasks": {"$sum": 1},
        "seconds": {"$push": "$duration"},
    }
}


def read_times(tasks: Collection[Record], workflow_id: str, expected: int) -> Iterator[TaskTimes]:
    """The tasks of a workflow in pieces; works through pymongo's own errors."""
    of_this: Record = {"workflow_id": workflow_id}
    count = -(-expected // _WINDOW_TASKS)
    edges = _edges(tasks, of_this, count) if count > 1 else []
    if not edges:
        yield from _window(tasks, of_this, None, None)
        return
    yield from _untimed(tasks, of_this)
    for start, end in zip([None, *edges], [*edges, None]):
        yield from _window(tasks, of_this, start, end)


def _edges(tasks: Collection[Record], of_this: Record, count: int) -> list[datetime]:
    """The moments between windows of equal length."""
    first, last = (_outermost(tasks, of_this, direction) for direction in (1, -1))
    if first is None or last is None or last - first < count * _MILLISECOND:
        return []
    return [first + (last - first) * number / count for number in range(1, count)]


def _outermost(tasks: Collection[Record], of_this: Record, direction: int) -> datetime | None:
    """The first or the last start; every status is named, so that the index gives the order."""
    where = {**of_this, "status": {"$in": list(STATUSES)}, "started_at": {"$type": "date"}}
    order = [("started_at", direction)]
    for found in tasks.find(where, {"_id": False, "started_at": True}, sort=order, limit=1):
        moment: datetime = found["started_at"]
        return moment
    return None


def _untimed(tasks: Collection[Record], of_this: Record) -> Iterator[TaskTimes]:
    """Tasks that have not started."""
    return _one_by_one(tasks, {**of_this, "started_at": None})


def _window(
    tasks: Collection[Record], of_this: Record, start: datetime | None, end: datetime | None
) -> Iterator[TaskTimes]:
    """The tasks of a window; without any edge that is all, and with one also what lies beyond on its other side."""
    bounds = {"$gte": start, "$lt": end}
    within = {operator: edge for operator, edge in bounds.items() if edge is not None}
    where = {**of_this, "started_at": within} if within else of_this
    try:
        packed = list(tasks.aggregate([{"$match": where}, _PACKED], allowDiskUse=True))
    except errors.OperationFailure as error:
        if error.code not in _TOO_LARGE:
            raise
    else:
        for group in packed:
            yield _piece(group["_id"], group["tasks"], group["seconds"])
        return
    first = start or _outermost(tasks, of_this, 1)
    last = end or _outermost(tasks, of_this, -1)
    if first is None or last is None or last - first <= _MILLISECOND:
        yield from _one_by_one(tasks, where)
        return
    middle = first + (last - first) / 2
    if not within:
        yield from _untimed(tasks, of_this)
    yield from _window(tasks, of_this, start, middle)
    yield from _window(tasks, of_this, middle, end)


def _one_by_one(tasks: Collection[Record], where: Record) -> Iterator[TaskTimes]:
    for task in tasks.find(where, _FIELDS):
        duration = task.get("duration")
        group = {"activity": task.get("activity_id"), "status": task.get("status")}
        yield _piece(group, 1, [] if duration is None else [duration])


def _piece(group: Record, tasks: int, seconds: list[Any]) -> TaskTimes:
    named = values.from_portable(group)
    return TaskTimes(named.get("activity"), named.get("status"), tasks, seconds)
