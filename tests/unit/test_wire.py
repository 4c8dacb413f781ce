"""The frame: what goes in comes out, and what the way has ruined stays in the books."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provd.common import sections, wire
from provd.common.errors import FrameError, NewerSchema
from provd.common.ids import task_id
from provd.common.record import SCHEMA_VERSION, STATUSES, Kind, Message, Record
from provd.common.wire import Flaw, Frame, Header, Shape
from tests.record_values import canonical, named_values, values

PRODUCER, WORKFLOW = "01kxt7c9qkabcdefghjkmn", "w1"

times = st.integers(0, 10**13)
own_tasks = st.integers(0, 2**33).map(lambda counter: task_id(PRODUCER, counter))
tasks_of_others = st.text("abc-0123456789", min_size=1, max_size=30)


@st.composite
def task_records(draw: st.DrawFn) -> Record:
    record: Record = draw(
        st.fixed_dictionaries(
            {
                "task_id": own_tasks | tasks_of_others,
                "status": st.sampled_from(STATUSES),
                "used": named_values,
            },
            optional={
                "activity_id": st.sampled_from(["train", "load"]),
                "parent_task_id": own_tasks | tasks_of_others,
                "generated": named_values,
                "started_at": times,
                "duration": st.floats(0, 1e6),
                "announced": st.just(value=True),
                "custom_metadata": values,
                "stderr": st.text(st.characters(), max_size=20),
            },
        )
    )
    if "started_at" in record and "duration" in record:
        record["ended_at"] = draw(st.just(record["started_at"] + round(record["duration"] * 1000)) | times)
    return record


other_records = st.dictionaries(
    st.sampled_from(["name", "args", "sent", "dropped"]), st.text(max_size=5) | named_values, max_size=3
)


@st.composite
def batches(draw: st.DrawFn, min_size: int = 1) -> tuple[Header, list[Message]]:
    """A header and its messages, whose records agree with it."""
    first_seq = draw(st.integers(1, 2**40))
    rank, campaign = draw(st.none() | st.integers(0, 10**6)), draw(st.none() | st.just("exp42"))
    stated = draw(
        st.lists(
            st.tuples(st.just(Kind.TASK), task_records())
            | st.tuples(st.sampled_from([Kind.WORKFLOW, Kind.PRODUCER, Kind.SAMPLE]), other_records),
            min_size=min_size,
            max_size=6,
        )
    )
    header = Header(PRODUCER, WORKFLOW, campaign, "node1", 77, rank, first_seq, len(stated))
    messages = []
    for seq, (kind, record) in enumerate(stated, first_seq):
        known: Record = {
            "workflow_id": WORKFLOW, "producer_id": PRODUCER, "seq": seq, "hostname": "node1", "pid": 77,
            "schema_version": SCHEMA_VERSION,
        }  # fmt: skip
        known |= {"campaign_id": campaign} if campaign else {}
        known |= {"rank": rank} if rank is not None else {}
        messages.append(Message(kind, PRODUCER, WORKFLOW, seq, record | known))
    return header, messages


def encode(header: Header, messages: list[Message]) -> tuple[bytes, bytes]:
    return wire.encode_messages(
        messages, campaign_id=header.campaign_id, hostname=header.hostname, pid=header.pid, rank=header.rank
    )


def content(message: Message) -> Any:
    """A message for comparison, whatever the order of its fields."""
    ordered = {name: message.record[name] for name in sorted(message.record)}
    return message.kind, message.producer_id, message.workflow_id, message.seq, canonical(ordered)


def books(frame: Frame) -> list[int]:
    """Every seq that the frame accounts for."""
    lost = [seq for flaw in frame.flaws for seq in range(flaw.first_seq, flaw.last_seq + 1)]
    return sorted([message.seq for message in frame.messages] + lost)


def all_seqs(header: Header) -> list[int]:
    return list(range(header.first_seq, header.last_seq + 1))


def lost_seqs(frame: Frame) -> int:
    return sum(flaw.last_seq - flaw.first_seq + 1 for flaw in frame.flaws)


# --- there and back --------------------------------------------------------------------------------------------


@given(batches())
def test_decode_undoes_encode(batch: tuple[Header, list[Message]]) -> None:
    header, messages = batch

    frame = wire.decode(*encode(header, messages))

    assert frame.header == header
    assert frame.flaws == ()
    assert [content(message) for message in frame.messages] == [content(message) for message in messages]


@given(values)
def test_unpack_undoes_pack_for_values_without_odd_keys(value: Any) -> None:
    packed = wire.pack(wire._wire_value(value))

    assert canonical(wire.unpack(packed)) == canonical(value)


def test_names_stand_once_a_frame_however_many_rows_there_are() -> None:
    """A task's row names its shape and carries values in the shape's order of names."""
    shape = Shape(Kind.TASK, (("activity_id", "train"),), ("learning_rate", "epochs"), ("loss",))
    rows = [wire.pack([0, n, None, 10, 0.5, 4, [0.1 * n, n], [1.0]]) for n in range(3)]
    header = Header(PRODUCER, WORKFLOW, None, "node1", 77, None, 5, 3)

    body = wire.encode_body([shape], rows)
    frame = wire.decode(wire.encode_header(header), body)

    assert body.count(b"learning_rate") == 2  # the opening table and the closing one
    assert [message.record["used"]["epochs"] for message in frame.messages] == [0, 1, 2]
    assert frame.messages[2].record == {
        "task_id": task_id(PRODUCER, 2), "activity_id": "train", "status": "FINISHED", "started_at": 10,
        "ended_at": 510, "duration": 0.5, "used": {"learning_rate": 0.2, "epochs": 2}, "generated": {"loss": 1.0},
        "workflow_id": WORKFLOW, "producer_id": PRODUCER, "seq": 7, "hostname": "node1", "pid": 77,
        "schema_version": 1,
    }  # fmt: skip


# --- the header ------------------------------------------------------------------------------------------------


@given(batches(), st.data())
def test_a_header_with_a_flipped_bit_is_no_header(
    batch: tuple[Header, list[Message]], data: st.DataObject
) -> None:
    header, body = encode(*batch)

    damaged = flip(header, data.draw(st.integers(0, len(header) * 8 - 1)))

    with pytest.raises(FrameError, match="damaged"):
        wire.decode(damaged, body)


@given(batches(), st.binary(max_size=200))
def test_a_ruined_body_still_counts_in_the_books(batch: tuple[Header, list[Message]], body: bytes) -> None:
    """The header stands alone, with a CRC32 before it, so that a ruined body still counts in the books."""
    header, _ = encode(*batch)

    frame = wire.decode(header, body)

    assert books(frame) == all_seqs(batch[0])


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_foreign_bytes_are_a_frame_error_and_nothing_else(header: bytes, body: bytes) -> None:
    for field in (header, sealed(header)):
        with pytest.raises(FrameError):
            wire.decode(field, body)


@given(st.lists(values, max_size=10))
def test_a_sound_header_that_makes_no_sense_is_a_frame_error(items: list[Any]) -> None:
    packed = wire.pack(wire._wire_value([SCHEMA_VERSION, *items]))

    with pytest.raises(FrameError):
        wire.decode(sealed(packed), b"")


@pytest.mark.parametrize("version", [2, 3, 1000])
def test_a_later_schema_is_told_apart_from_damage(version: int) -> None:
    """The version is its first element for ever: the frame waits for a consumer that can read it."""
    with pytest.raises(NewerSchema, match="upgrade the consumer") as caught:
        wire.decode(sealed(wire.pack([version, {"all": "different"}])), b"")

    assert caught.value.version == version


# --- the body --------------------------------------------------------------------------------------------------


@given(batches(min_size=2), st.data())
def test_no_flipped_bit_costs_more_than_the_message_it_hits(
    batch: tuple[Header, list[Message]], data: st.DataObject
) -> None:
    """First and last section are the same table of names, so that no single flipped bit costs more than the message
    it hits."""
    header, body = encode(*batch)

    frame = wire.decode(header, flip(body, data.draw(st.integers(0, len(body) * 8 - 1))))

    assert lost_seqs(frame) <= 1
    assert books(frame) == all_seqs(batch[0])
    sent = {message.seq: content(message) for message in batch[1]}
    assert all(content(message) == sent[message.seq] for message in frame.messages)


@given(batches(), st.data())
def test_a_frame_cut_short_keeps_the_messages_before_the_cut(
    batch: tuple[Header, list[Message]], data: st.DataObject
) -> None:
    header, body = encode(*batch)
    ends = section_ends(body)

    length = data.draw(st.integers(0, len(body)))
    frame = wire.decode(header, body[:length])

    whole = [content(message) for message in batch[1][: max(0, sum(end <= length for end in ends) - 1)]]
    assert [content(message) for message in frame.messages] == whole
    assert books(frame) == all_seqs(batch[0])


@given(batches(), st.data())
def test_any_damage_leaves_true_messages_and_complete_books(
    batch: tuple[Header, list[Message]], data: st.DataObject
) -> None:
    """Decoding never raises for a ruined message: it returns a `Flaw` with the raw bytes."""
    header, body = encode(*batch)

    for _ in range(data.draw(st.integers(1, 4))):
        at, length = data.draw(st.integers(0, len(body))), data.draw(st.integers(0, 12))
        body = body[:at] + data.draw(st.binary(max_size=12)) + body[at + length :]
    frame = wire.decode(header, body)

    assert books(frame) == all_seqs(batch[0])
    sent = {message.seq: content(message) for message in batch[1]}
    assert all(content(message) == sent[message.seq] for message in frame.messages)


odd_rows = st.lists(values, max_size=9).map(lambda items: wire.pack(wire._wire_value([0, *items])))


@given(st.lists(st.binary(min_size=1, max_size=30) | odd_rows, min_size=1, max_size=5))
def test_a_sound_section_that_is_no_message_is_a_flaw(rows: list[bytes]) -> None:
    header = Header(PRODUCER, WORKFLOW, None, "node1", 77, None, 1, len(rows))

    frame = wire.decode(wire.encode_header(header), wire.encode_body([Shape(Kind.TASK)], rows))

    assert books(frame) == all_seqs(header)
    assert all(flaw.raw == rows[flaw.first_seq - 1] for flaw in frame.flaws)


odd_tables = st.lists(
    st.lists(values | st.sampled_from(["task", "workflow"]), min_size=4, max_size=4) | values, max_size=3
).map(lambda items: wire.pack(wire._wire_value(items)))


@given(
    odd_tables
    | st.sampled_from([wire.pack([["task", 5, None, None]]), wire.pack(7), wire.pack([["task", {}, 5, 5]])])
)
def test_a_sound_table_that_is_no_table_costs_the_frame_and_raises_nothing(table: bytes) -> None:
    header = Header(PRODUCER, WORKFLOW, None, "node1", 77, None, 3, 2)
    row = wire.pack([0, 1, None, None, None, 1, {}, None])
    body = b"".join(sections.encode(payload) for payload in (table, row, row, table))

    frame = wire.decode(wire.encode_header(header), body)

    assert books(frame) == all_seqs(header)


@pytest.mark.parametrize(
    "row",
    [b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xc9\xff\xff\xff\xff\x02", b"\x91" * 5000],
    ids=["array", "map", "bytes", "extension", "nesting"],
)  # fmt: skip
def test_decoding_allocates_a_small_multiple_of_the_bytes_at_hand(row: bytes) -> None:
    """Decoding allocates no more than a small multiple of the bytes at hand: lengths that lie are not believed."""
    header = Header(PRODUCER, WORKFLOW, None, "node1", 77, None, 1, 1)
    field, body = wire.encode_header(header), wire.encode_body([Shape(Kind.TASK)], [row])

    tracemalloc.start()
    try:
        frame = wire.decode(field, body)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert len(frame.flaws) == 1
    assert peak < 20 * len(body) + 1_000_000  # a packer alone has a buffer of 256 KiB


def test_a_count_that_lies_costs_no_memory() -> None:
    header = Header(PRODUCER, WORKFLOW, None, "node1", 77, None, 1, 2**52)
    body = wire.encode_body([Shape(Kind.SAMPLE)], [wire.pack([0, {}])])

    frame = wire.decode(wire.encode_header(header), body)

    assert sum(flaw.last_seq - flaw.first_seq + 1 for flaw in frame.flaws) + len(frame.messages) == 2**52


def test_damage_is_kept_for_those_who_want_to_look() -> None:
    """It returns a `Flaw` with the raw bytes."""
    rows = [wire.pack([0, {"name": name}]) for name in ("one", "two", "three")]
    header = Header(PRODUCER, WORKFLOW, None, "node1", 77, None, 11, 3)
    body = wire.encode_body([Shape(Kind.SAMPLE)], rows).replace(b"two", b"tw0")

    frame = wire.decode(wire.encode_header(header), body)

    assert [message.record["name"] for message in frame.messages] == ["one", "three"]
    assert [(flaw.first_seq, flaw.last_seq, flaw.reason) for flaw in frame.flaws] == [
        (12, 12, "damaged on the way")
    ]
    assert isinstance(frame.flaws[0], Flaw)
    assert b"tw0" in frame.flaws[0].raw


def flip(data: bytes, bit: int) -> bytes:
    """The bytes with one bit turned over."""
    damaged = bytearray(data)
    damaged[bit // 8] ^= 1 << (bit % 8)
    return bytes(damaged)


def sealed(packed: bytes) -> bytes:
    """A header field whose CRC is right."""
    return struct.pack("<I", zlib.crc32(packed)) + packed


def section_ends(body: bytes) -> list[int]:
    """Where each section ends: table, messages, table."""
    ends, at = [], 0
    while at < len(body):
        at += 8 + struct.unpack_from("<I", body, at)[0]
        ends.append(at)
    return ends


def test_a_frame_made_of_plausible_lengths_is_given_up_and_not_searched_for_ever() -> None:
    """Decoding costs no more than a bounded effort beyond the bytes at hand."""
    header = wire.encode_header(Header("p", "w", None, "h", 1, None, 1, 2))
    body = b"\x00\x80\x00\x00" * 65_536  # at every fourth byte a length of 32 KiB that fits

    frame = wire.decode(header, body)

    assert frame.messages == ()
    assert lost_seqs(frame) == 2


def test_zeros_inside_a_damaged_message_do_not_pass_for_a_section() -> None:
    # Given a frame whose second message is full of zeros
    header = Header("p", "w", None, "h", 1, None, 1, 3)
    rows = [wire.pack([0, number, None, 0, 0.0, 4, [bytes(40)], None]) for number in range(3)]
    body = wire.encode_body([wire.Shape(Kind.TASK, (), ("x",))], rows)

    # When the length of that message is hit
    second = section_ends(body)[1]
    frame = wire.decode(wire.encode_header(header), flip(body, second * 8))

    # Then it alone is lost
    assert [message.seq for message in frame.messages] == [1, 3]


_TENANTS = st.sampled_from([None, "a", "b", "not an id", 7])


@given(batches(), st.lists(_TENANTS, min_size=6, max_size=6), st.booleans())
def test_every_message_keeps_its_tenant_whether_the_header_says_it_or_the_rows(
    stated: tuple[Header, list[Message]], tenants: list[Any], one: bool
) -> None:
    header, messages = stated
    for message, tenant in zip(messages, tenants[:1] * 6 if one else tenants, strict=False):
        message.record.pop("tenant_id", None)
        if tenant is not None:
            message.record["tenant_id"] = tenant

    frame = wire.decode(*encode(header, messages))

    assert [content(message) for message in frame.messages] == [content(message) for message in messages]


def test_the_tenant_of_a_frame_stands_once_in_its_header() -> None:
    def frame(tenant: dict[str, str]) -> tuple[bytes, bytes]:
        records = [
            {"task_id": task_id(PRODUCER, n), "status": "FINISHED", "used": {}, **tenant} for n in (1, 2)
        ]
        messages = [Message(Kind.TASK, PRODUCER, WORKFLOW, n, record) for n, record in enumerate(records, 1)]
        return wire.encode_messages(messages, campaign_id=None, hostname="h", pid=1, rank=None)

    head, body = frame({"tenant_id": "a"})

    assert wire.decode_header(head).tenant_id == "a"
    assert body == frame({})[1]
