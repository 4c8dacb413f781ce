"""The embedded store answers its subset of queries as MongoDB does: a table of them, asked of both."""

from __future__ import annotations

import math
import re
import uuid
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from provd.common.errors import UnsupportedQuery
from provd.common.record import Message
from provd.store.interface import Store
from provd.store.open import open_store
from tests.contract.messages import START_MS, task

_MOMENT = datetime.fromtimestamp(START_MS // 1000, timezone.utc)

_USED: list[dict[str, Any]] = [
    {},
    {"x": None},
    {"x": 1, "y": "a"},
    {"x": 1.0, "y": "b"},
    {"x": True},
    {"x": False, "y": None},
    {"x": 2**40},
    {"x": 2**70},
    {"x": math.nan},
    {"x": math.inf},
    {"x": "a"},
    {"x": "A long text\nof two lines"},
    {"x": ""},
    {"x": []},
    {"x": [1, 2, 3]},
    {"x": [[1, 2], 3]},
    {"x": ["a", None]},
    {"x": [{"k": 1, "v": 2}, {"k": 2, "v": 1}]},
    {"x": [{"k": [1, 2]}, 5, {"v": None}]},
    {"x": {"k": 1, "v": 2}},
    {"x": {"v": 2, "k": 1}},
    {"x": {"k": {"v": [1, {"z": 1}]}}},
    {"x": {"0": "zero"}},
    {"x": b"bytes"},
    {"x": b"by"},
    {"x": _MOMENT},
    {"x": _MOMENT + timedelta(hours=1)},
    {"x": -5},
    {"x": 2.5},
    {"x": "é漢字"},
]


def _messages() -> list[Message]:
    messages = [
        task(
            number,
            producer=f"p{number % 3}",
            activity_id=["train", "test", None, "odd-\udcff"][number % 4],
            status=["FINISHED", "ERROR", "RUNNING", "CANCELLED"][number % 4],
            started_at=None if number % 7 == 0 else START_MS + 1000 * number,
            used=used,
            tags=["a", "b"] if number % 2 else None,
            parent_task_id="w1-00000001" if 1 < number < 10 else None,
            announced=True,
        )
        for number, used in enumerate(_USED, start=1)
    ]
    return [*messages, task(100, workflow="w2", used={"x": 1})]


@pytest.fixture(scope="module")
def asked(mongo_server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Both stores with the same records, only read from here on."""
    database = f"provd_queries_{uuid.uuid4().hex[:12]}"
    stores = (
        open_store(f"{mongo_server_url.rstrip('/')}/{database}"),
        open_store(f"sqlite:///{tmp_path_factory.mktemp('queries') / 'provd.db'}"),
    )
    for store in stores:
        store.migrate()
        assert not store.write(_messages(), received_at=START_MS).refused
    yield stores
    stores[0]._client.drop_database(database)  # type: ignore[attr-defined]
    for store in stores:
        store.close()


FILTERS: list[dict[str, Any]] = [
    {},
    {"workflow_id": "w1"},
    {"_id": "w1-00000003"},
    {"task_id": {"$in": ["w1-00000003", "w1-00000004", "no"]}},
    {"status": "ERROR", "activity_id": "test"},
    {"status": {"$ne": "ERROR"}},
    {"status": {"$nin": ["ERROR", "FINISHED"]}},
    {"status": {"$in": []}},
    {"activity_id": None},
    {"activity_id": {"$exists": False}},
    {"activity_id": {"$exists": True}},
    {"activity_id": "odd-\udcff"},
    {"activity_id": {"$gte": "t"}},
    {"activity_id": {"$lt": "tf"}},
    {"activity_id": 5},
    {"started_at": {"$gte": _MOMENT + timedelta(seconds=10)}},
    {"started_at": {"$gt": _MOMENT + timedelta(seconds=10), "$lte": _MOMENT + timedelta(seconds=20)}},
    {"started_at": {"$lt": (_MOMENT + timedelta(seconds=5)).replace(tzinfo=None)}},
    {"started_at": _MOMENT + timedelta(seconds=3, microseconds=500)},
    {"started_at": {"$gt": 5}},
    {"started_at": None},
    {"seq": {"$gt": 3, "$lt": 6.5}},
    {"seq": 5.0},
    {"seq": True},
    {"parent_task_id": "w1-00000001"},
    {"parent_task_id": {"$exists": False}},
    {"tags": "a"},
    {"tags": ["a", "b"]},
    {"tags": {"$all": ["a", "b"]}},
    {"tags": {"$size": 2}},
    {"tags.0": "a"},
    {"tags.1": {"$exists": True}},
    {"$and": [{"status": "ERROR"}, {"seq": {"$gt": 5}}]},
    {"$or": [{"status": "ERROR"}, {"seq": {"$gt": 25}}, {"used.x": 1}]},
    {"$nor": [{"status": "ERROR"}, {"used.x": {"$exists": True}}]},
    {"status": {"$not": {"$in": ["ERROR"]}}, "$comment": "why"},
    {"status": {"$not": {"$regex": "^E"}}},
    {"status": re.compile("err", re.IGNORECASE)},
    {"status": {"$in": [re.compile("^F"), "ERROR"]}},
    {"used.x": {"$regex": "^a", "$options": "i"}},
    {"used.x": {"$regex": "^of", "$options": "m"}},
    {"used.x": {"$regex": "text.of", "$options": "s"}},
    {"used.x": {"$elemMatch": {"k": 1, "v": 2}}},
    {"used.x": {"$elemMatch": {"k": 2, "v": 2}}},
    {"used.x": {"$elemMatch": {"$gt": 1, "$lt": 3}}},
    {"used.x": {"$elemMatch": {"$or": [{"k": 2}, {"v": None}]}}},
    {"used.x": {"$all": [{"$elemMatch": {"k": 1}}, {"$elemMatch": {"k": 2}}]}},
    {"used.x": {"$not": {"$gt": 1}}},
    {"used.x": {"$not": {"$elemMatch": {"k": 1}}}},
    {"used.x": {"$not": {"$size": 3}}},
    {"used.x": {"$mod": [2, 1]}},
    {"used.x": {"$mod": [3, -2]}},
    {"used.x": {"$size": 0}},
    {"used.x": {"$all": []}},
    {"used.x": {"$all": [[1, 2]]}},
    {"used.x": {"$all": [None]}},
    {"used.x": {"$type": "number"}},
    {"used.x": {"$type": ["string", "array"]}},
    {"used.x": {"$type": "long"}},
    {"used.x": {"$type": 16}},
    {"used.x": {"$type": "null"}},
    {"used.x": {"$type": "binData"}},
    {"used.x": {"$type": "date"}},
    {"used": {}},
    {"used": {"x": 1, "y": "a"}},
    {"used": {"y": "a", "x": 1}},
    {"used.x.k.v.z": 1},
    {"used.x.k.v": 1},
    {"used.x.0.k": 1},
    {"used.x.0": {"$exists": True}},
    {"used.x.0.0": 1},
]  # fmt: skip

_OPERANDS: list[Any] = [
    None, 0, 1, 1.0, 2, 3, -5, 2.5, True, False, "", "a", "b", "é漢字", [], [1, 2, 3], [1, 2], [3], ["a", None], {},
    {"k": 1, "v": 2}, {"v": 2, "k": 1}, {"k": 1}, b"by", b"zz", _MOMENT, 2**40, 2**70, math.nan, math.inf, -math.inf,
]  # fmt: skip
_PATHS = [
    "used.x",
    "used.x.k",
    "used.x.v",
    "used.x.0",
    "used.x.1",
    "used.x.0.k",
    "used.x.k.v",
    "used.y",
    "used.x.z.q",
]


def _found(store: Store, query: dict[str, Any]) -> list[str]:
    return sorted(found["task_id"] for found in store.find("tasks", query, fields=["task_id"]))


@pytest.mark.parametrize("query", FILTERS, ids=repr)
def test_a_filter_finds_the_same_in_both_stores(asked: tuple[Store, Store], query: dict[str, Any]) -> None:
    mongo, embedded = asked

    assert _found(embedded, query) == _found(mongo, query)
    assert embedded.count("tasks", query) == mongo.count("tasks", query)


@pytest.mark.parametrize("operator", ["$eq", "$ne", "$gt", "$gte", "$lt", "$lte"])
@pytest.mark.parametrize("path", _PATHS)
def test_every_comparison_finds_the_same_in_both_stores(
    asked: tuple[Store, Store], path: str, operator: str
) -> None:
    mongo, embedded = asked

    wrong = [
        operand
        for operand in _OPERANDS
        if _found(embedded, {path: {operator: operand}}) != _found(mongo, {path: {operator: operand}})
    ]

    assert wrong == []


_CONDITIONS = st.one_of(
    st.sampled_from(_OPERANDS),
    st.builds(lambda name, operand: {name: operand}, st.sampled_from(["$gt", "$lte", "$ne", "$eq"]), st.sampled_from(_OPERANDS)),
    st.builds(lambda name, items: {name: items}, st.sampled_from(["$in", "$nin", "$all"]), st.lists(st.sampled_from(_OPERANDS), max_size=3)),
    st.builds(lambda wanted: {"$exists": wanted}, st.booleans()),
    st.builds(lambda name: {"$type": name}, st.sampled_from(["string", "number", "object", "array", "null", "bool", "int", "double"])),
    st.builds(lambda operand: {"$not": {"$gte": operand}}, st.sampled_from(_OPERANDS)),
    st.builds(lambda operand: {"$elemMatch": {"$eq": operand}}, st.sampled_from(_OPERANDS)),
    st.builds(lambda path, operand: {"$elemMatch": {path: operand}}, st.sampled_from(["k", "v", "0"]), st.sampled_from(_OPERANDS)),
)  # fmt: skip
_QUERIES = st.recursive(
    st.dictionaries(st.sampled_from([*_PATHS, "tags", "used"]), _CONDITIONS, min_size=1, max_size=2),
    lambda inner: st.builds(
        lambda name, parts: {name: parts},
        st.sampled_from(["$and", "$or", "$nor"]),
        st.lists(inner, min_size=1, max_size=2),
    ),
    max_leaves=3,
)


@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    derandomize=True,
)
@given(query=_QUERIES)
def test_any_filter_of_the_subset_finds_the_same_in_both_stores(
    asked: tuple[Store, Store], query: dict[str, Any]
) -> None:
    mongo, embedded = asked

    assert _found(embedded, query) == _found(mongo, query)


@pytest.mark.parametrize("direction", [1, -1])
@pytest.mark.parametrize(
    "field",
    ["activity_id", "started_at", "seq", "_id", "status", "used.x", "used.x.k", "used.x.0", "tags", "used"],
)
def test_a_sort_gives_the_same_order_in_both_stores(
    asked: tuple[Store, Store], field: str, direction: int
) -> None:
    mongo, embedded = asked
    order = [(field, direction), ("seq", 1)] if field != "seq" else [("seq", direction)]

    expected = [found["seq"] for found in mongo.find("tasks", {}, sort=order)]

    assert [found["seq"] for found in embedded.find("tasks", {}, sort=order)] == expected
    first = [found["seq"] for found in embedded.find("tasks", {"seq": {"$lt": 50}}, sort=order, limit=7)]
    assert first == [found["seq"] for found in mongo.find("tasks", {"seq": {"$lt": 50}}, sort=order, limit=7)]


@pytest.mark.parametrize(
    "fields",
    [
        ["used"],
        ["used.x.k", "used"],
        ["used.x.k"],
        ["used.x.k.v.z", "status"],
        ["tags.0"],
        ["used.y", "started_at"],
        [],
    ],
    ids=repr,
)
def test_a_projection_keeps_the_same_in_both_stores(asked: tuple[Store, Store], fields: list[str]) -> None:
    mongo, embedded = asked
    query = {"seq": {"$nin": [9]}}  # NaN does not equal itself

    expected = list(mongo.find("tasks", query, fields=fields, sort=[("seq", 1)]))

    assert list(embedded.find("tasks", query, fields=fields, sort=[("seq", 1)])) == expected


_W1 = {"$match": {"workflow_id": "w1"}}
PIPELINES: list[list[dict[str, Any]]] = [
    [],
    [_W1, {"$sort": {"seq": 1}}, {"$skip": 3}, {"$limit": 4}],
    [_W1, {"$match": {"used.x": {"$gt": 0}}}, {"$count": "n"}],
    [{"$match": {"workflow_id": "none"}}, {"$count": "n"}],
    [_W1, {"$group": {"_id": "$status", "n": {"$sum": 1}}}],
    [_W1, {"$group": {"_id": "$activity_id", "n": {"$sum": 1}, "first": {"$min": "$started_at"}}}],
    [_W1, {"$group": {"_id": None, "first": {"$min": "$started_at"}, "last": {"$max": "$ended_at"}}}],
    [_W1, {"$group": {"_id": None, "total": {"$sum": "$duration"}, "mean": {"$avg": "$duration"}}}],
    [_W1, {"$group": {"_id": {"a": "$activity_id", "s": "$status"}, "n": {"$sum": 1}, "d": {"$sum": "$duration"}}}],
    [{"$group": {"_id": {"w": "$workflow_id", "p": "$producer_id"}, "n": {"$sum": 1}, "m": {"$max": "$seq"}}}],
    [{"$group": {"_id": "$workflow_id", "failed": {"$sum": {"$cond": [{"$eq": ["$status", "ERROR"]}, 1, 0]}}}}],
    [_W1, {"$group": {"_id": {"p": "$parent_task_id", "in": {"y": "$used.y"}}, "n": {"$sum": 1}}}],
    [_W1, {"$group": {"_id": {"p": "$parent_task_id"}, "n": {"$sum": 1}}}, {"$match": {"_id.p": {"$exists": False}}}],
    [_W1, {"$group": {"_id": {"a": "$activity_id"}, "s": {"$max": "$duration"}}}, {"$project": {"a": "$_id.a"}}],
    [_W1, {"$sort": {"seq": 1}}, {"$group": {"_id": "$status", "a": {"$first": "$seq"}, "z": {"$last": "$seq"}}}],
    [_W1, {"$sort": {"seq": 1}}, {"$group": {"_id": "$status", "all": {"$push": "$seq"}}}],
    [_W1, {"$unwind": "$tags"}, {"$group": {"_id": "$tags", "n": {"$sum": 1}}}],
    [_W1, {"$project": {"status": 1, "seq": 1}}, {"$match": {"status": "ERROR"}}],
    [_W1, {"$project": {"_id": 0, "double": {"$multiply": ["$seq", 2]}, "s": "$status"}}],
    [_W1, {"$addFields": {"wait": {"$subtract": ["$seq", 1]}}}, {"$project": {"wait": 1}}],
    [_W1, {"$match": {"seq": 3}}, {"$replaceRoot": {"newRoot": "$used"}}],
]  # fmt: skip


@pytest.mark.parametrize("pipeline", PIPELINES, ids=repr)
def test_a_pipeline_gives_the_same_in_both_stores(
    asked: tuple[Store, Store], pipeline: list[dict[str, Any]]
) -> None:
    mongo, embedded = asked

    expected = sorted(map(_comparable, mongo.aggregate("tasks", pipeline)))

    assert sorted(map(_comparable, embedded.aggregate("tasks", pipeline))) == expected


def _comparable(document: dict[str, Any]) -> str:
    return repr(sorted(document.items(), key=lambda item: item[0]))


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ({"$expr": {"$eq": ["$a", "$b"]}}, "$expr"),
        ({"$text": {"$search": "x"}}, "$text"),
        ({"used.x": {"$bitsAllSet": 1}}, "$bitsAllSet"),
        ({"$or": [{"used.x": {"$near": [1, 2]}}]}, "$near"),
        ({"used.x": {"$elemMatch": {"$jsonSchema": {}}}}, "$jsonSchema"),
    ],
    ids=repr,
)  # fmt: skip
def test_an_operator_outside_the_subset_is_named(
    asked: tuple[Store, Store], query: dict[str, Any], named: str
) -> None:
    _, embedded = asked

    with pytest.raises(UnsupportedQuery, match=rf"\{named}"):
        embedded.find("tasks", query)
    with pytest.raises(UnsupportedQuery, match=rf"\{named}"):
        embedded.aggregate("tasks", [{"$match": query}])


@pytest.mark.parametrize(
    ("stage", "named"),
    [
        ({"$lookup": {"from": "tasks"}}, "$lookup"),
        ({"$facet": {}}, "$facet"),
        ({"$group": {"_id": None, "x": {"$stdDevPop": "$seq"}}}, "$stdDevPop"),
        ({"$project": {"x": {"$dateToString": {"date": "$started_at"}}}}, "$dateToString"),
        ({"$project": {"x": "$$NOW"}}, "$$NOW"),
    ],
    ids=repr,
)  # fmt: skip
def test_a_stage_or_expression_outside_the_subset_is_named(
    asked: tuple[Store, Store], stage: dict[str, Any], named: str
) -> None:
    _, embedded = asked

    with pytest.raises(UnsupportedQuery, match=re.escape(named)):
        embedded.aggregate("tasks", [stage])


@pytest.mark.parametrize("field", ["\ud800", "used.\udcff"])
def test_a_field_that_is_not_unicode_is_found_nowhere_and_refused_as_an_order_or_a_column(
    asked: tuple[Store, Store], field: str
) -> None:
    for store in asked:
        assert list(store.find("tasks", {field: 1})) == []
        with pytest.raises(UnsupportedQuery, match="is not a field"):
            list(store.find("tasks", {}, sort=[(field, 1)]))
        with pytest.raises(UnsupportedQuery, match="is not a field"):
            list(store.find("tasks", {}, fields=[field]))
