"""`provd quarantine`: what could not be stored is listed, shown, and tried again, on both stores (G4, G7)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from typer.testing import Result

from provd.common import names, sections, wire
from provd.common.record import Message
from provd.consumer.batch import Batch, ledger
from provd.consumer.streams import Entry
from provd.store.books import read_books
from provd.store.interface import Quarantined, Refusal, Store
from tests.builders import ProducerBuilder
from tests.integration.commands import Provd

STREAM = "provd:{3}:stream:-:w1"


def run_of(count: int = 5, **fields: Any) -> list[Message]:
    """A producer's whole life: hello, tasks, goodbye."""
    part = ProducerBuilder("w1", "p1").open()
    for _ in range(count):
        part.task(**fields)
    return part.close().messages


def frame_of(messages: list[Message]) -> tuple[bytes, bytes]:
    """One frame of them."""
    return wire.encode_messages(messages, campaign_id=None, hostname="node01", pid=1, rank=None)


def entry_of(header: bytes, body: bytes, entry_id: str = "1795183200000-0") -> Entry:
    """It, as Redis has it."""
    return Entry(STREAM, entry_id, {names.HEADER_FIELD: header, names.BODY_FIELD: body})


def take(store: Store, entry: Entry) -> Batch:
    """Put an entry into the store as the consumer does."""
    batch = Batch()
    batch.add(entry)
    store.write(batch.messages, received_at=1)
    store.add_quarantined(batch.quarantined)
    store.add_stored(ledger(batch.messages))
    return batch


def flipped(data: bytes, place: int) -> bytes:
    """The same with a bit flipped."""
    return data[:place] + bytes([data[place] ^ 0x40]) + data[place + 1 :]


def pieces_of(result: Result) -> list[dict[str, Any]]:
    """The documents that a command printed, one a line."""
    assert result.exit_code in (0, 1), result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_an_empty_quarantine_says_so(provd: Provd) -> None:
    result = provd("quarantine", "list")

    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "nothing is in quarantine\n")


def test_the_list_names_pieces_the_newest_first_with_counts_by_reason(store: Store, provd: Provd) -> None:
    for number in range(3):
        store.add_quarantined(
            [Quarantined("damaged on the way", b"x" * number, "s", f"1-{number}", workflow_id="w1")]
        )
    store.add_quarantined([Quarantined("too large", b"y", "s", "9-9", "p1", "w2", 3, 4)])

    everything, chosen = (
        provd("quarantine", "list", "--json"),
        provd("quarantine", "list", "--reason", "LARGE", "--json"),
    )
    of_run = provd("quarantine", "list", "-w", "w1", "-n", "2", "--json")

    listed = pieces_of(everything)
    assert len(listed) == 4
    assert [piece["received_at"] for piece in listed] == sorted(
        (p["received_at"] for p in listed), reverse=True
    )
    assert everything.stderr == "4 pieces in quarantine: 3 damaged on the way; 1 too large\n"
    (large,) = pieces_of(chosen)
    assert (large["first_seq"], large["last_seq"], large["size"], "raw" in large) == (3, 4, 1, False)
    assert [piece["workflow_id"] for piece in pieces_of(of_run)] == ["w1", "w1"]
    assert "only the newest 2 of 3 shown" in of_run.stderr


