"""`provd query` on both stores: filters and aggregations that read, within a time and a number of rows."""

from __future__ import annotations

import json
from typing import Any

import pytest
from typer.testing import Result

from provd.common import values
from provd.common.errors import QueryTimeout
from provd.store.interface import Store
from tests.builders import ProducerBuilder, finished_run
from tests.integration.commands import Provd


def lines_of(result: Result) -> list[dict[str, Any]]:
    """The JSON documents that a command printed, one a line."""
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_a_pipeline_is_run_and_shown(store: Store, provd: Provd) -> None:
    finished_run(store, failing=2)
    pipeline = (
        '[{"$match": {"started_at": {"$gte": {"$date": "2026-11-20T14:00:00Z"}}}},'
        ' {"$group": {"_id": "$activity_id", "n": {"$sum": 1}, "longest": {"$max": "$duration"}}}, {"$sort": {"_id": 1}}]'
    )

    found = lines_of(provd("query", "tasks", "--pipeline", pipeline, "--json"))
    table = provd("query", "tasks", "--pipeline", pipeline).stdout

    assert found == [{"_id": "evaluate", "n": 2, "longest": 0.01}, {"_id": "train", "n": 4, "longest": 0.4}]
    assert [line.split() for line in table.splitlines()] == [
        ["_id", "n", "longest"], ["evaluate", "2", "0.01"], ["train", "4", "0.4"],
    ]  # fmt: skip


def test_a_pipeline_gives_so_many_rows_and_says_that_there_are_more(store: Store, provd: Provd) -> None:
    finished_run(store)

    result = provd("query", "tasks", "--pipeline", '[{"$sort": {"seq": 1}}]', "-n", "2", "--json")

    assert len(lines_of(result)) == 2
    assert "there are more" in result.stderr
    assert len(lines_of(provd("query", "tasks", "--pipeline", "[]", "-n", "0", "--json"))) == 5


def test_keys_with_dots_are_asked_for_by_at(store: Store, provd: Provd) -> None:
    part = ProducerBuilder("w1", "p1")
    part.task(used={"model.pt": 7})
    part.task(used={"model.pt": 3})
    part.write(store)
    wanted = '{"$at": [["used", "model.pt"], {"$gt": 5}]}'

    assert len(lines_of(provd("query", "tasks", wanted, "--json"))) == 1
    counted = provd("query", "tasks", "--pipeline", f'[{{"$match": {wanted}}}, {{"$count": "n"}}]', "--json")
    assert lines_of(counted) == [{"n": 1}]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (['{"$where": "1"}'], "$where is refused: it runs code"),
        (['{"a": {"$elemMatch": {"$function": {}}}}'], "$function is refused"),
        (['{"$expr": {"$accumulator": {}}}'], "$accumulator is refused"),
        (["--pipeline", '[{"$out": "tasks"}]'], "$out is refused: it writes"),
        (["--pipeline", '[{"$facet": {"a": [{"$merge": "tasks"}]}}]'], "$merge is refused: it writes"),
        (["--pipeline", '[{"$currentOp": {}}]'], "$currentOp is refused"),
        (
            ["--pipeline", '[{"$lookup": {"from": "system.users", "as": "x", "pipeline": []}}]'],
            "'system.users'",
        ),
        (["--pipeline", '[{"$match": }]'], "column 13"),
        (["--pipeline", '{"$match": {}}'], "not a JSON list"),
        (["{}", "--pipeline", "[]", "--sort", "a"], "--pipeline has stages for that"),
        (["{}", "--timeout", "0"], "--timeout"),
        (["{}", "--timeout", "600"], "--timeout"),
    ],
)
def test_what_does_not_only_read_is_refused_with_a_reason(
    store: Store, provd: Provd, args: list[str], words: str
) -> None:
    finished_run(store)

    result = provd("query", "tasks", *args)

    assert (result.exit_code, result.stdout) == (2, "")
    assert words in result.stderr
    assert store.count("tasks", {}) == 5


def test_a_stage_that_the_embedded_store_does_not_know_is_named(
    store: Store, store_url: str, provd: Provd
) -> None:
    finished_run(store)

    result = provd(
        "query", "tasks", "--pipeline", '[{"$bucketAuto": {"groupBy": "$seq", "buckets": 2}}]', "--json"
    )

    if store_url.startswith("sqlite"):
        assert (result.exit_code, "$bucketAuto" in result.stderr) == (2, True)
    else:
        assert len(lines_of(result)) == 2


def test_a_question_that_takes_too_long_is_given_up(store: Store, provd: Provd) -> None:
    part = ProducerBuilder("w1", "p1")
    for number in range(1000):  # some seconds' work
        part.task(used={"text": "ab" * 5000, "n": number})
    part.write(store)
    slow = {"$or": [{"used.text": {"$regex": f"b{letter}+$"}} for letter in "cdefghijklmnop"]}

    with pytest.raises(QueryTimeout):
        list(store.find("tasks", slow, timeout_s=0.001))
    with pytest.raises(QueryTimeout):
        list(store.aggregate("tasks", [{"$match": slow}], timeout_s=0.001))
    result = provd("query", "tasks", values.to_json(slow), "--timeout", "0.01")

    assert (result.exit_code, result.stdout) == (1, "")
    assert "took longer than 0.01 s" in result.stderr
    assert store.count("tasks", {}) == 1000
