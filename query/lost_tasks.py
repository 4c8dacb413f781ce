"""LOST in a filter: the status that is derived when read, and nowhere stored.

A task is LOST that the store has as RUNNING and whose producer has fallen silent (`provd.query.present`). A filter that
tells the two apart is made into one of stored fields, so that a store answers it with its own sort and limit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from provd.common import names
from provd.common.errors import UnsupportedQuery
from provd.common.record import LOST, Status
from provd.query.present import Silence
from provd.store.interface import Filter, Store
from provd.store.matcher import matcher

_RUNNING = Status.RUNNING.value
_JUNCTIONS = ("$and", "$or", "$nor")

#: A filter that nothing matches.
NOTHING: Filter = {"status": {"$in": []}}


def tells_lost_apart(filter: Filter) -> bool:
    """Whether LOST and RUNNING tasks fare differently by a condition on the status."""
    return any(
        any(tells_lost_apart(part) for part in condition)
        if key in _JUNCTIONS and isinstance(condition, list)
        else key == "status" and _fares(condition, LOST) != _fares(condition, _RUNNING)
        for key, condition in filter.items()
    )


def with_lost(filter: Filter, lost: Filter) -> dict[str, Any]:
    """The filter by stored fields; `lost` is the filter of the tasks that are LOST."""
    found: dict[str, Any] = {}
    extra: list[Filter] = []
    for key, condition in filter.items():
        if key in _JUNCTIONS and isinstance(condition, list):
            found[key] = [with_lost(part, lost) for part in condition]
            continue
        if key == "status":
            as_lost, as_running = _fares(condition, LOST), _fares(condition, _RUNNING)
            if as_lost and not as_running:
                extra.append({"$or": [{key: condition}, lost]})
                continue
            if as_running and not as_lost:
                extra.append({"$nor": [lost]})
        found[key] = condition
    return {"$and": [found, *extra]} if extra and found else {"$and": extra} if extra else found


def lost_tasks(store: Store, among: Filter, silence: Silence) -> Filter:
    """The filter of all LOST tasks; `among` narrows where they are looked for."""
    running: list[Filter] = [
        {"$match": {"$and": [dict(among), {"status": _RUNNING}]}},
        {"$group": {"_id": "$workflow_id"}},
    ]
    producers = {row["_id"]: silence.lost(row["_id"]) for row in store.aggregate(names.TASKS, running)}
    silent = [
        {"workflow_id": workflow_id, "producer_id": {"$in": sorted(lost)}}
        for workflow_id, lost in producers.items()
        if lost
    ]
    return {"status": _RUNNING, "$or": silent} if silent else NOTHING


def _fares(condition: Any, status: str) -> bool:
    test: Mapping[str, Any] = {"status": condition}
    try:
        return matcher(test)({"status": status})
    except UnsupportedQuery:
        return False  # the store itself says what it thinks of it
