"""Names in a question that records do not have, and the nearest that they do have.

They are told beside an answer that is empty, or in no order, and are no error: a record of a later provd may have more
fields.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from provd.common import names
from provd.common.record import TASK_FIELDS, WORKFLOW_FIELDS
from provd.store.interface import Filter, Store
from provd.store.literal_keys import AT

#: The fields of a record, and those that hold what programs name themselves.
_FIELDS = {names.TASKS: TASK_FIELDS, names.WORKFLOWS: WORKFLOW_FIELDS}
_HOLDERS = {names.TASKS: ("used", "generated"), names.WORKFLOWS: ("args", "code")}

_ONE = {names.TASKS: "a task", names.WORKFLOWS: "a run"}

#: Activities that are named where none is near.
_LISTED = 8


def named_fields(filter: Filter) -> Iterator[str]:
    """The fields that a filter is about, without what stands behind their dots."""
    for key, condition in filter.items():
        if key == AT and isinstance(condition, (list, tuple)):
            yield str(condition[0][0])
        elif not key.startswith("$"):
            yield key.partition(".")[0]
        elif isinstance(condition, (list, tuple)):
            for part in condition:
                yield from named_fields(part) if isinstance(part, Mapping) else ()


def unknown_fields(collection: str, fields: Iterable[str], seen: Collection[str] = ()) -> list[str]:
    """A line for each of these fields that no record has; those `seen` in a record are known."""
    known = {"_id", *_FIELDS[collection], *seen}
    asked = dict.fromkeys(field.partition(".")[0] for field in fields)
    return [_unknown_field(collection, field) for field in asked if field not in known]


def _unknown_field(collection: str, field: str) -> str:
    near = difflib.get_close_matches(field, _FIELDS[collection], n=1)
    if near:
        return f"no field {field!r} of {_ONE[collection]} is known; did you mean {near[0]}?"
    first, second = (f"{holder}.{field}" for holder in _HOLDERS[collection])
    return f"no field {field!r} of {_ONE[collection]} is known; did you mean {first} or {second}?"


def unknown_activity(store: Store, workflow_id: str, activity_id: str) -> str | None:
    """A line that names the nearest of a run's activities, where it has none of this name."""
    wanted: Any = {"workflow_id": workflow_id, "activity_id": activity_id}
    if any(True for _ in store.find(names.TASKS, wanted, fields=("task_id",), limit=1)):
        return None
    found = store.count_by(names.TASKS, {"workflow_id": workflow_id}, ("activity_id",))
    known = sorted(name for (name,) in found if isinstance(name, str) and name)
    beginning = f"{workflow_id} has no activity {activity_id!r}"
    if not known:
        return f"{beginning}, and no other"
    near = difflib.get_close_matches(activity_id, known, n=1)
    if near:
        return f"{beginning}; did you mean {near[0]!r}?"
    more = f" and {len(known) - _LISTED:,} more" if len(known) > _LISTED else ""
    return f"{beginning}; there are {', '.join(known[:_LISTED])}{more}"
