"""MongoDB filters evaluated in Python, for the embedded store. Proven against a real mongod by the contract tests.

Supported: implicit equality, `$eq $ne $gt $gte $lt $lte $in $nin $exists $regex $options $not $all $size $elemMatch
$type $mod`, `$and $or $nor`, `$comment`, and our own `$at` (`literal_keys`); dotted paths through documents and
arrays. Anything else raises `UnsupportedQuery` that names it. Regular expressions are Python's.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from provd.common.errors import UnsupportedQuery
from provd.store.literal_keys import AT, check_at, value_at
from provd.store.ordering import BsonKey, bson_key, is_nan, type_rank

Predicate: TypeAlias = Callable[[Any], bool]

OPERATORS = frozenset(
    {
        "$eq",
        "$ne",
        "$gt",
        "$gte",
        "$lt",
        "$lte",
        "$in",
        "$nin",
        "$exists",
        "$regex",
        "$options",
        "$not",
        "$all",
    }
    | {"$size", "$elemMatch", "$type", "$mod"}
)
LOGICAL = frozenset({"$and", "$or", "$nor", "$comment"})


def outside(what: str) -> UnsupportedQuery:
    """That something is not in the subset, and where that is listed."""
    return UnsupportedQuery(
        f"{what} is outside what the embedded store answers (docs/query.md lists that); ask a MongoDB store"
    )


class _Missing:
    """What a path finds where there is nothing."""


_MISSING = _Missing()

_FLAGS = {"i": re.IGNORECASE, "m": re.MULTILINE, "s": re.DOTALL, "x": re.VERBOSE}

#: `$type` by name and number, as the rank of the value's type; int, long and double share a rank.
_TYPES: dict[str | int, str] = {
    1: "double", 2: "string", 3: "object", 4: "array", 5: "binData", 8: "bool", 9: "date", 10: "null", 16: "int",
    18: "long",
}  # fmt: skip
TYPE_NAMES = frozenset({*_TYPES.values(), "number"})
_INT32 = 1 << 31


def matcher(query: Mapping[str, Any]) -> Predicate:
    """Compile a filter. Raises `UnsupportedQuery` for what is outside the subset, or makes no sense."""
    if not isinstance(query, Mapping):
        raise UnsupportedQuery('a filter is an object such as {"status": "ERROR"}')
    tests = [_clause(key, condition) for key, condition in query.items() if key != "$comment"]
    return _all(tests)


def _all(tests: Sequence[Predicate]) -> Predicate:
    if len(tests) == 1:
        return tests[0]
    return lambda document: all(test(document) for test in tests)


def _clause(key: str, condition: Any) -> Predicate:
    if key in LOGICAL:
        if not isinstance(condition, list) or not condition:
            raise UnsupportedQuery(f"{key} needs a list of filters, not an empty one")
        parts = [matcher(part) for part in condition]
        if key == "$and":
            return _all(parts)
        if key == "$or":
            return lambda document: any(part(document) for part in parts)
        return lambda document: not any(part(document) for part in parts)
    if key == AT:
        return _at(condition)
    if key.startswith("$"):
        raise outside(key)
    return _on_path(tuple(key.split(".")), condition)


def _at(condition: Any) -> Predicate:
    """The value under keys taken as they are, tested as that of a field."""
    path, tests = check_at(condition)
    holds = _on_path(("value",), tests)

    def test(document: Any) -> bool:
        found, value = value_at(document, path)
        return holds({"value": value} if found else {})

    return test


def _is_operators(condition: Any) -> bool:
    return isinstance(condition, Mapping) and bool(condition) and next(iter(condition)).startswith("$")


def _on_path(path: tuple[str, ...], condition: Any) -> Predicate:
    if isinstance(condition, re.Pattern):
        return _any_element(path, _matches(condition))
    if not _is_operators(condition):
        return _any_element(path, _equals(condition))
    return _all([_operator(path, name, operand, condition) for name, operand in condition.items()])


def _operator(path: tuple[str, ...], name: str, operand: Any, siblings: Mapping[str, Any]) -> Predicate:
    if name not in OPERATORS:
        raise outside(name)
    if name == "$options":
        if "$regex" not in siblings:
            raise UnsupportedQuery("$options needs a $regex")
        return lambda _document: True
    if name in ("$ne", "$nin", "$not"):
        positive = {"$ne": "$eq", "$nin": "$in"}.get(name)
        if positive is None and not _is_operators(operand) and not isinstance(operand, re.Pattern):
            raise UnsupportedQuery("$not needs operators or a regular expression")
        if name == "$ne" and isinstance(operand, re.Pattern):
            raise UnsupportedQuery("$ne takes no regular expression; use $not")
        test = _operator(path, positive, operand, {}) if positive else _on_path(path, operand)
        return lambda document: not test(document)
    if name == "$exists":
        wanted = bool(operand)
        found = _any_value(path, lambda value: value is not _MISSING)
        return lambda document: found(document) is wanted
    if name == "$all":
        return _contains_all(path, operand)
    if name == "$regex":
        return _any_element(path, _matches(_regex(operand, siblings.get("$options", ""))))
    if name == "$type":
        return _any_element(path, _has_type(operand))
    if name in ("$size", "$elemMatch"):
        return _any_value(path, _has_size(operand) if name == "$size" else _has_element(operand))
    return _any_element(path, _VALUE_TESTS[name](operand))


# --- values on a path ------------------------------------------------------------------------------------------


def _any_value(path: tuple[str, ...], test: Predicate) -> Predicate:
    """Whether a value at the path passes."""
    return lambda document: any(test(value) for value, _ in _values(document, path, whole=not path))


def _any_element(path: tuple[str, ...], test: Predicate) -> Predicate:
    """Whether a value at the path passes or, where it is an array, one of its elements."""
    if len(path) == 1:
        return _any_element_of_field(path[0], test)
    return lambda document: any(
        _passes(test, value, whole=whole) for value, whole in _values(document, path, whole=not path)
    )


def _any_element_of_field(name: str, test: Predicate) -> Predicate:
    """The same for a field of a document, which is most of what is asked."""
    return lambda document: _passes(test, document.get(name, _MISSING), whole=False)


def _passes(test: Predicate, value: Any, *, whole: bool) -> bool:
    if test(value):
        return True
    return not whole and type(value) is list and any(test(element) for element in value)


def _values(value: Any, path: tuple[str, ...], *, whole: bool) -> Iterator[tuple[Any, bool]]:
    """What stands at a path: one value, or one for each element of the arrays on the way.

    With each, whether it counts as a whole: an array that was itself named by its place in an array is not searched.
    """
    if not path:
        yield value, whole
    elif isinstance(value, dict):
        yield from _values(value[path[0]], path[1:], whole=False) if path[0] in value else [(_MISSING, True)]
    elif isinstance(value, list):
        if path[0].isdecimal() and int(path[0]) < len(value):
            element = value[int(path[0])]
            if len(path) == 1 or isinstance(element, (dict, list)):
                yield from _values(element, path[1:], whole=True)
        for element in value:
            if isinstance(element, dict):
                yield from _values(element, path, whole=False)
    else:
        yield _MISSING, True


# --- tests of one value ----------------------------------------------------------------------------------------


def _equals(operand: Any) -> Predicate:
    if operand is None:
        return lambda value: value is None or value is _MISSING
    if type(operand) is str:
        return lambda value: type(value) is str and value == operand
    key = bson_key(operand)
    return lambda value: value is not _MISSING and bson_key(value) == key


def _compares(compare: Callable[[BsonKey, BsonKey], bool], *, or_equal: bool) -> Callable[[Any], Predicate]:
    def bind(operand: Any) -> Predicate:
        if isinstance(operand, re.Pattern):
            raise UnsupportedQuery("a regular expression has no order")
        if operand is None or is_nan(operand):
            return _equals(operand) if or_equal else lambda _value: False
        rank, key = type_rank(operand), bson_key(operand)
        return lambda value: (
            value is not _MISSING
            and type_rank(value) == rank
            and not is_nan(value)
            and compare(bson_key(value), key)
        )

    return bind


def _is_in(operand: Any) -> Predicate:
    if not isinstance(operand, list):
        raise UnsupportedQuery("$in and $nin need a list")
    patterns = [item for item in operand if isinstance(item, re.Pattern)]
    plain = [item for item in operand if not isinstance(item, re.Pattern)]
    if any(_is_operators(item) for item in plain):
        raise UnsupportedQuery("$in and $nin take values, not operators")
    keys = {bson_key(item) for item in plain}
    with_null = None in plain
    return lambda value: (
        with_null
        if value is _MISSING
        else bson_key(value) in keys or any(_matches(pattern)(value) for pattern in patterns)
    )


def _has_remainder(operand: Any) -> Predicate:
    if not isinstance(operand, list) or len(operand) != 2 or not all(type(part) is int for part in operand):
        raise UnsupportedQuery("$mod needs [divisor, remainder]")
    divisor, remainder = operand
    if divisor == 0:
        raise UnsupportedQuery("$mod by zero")

    def test(value: Any) -> bool:
        if type(value) not in (int, float) or not math.isfinite(value):
            return False
        whole = int(value)
        sign = 1 if whole >= 0 else -1
        return bool(abs(whole) % abs(divisor) * sign == remainder)

    return test


_VALUE_TESTS: dict[str, Callable[[Any], Predicate]] = {
    "$eq": _equals,
    "$gt": _compares(lambda one, other: one > other, or_equal=False),
    "$gte": _compares(lambda one, other: one >= other, or_equal=True),
    "$lt": _compares(lambda one, other: one < other, or_equal=False),
    "$lte": _compares(lambda one, other: one <= other, or_equal=True),
    "$in": _is_in,
    "$mod": _has_remainder,
}


def _regex(pattern: Any, options: Any) -> re.Pattern[str]:
    if isinstance(pattern, re.Pattern) and not options:
        return pattern
    text = pattern.pattern if isinstance(pattern, re.Pattern) else pattern
    if not isinstance(text, str) or not isinstance(options, str) or set(options) - set(_FLAGS):
        raise UnsupportedQuery("$regex needs text, and $options letters of imsx")
    flags = 0
    for letter in options:
        flags |= _FLAGS[letter]
    try:
        return re.compile(text, flags)
    except re.error as error:
        raise UnsupportedQuery(f"$regex {text!r}: {error}") from error


def _matches(pattern: re.Pattern[str]) -> Predicate:
    return lambda value: isinstance(value, str) and pattern.search(value) is not None


def _has_size(operand: Any) -> Predicate:
    if type(operand) not in (int, float) or operand != int(operand) or operand < 0:
        raise UnsupportedQuery("$size needs a whole number from 0 up")
    return lambda value: isinstance(value, list) and len(value) == operand


def _has_element(operand: Any) -> Predicate:
    if not isinstance(operand, Mapping):
        raise UnsupportedQuery("$elemMatch needs a filter")
    if _is_operators(operand) and next(iter(operand)) not in LOGICAL:
        element = _on_path((), operand)
        return lambda value: isinstance(value, list) and any(element(item) for item in value)
    inner = matcher(operand)
    return lambda value: (
        isinstance(value, list)
        and any(inner(_as_document(item)) for item in value if isinstance(item, (dict, list)))
    )


def _as_document(item: Any) -> Any:
    """An array inside an array as MongoDB sees it there: a document whose fields are the places."""
    return {str(place): element for place, element in enumerate(item)} if isinstance(item, list) else item


def _contains_all(path: tuple[str, ...], operand: Any) -> Predicate:
    if not isinstance(operand, list):
        raise UnsupportedQuery("$all needs a list")
    if not operand:
        return lambda _document: False
    tests = []
    for item in operand:
        if isinstance(item, Mapping) and "$elemMatch" in item:
            tests.append(_on_path(path, item))
        elif _is_operators(item):
            raise UnsupportedQuery("$all takes values and $elemMatch, no other operators")
        else:
            tests.append(_on_path(path, item))
    return _all(tests)


def _has_type(operand: Any) -> Predicate:
    wanted = set()
    for item in operand if isinstance(operand, list) else [operand]:
        name = _TYPES.get(item, item)
        if name not in TYPE_NAMES:
            raise outside(f"$type {item!r}")
        wanted |= {"int", "long", "double"} if name == "number" else {name}
    return lambda value: value is not _MISSING and _type_name(value) in wanted


def _type_name(value: Any) -> str:
    if type(value) is int:
        return "int" if -_INT32 <= value < _INT32 else "long"
    names = {float: "double", str: "string", dict: "object", list: "array", bytes: "binData", bool: "bool"}
    return names.get(type(value), "null" if value is None else "date")
