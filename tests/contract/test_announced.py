"""Announced tasks: whatever comes when and however often, the document is what the merge rule says (G3)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from itertools import permutations
from typing import Any

import pytest

from provd.common.record import Message, from_document, merge
from provd.store.documents import stated
from provd.store.interface import Store
from tests.contract.messages import START_MS, task, without

#: Messages about one task, by what they say; the ends know that something went before them.
SAYINGS: dict[str, dict[str, Any]] = {
    "submitted": {"status": "SUBMITTED", "submitted_at": START_MS - 50, "started_at": None, "duration": None},
    "running": {"status": "RUNNING", "duration": None, "announced": True},
    "silent": {"status": None, "started_at": None, "duration": None},
    "skipped": {"status": "SKIPPED", "started_at": None, "announced": True},
    "finished": {"status": "FINISHED", "generated": {"loss": 0.5}, "announced": True},
    "failed": {"status": "ERROR", "started_at": None, "stderr": "no", "announced": True},
    "later": {"status": "FINISHED", "submitted_at": START_MS - 20, "announced": True},
}  # fmt: skip

STORIES = [
    ("submitted", "running", "finished"),
    ("running", "finished", "failed"),
    ("submitted", "finished", "failed"),
    ("submitted", "skipped", "later"),
    ("running", "failed"),
    ("silent", "finished", "running"),
]


def say(name: str, number: int) -> Message:
    """One of the messages, always with the same place in the books."""
    place = list(SAYINGS).index(name) + 1
    fields = {
        "number": number,
        "ended_at": None,
        **SAYINGS[name],
        "started_at": SAYINGS[name].get("started_at", START_MS + place),
    }
    return task(100 * number + place, **fields)


def expected(messages: Sequence[Message]) -> dict[str, Any]:
    return without(reduce(merge, (stated(message)[0] for message in messages)), "_id")


@pytest.mark.parametrize("together", [True, False], ids=["together", "one by one"])
@pytest.mark.parametrize("story", STORIES, ids="-".join)
def test_an_announced_task_is_what_the_rule_says_in_any_order(
    store: Store, story: tuple[str, ...], together: bool
) -> None:
    orders = [order * 2 for order in permutations(story)]
    told = [[say(name, number) for name in order] for number, order in enumerate(orders, start=1)]
    if together:
        store.write([message for messages in told for message in messages], received_at=START_MS)
    else:
        for step in zip(*told, strict=True):
            store.write(step, received_at=START_MS)

    found = {one["task_id"]: from_document(one) for one in store.find("tasks", {})}
    for messages in told:
        wanted = expected(messages)
        assert without(found[wanted["task_id"]], "received_at") == wanted


def test_the_end_of_a_task_does_not_take_the_place_of_another_workflows(store: Store) -> None:
    task_id = "w1-00000001"
    store.write([task(1, status="RUNNING", task_id=task_id)], received_at=START_MS)

    written = store.write(
        [task(2, workflow="w2", task_id=task_id, announced=True), task(3, announced=True)],
        received_at=START_MS,
    )

    assert [one.message.workflow_id for one in written.refused] == ["w2"]
    assert {one["workflow_id"] for one in store.find("tasks", {})} == {"w1"}


def test_a_task_of_an_unknown_status_is_refused_alone(store: Store) -> None:
    """Readers ask the index for each status there is: it would be in no list of the latest tasks."""
    written = store.write([task(1), task(2, status="WEIRD"), task(3)], received_at=START_MS)

    assert [(one.message.seq, "WEIRD" in one.reason) for one in written.refused] == [(2, True)]
    assert written.stored == 2
