"""Tasks, the one that started last first, in the order of an index: no task is read that is not given.

- Stores keep tasks by workflow, status and start. So every status is named where none is asked for, and a store merges
  as many sorted stretches of its index as there are statuses.
- Tasks of one millisecond are in no order there: they are put into that of their ids when they have come, and the last
  ones, of which a limit may have cut some, are asked for again.
- A campaign is first turned into its workflows, which have an index by campaign, and those in which some call was
  given it; tasks have no such index.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import merge
from itertools import groupby, islice
from typing import Any

from provd.common import names
from provd.common.record import STATUSES, Record
from provd.store.interface import Filter, Sort, Store

#: The order: ids decide between tasks of one millisecond.
LATEST_FIRST: Sort = (("started_at", -1), ("task_id", -1))

#: Workflows in one question. MongoDB merges up to 200 stretches of an index, one for each workflow and status.
_WORKFLOWS_AT_ONCE = 25

_ANY_STATUS = {"$in": [*STATUSES, None]}


def latest_first(
    store: Store, where: Filter, *, fields: Sequence[str] | None = None, limit: int = 0
) -> Iterator[Record]:
    """What `find` gives for this filter, these fields and `LATEST_FIRST`; `started_at` is among the fields."""
    workflow_ids = _workflows(store, where)
    if workflow_ids is None:
        return store.find(names.TASKS, where, fields=fields, sort=LATEST_FIRST, limit=limit)
    kept = None if fields is None else [*fields, "started_at"]
    streams = [
        _in_order(store, {**where, "workflow_id": some}, kept, limit) for some in _portions(workflow_ids)
    ]
    found = streams[0] if len(streams) == 1 else merge(*streams, key=_place, reverse=True)
    return islice(found, limit) if limit else found


def _workflows(store: Store, where: Filter) -> list[str] | None:
    """The workflows whose tasks are asked for, None for any."""
    asked, campaign_id = where.get("workflow_id"), where.get("campaign_id")
    if isinstance(asked, str):
        return [asked]
    if asked is not None or not isinstance(campaign_id, str):
        return None
    known = {
        record["workflow_id"]
        for collection, where in (
            (names.WORKFLOWS, {"campaign_id": campaign_id}),
            (names.PRODUCERS, {"campaign_id": campaign_id}),
            # Calls that were given this campaign, or may have been (`provd.producer.account`).
            (names.PRODUCERS, {"campaigns": {"$in": [campaign_id, "*"]}}),
        )
        for record in store.find(collection, where, fields=("workflow_id",))
    }
    return sorted(known) or None


def _portions(workflow_ids: Sequence[str]) -> Iterator[Any]:
    for start in range(0, len(workflow_ids), _WORKFLOWS_AT_ONCE):
        some = workflow_ids[start : start + _WORKFLOWS_AT_ONCE]
        yield some[0] if len(some) == 1 else {"$in": list(some)}


def _in_order(store: Store, where: Filter, fields: Sequence[str] | None, limit: int) -> Iterator[Record]:
    where = {"status": _ANY_STATUS, **where}
    left = limit
    found = store.find(names.TASKS, where, fields=fields, sort=[("started_at", -1)], limit=limit)
    for started_at, alike in groupby(found, key=lambda task: task.get("started_at")):
        if started_at is not None:
            group = list(alike)
            if len(group) != left:
                left -= len(group) if limit else 0
                yield from sorted(group, key=lambda task: task["task_id"], reverse=True)
                continue
        last = {**where, "started_at": started_at}
        yield from store.find(names.TASKS, last, fields=fields, sort=[("task_id", -1)], limit=left)
        return


def _place(task: Record) -> tuple[bool, float, str]:
    """What of two tasks the later one has more of; those that have not started come last."""
    started_at = task.get("started_at")
    return started_at is not None, started_at.timestamp() if started_at else 0.0, task["task_id"]
