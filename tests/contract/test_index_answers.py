"""What stores answer from indexes alone is what a plain reading of all messages gives, whatever the tasks are like."""

from __future__ import annotations

from collections import Counter
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from provd.common.record import STATUSES, Message, from_document
from provd.query.latest import latest_first
from provd.query.lineage import trace
from provd.store import mongo_times
from provd.store.interface import Store
from tests.contract.messages import START_MS, task, workflow_message

_TASKS = st.lists(
    st.fixed_dictionaries(
        {
            "workflow": st.integers(0, 2),
            "activity_id": st.sampled_from(["train", "test", None, "odd-\udcff", ""]),
            "status": st.sampled_from([*STATUSES, None]),
            "started_at": st.sampled_from([None, *range(START_MS, START_MS + 4), START_MS + 60_000, -5]),
            "duration": st.sampled_from([None, 0, 2, 0.25, 1e300, -0.5]),
        }
    ),
    max_size=14,
)
_STARTS = [None, START_MS, START_MS + 2]

_EXAMPLES = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

_rounds = count()


def _write(store: Store, facts: list[dict[str, Any]]) -> tuple[str, list[Message]]:
    """Tasks of workflows and a campaign that no other example has."""
    name = f"r{next(_rounds)}"
    messages = [
        task(
            number,
            **{**one, "workflow": f"{name}w{one['workflow']}"},
            campaign_id=f"{name}c",
        )
        for number, one in enumerate(facts, start=1)
    ]
    owners = [
        workflow_message(100 + one, workflow=f"{name}w{one}", campaign_id=f"{name}c") for one in range(3)
    ]
    assert not store.write([*messages, *owners], received_at=START_MS).refused
    return name, messages


def _rank(message: Message) -> tuple[bool, int, str]:
    started_at = message.record.get("started_at")
    return started_at is not None, started_at or 0, message.record["task_id"]


@_EXAMPLES
@given(facts=_TASKS, limit=st.integers(0, 8), status=st.sampled_from([None, "ERROR", "RUNNING"]))
def test_the_latest_tasks_are_the_latest(
    store: Store, facts: list[dict[str, Any]], limit: int, status: str | None
) -> None:
    name, messages = _write(store, facts)
    asked = [message for message in messages if status in (None, message.record.get("status"))]
    for where, some in (
        ({"workflow_id": f"{name}w1"}, [one for one in asked if one.workflow_id == f"{name}w1"]),
        ({"campaign_id": f"{name}c"}, asked),
    ):
        found = latest_first(store, where if status is None else {**where, "status": status}, limit=limit)

        wanted = [one.record["task_id"] for one in sorted(some, key=_rank, reverse=True)]
        assert [one["task_id"] for one in found] == wanted[: limit or None]


@_EXAMPLES
@given(facts=_TASKS, expected=st.sampled_from([0, 1, 4, 100]))
def test_times_and_counts_are_those_of_the_tasks(
    store: Store, facts: list[dict[str, Any]], expected: int
) -> None:
    name, messages = _write(store, facts)
    of_this = [one.record for one in messages if one.workflow_id == f"{name}w1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mongo_times, "_WINDOW_TASKS", 2)
        pieces = list(store.task_times(f"{name}w1", expected=expected))

    groups = Counter((one.get("activity_id"), one.get("status")) for one in of_this)
    tasks: Counter[Any] = Counter()
    seconds: Counter[Any] = Counter()
    for piece in pieces:
        tasks[piece.activity_id, piece.status] += piece.tasks
        seconds.update((piece.activity_id, piece.status, one) for one in piece.seconds if one is not None)
    assert tasks == groups
    assert seconds == Counter(
        (one.get("activity_id"), one.get("status"), one["duration"]) for one in of_this if "duration" in one
    )
    where = {"workflow_id": f"{name}w1"}
    assert store.count_by("tasks", where, ["activity_id", "status"]) == groups
    starts = {
        from_document({"started_at": key})["started_at"]: number
        for (key,), number in store.count_by("tasks", where, ["started_at"]).items()
    }
    assert starts == Counter(one.get("started_at") for one in of_this)


_VALUES = st.recursive(
    st.sampled_from(
        [
            1,
            "provd.File",
            {"type": "provd.Key", "key": "a"},
            {"type": "provd.Key", "key": "b"},
            {"type": "provd.Key", "key": 5},
            {"type": "m", "object": "OBJECT", "version": 1},
            {"type": "m", "object": "OBJECT", "version": 2},
        ]
    ),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["x", "type"]), inner, max_size=2)
    ),
    max_leaves=4,
)


def _placed(value: Any, round_: int) -> Any:
    """The value with an object that no other example has."""
    if isinstance(value, dict):
        return {key: _placed(item, round_) for key, item in value.items()}
    if isinstance(value, list):
        return [_placed(item, round_) for item in value]
    return f"{round_:022d}#7" if value == "OBJECT" else value


def _named(value: Any) -> set[Any]:
    """What can be followed in a value, by a plain walk."""
    if isinstance(value, list):
        return {one for item in value for one in _named(item)}
    if not isinstance(value, dict):
        return set()
    inside = {one for item in value.values() for one in _named(item)}
    if value.get("type") == "provd.Key" and isinstance(value.get("key"), str):
        return inside | {value["key"]}
    return inside | ({(value["object"], value["version"])} if "object" in value else set())


@_EXAMPLES
@given(made=st.lists(_VALUES, max_size=3), used=st.lists(_VALUES, max_size=3))
def test_a_task_depends_on_those_that_made_what_it_used(
    store: Store, made: list[Any], used: list[Any]
) -> None:
    number_of_round = next(_rounds)
    workflow = f"r{number_of_round}"
    made, used = _placed(made, number_of_round), _placed(used, number_of_round)
    messages = [
        task(number, workflow=workflow, generated={"out": one}) for number, one in enumerate(made, start=1)
    ]
    last = task(50, workflow=workflow, used={"in": used})
    store.write([*messages, last], received_at=START_MS)

    edges = trace(store, last.record["task_id"], depth=1).edges

    wanted = {
        message.record["task_id"]
        for message, one in zip(messages, made, strict=True)
        if _named(one) & _named(used)
    }
    assert {edge.source for edge in edges} == wanted
