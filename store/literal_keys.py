"""`$at`: a value under keys that a dotted path cannot name: with dots, or kept as pairs (`values.to_portable`).

It is the one operator of ours in a filter.

    {"$at": [["used", "model.pt"], {"$gt": 5}]}

- It reads as `{"used.<the key>": {"$gt": 5}}` would: a value that is a list matches by any of its items, a value of
  another type is not compared. The path leads through documents, not into documents inside lists.
- MongoDB is asked by `$expr` in operators that every supported server has (4.2); the embedded store's matcher tests
  the value as that of a field. Proven alike by `tests/contract/test_where.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from provd.common.errors import UnsupportedQuery
from provd.common.values import PAIRS, is_plain_key

AT = "$at"

OPERATORS = frozenset({"$eq", "$gt", "$gte", "$lt", "$lte", "$in", "$exists", "$type", "$regex"})

_NUMBERS = ["int", "long", "double", "decimal"]
_ABSENT = "missing"


def check_at(body: Any) -> tuple[tuple[str, ...], Mapping[str, Any]]:
    """The path and the tests of an `$at`; raises `UnsupportedQuery`."""
    if not isinstance(body, list) or len(body) != 2:
        raise UnsupportedQuery(f'{AT} needs [["used", "a.key"], {{"$gt": 5}}]')
    path, tests = body
    if not isinstance(path, list) or not path or not all(isinstance(part, str) for part in path):
        raise UnsupportedQuery(f"{AT} needs a path: a list of keys")
    if not isinstance(tests, Mapping) or not tests:
        raise UnsupportedQuery(f"{AT} needs tests of the value")
    for name, operand in tests.items():
        _check_test(name, operand)
    return tuple(path), tests


def _check_test(name: str, operand: Any) -> None:
    if name not in OPERATORS:
        raise UnsupportedQuery(f"{name} is outside what {AT} takes")
    if name == "$exists" and type(operand) is not bool:
        raise UnsupportedQuery(f"$exists in {AT} needs true or false")
    if name == "$type" and operand != "null":
        raise UnsupportedQuery(f'$type in {AT} takes "null" alone')
    if name == "$regex" and not isinstance(operand, str):
        raise UnsupportedQuery(f"$regex in {AT} needs text")
    if name == "$in" and (not isinstance(operand, list) or None in operand):
        raise UnsupportedQuery(f"$in in {AT} needs a list without null")
    if name == "$eq" and operand is None:
        raise UnsupportedQuery(f'null in {AT} is {{"$type": "null"}}')
    if name in ("$gt", "$gte", "$lt", "$lte") and not _has_order(operand):
        raise UnsupportedQuery(f"{name} in {AT} needs a number, a text or a time")


def _has_order(operand: Any) -> bool:
    if isinstance(operand, float) and math.isnan(operand):
        return False
    return type(operand) in (int, float, str) or isinstance(operand, datetime)


def value_at(document: Any, path: Sequence[str]) -> tuple[bool, Any]:
    """Whether there is a value, and the value."""
    for part in path:
        if not isinstance(document, dict):
            return False, None
        fields = document if is_plain_key(part) else _pairs(document)
        if part not in fields:
            return False, None
        document = fields[part]
    return True, document


def _pairs(document: Mapping[str, Any]) -> dict[str, Any]:
    """The pairs of a document as the server reads them: what is none is passed over."""
    pairs = document.get(PAIRS)
    found = (
        [pair for pair in pairs if isinstance(pair, list) and len(pair) == 2]
        if isinstance(pairs, list)
        else []
    )
    return {key: value for key, value in found if isinstance(key, str)}


def for_server(query: Any) -> Any:
    """A prepared filter or pipeline as MongoDB takes it: each `$at` as an `$expr`."""
    if isinstance(query, list):
        return [for_server(item) for item in query]
    if not isinstance(query, dict):
        return query
    found = {key: item if key == "$literal" else for_server(item) for key, item in query.items() if key != AT}
    if AT not in query:
        return found
    path, tests = check_at(query[AT])
    asked = {"$expr": _expression(path, tests)}
    return {"$and": [found, asked]} if found else asked


def _expression(path: Sequence[str], tests: Mapping[str, Any]) -> dict[str, Any]:
    value: Any = "$$ROOT"
    for part in path:
        value = _inside(value, part) if is_plain_key(part) else _paired(_inside(value, PAIRS), part)
    kind = {"$type": "$$value"}
    items = {
        "$cond": [
            {"$eq": [kind, _ABSENT]},
            [],
            {"$cond": [{"$eq": [kind, "array"]}, {"$concatArrays": ["$$value", ["$$value"]]}, ["$$value"]]},
        ]
    }
    conditions = []
    for name, operand in tests.items():
        if name == "$exists":
            conditions.append({("$ne" if operand else "$eq"): [kind, _ABSENT]})
        else:
            item = {"$map": {"input": items, "as": "item", "in": _item_test(name, operand)}}
            conditions.append({"$anyElementTrue": [item]})
    return {"$let": {"vars": {"value": value}, "in": {"$and": conditions}}}


def _inside(value: Any, key: str) -> dict[str, Any]:
    """What a document has under a key; nothing where it is no document."""
    fields = {"$filter": {"input": {"$objectToArray": "$$inner"}, "as": "field", "cond": {"$eq": ["$$field.k", {"$literal": key}]}}}  # fmt: skip
    first = {"$let": {"vars": {"found": fields}, "in": {"$arrayElemAt": ["$$found.v", 0]}}}
    is_document = {"$eq": [{"$type": "$$inner"}, "object"]}
    return {"$let": {"vars": {"inner": value}, "in": {"$cond": [is_document, first, "$$REMOVE"]}}}


def _paired(pairs: Any, key: str) -> dict[str, Any]:
    """What pairs have for a key; nothing where there are none."""
    fits = {"$eq": [{"$arrayElemAt": ["$$pair", 0]}, {"$literal": key}]}
    fitting = {"$filter": {"input": "$$pairs", "as": "pair", "cond": fits}}
    found = {"$map": {"input": fitting, "as": "pair", "in": {"$arrayElemAt": ["$$pair", 1]}}}
    first = {"$let": {"vars": {"found": found}, "in": {"$arrayElemAt": ["$$found", 0]}}}
    return {
        "$let": {"vars": {"pairs": pairs}, "in": {"$cond": [{"$isArray": ["$$pairs"]}, first, "$$REMOVE"]}}
    }


def _item_test(name: str, operand: Any) -> dict[str, Any]:
    literal = {"$literal": operand}
    kind = {"$type": "$$item"}
    if name == "$type":
        return {"$eq": [kind, "null"]}
    if name == "$regex":
        found = {"$regexMatch": {"input": "$$item", "regex": literal}}
        return {"$cond": [{"$eq": [kind, "string"]}, found, False]}
    if name in ("$eq", "$in"):
        return {name: ["$$item", literal]}
    if isinstance(operand, str):
        same_kind: dict[str, Any] = {"$eq": [kind, "string"]}
    elif isinstance(operand, datetime):
        same_kind = {"$eq": [kind, "date"]}
    else:
        same_kind = {"$and": [{"$in": [kind, _NUMBERS]}, {"$ne": ["$$item", math.nan]}]}
    return {"$and": [same_kind, {name: ["$$item", literal]}]}
