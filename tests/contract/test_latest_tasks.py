"""Tasks in the order of an index come exactly as the store would sort them (`provd.query.latest`)."""

from __future__ import annotations

import random
from typing import Any

import pytest

from provd.query.latest import LATEST_FIRST, latest_first
from provd.store.interface import Store
from tests.contract.messages import START_MS, producer_message, task, workflow_message


def _fill(store: Store) -> None:
    """Three workflows; several tasks in every millisecond, and some that have not started."""
    chance = random.Random(3)
    messages = [
        task(
            number,
            workflow=f"w{number % 3}",
            activity_id=chance.choice(["train", "test"]),
            status=chance.choice(["FINISHED", "ERROR", "RUNNING", None]),
            started_at=None if number % 10 == 0 else START_MS + chance.randrange(8),
            campaign_id="one" if number % 3 else "two",
        )
        for number in range(1, 121)
    ]
    owners = [
        workflow_message(500, workflow="w1", campaign_id="one", status="RUNNING", started_at=START_MS),
        workflow_message(500, workflow="w0", campaign_id="two", status="RUNNING", started_at=START_MS),
    ]
    # w2 has no workflow record yet: its producer alone says which campaign it is of
    hello = producer_message(500, workflow="w2", campaign_id="one", status="RUNNING", started_at=START_MS)
    # calls that were given a campaign of their own: their producers say which, or that it may be any
    calls = [
        task(number, workflow=workflow, status="FINISHED", started_at=START_MS, campaign_id=campaign_id)
        for number, workflow, campaign_id in ((601, "w0", "one"), (602, "w3", "one"), (603, "w3", "three"))
    ]
    told = [
        producer_message(501, workflow="w0", campaign_id="two", status="RUNNING", campaigns=["one", "four"]),
        producer_message(502, workflow="w3", campaign_id="two", status="RUNNING", campaigns=["*"]),
    ]
    assert not store.write([*messages, *owners, hello, *calls, *told], received_at=START_MS).refused


_FILTERS: list[dict[str, Any]] = [
    {"workflow_id": "w1"},
    {"workflow_id": "w1", "status": "ERROR"},
    {"workflow_id": "w1", "status": {"$in": ["ERROR", "FINISHED"]}},
    {"workflow_id": "w1", "activity_id": "train"},
    {"workflow_id": "w1", "used.epochs": {"$gt": 50}},
    {"workflow_id": "none"},
    {"campaign_id": "one"},
    {"campaign_id": "one", "status": "FINISHED"},
    {"campaign_id": "three"},
    {"campaign_id": "none"},
    {"activity_id": "test"},
    {},
]  # fmt: skip


@pytest.mark.parametrize("limit", [0, 1, 3, 7, 30, 1000])
def test_the_latest_tasks_are_those_that_a_sort_puts_first(store: Store, limit: int) -> None:
    _fill(store)

    for where in _FILTERS:
        wanted = list(store.find("tasks", where, sort=LATEST_FIRST, limit=limit))

        assert list(latest_first(store, where, limit=limit)) == wanted, where


def test_fields_that_are_asked_for_come_with_the_start(store: Store) -> None:
    _fill(store)

    found = list(latest_first(store, {"workflow_id": "w1"}, fields=["status"], limit=5))

    wanted = store.find(
        "tasks", {"workflow_id": "w1"}, fields=["status", "started_at"], sort=LATEST_FIRST, limit=5
    )
    assert found == list(wanted)


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("one", ["w0"]),
        ({"$eq": "four"}, ["w0"]),
        ({"$in": ["one", "*"]}, ["w0", "w3"]),
        ({"$in": ["none"]}, []),
        ({"$in": ["one", None]}, ["w0", "w2"]),
        (["one", "four"], ["w0"]),
        (None, ["w2"]),
        ({"$exists": True}, ["w0", "w3"]),
        ({"$exists": False}, ["w2"]),
        ({"$ne": "one"}, ["w2", "w3"]),
        ({"$all": ["one", "four"]}, ["w0"]),
        ({"$size": 1}, ["w3"]),
        ({"$gt": "a"}, ["w0"]),
    ],
)
def test_producers_are_found_by_the_campaigns_that_their_calls_named(
    store: Store, condition: Any, expected: list[str]
) -> None:
    _fill(store)
    where = {"campaigns": condition}

    found = store.find("producers", where, fields=["workflow_id"], sort=[("workflow_id", 1)])

    assert [one["workflow_id"] for one in found] == expected
    assert store.count("producers", where) == len(expected)
    assert store.count("producers", {"$and": [where]}) == len(expected)
    assert store.count_by("producers", where, ["workflow_id"]) == dict.fromkeys(
        [(one,) for one in expected], 1
    )
    rows = store.aggregate("producers", [{"$match": where}, {"$group": {"_id": "$workflow_id"}}])
    assert sorted(row["_id"] for row in rows) == expected
