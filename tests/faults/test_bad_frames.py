"""Frames that arrive damaged, or hold what a store refuses or misreads.

G4: one bad record harms only itself; it is quarantined with its raw bytes and the reason, and values are data, never
evaluated.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis

from provd.common import names, sections, wire
from provd.common.record import SCHEMA_VERSION, Message
from provd.store.books import read_books
from provd.store.interface import Store
from tests.faults.proof import assert_stored_once
from tests.integration.consuming import consume, opened_store
from tests.integration.feeder import Feeder

ODD_VALUES: dict[str, Any] = {
    "path": "$HOME/data",
    "variable": "$$x",
    "operator": "$lr",
    "nested": {"model.pt": 1, "$lr": 0.5, "": "empty", "a": {"$set": {"x": 1}}, "$$ROOT": [1], "~": "~int"},
    "model.pt": "dotted",
    "$lr": 0.25,
    "": "no name",
    "2^63": 2**63,
    "2^64": 2**64,
    "-2^63-1": -(2**63) - 1,
    "2^200": 2**200,
    "max": 2**63 - 1,
    "tag": {"$numberLong": "7", "$oid": "not one", "$date": 1},
    "surrogate": "a\ud800b",
    "nul": "a\x00b",
    "bytes": b"\x00\xff$",
    "nan-free": [float("inf"), -0.0, 1e-308],
}


@dataclass(frozen=True)
class Frame:
    """An encoded frame and what it was made of."""

    messages: list[Message]
    header: bytes
    body: bytes


def framed(feeder: Feeder, count: int) -> Frame:
    messages = feeder.tasks(count)
    header, body = wire.encode_messages(messages, campaign_id=None, hostname="node1", pid=1, rank=None)
    return Frame(messages, header, body)


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def epochs(store: Store, workflow_id: str) -> list[int]:
    found = store.find(names.TASKS, {"workflow_id": workflow_id}, fields=["used"])
    return sorted(task["used"]["epochs"] for task in found)


def test_one_flipped_bit_in_a_body_costs_at_most_the_message_it_hits(
    redis_url: str, client: redis.Redis, store_url: str, namespace: str, tmp_path: Path, slots: Path
) -> None:
    """G4: every region of a body: both tables, lengths, checksums and payloads; each flip in a frame of its own."""
    first = framed(Feeder(client, namespace, "measure"), 6)
    bits = range(0, len(first.body) * 8, 29)  # no multiple of a byte: each position of a bit comes
    feeders = []
    for bit in bits:
        feeder = Feeder(client, namespace, f"bit{bit}")
        frame = framed(feeder, 6)
        feeder.send_raw(frame.header, flipped(frame.body, bit % (len(frame.body) * 8)))
        feeders.append(feeder)

    consume(redis_url, store_url, namespace, tmp_path, slots)

    with opened_store(store_url) as store:
        lost = 0
        for feeder in feeders:
            items = list(store.find(names.QUARANTINE, {"workflow_id": feeder.workflow_id}))
            spans = store.stored_ranges(feeder.workflow_id)[feeder.producer_id]
            ledger = [seq for first, last in spans for seq in range(first, last + 1)]
            quarantined = [seq for item in items for seq in range(item["first_seq"], item["last_seq"] + 1)]
            assert len(quarantined) <= 1
            assert sorted([*ledger, *quarantined]) == [1, 2, 3, 4, 5, 6]
            assert epochs(store, feeder.workflow_id) == ledger
            assert all(item["raw"] and item["reason"] for item in items)
            assert feeder.length() == 0
            lost += len(quarantined)
        assert 0 < lost < len(feeders)


def test_one_flipped_bit_in_a_header_costs_the_frame_which_is_quarantined_whole(
    redis_url: str, client: redis.Redis, store_url: str, namespace: str, tmp_path: Path, slots: Path
) -> None:
    """G4: every byte of a header, with its raw bytes; the frame before and the one after it are stored."""
    feeder = Feeder(client, namespace)
    sound = feeder.tasks(2)
    feeder.send(sound)
    frame = framed(feeder, 3)
    damaged = [flipped(frame.header, 8 * byte + byte % 8) for byte in range(len(frame.header))]
    for header in damaged:
        feeder.send_raw(header, frame.body)
    after = feeder.tasks(2)
    feeder.send(after)

    consume(redis_url, store_url, namespace, tmp_path, slots)

    with opened_store(store_url) as store:
        raws = {bytes(item["raw"]) for item in store.find(names.QUARANTINE, {})}
        assert raws == {header + frame.body for header in damaged}
        assert epochs(store, "w1") == [1, 2, 6, 7]
        assert read_books(store, "w1").unattributed == len(damaged)
        assert feeder.length() == 0


def test_half_a_frame_gives_the_messages_that_are_whole(
    redis_url: str, client: redis.Redis, store_url: str, namespace: str, tmp_path: Path, slots: Path
) -> None:
    """G4: cut off anywhere: what stands before the cut is stored, the rest is quarantined with its numbers."""
    feeders = []
    for share in range(1, 20):
        feeder = Feeder(client, namespace, f"cut{share}")
        frame = framed(feeder, 10)
        feeder.send_raw(frame.header, frame.body[: len(frame.body) * share // 20])
        feeders.append(feeder)

    consume(redis_url, store_url, namespace, tmp_path, slots)

    with opened_store(store_url) as store:
        kept = []
        for feeder in feeders:
            stored = epochs(store, feeder.workflow_id)
            books = read_books(store, feeder.workflow_id)
            assert stored == list(range(1, len(stored) + 1))
            assert books.total("stored") + books.total("quarantined") == 10
            assert books.total("missing") == 0
            kept.append(len(stored))
        assert kept == sorted(kept)
        assert kept[-1] > 7


@pytest.mark.parametrize(
    "fields",
    [{}, {"h": "header"}, {"b": "body"}, {"x": "1"}, {"h": "", "b": ""}, {"h": "", "b": "x", "more": "y"}],
    ids=str,
)
def test_an_entry_without_the_fields_of_a_frame_is_quarantined_alone(
    redis_url: str,
    client: redis.Redis,
    mongo_url: str,
    namespace: str,
    tmp_path: Path,
    slots: Path,
    fields: dict[str, str],
) -> None:
    feeder = Feeder(client, namespace)
    sound = framed(feeder, 5)
    feeder.send_raw(sound.header, sound.body)
    entry: dict[Any, Any] = dict(fields) or {"h": wire_text(sound.header)}
    client.xadd(feeder.keys.stream, entry)
    feeder.send(feeder.tasks(5))

    consume(redis_url, mongo_url, namespace, tmp_path, slots)

    with opened_store(mongo_url) as store:
        (item,) = store.find(names.QUARANTINE, {})
        assert item["reason"]
        assert_stored_once(store, feeder)
        assert feeder.length() == 0


def wire_text(data: bytes) -> str:
    return data.decode("latin-1")


# --- what a store refuses, or could misread ----------------------------------------------------------------------


def deep(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {"bottom": True}
    for _ in range(levels):
        value = {"d": value}
    return value


@pytest.mark.parametrize("case", ["16 MB", "nested 200 deep", "nested 99 deep", "a name of 2 MB"])
def test_a_document_that_is_too_much_for_mongodb_costs_only_itself(
    redis_url: str,
    client: redis.Redis,
    mongo_url: str,
    namespace: str,
    tmp_path: Path,
    slots: Path,
    case: str,
) -> None:
    """G4: whatever becomes of the one, it is in exactly one place, and its neighbours of the frame are stored."""
    odd: dict[str, Any] = {
        "16 MB": {"blob": os.urandom(17 << 20)},
        "nested 200 deep": deep(200),
        "nested 99 deep": deep(99),
        "a name of 2 MB": {"n" * (2 << 20): 1},
    }[case]
    feeder = Feeder(client, namespace)
    messages = [*feeder.tasks(5), *feeder.tasks(1, used={"epochs": 6, **odd}), *feeder.tasks(5)]
    feeder.send(messages)

    consume(redis_url, mongo_url, namespace, tmp_path, slots)

    with opened_store(mongo_url) as store:
        books = read_books(store, "w1")
        refused = books.total("quarantined")
        assert (books.total("stored"), books.total("missing")) == (11 - refused, 0)
        assert refused == (1 if case in ("16 MB", "nested 200 deep") else 0)
        assert feeder.length() == 0
        if refused:
            items = list(store.find(names.QUARANTINE, {}))
            assert {(item["first_seq"], item["last_seq"]) for item in items} == {(6, 6)}
            assert epochs(store, "w1") == [1, 2, 3, 4, 5, 7, 8, 9, 10, 11]
            raw = b"".join(bytes(item["raw"]) for item in sorted(items, key=lambda item: item.get("part", 0)))
            assert len(raw) > 200
        else:
            (task,) = store.find(names.TASKS, {"used.epochs": 6})
            assert task["used"] == {"epochs": 6, **odd}


def test_values_that_look_like_code_come_back_as_they_went_in(
    redis_url: str, client: redis.Redis, store_url: str, namespace: str, tmp_path: Path, slots: Path
) -> None:
    """G4: through insert and through conditional update, on both stores."""
    feeder = Feeder(client, namespace)
    values = {"epochs": 1, **ODD_VALUES}
    running = feeder.tasks(1, status="RUNNING", used=values, generated={})
    feeder.send(running)
    feeder.tasks_made = 0
    final = feeder.tasks(1, used=values, generated=ODD_VALUES, custom_metadata=ODD_VALUES)
    feeder.send(final)
    consume(redis_url, store_url, namespace, tmp_path, slots)
    feeder.send([*running, *final])
    consume(redis_url, store_url, namespace, tmp_path, slots)

    with opened_store(store_url) as store:
        (task,) = store.find(names.TASKS, {})
        assert task["status"] == "FINISHED"
        for field, expected in (("used", values), ("generated", ODD_VALUES), ("custom_metadata", ODD_VALUES)):
            assert task[field] == expected
            assert {key: type(value) for key, value in task[field].items()} == {
                key: type(value) for key, value in expected.items()
            }
        assert store.count(names.QUARANTINE, {}) == 0


def test_one_key_of_another_type_among_a_thousand_streams_stops_nobody(
    redis_url: str, client: redis.Redis, mongo_url: str, namespace: str, tmp_path: Path, slots: Path
) -> None:
    """G4: each of the types that a key can have, registered as if it were a stream."""
    feeders = [Feeder(client, namespace, f"w{number}") for number in range(1000)]
    for feeder in feeders:
        feeder.send(feeder.tasks(1))
    for kind, *command in (
        ("string", "SET", "x"),
        ("list", "LPUSH", "x"),
        ("hash", "HSET", "x", "y"),
        ("set", "SADD", "x"),
        ("zset", "ZADD", 1, "x"),
    ):
        key = f"{feeders[0].keys.stream}-{kind}"
        client.execute_command(command[0], key, *command[1:])  # type: ignore[no-untyped-call]
        client.sadd(feeders[0].keys.registry, key)

    consume(redis_url, mongo_url, namespace, tmp_path, slots)

    with opened_store(mongo_url) as store:
        assert store.count(names.TASKS, {}) == 1000
        assert all(feeder.length() == 0 for feeder in feeders)
        assert client.type(f"{feeders[0].keys.stream}-list") == b"list"


def test_a_frame_of_an_earlier_schema_is_read(
    redis_url: str, client: redis.Redis, mongo_url: str, namespace: str, tmp_path: Path, slots: Path
) -> None:
    """The version is the header's first element: what this one wrote yesterday is read for ever."""
    assert SCHEMA_VERSION == 1, "keep a frame of each version in tests/golden, and read it here"
    feeder = Feeder(client, namespace)
    frame = framed(feeder, 2)
    feeder.send_raw(frame.header, frame.body)

    consume(redis_url, mongo_url, namespace, tmp_path, slots)

    with opened_store(mongo_url) as store:
        assert_stored_once(store, feeder)


