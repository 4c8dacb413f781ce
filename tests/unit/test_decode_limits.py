"""Reading what is not ours costs no more than a small multiple of its bytes, and ends in the quarantine (G4, G5)."""

from __future__ import annotations

import base64
import json
import os
import struct
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import msgpack
import pytest
from bson.datetime_ms import DatetimeMS

from provd.common import sections, spool, wire
from provd.common.errors import FrameError
from provd.common.record import Kind, Message
from provd.common.wire import Header
from provd.store.interface import Refusal
from provd.store.mongo_encode import encode

HEADER = wire.encode_header(Header("p", "w", None, "h", 1, None, 1, 1))
TABLE = wire.pack([["task", {}, ["x"], None]])

_4_GB = (2**32 - 1).to_bytes(4, "big")

#: What claims four thousand million items, bytes or pairs.
CLAIMS = {
    "text": b"\xdb" + _4_GB, "bytes": b"\xc6" + _4_GB, "array": b"\xdd" + _4_GB, "map": b"\xdf" + _4_GB,
    "extension": b"\xc9" + _4_GB + b"\x02", "integer": b"\xc9" + _4_GB + b"\x01",
}  # fmt: skip


def row(value: bytes) -> bytes:
    """A task's row whose only argument is these bytes."""
    return b"\x98" + wire.pack(0) + wire.pack(1) + b"\xc0\xc0\xc0" + wire.pack(4) + b"\x91" + value + b"\xc0"


def frame_of(*payloads: bytes) -> bytes:
    return b"".join(map(sections.encode, payloads))


def peak_of(header: bytes, body: bytes) -> tuple[wire.Frame, int]:
    tracemalloc.start()
    try:
        frame = wire.decode(header, body)
        return frame, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def assert_quarantined(frame: wire.Frame) -> None:
    assert frame.messages == ()
    assert [(flaw.first_seq, flaw.last_seq) for flaw in frame.flaws] == [(1, 1)]


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_value_that_claims_4_gb_is_quarantined_and_not_allocated(claim: str) -> None:
    body = frame_of(TABLE, row(CLAIMS[claim]), TABLE)

    frame, peak = peak_of(HEADER, body)

    assert_quarantined(frame)
    assert peak < 1 << 20


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_table_that_claims_4_gb_is_quarantined_and_not_allocated(claim: str) -> None:
    frame, peak = peak_of(HEADER, frame_of(CLAIMS[claim], row(b"\x01"), CLAIMS[claim]))

    assert_quarantined(frame)
    assert peak < 1 << 20


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_header_that_claims_4_gb_is_an_error_of_the_frame(claim: str) -> None:
    import zlib

    packed = b"\x9a" + CLAIMS[claim]

    tracemalloc.start()
    with pytest.raises(FrameError):
        wire.decode(struct.pack("<I", zlib.crc32(packed)) + packed, b"")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 1 << 20


def test_a_section_that_claims_4_gb_is_quarantined_and_not_allocated() -> None:
    body = sections.encode(TABLE) + struct.pack("<II", 2**32 - 1, 0) + b"x" * 100 + sections.encode(TABLE)

    frame, peak = peak_of(HEADER, body)

    assert_quarantined(frame)
    assert peak < 1 << 20


def test_arrays_inside_arrays_that_claim_all_the_bytes_each_are_quarantined() -> None:
    """A thousand times eight bytes for each byte would be a hundred gigabytes here."""
    wide = b"".join(b"\xdd" + (1 << 20).to_bytes(4, "big") for _ in range(1000)) + b"\x01" * (1 << 20)

    frame, peak = peak_of(HEADER, frame_of(TABLE, row(wide), TABLE))

    assert_quarantined(frame)
    assert peak < 16 * len(wide)


def test_odd_maps_inside_one_another_do_not_exhaust_the_stack() -> None:
    """In a process of its own: what this guards against ends the interpreter."""
    program = """
    import msgpack
    from provd.common import wire
    value = b"\\x01"
    for _ in range(20_000):
        value = msgpack.packb(msgpack.ExtType(2, b"\\x91\\x92\\x01" + value))
    try:
        wire.unpack(value)
    except ValueError as error:
        print(error)
    """
    lines = [line[4:] for line in program.splitlines()]

    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=False, timeout=60
    )

    assert (done.returncode, done.stdout) == (0, "maps inside one another without end\n"), done.stderr


def test_odd_maps_as_deep_as_a_record_may_be_are_read() -> None:
    value: Any = b"\x01"
    for _ in range(24):
        value = msgpack.packb(msgpack.ExtType(2, b"\x91\x92\x01" + value))

    read = wire.unpack(value)

    for _ in range(24):
        assert list(read) == [1]
        read = read[1]
    assert read == 1


@pytest.mark.parametrize("depth", [500, 1000, 100_000])
@pytest.mark.parametrize("opening", [b"\x91", b"\x81\xa1k"], ids=["arrays", "maps"])
def test_a_message_nested_without_end_is_refused_alone(depth: int, opening: bytes) -> None:
    """G4: by the frame's reader, or by the store's encoder where that is the first that minds."""
    bad = row(opening * depth + b"\x01")
    header = wire.encode_header(Header("p", "w", None, "h", 1, None, 1, 3))
    body = frame_of(TABLE, row(b"\x01"), bad, row(b"\x02"), TABLE)

    frame = wire.decode(header, body)

    results = {message.seq: encode(message, DatetimeMS(0)) for message in frame.messages}
    refused = {seq for seq, result in results.items() if isinstance(result, Refusal)}
    assert refused | {flaw.first_seq for flaw in frame.flaws} == {2}


