"""What the values of a column are: the kinds that types of a table are made of (`provd.query.arrow`).

- The kind of a column depends on all its values, and never on their order or on how they were batched.
- `int` holds whole numbers that a double holds exactly, `long` those of 64 bits, `none` no value at all; what has no
  other kind is `json`.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, TypeAlias

from provd.common.values import is_unicode

#: A name, or ("list", kind of its elements).
Kind: TypeAlias = "str | tuple[str, Kind]"

_EXACT = 1 << 53
_INT64_MIN = -(1 << 63)
_INT64_MAX = (1 << 63) - 1

#: Levels of lists in lists that have a type.
_LIST_DEPTH = 6

_KINDS: dict[type, str] = {
    type(None): "none", bool: "bool", int: "int", float: "float", str: "text", bytes: "bytes", datetime: "time",
    list: "list", tuple: "list",
}  # fmt: skip


def kind_of(column: Iterable[Any], depth: int = 0) -> Kind:
    """What all of some values are."""
    column = list(column)
    found = {_KINDS.get(type(value), "json") for value in column}
    found.discard("none")
    kind: Kind = "none"
    for one in found:
        kind = unified(kind, _refined(one, column, depth))
    return kind


def _refined(kind: str, column: list[Any], depth: int) -> Kind:
    if kind == "int":
        numbers = [value for value in column if type(value) is int]
        low, high = min(numbers), max(numbers)
        if low >= -_EXACT and high <= _EXACT:
            return "int"
        return "long" if low >= _INT64_MIN and high <= _INT64_MAX else "json"
    if kind == "text":
        return "text" if all(is_unicode(value) for value in column if type(value) is str) else "json"
    if kind == "list":
        if depth >= _LIST_DEPTH:
            return "json"
        items = (item for value in column if isinstance(value, (list, tuple)) for item in value)
        inner = kind_of(items, depth + 1)
        return "json" if inner == "json" else ("list", inner)
    return kind


def unified(one: Kind, other: Kind) -> Kind:
    """The kind that holds both. Commutative and associative, so that the order of rows does not matter."""
    if other in (one, "none"):
        return one
    if one == "none":
        return other
    if isinstance(one, tuple) and isinstance(other, tuple):
        inner = unified(one[1], other[1])
        return "json" if inner == "json" else ("list", inner)
    both = {one, other}
    if both == {"int", "long"}:
        return "long"
    return "float" if both == {"int", "float"} else "json"
