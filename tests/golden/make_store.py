"""Writes the golden store of one version of the schema, once: when the version is new, by the code that has it.

    python -m tests.golden.make_store embedded tests/golden/stores/embedded-6.db
    python -m tests.golden.make_store mongodb tests/golden/stores/mongodb-5.json mongodb://HOST/AN_EMPTY_DATABASE

Every later version must read the file; it is never written again (`README.md`).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pymongo
from bson import json_util

from provd.common import names, values, wire
from provd.common.ranges import Ranges
from provd.store.interface import Beat, ConsumerMark, Quarantined, Store, Stored
from provd.store.open import open_store

SCHEMA1 = Path(__file__).parent / "schema1"

#: When the golden run was received.
RECEIVED_MS = 1_795_214_208_000


def golden_run(store: Store) -> None:
    """What `schema1/documents.jsonl` says, and a consumer."""
    frame = wire.decode((SCHEMA1 / "frame.header").read_bytes(), (SCHEMA1 / "frame.body").read_bytes())
    store.write(frame.messages, received_at=RECEIVED_MS)
    lines = [values.from_json(line) for line in (SCHEMA1 / "documents.jsonl").read_text().splitlines()]
    documents = {line["collection"]: line["document"] for line in lines}
    span, beat, piece = documents["ledger"], documents["beats"], documents["quarantine"]
    producer_id, workflow_id = span["producer_id"], span["workflow_id"]
    store.add_stored([Stored(producer_id, workflow_id, span["first_seq"], span["last_seq"])])
    beat_at = round(beat["beat_at"].timestamp() * 1000)
    none = Ranges()
    store.put_beats(
        [
            Beat(
                producer_id,
                workflow_id,
                beat_at,
                beat["sent"],
                beat["tasks_started"],
                beat["tasks_ended"],
                none,
                none,
            )
        ]
    )
    piece = {name: value for name, value in piece.items() if name not in ("_id", "received_at", "size")}
    store.add_quarantined([Quarantined(**piece)])
    store.put_consumer(ConsumerMark("c1", "node001", 7, "1.0", "running", beat_at, beat_at + 9000))


def later_things(store: Store) -> None:
    """What came with later versions: links, and a deleted run."""
    if hasattr(names, "LINKS"):
        linked_run(store)
    if hasattr(names, "TOMBSTONES"):
        from tests.builders import finished_run

        finished_run(store, "deleted-run")
        store.begin_deletion("deleted-run", by="ada@login1")
        store.delete_run("deleted-run")


def linked_run(store: Store) -> None:
    """Two tasks, of which one uses what the other made."""
    from tests.builders import ProducerBuilder

    part = ProducerBuilder("linked-run", "p-linked").open().workflow()
    checkpoint = {"type": "provd.Key", "key": "checkpoint"}
    part.task("train", generated={"model": checkpoint})
    part.task("evaluate", used={"model": checkpoint})
    part.close().write(store)


def dump(url: str) -> str:
    """A database's collections and indexes as Extended JSON."""
    with pymongo.MongoClient[dict[str, Any]](url) as client:
        database = client.get_default_database()
        found = {}
        for name in sorted(database.list_collection_names()):
            indexes = [dict(index) for index in database[name].list_indexes() if index["name"] != "_id_"]
            for index in indexes:
                index["key"] = list(index["key"].items())
            found[name] = {"documents": list(database[name].find()), "indexes": indexes}
    return json_util.dumps(found, json_options=json_util.CANONICAL_JSON_OPTIONS, indent=1) + "\n"


def main(kind: str, path: str, url: str = "") -> None:
    """Write the file."""
    store = open_store(url or f"sqlite:///{path}")
    store.migrate()
    store.identity()
    golden_run(store)
    later_things(store)
    store.close()
    if kind == "mongodb":
        Path(path).write_text(dump(url), encoding="utf-8")
        return
    import sqlite3

    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = DELETE")  # one file, that is whole
    connection.close()
    Path(path + ".lock").unlink(missing_ok=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