def test_a_large_table_that_many_rows_repeat_is_quarantined() -> None:
    """Four megabytes that would become two gigabytes of documents."""
    table = wire.pack([["task", {"custom_metadata": "x" * (2 << 20)}, ["x"], None]])
    header = wire.encode_header(Header("p", "w", None, "h", 1, None, 1, 1000))

    frame, peak = peak_of(header, frame_of(table, *[row(b"\x01")] * 1000, table))

    assert frame.messages == ()
    assert [(flaw.first_seq, flaw.last_seq) for flaw in frame.flaws] == [(1, 1000)]
    assert peak < 4 * len(table)


def test_a_header_that_counts_more_messages_than_there_are_allocates_none_of_them() -> None:
    header = wire.encode_header(Header("p", "w", None, "h", 1, None, 1, 1 << 40))

    frame, peak = peak_of(header, frame_of(TABLE, row(b"\x01"), TABLE))

    assert peak < 1 << 20
    assert sum(flaw.last_seq - flaw.first_seq + 1 for flaw in frame.flaws) + len(frame.messages) == 1 << 40


def test_integers_of_a_million_digits_harm_only_their_own_record() -> None:
    digits = b"f" * 1_000_000
    value: Any = msgpack.packb(msgpack.ExtType(1, b"0x" + digits))
    header = wire.encode_header(Header("p", "w", None, "h", 1, None, 1, 2))

    frame = wire.decode(header, frame_of(TABLE, row(value), row(b"\x01"), TABLE))

    assert 2 in {message.seq for message in frame.messages}
    for message in frame.messages:
        encode(message, DatetimeMS(0))  # never raises


# --- the spool's lines -------------------------------------------------------------------------------------------


def _line(**changes: object) -> bytes:
    message = Message(
        Kind.WORKFLOW, "p", "w", 1, {"workflow_id": "w", "producer_id": "p", "seq": 1, "name": "x"}
    )
    document = json.loads(spool.encode_line(message))
    return json.dumps({**document, **changes}).encode() + b"\n"


@pytest.mark.parametrize(
    "line",
    [
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"\n",
        b"[" * 100_000 + b"]" * 100_000 + b"\n",
        b"[" * 5_000_000 + b"\n",
        b"9" * 5_000_000 + b"\n",
        b'{"$numberLong": "' + b"9" * 100_000 + b'"}\n',
        b'{"$binary": {"base64": "' + base64.b64encode(b"x" * 100_000)[:-1] + b'", "subType": "00"}}\n',
        b"\x00" * 100_000 + b"\n",
        b"\xff\xfe\n",
    ],
    ids=["maps", "arrays", "open", "digits", "long", "base64", "zeros", "bytes"],
)
def test_a_foreign_line_of_a_spool_is_counted_and_the_next_one_read(line: bytes, tmp_path: Path) -> None:
    good = _line()
    path = tmp_path / "x.jsonl"
    path.write_bytes(good + line + good)

    lines = list(spool.read_spool(path))

    assert [one.message is not None for one in lines if one.number in (1, 3)] == [True, True]
    assert [one.error is not None for one in lines if one.number == 2] == [True]


def test_a_line_of_a_gigabyte_is_passed_over_in_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    good = _line()
    with path.open("wb") as file:
        file.write(good)
        file.seek(1 << 30, os.SEEK_CUR)  # a hole: no disk is needed
        file.write(b"\n" + good)
    program = (
        "import resource, sys; from pathlib import Path; from provd.common import spool;"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss;"
        "lines = list(spool.read_spool(Path(sys.argv[1])));"
        "print(len([one for one in lines if one.message]), len([one for one in lines if one.error]),"
        " (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)"
    )

    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True, timeout=120
    )

    messages, bad, grown_mib = map(int, done.stdout.split())
    assert (messages, bad) == (2, 1)
    assert grown_mib < 300


# --- ids -------------------------------------------------------------------------------------------------------

#: What would leave a folder, name another key, end a text early, or look like another id. 129 characters are too many.
TRICKS = [
    "../x",
    "a/b",
    "/etc",
    "a\x00b",
    "a\nb",
    "a b",
    "{1}",
    "a*",
    "\u0430bc",
    "a\u2024\u2024b",
    "x" * 129,
    "",
]


@pytest.mark.parametrize("trick", TRICKS, ids=ascii)
@pytest.mark.parametrize("name", ["producer_id", "workflow_id", "campaign_id"])
def test_an_id_with_a_trick_in_it_is_refused_in_frames_and_spools(name: str, trick: str) -> None:
    ids = {"producer_id": "p", "workflow_id": "w", "campaign_id": "c", name: trick}
    header = Header(ids["producer_id"], ids["workflow_id"], ids["campaign_id"], "h", 1, None, 1, 1)

    with pytest.raises(FrameError, match="1-128 ASCII letters"):
        wire.decode(wire.encode_header(header), frame_of(TABLE, row(b"\x01"), TABLE))
    with pytest.raises(ValueError, match="1-128 ASCII letters"):
        spool.decode_line(_line(**ids))


@pytest.mark.parametrize("given", ["..", ".", "-x", "--help", ".hidden"])
def test_ids_that_only_look_dangerous_are_no_file_names(given: str, tmp_path: Path) -> None:
    """Files are named after processes, never after what a user or a frame says."""
    message = Message(
        Kind.WORKFLOW, "p", given, 1, {"workflow_id": given, "producer_id": "p", "seq": 1, "name": given}
    )
    writer = spool.SpoolWriter(tmp_path / "s", "p", ceiling_bytes=1 << 20, free_floor=0.0, hostname="h")
    writer.write([message])
    writer.close()

    (file,) = (tmp_path / "s").rglob("*.jsonl")
    assert file.name.startswith("p.")
    assert [line.message for line in spool.read_spool(file)] == [message]