@pytest.mark.parametrize("columns", [80, 140])
def test_the_list_fits_its_width(
    store: Store, provd: Provd, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    store.add_quarantined([Quarantined("a reason " * 20, b"y", STREAM, "9-9", "p" * 30, "w" * 40, 3, 4)])
    monkeypatch.setenv("COLUMNS", str(columns))

    result = provd("quarantine", "list")

    assert max(map(len, result.stdout.splitlines())) <= columns
    assert "3-4" in result.stdout


def test_a_piece_is_shown_with_where_it_came_from_its_bytes_and_what_can_be_read(
    store: Store, provd: Provd
) -> None:
    header, body = frame_of(run_of())
    store.add_quarantined(
        [Quarantined("poison", header + body, STREAM, "17-1", workflow_id="w1", header_bytes=len(header))]
    )
    (piece,) = pieces_of(provd("quarantine", "list", "--json"))

    page, document = (
        provd("quarantine", "show", piece["piece_id"][:6]),
        provd("quarantine", "show", piece["piece_id"], "--json"),
    )

    assert max(map(len, page.stdout.splitlines())) <= 80
    for text in ("poison", STREAM, "17-1", header[:8].hex(" "), "seq 2  task  train  FINISHED", "lr=0.1"):
        assert text in page.stdout
    (shown,) = pieces_of(document)
    assert [message["seq"] for message in shown["decoded"]["messages"]] == list(range(1, 8))


def test_a_piece_that_nobody_can_read_is_shown_too(store: Store, provd: Provd) -> None:
    store.add_quarantined(
        [Quarantined("not a frame", b"greeting=\x1b[31mhello", STREAM, "17-1", workflow_id="w1")]
    )

    (piece,) = pieces_of(provd("quarantine", "list", "--json"))
    page = provd("quarantine", "show", piece["piece_id"])

    assert (page.exit_code, "\x1b" in page.stdout) == (0, False)
    assert "it holds no frame" in page.stdout


@pytest.mark.parametrize("text", ["f00", ""])
def test_an_unknown_piece_exits_1(provd: Provd, text: str) -> None:
    result = provd("quarantine", "show", text)

    assert (result.exit_code, result.stdout) == (1, "")
    assert "provd quarantine list" in result.stderr


@pytest.mark.parametrize("length_kept", [True, False], ids=["header length kept", "written before it was"])
def test_a_frame_that_can_be_read_again_is_stored_and_leaves_quarantine(
    store: Store, provd: Provd, length_kept: bool
) -> None:
    """G7: its numbers move from quarantined (here: from nobody knows whose) to stored."""
    header, body = frame_of(run_of())
    kept = len(header) if length_kept else None
    store.add_quarantined(
        [Quarantined("poison", header + body, STREAM, "17-1", workflow_id="w1", header_bytes=kept)]
    )
    assert read_books(store, "w1").unattributed == 1

    result = provd("quarantine", "retry", "--all")
    again = provd("quarantine", "retry", "--all")

    assert (result.exit_code, again.exit_code) == (0, 0), result.output
    assert "stored, 7 messages" in result.stdout
    assert again.stderr == "nothing to try again\n"
    assert read_books(store, "w1").complete
    assert store.count(names.QUARANTINE, {}) == 0


def test_a_piece_of_many_documents_is_read_whole(store: Store, provd: Provd) -> None:
    """G4: of any size."""
    header, body = frame_of(run_of(3, used={"data": b"\x07" * (7 << 20)}))
    store.add_quarantined(
        [Quarantined("poison", header + body, STREAM, "17-1", workflow_id="w1", header_bytes=len(header))]
    )
    assert store.count(names.QUARANTINE, {}) == 3

    result = provd("quarantine", "retry", "--all")

    assert result.exit_code == 0, result.output
    assert read_books(store, "w1").complete
    assert store.count(names.QUARANTINE, {}) == 0


def test_what_can_be_read_of_a_frame_is_stored_and_the_rest_stays_with_its_numbers(
    store: Store, provd: Provd
) -> None:
    """G4: one bad record harms only itself, also when it is tried again."""
    header, body = frame_of(run_of())
    body = flipped(body, len(body) // 2)
    store.add_quarantined(
        [Quarantined("poison", header + body, STREAM, "17-1", workflow_id="w1", header_bytes=len(header))]
    )

    result, again = (
        provd("quarantine", "retry", "--all", "--json"),
        provd("quarantine", "retry", "--all", "--json"),
    )

    (tried,), (stays,) = pieces_of(result), pieces_of(again)
    assert (result.exit_code, again.exit_code) == (1, 1)
    assert (tried["fate"], tried["messages"], tried["reason"]) == ("partly", 6, "damaged on the way")
    assert (stays["fate"], stays["reason"]) == ("stays", "damaged on the way")
    (books,) = read_books(store, "w1").producers
    assert (len(books.stored), len(books.quarantined), len(books.missing)) == (6, 1, 0)


def test_a_damaged_message_whose_good_copy_has_come_since_leaves_quarantine(
    store: Store, provd: Provd
) -> None:
    """A producer with `durability: disk` sends again what it has no receipt for."""
    messages = run_of()
    header, body = frame_of(messages)
    batch = take(store, entry_of(header, flipped(body, len(body) // 2)))
    assert len(batch.quarantined) == 1

    before = provd("quarantine", "retry", "--all")
    take(store, entry_of(header, body, "1795183200000-1"))
    after = provd("quarantine", "retry", "--all")

    assert (before.exit_code, after.exit_code) == (1, 0)
    assert "by another way" in after.stdout
    assert store.count(names.QUARANTINE, {}) == 0
    assert read_books(store, "w1").complete


def test_a_message_that_this_version_reads_and_the_last_did_not_is_stored(store: Store, provd: Provd) -> None:
    """Its row was kept with its frame's table and a header of its own. Here the row was called flawed by hand."""
    messages = run_of()
    header, body = frame_of(messages)
    take(store, entry_of(*frame_of(messages[:2])))
    take(store, entry_of(*frame_of(messages[3:])))
    payloads, _ = sections.decode(body, len(messages))
    decoded = wire.decode_header(header)
    own = wire.encode_header(
        wire.Header(
            decoded.producer_id, "w1", None, decoded.hostname, decoded.pid, None, first_seq=3, count=1
        )
    )
    store.add_quarantined(
        [
            Quarantined(
                "not a message: 'x'", sections.encode(payloads[2]), STREAM, "17-1", "p1", "w1", 3, 3,
                header=own, table=payloads[sections.TABLE],
            )
        ]
    )  # fmt: skip

    result = provd("quarantine", "retry", "--all")

    assert result.exit_code == 0, result.output
    assert read_books(store, "w1").complete


def test_what_the_store_still_refuses_stays_with_the_new_reason_and_the_exit_is_1(
    store: Store, provd: Provd
) -> None:
    from provd.consumer.pieces import refused_piece

    other = ProducerBuilder("w2", "p2").open()
    task_id = other.task()
    other.write(store)
    (message,) = [m for m in run_of(1, task_id=task_id) if m.kind.value == "task"]
    store.add_quarantined([refused_piece(Refusal(message, "an old reason"))])

    result = provd("quarantine", "retry", "--all")

    assert result.exit_code == 1
    assert "stays: its id belongs to a record of another workflow" in " ".join(result.stdout.split())
    (piece,) = store.find(names.QUARANTINE, {})
    assert piece["reason"] == "its id belongs to a record of another workflow"
    assert store.stored_ranges("w1") == {}


def test_retry_takes_ids_or_all_and_never_guesses(store: Store, provd: Provd) -> None:
    header, body = frame_of(run_of())
    for number in range(2):
        piece = Quarantined(
            "poison", header + body, STREAM, f"17-{number}", workflow_id="w1", header_bytes=len(header)
        )
        store.add_quarantined([piece])
    first, second = pieces_of(provd("quarantine", "list", "--json"))

    nothing, both = provd("quarantine", "retry"), provd("quarantine", "retry", "--all", first["piece_id"])
    one = provd("quarantine", "retry", first["piece_id"][:10])

    assert (nothing.exit_code, both.exit_code, one.exit_code) == (2, 2, 0)
    assert [piece["piece_id"] for piece in pieces_of(provd("quarantine", "list", "--json"))] == [
        second["piece_id"]
    ]
