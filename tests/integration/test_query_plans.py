"""Every question that commands ask of tasks is answered from an index: MongoDB's profiler says how."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from provd.common.record import Status
from provd.query.find import find_run
from provd.query.runs import list_runs, read_children
from provd.query.summary import summarise_run
from provd.query.tasks import TaskQuestion, find_tasks
from provd.store.books import read_books
from provd.store.interface import ConsumerMark, Store
from provd.store.open import open_store
from provd.store.unfinished import read_unfinished
from tests.builders import START_MS, ProducerBuilder

_RUNS = 4
_TASKS = 400

#: Collections with a document for each consumer: reading all of one is what is wanted.
_SMALL = ("consumers", "migrations")


@dataclass(frozen=True, slots=True)
class Profiled:
    """What the server did for one question."""

    collection: str
    plan: str
    keys: int
    documents: int
    returned: int


@pytest.fixture(scope="module")
def mongo(mongo_server_url: str) -> Iterator[Any]:
    """Four runs of 400 tasks each, two producers a run; some failed, some run on without a sign of life."""
    store: Any = open_store(f"{mongo_server_url.rstrip('/')}/provd_plans")
    store.migrate()
    for number in range(_RUNS):
        for part in range(2):
            one = ProducerBuilder(
                f"run{number}", f"p{number}{part}", "exp", started_at=START_MS + number
            ).open()
            if part == 0:
                one.workflow(Status.RUNNING, name="sweep" if number else "only")
            for place in range(_TASKS // 2):
                status = (
                    Status.RUNNING if place > 195 else Status.ERROR if place % 40 == 0 else Status.FINISHED
                )
                activity = "train" if place % 2 else "test"
                one.task(
                    activity,
                    status,
                    after_ms=place // 2,
                    duration=place / 100,
                    stderr="bad" if status is Status.ERROR else None,
                )
            one.write(store).beat(store, START_MS + 60_000)
    now = START_MS + 10_000_000
    store.put_consumer(ConsumerMark("c1", "head", 1, "1", "idle", START_MS, now))
    yield store
    store._client.drop_database("provd_plans")
    store.close()


def profile(store: Any, ask: Callable[[Store], Any]) -> list[Profiled]:
    """Ask, and return what the server did for each question."""
    database = store._database
    database.drop_collection("system.profile")
    database.command("profile", 2)
    try:
        ask(store)
    finally:
        database.command("profile", 0)
    seen = database["system.profile"].find({"planSummary": {"$exists": True}})
    return [
        Profiled(
            one["ns"].partition(".")[2],
            one["planSummary"],
            one.get("keysExamined", 0),
            one.get("docsExamined", 0),
            one.get("nreturned", 0),
        )
        for one in seen
        if not one["ns"].endswith("system.profile")
    ]


def _tasks(limit: int = 20, **conditions: Any) -> Callable[[Store], Any]:
    return lambda store: list(find_tasks(store, TaskQuestion(**conditions), limit=limit))


_QUESTIONS: dict[str, Callable[[Store], Any]] = {
    "show": lambda store: summarise_run(store, find_run(store, "run1")),
    "show by a prefix": lambda store: summarise_run(store, find_run(store, "run1"[:4])),
    "show by a name": lambda store: find_run(store, "only"),
    "verify": lambda store: read_books(store, "run1"),
    "tail": list_runs,
    "child runs": lambda store: read_children(store, "run1"),
    "tail of a campaign": lambda store: list_runs(store, campaign_id="exp"),
    "tasks of a run": _tasks(workflow_id="run1"),
    "all tasks of a run": _tasks(0, workflow_id="run1"),
    "tasks by status": _tasks(workflow_id="run1", statuses=("ERROR",)),
    "tasks by statuses": _tasks(workflow_id="run1", statuses=("ERROR", "FINISHED")),
    "tasks that are lost": _tasks(workflow_id="run1", statuses=("LOST",)),
    "tasks by activity": _tasks(workflow_id="run1", activity_id="train"),
    "tasks by activity and status": _tasks(workflow_id="run1", activity_id="train", statuses=("FINISHED",)),
    "tasks of a campaign": _tasks(campaign_id="exp", statuses=("ERROR",)),
}


@pytest.mark.parametrize("question", _QUESTIONS)
def test_no_command_reads_a_whole_collection(mongo: Any, question: str) -> None:
    done = profile(mongo, _QUESTIONS[question])

    assert done
    assert [one for one in done if "COLLSCAN" in one.plan and one.collection not in _SMALL] == []


@pytest.mark.parametrize(
    "question",
    [
        "tasks of a run",
        "tasks by status",
        "tasks by statuses",
        "tasks by activity",
        "tasks by activity and status",
    ],
)
def test_tasks_are_found_in_order_and_hardly_any_is_read_that_is_not_given(mongo: Any, question: str) -> None:
    done = [one for one in profile(mongo, _QUESTIONS[question]) if one.collection == "tasks"]

    assert all(one.documents <= one.returned + 8 for one in done), done
    assert all(one.keys <= 2 * one.returned + 30 for one in done), done


def test_a_run_is_summarised_without_reading_its_tasks(mongo: Any) -> None:
    done = [one for one in profile(mongo, _QUESTIONS["show"]) if one.collection == "tasks"]

    failed_and_running = 2 * (5 + 4)
    assert sum(one.documents for one in done) <= 2 * failed_and_running, done
    assert sum(one.keys for one in done) <= 2 * _TASKS + 4 * failed_and_running, done


def test_the_books_count_tasks_without_reading_any(mongo: Any) -> None:
    done = [one for one in profile(mongo, _QUESTIONS["verify"]) if one.collection == "tasks"]

    assert [one.documents for one in done] == [0]


def test_the_status_of_all_runs_reads_no_task_and_the_ledgers_of_the_latest_alone(mongo: Any) -> None:
    done = profile(mongo, lambda store: read_unfinished(store, among=2))

    assert [one for one in done if one.collection == "tasks"] == []
    (ledger,) = (one for one in done if one.collection == "ledger")
    assert "IXSCAN" in ledger.plan
    assert ledger.documents == ledger.returned
