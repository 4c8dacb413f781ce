"""What stores keep of a message: refused where it is no record, however well its fields are known."""

from __future__ import annotations

import bson
import pytest
from bson.datetime_ms import DatetimeMS

from provd.common.record import Kind, Message, Record
from provd.store import documents
from provd.store.interface import Refusal
from provd.store.mongo_encode import Encoded, encode

NOW = DatetimeMS(1_700_000_000_000)


def a_task(**fields: object) -> Message:
    record: Record = {"task_id": "p-00000001", "activity_id": "train", "started_at": 1, "status": "FINISHED"}
    return Message(Kind.TASK, "p", "w", 7, record | fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"activity_id": 1},
        {"hostname": ["n"]},
        {"started_at": "now"},
        {"started_at": True},
        {"ended_at": 1 << 60},
        {"task_id": 5},
    ],
)
def test_a_record_is_refused_for_its_values_also_when_its_fields_have_been_seen(
    fields: dict[str, object],
) -> None:
    sound = a_task(**dict.fromkeys(fields))
    if "task_id" not in fields:
        documents.stated(sound)

    with pytest.raises(ValueError, match=r"text|time|task_id"):
        documents.stated(a_task(**fields))


def test_what_is_not_a_messages_to_say_is_left_out_and_its_own_word_stands() -> None:
    message = a_task(_id="other", announced=True, filled={"x": 1}, received_at=5, producer_id="q", seq=99)

    record, times = documents.stated(message)

    assert record == {
        "_id": "p-00000001", "task_id": "p-00000001", "activity_id": "train", "started_at": 1,
        "status": "FINISHED", "producer_id": "p", "workflow_id": "w", "seq": 7,
    }  # fmt: skip
    assert list(times) == ["started_at"]
    assert message.record["received_at"] == 5


def test_fields_that_are_new_each_time_do_not_fill_the_memory() -> None:
    for number in range(3000):
        documents.stated(a_task(**{f"field{number}": 1}))
    documents.stated(a_task(**{"x" * 100_000: 1}))

    remembered = documents._layouts

    assert len(remembered) <= 1024
    assert all(sum(map(len, fields)) <= 1024 for fields in remembered)


@pytest.mark.parametrize("key", ["$where", "~int", "$", "~"])
@pytest.mark.parametrize("nest", [lambda inner: inner, lambda inner: {"a": [1, {"b": inner}]}])
def test_a_key_that_looks_like_a_tag_or_an_operator_is_never_written_as_it_is(key: str, nest: object) -> None:
    for value in (1, 1.5, "x", None, True, [1], {"k": 1}, b"b", 1 << 40):
        encoded = encode(a_task(used=nest({key: value})), NOW)  # type: ignore[operator]

        assert isinstance(encoded, Encoded)
        assert b"~map" in encoded.raw.raw


@pytest.mark.parametrize("number", [0x24, 0x7E, 0x2403, 0x7E02, 0x24107E01, 36.0, 1e24])
def test_numbers_whose_bytes_look_like_such_a_key_are_stored_as_they_are(number: float) -> None:
    encoded = encode(a_task(used={"n": number, "text": "~$"}), NOW)

    assert isinstance(encoded, Encoded)
    assert bson.decode(encoded.raw.raw)["used"] == {"n": number, "text": "~$"}


def test_a_record_that_cannot_be_is_refused_with_the_reason() -> None:
    refused = encode(a_task(**{"a.b": 1}), NOW)

    assert isinstance(refused, Refusal)
    assert "a.b" in refused.reason
