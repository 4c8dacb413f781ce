"""A run's way out of the store: into an archive, if one is wanted, and then deleted.

- The archive holds everything (`provd.store.run_file`), whatever else is written beside it. It is on the disk, has been
  read back, and has been compared with the store after the tombstone stood, before the first document goes: nothing is
  deleted that is not in it.
- All of it is read where nothing is late, whatever the URL prefers.
- No file that is there is ever written over, and none is written outside of the folder, whatever a run is called.
- It may be cut off anywhere, and goes on when it is done again.
"""

from __future__ import annotations

import getpass
import os
import socket
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

from provd.common import names
from provd.common.errors import BadExport, OutputError, StoreError
from provd.common.ranges import Ranges
from provd.common.record import Record
from provd.query.exports import Exported, export_run
from provd.store.interface import Store
from provd.store.run_file import ORDER, read_runs
from provd.store.tombstones import Progress, find_tombstone

#: What an archive may be; `jsonl` is written in any case.
FORMATS = ("jsonl", "parquet")

#: Times that an archive is written anew because the run has grown: writers that were under way end soon.
_TRIES = 5


@dataclass(frozen=True, slots=True)
class Archiving:
    """Where archives go, and in which format."""

    folder: Path
    format: str = "jsonl"
    lost_after_s: float = 60.0


@dataclass(frozen=True, slots=True)
class _Contents:
    """What a file says it holds."""

    counts: dict[str, int]
    ledger: dict[str, Ranges]
    #: By collection, when its youngest document was received.
    newest: dict[str, datetime]


def remove_run(
    store: Store,
    workflow_id: str,
    *,
    archiving: Archiving | None = None,
    by: str | None = None,
    on_progress: Progress | None = None,
) -> Record:
    """Archive a run, then delete it; gives its tombstone. Goes on with what was cut off.

    Raises `OutputError` where no archive can be written, and `StoreError` where it never holds all: nothing is deleted,
    and the run is there as before, unless messages of it have been refused meanwhile.
    """
    store = store.upkeep().exact(store)  # a secondary would be as late for the archive as for its comparison
    tombstone = find_tombstone(store, workflow_id)
    if tombstone is not None and "archive" in tombstone and archiving is None:
        archiving = Archiving(Path(tombstone["archive"]).parent)
    if archiving is not None and (tombstone is None or "begun_at" not in tombstone):
        try:
            _archive_and_mark(store, workflow_id, archiving, by or who())
        except BaseException:
            if tombstone is None:
                store.undelete_run(workflow_id)  # nothing has happened to the run: it is as it was
            raise
    else:
        store.begin_deletion(workflow_id, by=by or who())
    store.delete_run(workflow_id, on_progress=on_progress)
    tombstone = find_tombstone(store, workflow_id)
    if tombstone is None:
        raise StoreError(f"run {workflow_id} was brought back while it was deleted")
    return tombstone


def who() -> str:
    """Who is deleting, for the tombstone."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in a container
        user = "?"
    return f"{user}@{socket.gethostname()}"


def _archive_and_mark(store: Store, workflow_id: str, archiving: Archiving, by: str) -> None:
    path = archive_run(store, workflow_id, archiving)
    store.begin_deletion(workflow_id, by=by, archive=str(path))
    for _ in range(_TRIES):
        if holds_all(store, workflow_id, path):
            return
        path = archive_run(store, workflow_id, archiving)
        store.begin_deletion(workflow_id, by=by, archive=str(path))
    raise StoreError(f"{workflow_id} is not deleted: it changes faster than {path} can be written")


def archive_run(store: Store, workflow_id: str, archiving: Archiving) -> Path:
    """The file that holds all of a run: one that is there, or a new one. Raises `OutputError`."""
    if (
        os.path.basename(workflow_id) != workflow_id
    ):  # what was brought in is no id of `provd.common.ids` perhaps
        raise OutputError(
            f"{workflow_id!r:.100} cannot be the name of a file: export the run to one of another name"
        )
    run = Exported(store, workflow_id, archiving.lost_after_s)
    try:
        archiving.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{archiving.folder} cannot be made: {error.strerror or error}") from error
    folder = archiving.folder.resolve()
    for number in count(1):
        name = workflow_id if number == 1 else f"{workflow_id}.{number}"
        path, table = folder / f"{name}.jsonl", folder / f"{name}.parquet"
        if path.exists() and not holds_all(store, workflow_id, path):
            continue
        if not path.exists():
            if table.exists():
                continue
            export_run(run, path, "jsonl")
        if archiving.format == "parquet" and not table.exists():
            export_run(run, table, "parquet")
        return path
    raise AssertionError("numbers do not end")


def holds_all(store: Store, workflow_id: str, path: Path) -> bool:
    """Whether a file is whole and holds what the store has of a run now."""
    try:
        found = _read(path, workflow_id)
    except BadExport:
        return False
    if found.ledger != store.stored_ranges(workflow_id):
        return False
    for name in ORDER[:-1]:
        where: dict[str, Any] = {"workflow_id": workflow_id}
        if store.count(name, where) != found.counts.get(name, 0):
            return False
        newest = found.newest.get(name)
        if newest is not None and store.count(name, {**where, "received_at": {"$gt": newest}}):
            return False
    return True


def _read(path: Path, workflow_id: str) -> _Contents:
    """Raises `BadExport` unless the file is one whole export of this run."""
    spans: dict[str, list[tuple[int, int]]] = {}
    newest: dict[str, datetime] = {}
    counts: dict[str, int] | None = None
    for item in read_runs(path):
        if item.workflow_id != workflow_id:
            raise BadExport(f"{path} is of another run")
        document = item.document
        if item.end:
            counts = document
        elif item.collection == names.LEDGER:
            span = document["first_seq"], document["last_seq"]
            spans.setdefault(document["producer_id"], []).append(span)
        elif isinstance(received_at := document.get("received_at"), datetime):
            newest[item.collection] = max(received_at, newest.get(item.collection, received_at))
    ledger = {producer_id: Ranges.of(found) for producer_id, found in spans.items()}
    return _Contents(counts or {}, ledger, newest)
