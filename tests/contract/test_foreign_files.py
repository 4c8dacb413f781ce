"""Exports and backups that somebody has made up: refused in words, before anything is written where that can be seen."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from provd.common import clock, names, values
from provd.common.errors import BadBackup, BadExport
from provd.common.record import Record
from provd.consumer.importing import import_runs
from provd.consumer.restoring import check_backup, restore
from provd.query.backup import back_up
from provd.store.backup_folder import MANIFEST
from provd.store.interface import Store
from provd.store.open import open_store
from provd.store.run_file import ORDER
from tests.builders import START_MS, finished_run

NOW = clock.to_datetime(START_MS)
TASK = {"producer_id": "p", "seq": 1, "received_at": NOW, "task_id": "t", "status": "FINISHED"}
RANGE = {"producer_id": "p", "workflow_id": "alpha", "first_seq": 1, "last_seq": 2}
BEAT = {"producer_id": "p", "workflow_id": "alpha", "beat_at": NOW, "sent": 1, "tasks_started": 1, "tasks_ended": 1,
        "spooled": [], "dropped": []}  # fmt: skip
PIECE = {"_id": "a", "reason": "r", "raw": b"x", "size": 1, "received_at": NOW, "workflow_id": "alpha"}
TOMBSTONE = {"workflow_id": "gone", "deleted_at": NOW, "by": "ada", "counts": {}, "refused": 0}
MARK = {"name": "c1", "hostname": "n", "pid": 1, "version": "1", "state": "running", "since": NOW, "broker_at": NOW,
        "store_at": NOW, "figures": {}}  # fmt: skip

#: No message could say these; some are no Unicode, or too large for a store.
FOREIGN: list[tuple[str, Record]] = [
    (names.TASKS, TASK | {"workflow_id": "../../climbed"}),
    (names.TASKS, TASK | {"workflow_id": "\ud800"}),
    (names.TASKS, TASK | {"workflow_id": "alpha", "producer_id": "\ud800"}),
    (names.LEDGER, RANGE | {"last_seq": 1 << 70}),
    (names.LEDGER, RANGE | {"producer_id": "\ud800"}),
    (names.BEATS, BEAT | {"producer_id": "\ud800"}),
    (names.BEATS, BEAT | {"sent": 1 << 80}),
    (names.BEATS, BEAT | {"spooled": [[1, 1 << 80]]}),
    (names.BEATS, BEAT | {"dropped_reasons": {"a\0b": 1}}),
    (names.BEATS, BEAT | {"dropped_reasons": {"$set": 1}}),
    (names.QUARANTINE, PIECE | {"_id": "\ud800"}),
]


def export_of(path: Path, documents: Sequence[tuple[str, Record]]) -> Path:
    """A file whose counts and digest are right."""
    counts: dict[str, int] = dict.fromkeys(ORDER, 0)
    workflow_id = documents[0][1]["workflow_id"]
    lines = [{"provd_export": 1, "workflow_id": workflow_id, "exported_at": NOW}]
    for collection, document in documents:
        counts[collection] += 1
        lines.append({"collection": collection, "document": document})
    text = b"".join(values.to_json(line).encode() + b"\n" for line in lines)
    end = {"end": counts, "sha256": hashlib.sha256(text).hexdigest()}
    path.write_bytes(text + values.to_json(end).encode() + b"\n")
    return path


@pytest.mark.parametrize(("collection", "document"), FOREIGN)
def test_an_export_with_what_no_message_says_is_refused_with_its_line(
    store: Store, tmp_path: Path, collection: str, document: Record
) -> None:
    good = TASK | {"workflow_id": document["workflow_id"], "task_id": "good"}
    path = export_of(tmp_path / "x.jsonl", [(names.TASKS, good), (collection, document)])

    with pytest.raises(BadExport, match=r"x\.jsonl:[23]: "):
        import_runs(path, store)

    assert not any(store.count(name, {}) for name in names.COLLECTIONS)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A backup of one run."""
    source = open_store(f"sqlite:///{tmp_path}/source.db")
    source.migrate()
    finished_run(source, "alpha")
    back_up(source, tmp_path / "backup", version="1")
    source.close()
    return tmp_path / "backup"


def replaced(folder: Path, collection: str, lines: bytes, documents: int = 1) -> None:
    """Put other documents into a collection, with the digest that they have."""
    said = json.loads((folder / MANIFEST).read_text())
    packed, name = gzip.compress(lines), f"{collection}-000001.jsonl.gz"
    (folder / name).write_bytes(packed)
    said["collections"][collection] = [
        {"name": name, "documents": documents, "bytes": len(packed), "sha256": hashlib.sha256(packed).hexdigest()}
    ]  # fmt: skip
    (folder / MANIFEST).write_text(json.dumps(said))


@pytest.mark.parametrize(
    ("collection", "document"),
    [
        *FOREIGN,
        (names.TASKS, TASK | {"workflow_id": {"a": 1}}),
        (names.TASKS, {}),
        (names.QUARANTINE, PIECE | {"raw": 5}),
        (names.TOMBSTONES, {"deleted_at": NOW}),
        (names.TOMBSTONES, TOMBSTONE | {"workflow_id": ["alpha"]}),
        (names.TOMBSTONES, TOMBSTONE | {"workflow_id": "../gone"}),
        (names.TOMBSTONES, TOMBSTONE | {"deleted_at": "yesterday"}),
        (names.TOMBSTONES, TOMBSTONE | {"$set": {"by": "eve"}}),
        (names.CONSUMERS, {"name": "c1"}),
        (names.CONSUMERS, MARK | {"store_at": 5}),
        (names.CONSUMERS, MARK | {"name": "\ud800"}),
    ],
)
def test_a_backup_with_what_no_store_gives_is_refused_in_words(
    store: Store, folder: Path, collection: str, document: Record
) -> None:
    replaced(folder, collection, values.to_json(document).encode() + b"\n")
    manifest = check_backup(folder)

    with pytest.raises(BadBackup, match=f"no document of {collection}"):
        restore(folder, manifest, store)

    assert store.stored_ranges("alpha") == {}


def test_a_line_that_unpacks_to_more_than_any_document_is_not_read_to_its_end(
    store: Store, folder: Path
) -> None:
    replaced(folder, names.TASKS, b'{"a":"' + b"x" * (80 << 20) + b'"}\n')

    with pytest.raises(BadBackup, match="cannot be read"):
        restore(folder, check_backup(folder), store)


@pytest.mark.parametrize("name", ["a\0b", "..", "", "/etc/passwd", "link", 7, None])
def test_a_manifest_names_files_of_its_folder_alone(folder: Path, name: Any) -> None:
    (folder / "link").symlink_to("/etc/passwd")
    said = json.loads((folder / MANIFEST).read_text())
    said["collections"]["tasks"][0]["name"] = name
    (folder / MANIFEST).write_text(json.dumps(said))

    with pytest.raises(BadBackup):
        check_backup(folder)


def test_a_manifest_of_any_depth_is_refused_in_words(folder: Path) -> None:
    (folder / MANIFEST).write_text('{"provd_backup":1,"a":' + "[" * 200_000 + "]" * 200_000 + "}")

    with pytest.raises(BadBackup, match="cannot be read"):
        check_backup(folder)