@pytest.mark.parametrize("levels", [300, 480, 600, 900])
def test_values_deeper_than_anybody_writes_cost_only_their_message(
    redis_url: str,
    client: redis.Redis,
    store_url: str,
    namespace: str,
    tmp_path: Path,
    slots: Path,
    levels: int,
) -> None:
    """G4: deeper than Python goes down without help, so that it cannot be framed again: it is kept as it reads."""
    feeder = Feeder(client, namespace)
    header, body = feeder.encoded(feeder.tasks(2))
    payloads, _ = sections.decode(body, 2)
    table, row = payloads[sections.TABLE], wire.unpack(payloads[0])
    lists = b"\x91" * levels + wire.pack("the bottom")
    odd = b"\x99" + b"".join(map(wire.pack, row[:8])) + b"\x81" + wire.pack("stdout") + lists
    feeder.send_raw(header, b"".join(map(sections.encode, (table, odd, payloads[1], table))))

    consume(redis_url, store_url, namespace, tmp_path, slots)

    with opened_store(store_url) as store:
        assert 2 in epochs(store, "w1")
        books = read_books(store, "w1")
        assert (books.total("stored") + books.total("quarantined"), books.total("missing")) == (2, 0)
        for item in store.find(names.QUARANTINE, {}):
            assert b"the bottom" in bytes(item["raw"])
    assert (feeder.length(), feeder.pending()) == (0, 0)


