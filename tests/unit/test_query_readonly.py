"""What a query may say: only what reads, wherever it stands."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provd.common.errors import UnsupportedQuery
from provd.query.readonly import (
    EXPRESSIONS,
    QUERY_OPERATORS,
    REASONS,
    STAGES,
    check_filter,
    check_pipeline,
)

_FORBIDDEN = [
    "$where", "$function", "$accumulator", "$out", "$merge", "$currentOp", "$listSessions", "$listLocalSessions",
    "$collStats", "$indexStats", "$planCacheStats", "$changeStream", "$documents", "$text", "$near", "$unheardOf",
]  # fmt: skip


def _inside(bad: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """Pipelines that have it somewhere."""
    sub = [{"$match": {"a": 1}}, bad]
    return [
        [bad],
        [{"$match": {"status": "ERROR"}}, bad],
        [{"$facet": {"x": sub}}],
        [{"$facet": {"x": [{"$facet": {"y": sub}}]}}],
        [{"$lookup": {"from": "tasks", "as": "x", "pipeline": sub}}],
        [{"$lookup": {"from": "tasks", "as": "x", "let": {"v": bad}, "pipeline": []}}],
        [{"$unionWith": {"coll": "tasks", "pipeline": [{"$lookup": {"from": "beats", "as": "x", "pipeline": sub}}]}}],
        [{"$graphLookup": {"from": "tasks", "startWith": bad, "connectFromField": "a", "connectToField": "b", "as": "c"}}],
        [{"$graphLookup": {"from": "tasks", "startWith": "$a", "connectFromField": "a", "connectToField": "b", "as": "c", "restrictSearchWithMatch": bad}}],
        [{"$match": {"$expr": bad}}],
        [{"$match": {"a": {"$elemMatch": bad}}}],
        [{"$match": {"$or": [{"a": 1}, {"$and": [bad]}]}}],
        [{"$project": {"x": {"$cond": [True, bad, 1]}}}],
        [{"$group": {"_id": "$a", "x": bad}}],
        [{"$group": {"_id": "$a", "x": {"$sum": {"$map": {"input": "$b", "as": "c", "in": bad}}}}}],
        [{"$addFields": {"a.b": {"$let": {"vars": {"v": 1}, "in": bad}}}}],
        [{"$setWindowFields": {"sortBy": {"a": 1}, "output": {"x": bad}}}],
        [{"$replaceWith": bad}],
        [{"$redact": bad}],
    ]  # fmt: skip


@pytest.mark.parametrize("name", _FORBIDDEN)
def test_what_writes_runs_code_or_looks_at_the_server_is_refused_wherever_it_stands(name: str) -> None:
    for pipeline in _inside({name: {"body": "function() {}", "into": "tasks"}}):
        with pytest.raises(UnsupportedQuery) as caught:
            check_pipeline(pipeline)
        assert name in str(caught.value), pipeline
        if name in REASONS:
            assert REASONS[name] in str(caught.value)
    for where in (
        {name: "1"},
        {"a": {name: 1}},
        {"$expr": {"$gt": [{name: 1}, 0]}},
        {"$nor": [{"a": {"$not": {name: 1}}}]},
    ):
        with pytest.raises(UnsupportedQuery):
            check_filter(where)


@pytest.mark.parametrize(
    "pipeline",
    [
        [{"$match": {"status": "ERROR", "$expr": {"$gt": ["$duration", "$used.limit"]}}}],
        [{"$group": {"_id": "$hostname", "p": {"$push": "$$ROOT"}, "n": {"$sum": 1}}}, {"$sort": {"n": -1}}, {"$limit": 3}],
        [{"$lookup": {"from": "producers", "localField": "producer_id", "foreignField": "producer_id", "as": "p"}}],
        [{"$graphLookup": {"from": "tasks", "startWith": "$parent_task_id", "connectFromField": "parent_task_id", "connectToField": "task_id", "as": "up", "maxDepth": 9}}],
        [{"$unionWith": "beats"}, {"$count": "n"}],
        [{"$project": {"x": {"$literal": {"$where": "is data here"}}}}],
        [{"$setWindowFields": {"partitionBy": "$a", "sortBy": {"t": 1}, "output": {"r": {"$rank": {}}}}}],
        [{"$bucket": {"groupBy": "$duration", "boundaries": [0, 1, 10], "default": "more"}}],
        [],
    ],
)  # fmt: skip
def test_what_reads_is_taken(pipeline: list[dict[str, Any]]) -> None:
    check_pipeline(pipeline)


@pytest.mark.parametrize(
    ("pipeline", "words"),
    [
        ({"$match": {}}, "a list of stages"),
        ("$match", "a list of stages"),
        ([{}], "one operator"),
        ([{"$match": {}, "$limit": 1}], "one operator"),
        ([{"$mach": {}}], "did you mean $match"),
        ([{"$lookup": {"from": "users", "as": "x"}}], "'users'"),
        ([{"$lookup": {"from": {"db": "admin", "coll": "tasks"}, "as": "x"}}], "name of a collection"),
        ([{"$lookup": {"from": "migrations", "as": "x"}}], "'migrations'"),
        ([{"$lookup": {"from": "tasks", "as": "x", "foo": 1}}], "'foo'"),
        ([{"$unionWith": {"coll": "tasks", "db": "admin"}}], "'db'"),
        ([{"$project": {"x": "$$USER_ROLES"}}], "$$USER_ROLES"),
        ([{"$facet": [1]}], "$facet"),
        ([{"$project": {"x": {"$sim": 1}}}], "did you mean $s"),
    ],
)
def test_what_makes_no_sense_is_refused_in_words(pipeline: Any, words: str) -> None:
    with pytest.raises(UnsupportedQuery, match=words.replace("$", r"\$")):
        check_pipeline(pipeline)


def test_a_query_of_any_depth_ends_in_words() -> None:
    where: dict[str, Any] = {"a": 1}
    for _ in range(5000):
        where = {"$nor": [where]}

    with pytest.raises(UnsupportedQuery, match="deeply"):
        check_filter(where)


_NAMES = st.sampled_from([*sorted(STAGES), *sorted(QUERY_OPERATORS)[:9], *sorted(EXPRESSIONS)[:9], *_FORBIDDEN, "from", "coll", "pipeline", "as", "a"])  # fmt: skip
_ANY = st.recursive(
    st.one_of(st.none(), st.integers(), st.sampled_from(["tasks", "$a", "$$ROOT", "$$USER_ROLES"])),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_NAMES, inner, max_size=2)),
    max_leaves=12,
)


def _names(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set(value) | {
            name for key, item in value.items() if key != "$literal" for name in _names(item)
        }
    return {name for item in value for name in _names(item)} if isinstance(value, list) else set()


@given(query=_ANY)
def test_whatever_is_taken_has_nothing_in_it_that_is_not_listed(query: Any) -> None:
    for check in (check_filter, check_pipeline):
        try:
            check(query)
        except UnsupportedQuery:
            continue
        told = {name for name in _names(query) if name.startswith("$")}
        assert told <= STAGES | QUERY_OPERATORS | EXPRESSIONS
        assert not told & set(_FORBIDDEN)
