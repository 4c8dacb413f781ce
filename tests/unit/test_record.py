"""The record: one document out of many messages, whatever their order."""

from __future__ import annotations

import itertools
from datetime import datetime, timezone
from functools import reduce
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provd.common import record
from provd.common.record import (
    LENT_FIELDS,
    STATUSES,
    TIME_FIELDS,
    Kind,
    Message,
    Record,
    Status,
    merge,
    merge_key,
)

times = st.integers(0, 10**13)


@st.composite
def messages_about_one_task(draw: st.DrawFn) -> list[Record]:
    places = draw(
        st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 9)), min_size=1, max_size=5, unique=True)
    )
    return [
        {
            "producer_id": producer_id,
            "seq": seq,
            **draw(st.fixed_dictionaries({}, optional={
                "status": st.sampled_from(STATUSES), "submitted_at": times, "started_at": times,
                "ended_at": times, "tags": st.just(["x"]),
            })),
        }
        for producer_id, seq in places
    ]  # fmt: skip


def merge_by_the_words_of_the_rule(messages: list[Record]) -> Record:
    """The merge rule, as its sentence reads."""
    descending = sorted(messages, key=merge_key, reverse=True)
    document, filled = dict(descending[0]), {}
    for field in LENT_FIELDS:
        lenders = [message for message in descending if field in message]
        if field not in document and lenders:
            document[field] = lenders[0][field]
            filled[field] = list(merge_key(lenders[0]))
    return document | ({"filled": filled} if filled else {})


@given(messages_about_one_task())
def test_the_document_is_the_highest_message_with_the_times_it_lacks_filled_in(
    messages: list[Record],
) -> None:
    """The document is the message with the highest (status rank, producer, seq). Only `submitted_at` and `started_at`
    are filled in, from the highest message below it that has them; `filled` then says whose they are."""
    assert reduce(merge, messages) == merge_by_the_words_of_the_rule(messages)


@given(messages_about_one_task(), st.randoms(use_true_random=False))
def test_order_and_repetition_do_not_matter(messages: list[Record], random: Any) -> None:
    """So the document is a function of the set of messages: order and repetition do not matter."""
    expected = reduce(merge, messages)
    again = messages + random.choices(messages, k=3)
    random.shuffle(again)

    assert reduce(merge, again) == expected


@given(messages_about_one_task(), st.integers(0, 4))
def test_batches_do_not_matter_either(messages: list[Record], cut: int) -> None:
    """Two consumers may each have merged some of the messages before they meet in the store."""
    one, other = messages[: cut + 1], messages[cut:] or messages[-1:]

    assert merge(reduce(merge, one), reduce(merge, other)) == reduce(merge, messages)


@given(messages_about_one_task())
def test_merge_changes_neither_of_its_arguments(messages: list[Record]) -> None:
    copies = [dict(message) for message in messages]

    for one, other in itertools.product(messages, messages):
        merge(one, other)

    assert messages == copies


def test_a_late_start_lends_its_time_to_an_end_that_came_first() -> None:
    ended = {"producer_id": "p", "seq": 2, "status": "FINISHED", "ended_at": 20}
    started = {"producer_id": "p", "seq": 1, "status": "RUNNING", "started_at": 10}

    expected = ended | {"started_at": 10, "filled": {"started_at": [1, "p", 1]}}

    assert merge(ended, started) == merge(started, ended) == expected


def test_statuses_rise_from_submitted_to_error() -> None:
    assert [status.value for status in sorted(Status, key=lambda status: status.rank)] == [
        "SUBMITTED", "RUNNING", "SKIPPED", "CANCELLED", "FINISHED", "ERROR",
    ]  # fmt: skip
    assert {"SKIPPED", "CANCELLED", "FINISHED", "ERROR"} == record.ENDED


@given(
    st.fixed_dictionaries({}, optional=dict.fromkeys(TIME_FIELDS, times) | {"duration": st.floats(0, 1e6)})
)
def test_times_are_milliseconds_that_become_dates_and_come_back(given_record: Record) -> None:
    """Times are UTC milliseconds, held as `int` in the fields named by `TIME_FIELDS`, and become dates in the store."""
    document = record.to_document(given_record)

    assert {type(document[name]) for name in TIME_FIELDS if name in document} <= {datetime}
    assert record.from_document(document) == given_record


def test_a_time_becomes_an_aware_utc_datetime() -> None:
    document = record.to_document({"started_at": 1_793_196_180_250})

    assert document == {"started_at": datetime(2026, 10, 28, 14, 3, 0, 250_000, tzinfo=timezone.utc)}


@pytest.mark.parametrize(
    ("kind", "expected"),
    [(Kind.TASK, "p-00000001"), (Kind.WORKFLOW, "w"), (Kind.PRODUCER, "p/w"), (Kind.SAMPLE, "p/7")],
)
def test_every_kind_of_message_names_its_document(kind: Kind, expected: str) -> None:
    message = Message(kind, "p", "w", 7, {"task_id": "p-00000001"} if kind is Kind.TASK else {})

    assert message.record_id == expected


@pytest.mark.parametrize("fields", ["TASK_FIELDS", "WORKFLOW_FIELDS", "PRODUCER_FIELDS"])
def test_the_fields_of_a_record_are_named_once(fields: str) -> None:
    names = getattr(record, fields)

    assert len(names) == len(set(names))
    assert "schema_version" in names