@pytest.mark.parametrize(
    "fields",
    [
        {"at": 10**18},
        {"at": float("inf")},
        {"at": 1, "sent": 1 << 62},
        {"at": 1, "dropped": [[1, 1 << 63]]},
        {"at": 1, "spooled": 7},
        {"at": 1, "dropped": [[1, 2]], "dropped_reasons": {"a\0b": 1, "$x": 1, "\ud800": 1}},
        [1],
    ],
    ids=str,
)
def test_a_heartbeat_that_makes_no_sense_keeps_nobody_elses_from_the_store(
    redis_url: str,
    client: redis.Redis,
    store_url: str,
    namespace: str,
    tmp_path: Path,
    slots: Path,
    fields: Any,
) -> None:
    odd, sound = Feeder(client, namespace), Feeder(client, namespace)
    odd.send(odd.tasks(1))
    client.hset(odd.keys.beats, odd.producer_id, wire.pack(fields))
    sound.send(sound.tasks(1))
    sound.beat(1_700_000_000_000)

    consume(redis_url, store_url, namespace, tmp_path, slots)

    with opened_store(store_url) as store:
        assert store.count(names.TASKS, {}) == 2
        assert store.count(names.BEATS, {"producer_id": sound.producer_id}) == 1


def test_a_body_hit_in_the_middle_and_cut_off_between_two_messages_gives_no_number_to_another(
    client: redis.Redis, redis_url: str, store_url: str, namespace: str, tmp_path: Path, slots: Path
) -> None:
    """G2: a receipt under a wrong number would let the producer throw away what is nowhere else."""
    feeder = Feeder(client, namespace, receipt=True)
    header, body = feeder.encoded(feeder.tasks(5))
    payloads, _ = sections.decode(body, 5)
    parts = [sections.encode(payloads[index]) for index in (sections.TABLE, 0, 1, 2, 3, 4)]
    parts[2] = flipped(parts[2], 8 * len(parts[2]) - 1)
    feeder.send_raw(header, b"".join(parts))

    consume(redis_url, store_url, namespace, tmp_path, slots)

    assert feeder.receipts() == "1-1"
    with opened_store(store_url) as store:
        (item,) = store.find(names.QUARANTINE, {})
        assert (item["first_seq"], item["last_seq"]) == (2, 5)
        assert epochs(store, "w1") == [1]


@pytest.mark.parametrize("parent", [[1], 7, {"$x": 1}, True], ids=str)
def test_a_message_that_cannot_be_framed_again_is_quarantined_as_it_reads(
    client: redis.Redis,
    redis_url: str,
    store_url: str,
    namespace: str,
    tmp_path: Path,
    slots: Path,
    parent: Any,
) -> None:
    """G4: the store refuses it, and so does what keeps refused messages for a later version."""
    feeder = Feeder(client, namespace)
    header, body = feeder.encoded(feeder.tasks(3))
    payloads, _ = sections.decode(body, 3)
    row = wire.unpack(payloads[1])
    odd = wire.pack([*row[:8], {"parent_task_id": parent, "stdout": "the words"}])
    table = payloads[sections.TABLE]
    feeder.send_raw(header, b"".join(map(sections.encode, (table, payloads[0], odd, payloads[2], table))))

    consume(redis_url, store_url, namespace, tmp_path, slots)

    with opened_store(store_url) as store:
        assert epochs(store, "w1") == [1, 3]
        (item,) = store.find(names.QUARANTINE, {})
        assert (item["first_seq"], item["last_seq"]) == (2, 2)
        assert b"the words" in bytes(item["raw"])
