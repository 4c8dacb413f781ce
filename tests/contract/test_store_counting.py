"""Counts and times of tasks, which both stores read from indexes, are those of the tasks themselves."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from provd.common.errors import StoreUnavailable
from provd.store.interface import Store
from provd.store.open import open_store
from tests.contract.messages import START_MS, task
from tests.services.mongo_server import MongoServer

Both = tuple[Store, Store]
_STATUSES = ["FINISHED", "ERROR", "RUNNING", None]


def _fill(store: Store, count: int = 60) -> None:
    messages = [
        task(
            number,
            producer=f"p{number % 3}",
            activity_id=["train", "test", None, "odd-\udcff"][number % 4],
            status=_STATUSES[number % 3 if number % 7 else 3],
            started_at=None if number % 11 == 0 else START_MS + 1000 * number,
            duration=None if number % 5 == 0 else [0.5, 2, math.nan, 0.25][number % 4] * number,
        )
        for number in range(1, count + 1)
    ]
    assert not store.write([*messages, task(1000, workflow="w2")], received_at=START_MS).refused


def _times(store: Store, **options: Any) -> dict[tuple[Any, Any], tuple[int, list[float]]]:
    """Tasks and sorted durations by activity and status, whatever pieces they came in."""
    found: dict[tuple[Any, Any], tuple[int, list[float]]] = {}
    for piece in store.task_times("w1", **options):
        tasks, seconds = found.get((piece.activity_id, piece.status), (0, []))
        more = [one for one in piece.seconds if one is not None and math.isfinite(one)]
        found[piece.activity_id, piece.status] = tasks + piece.tasks, sorted([*seconds, *more])
    return found


@pytest.mark.parametrize("expected", [0, 10_000_000], ids=["few", "very many"])
def test_times_are_those_of_the_tasks_in_one_answer_or_in_many(store: Store, expected: int) -> None:
    _fill(store)
    tasks = list(store.find("tasks", {"workflow_id": "w1"}))

    times = _times(store, expected=expected)

    wanted: dict[tuple[Any, Any], tuple[int, list[float]]] = {}
    for one in tasks:
        group = one.get("activity_id"), one.get("status")
        count, seconds = wanted.get(group, (0, []))
        duration = one.get("duration", math.nan)
        wanted[group] = count + 1, sorted([*seconds, *([duration] if math.isfinite(duration) else [])])
    assert len(tasks) == 60
    assert times == wanted


def test_an_unknown_workflow_has_no_times(store: Store) -> None:
    assert list(store.task_times("none")) == []
    assert list(store.task_times("none", expected=10_000_000)) == []


@pytest.mark.parametrize(
    "fields", [["status"], ["activity_id", "status"], ["producer_id", "duration"]], ids=repr
)
@pytest.mark.parametrize(
    "query",
    [{"workflow_id": "w1"}, {"status": {"$in": ["ERROR", None]}}, {"used.epochs": {"$gt": 30}}],
    ids=repr,
)
def test_counts_by_fields_are_those_of_the_documents(
    store: Store, query: dict[str, Any], fields: list[str]
) -> None:
    _fill(store)

    counts = store.count_by("tasks", query, fields)

    documents = store.find("tasks", query)
    wanted = Counter(repr(tuple(document.get(field) for field in fields)) for document in documents)
    assert {repr(key): count for key, count in counts.items()} == wanted or (
        "duration" in fields and sum(counts.values()) == sum(wanted.values())  # a NaN is equal to none
    )


@pytest.mark.parametrize("duration", ["long", [0.5], {"s": 1}, True, 2**70], ids=repr)
def test_a_duration_that_is_no_number_harms_only_its_own_record(store: Store, duration: Any) -> None:
    written = store.write([task(1), task(2, duration=duration), task(3)], received_at=START_MS)

    assert (written.stored, [refusal.message.seq for refusal in written.refused]) == (2, [2])
    assert "duration" in written.refused[0].reason


def test_a_closed_store_says_so_when_it_is_asked_for_times(store: Store) -> None:
    store.close()

    with pytest.raises(StoreUnavailable):
        list(store.task_times("w1"))


def test_times_that_do_not_fit_an_answer_are_asked_for_in_parts(
    private_mongo: Callable[..., MongoServer],
) -> None:
    """A server that packs no more than a few numbers halves every window, down to tasks of one millisecond."""
    server = private_mongo(parameters={"internalQueryMaxPushBytes": "200"})
    store = open_store(server.database_url("provd"))
    store.migrate()
    messages = [
        task(number, started_at=START_MS + (number if number < 100 else 50), duration=number / 8)
        for number in range(1, 200)
    ]
    store.write([*messages, task(500, started_at=None, duration=None)], received_at=START_MS)

    pieces = list(store.task_times("w1"))

    seconds = sorted(one for piece in pieces for one in piece.seconds if one is not None)
    assert sum(piece.tasks for piece in pieces) == 200
    assert seconds == [number / 8 for number in range(1, 200)]
    assert len(pieces) > 10
    store.close()
