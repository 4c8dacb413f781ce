"""What both stores do to a filter, a projection and a pipeline before they look at a document.

- Operators that run code or write are refused, wherever they stand.
- Values take the form that documents keep them in (`provd.common.values`), so that an int of any size can be
  searched for.
- In a group's key of several fields an absent one is null. MongoDB alone says null where it answers from an index and
  leaves it out elsewhere: equal questions would have unequal answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from provd.common import clock, names, values
from provd.common.errors import UnsupportedQuery
from provd.store.documents import ID_FIELDS

#: Operators that run code in the server or write.
FORBIDDEN = frozenset({"$where", "$function", "$accumulator", "$out", "$merge"})


def prepare(query: Any) -> Any:
    """A copy of a filter or pipeline, checked, in which values have their stored form. Raises `UnsupportedQuery`."""
    if isinstance(query, Mapping):
        if all(isinstance(key, str) and not key.startswith("~") and values.is_unicode(key) for key in query):
            return {_allowed(key): prepare(item) for key, item in query.items()}
        return values.to_portable(dict(query))
    if isinstance(query, (list, tuple)):
        return [prepare(item) for item in query]
    if isinstance(query, datetime):
        return _in_milliseconds(query)
    try:
        return values.to_portable(query)
    except TypeError:
        return query  # a compiled regular expression, or a type that only MongoDB's driver knows


def prepare_pipeline(pipeline: Any) -> Any:
    """The same for a pipeline."""
    stages = prepare(pipeline)
    if not isinstance(stages, list):
        return stages
    return [_with_whole_key(stage) for stage in stages]


def _with_whole_key(stage: Any) -> Any:
    group = stage.get("$group") if isinstance(stage, dict) else None
    if not isinstance(group, dict) or not isinstance(group.get("_id"), dict):
        return stage
    return {**stage, "$group": {**group, "_id": _or_null(group["_id"])}}


def _is_field(path: str) -> bool:
    return (
        values.is_unicode(path)
        and "\0" not in path
        and all(part and not part.startswith("$") for part in path.split("."))
    )


def _or_null(key: Any) -> Any:
    """The fields of a group's key, null where they are absent; what is computed stays as it is."""
    if isinstance(key, str) and key.startswith("$") and not key.startswith("$$"):
        return {"$ifNull": [key, None]}
    if isinstance(key, dict) and not any(name.startswith("$") for name in key):
        return {name: _or_null(item) for name, item in key.items()}
    return key


def _in_milliseconds(moment: datetime) -> datetime:
    """The moment as stores keep it; one without a time zone is UTC, as everywhere in MongoDB."""
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return clock.to_datetime(clock.from_datetime(moment))


def _allowed(key: str) -> str:
    if key in FORBIDDEN:
        raise UnsupportedQuery(f"{key} is refused: queries read, and run no code")
    return key


def check_collection(collection: str) -> str:
    """Return a name that is a collection of ours, else raise `UnsupportedQuery`."""
    if collection not in names.COLLECTIONS and collection != names.MIGRATIONS:
        known = ", ".join(names.COLLECTIONS)
        raise UnsupportedQuery(f"there is no collection {collection!r}; there are {known}")
    return collection


def projected(collection: str, fields: Sequence[str]) -> list[str]:
    """The paths to keep: those asked for and the id, none of them inside another. Raises `UnsupportedQuery`."""
    wanted = sorted({*fields, *ID_FIELDS.get(collection, ("_id",))})
    for path in wanted:
        if not _is_field(path):
            raise UnsupportedQuery(f"{path!r} is not a field")
    return [path for path in wanted if not any(path.startswith(other + ".") for other in wanted)]


def check_sort(sort: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
    """Return a sort whose fields and directions make sense, else raise `UnsupportedQuery`."""
    for field, direction in sort:
        if direction not in (1, -1):
            raise UnsupportedQuery(f"sort {field!r} by 1 (rising) or -1 (falling), not {direction!r}")
        if not _is_field(field):
            raise UnsupportedQuery(f"{field!r} is not a field to sort by")
    if len({field for field, _ in sort}) < len(sort):
        raise UnsupportedQuery("a field stands twice in the sort")
    return list(sort)
