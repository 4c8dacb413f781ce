"""What both stores do to a filter, a projection and a pipeline before they look at a document.

- Operators that run code or write are refused, wherever they stand.
- Values take the form that documents keep them in (`provd.common.values`), so that an int of any size can be
  searched for.
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
        if all(isinstance(key, str) and not key.startswith("~") for key in query):
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
        if any(not part or part.startswith("$") for part in path.split(".")):
            raise UnsupportedQuery(f"{path!r} is not a field")
    return [path for path in wanted if not any(path.startswith(other + ".") for other in wanted)]


def check_sort(sort: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
    """Return a sort whose fields and directions make sense, else raise `UnsupportedQuery`."""
    for field, direction in sort:
        if direction not in (1, -1):
            raise UnsupportedQuery(f"sort {field!r} by 1 (rising) or -1 (falling), not {direction!r}")
        if any(not part or part.startswith("$") for part in field.split(".")):
            raise UnsupportedQuery(f"{field!r} is not a field to sort by")
    if len({field for field, _ in sort}) < len(sort):
        raise UnsupportedQuery("a field stands twice in the sort")
    return list(sort)
