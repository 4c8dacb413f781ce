"""The merge rule, on both stores: a document is a function of the set of messages about it."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import reduce
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from provd.common.record import Message, Record, merge, to_document
from provd.store.interface import Store
from provd.store.open import open_store
from tests.contract.messages import START_MS, task, without, workflow_message

NOW_MS = START_MS + 1_000_000

#: Every example of a property has a workflow of its own.
_fresh = itertools.count()

_SUBMITTED: dict[str, Any] = {
    "status": "SUBMITTED",
    "submitted_at": START_MS,
    "started_at": None,
    "ended_at": None,
}
_SET = [
    task(1, number=1, **_SUBMITTED),
    task(2, number=1, producer="p2", status="RUNNING", started_at=START_MS + 7, ended_at=None),
    task(
        2,
        number=1,
        producer="p0",
        status="RUNNING",
        started_at=None,
        submitted_at=START_MS + 3,
        ended_at=None,
    ),
    task(1, number=1, producer="p3", status="FINISHED", started_at=None),
    task(9, number=1, producer="p1", status="FINISHED", started_at=START_MS + 9, announced=True),
    task(4, number=1, producer="p1", status=None, started_at=START_MS + 1, submitted_at=START_MS + 2),
    task(5, number=1, producer="p9", status="ERROR", started_at=None, ended_at=None),
]


def merged(messages: Sequence[Message]) -> Record:
    records = [without(message.record, "announced") for message in messages]
    return to_document(reduce(merge, records))


class TestMerging:
    """A document is the merge of the messages about it, whatever their order, repetition and batches."""

    @pytest.mark.parametrize("size", [2, 3])
    def test_every_order_of_a_few_messages_gives_one_document(self, store: Store, size: int) -> None:
        orders = [
            order for chosen in itertools.combinations(_SET, size) for order in itertools.permutations(chosen)
        ]

        for number, order in enumerate(orders):
            for message in order:
                store.write([_renamed(message, f"w{number}")], received_at=NOW_MS)

        for number, order in enumerate(orders):
            (found,) = store.find("tasks", {"workflow_id": f"w{number}"})
            expected = merged([_renamed(message, f"w{number}") for message in order])
            assert without(found, "received_at") == expected

    @settings(
        max_examples=60,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
        derandomize=True,
    )
    @given(batches=st.lists(st.lists(st.sampled_from(_SET), max_size=5), min_size=1, max_size=5).filter(any))
    def test_any_batches_give_the_merge_of_the_set(self, store: Store, batches: list[list[Message]]) -> None:
        workflow = f"w-{next(_fresh)}"
        renamed = [[_renamed(message, workflow) for message in batch] for batch in batches]

        counted = 0
        for batch in renamed:
            written = store.write(batch, received_at=NOW_MS)
            assert written.refused == ()
            counted += written.stored + written.duplicates

        everything = [message for batch in renamed for message in batch]
        (found,) = store.find("tasks", {"workflow_id": workflow})
        assert counted == len(everything)
        assert without(found, "received_at") == merged(everything)

    def test_workflows_and_producers_merge_by_the_same_rule(self, store: Store) -> None:
        messages = [
            workflow_message(1, status="RUNNING", name="sweep", started_at=START_MS),
            workflow_message(1, producer="p2", status="SUBMITTED", name="sweep"),
            workflow_message(9, status="FINISHED", name="sweep", ended_at=START_MS + 9),
        ]

        for order in itertools.permutations(messages):
            workflow = f"w-{next(_fresh)}"
            store.write([_renamed(message, workflow) for message in order], received_at=NOW_MS)

            (found,) = store.find("workflows", {"workflow_id": workflow})
            assert without(found, "received_at") == merged([_renamed(message, workflow) for message in order])

    def test_writers_at_once_lose_nothing(self, store_url: str, store: Store) -> None:
        """Four writers, each with a store of its own, write overlapping batches of the same messages."""
        messages = [
            message
            for number in range(100)
            for message in (
                task(3 * number + 1, number=number, status="RUNNING", ended_at=None),
                task(3 * number + 2, number=number, status="FINISHED", started_at=None, announced=True),
                task(3 * number + 3, number=number + 1000),
            )
        ]

        def write_all(seed: int) -> int:
            mine = random.Random(seed).sample(messages, len(messages))
            one = open_store(store_url, timeout_s=30.0)
            try:
                done = [
                    one.write(mine[start : start + 30], received_at=NOW_MS) for start in range(0, 300, 30)
                ]
            finally:
                one.close()
            assert not any(written.refused for written in done)
            return sum(written.stored + written.duplicates for written in done)

        with ThreadPoolExecutor(4) as pool:
            counted = list(pool.map(write_all, range(4)))

        assert counted == [300] * 4
        found = {
            document["task_id"]: without(document, "received_at") for document in store.find("tasks", {})
        }
        expected: dict[str, list[Message]] = {}
        for message in messages:
            expected.setdefault(message.record["task_id"], []).append(message)
        assert found == {task_id: merged(about) for task_id, about in expected.items()}


def _renamed(message: Message, workflow: str) -> Message:
    record = {**message.record, "workflow_id": workflow}
    if "task_id" in record:
        record["task_id"] = f"{workflow}-00000001"
    return Message(message.kind, message.producer_id, workflow, message.seq, record)
