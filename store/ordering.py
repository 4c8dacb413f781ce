"""MongoDB's order of values: by type first (null, numbers, text, documents, arrays, bytes, booleans, dates), then by
value. `bson_key` turns a value into a tuple that compares and hashes as MongoDB compares it: `1 == 1.0`,
`True != 1`, NaN equals itself and is the least number, documents compare field by field in their order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from functools import cmp_to_key
from heapq import nsmallest
from typing import Any, TypeAlias

from provd.common.record import Record

BsonKey: TypeAlias = tuple[Any, ...]

_RANKS: dict[type, int] = {
    type(None): 1, int: 2, float: 2, str: 3, dict: 4, list: 5, bytes: 6, bool: 8, datetime: 9,
}  # fmt: skip

#: Sorted before everything: an empty array, when documents are sorted by it.
_EMPTY_ARRAY: BsonKey = (0,)


def type_rank(value: Any) -> int:
    """The place of a value's type in the order."""
    rank = _RANKS.get(type(value))
    return 10 if rank is None else rank


def is_nan(value: Any) -> bool:
    """Whether a value is not a number."""
    return type(value) is float and math.isnan(value)


def bson_key(value: Any) -> BsonKey:
    """A tuple that compares as MongoDB compares the value."""
    rank = type_rank(value)
    if rank == 2:
        return (2, 0, 0) if is_nan(value) else (2, 1, value)
    if rank == 4:
        return (4, *(_field_key(name, item) for name, item in value.items()))
    if rank == 5:
        return (5, *(bson_key(item) for item in value))
    if rank == 6:
        return 6, len(value), value
    if rank == 10:
        return 10, repr(type(value)), str(value)
    return (1,) if value is None else (rank, value)


def _field_key(name: str, value: Any) -> BsonKey:
    return type_rank(value), name, bson_key(value)


def _sort_key(document: Any, path: Sequence[str], direction: int) -> BsonKey:
    """What a document is sorted by: of the values at the path the least, or for a falling sort the greatest."""
    keys = list(_sort_keys(document, path))
    return (min if direction > 0 else max)(keys) if keys else (1,)


def _sort_keys(value: Any, path: Sequence[str]) -> Iterable[BsonKey]:
    if isinstance(value, list) and path:
        if path[0].isdecimal():
            element = value[int(path[0])] if int(path[0]) < len(value) else None
            yield from [bson_key(element)] if len(path) == 1 else _sort_keys(element, path[1:])
            return
        if not value:
            yield (1,)
        for element in value:
            yield from _sort_keys(element, path) if isinstance(element, dict) else [(1,)]
    elif path and isinstance(value, dict) and path[0] in value:
        yield from _sort_keys(value[path[0]], path[1:])
    elif path:
        yield (1,)
    elif isinstance(value, list):
        yield from [bson_key(element) for element in value] or [_EMPTY_ARRAY]
    else:
        yield bson_key(value)


def _comparison(sort: Sequence[tuple[str, int]]) -> Callable[[Any, Any], int]:
    def compare(one: tuple[list[BsonKey], Record], other: tuple[list[BsonKey], Record]) -> int:
        for (_, direction), left, right in zip(sort, one[0], other[0], strict=True):
            if left != right:
                return direction if left > right else -direction
        return 0

    return compare


def sort_documents(
    documents: Iterable[Record], sort: Sequence[tuple[str, int]], limit: int = 0
) -> list[Record]:
    """Documents in the order MongoDB gives them, only the first `limit` unless it is 0. Stable."""
    keyed = (
        ([_sort_key(document, field.split("."), direction) for field, direction in sort], document)
        for document in documents
    )
    key = cmp_to_key(_comparison(sort))
    ordered = nsmallest(limit, keyed, key=key) if limit else sorted(keyed, key=key)
    return [document for _, document in ordered]
