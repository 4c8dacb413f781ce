"""Every version reads what schema 1 left behind (`tests/golden/README.md`)."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import bson
import pymongo
import pytest
from bson.raw_bson import RawBSONDocument

from provd.common import values, wire
from provd.common.record import Message, Record
from provd.common.spool import read_spool
from provd.store.books import read_books
from provd.store.interface import Store
from provd.store.open import open_store

GOLDEN = Path(__file__).parents[1] / "golden" / "schema1"
COLLECTIONS = ("tasks", "workflows", "producers", "ledger", "beats", "quarantine")


def comparable(document: Record) -> str:
    """A document as text in which NaN equals NaN and the order of keys does not matter."""
    ordered = {key: document[key] for key in sorted(document) if key != "received_at"}
    return values.to_json(ordered)


def frame_messages() -> tuple[Message, ...]:
    """The messages of the golden frame."""
    frame = wire.decode((GOLDEN / "frame.header").read_bytes(), (GOLDEN / "frame.body").read_bytes())
    assert frame.flaws == ()
    return frame.messages


@pytest.fixture(params=["embedded", "mongo"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A store as schema 1 left it."""
    if request.param == "embedded":
        copy = shutil.copy(GOLDEN / "embedded.db", tmp_path / "provd.db")
        return open_store(f"sqlite:///{copy}")
    url = request.getfixturevalue("mongo_url")
    with pymongo.MongoClient[dict[str, Any]](url) as client:
        for file in sorted((GOLDEN / "mongo").glob("*.bson")):
            documents = [RawBSONDocument(bson.encode(d)) for d in bson.decode_all(file.read_bytes())]
            client.get_default_database()[file.stem].insert_many(documents)
    return open_store(url)


def test_the_frame_is_read() -> None:
    messages = frame_messages()

    assert [message.seq for message in messages] == list(range(1, 11))
    assert messages[2].record["used"] == {"lr": 0.1, "epoch": 0, "name": "adam"}
    assert messages[5].record["used"]["big"] == 2**80
    assert messages[5].record["used"]["tuples"] == {(1, 2): "pair"}
    assert messages[5].record["used"]["lone"] == "\ud800"


def test_the_spool_file_holds_the_very_messages_of_the_frame() -> None:
    lines = list(read_spool(GOLDEN / "spool.jsonl"))

    assert [line.error for line in lines] == [None] * 10
    messages = [line.message for line in lines if line.message is not None]
    assert [comparable(message.record) for message in messages] == [
        comparable(message.record) for message in frame_messages()
    ]


def test_the_store_is_read_and_its_books_are_complete(store: Store) -> None:
    # Given a store that this version has brought up to date
    store.migrate()

    # Then its documents are what they were
    lines = [values.from_json(line) for line in (GOLDEN / "documents.jsonl").read_text().splitlines()]
    for collection in COLLECTIONS:
        expected = [line["document"] for line in lines if line["collection"] == collection]
        assert sorted(map(comparable, store.find(collection, {}))) == sorted(map(comparable, expected))

    # And its books are complete
    assert read_books(store, "golden-run").complete
    store.close()


def test_the_frame_of_then_changes_nothing_in_the_store_of_then(store: Store) -> None:
    """G3: a replay of what is stored changes nothing, also across versions."""
    store.migrate()
    before = sorted(map(comparable, store.find("tasks", {})))

    written = store.write(frame_messages(), received_at=1_800_000_000_000)

    assert (written.stored, written.refused) == (0, ())
    assert sorted(map(comparable, store.find("tasks", {}))) == before
    store.close()
