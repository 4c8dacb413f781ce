"""A backup back into a store.

- Every file is checked against the manifest before anything is written.
- Records go in before the ledger, and no ledger of a run of which a document was refused: the books never claim more
  than the store holds.
- The store gets an identity of its own: what producers were told that the old store holds does not count here, and those
  that still have it send it again (`docs/decisions/0007-receipts.md`).
- Cut off, it is begun again from the start, and changes nothing that is there. Until it has ended, only the same backup
  may go in without being asked to merge.
- Of runs that the backup knows as deleted nothing goes in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from provd.common import clock, names
from provd.common.errors import BadBackup, UsageError
from provd.common.record import Record
from provd.store import whole
from provd.store.backup_folder import Manifest, check_files, read_collection, read_manifest
from provd.store.interface import Store

#: Documents in one write, and about how many bytes of quarantined pieces.
_BATCH = 1000
_BATCH_BYTES = 16 << 20

#: The order in which collections are written.
_ORDER = (
    names.TOMBSTONES, names.WORKFLOWS, names.PRODUCERS, names.TASKS, names.SAMPLES, names.QUARANTINE, names.BEATS,
    names.CONSUMERS, names.LEDGER,
)  # fmt: skip

#: Where a document means that somebody uses the store.
_RECORDS = (
    names.WORKFLOWS,
    names.PRODUCERS,
    names.TASKS,
    names.SAMPLES,
    names.QUARANTINE,
    names.LEDGER,
    names.TOMBSTONES,
)

#: Refusals that are told one by one.
_REFUSALS_KEPT = 20

Progress = Callable[[int, int], None]


@dataclass(slots=True)
class Restored:
    """What was done. `deleted` documents are of runs that were deleted, in the backup or in the store."""

    backup_id: str
    store_id: str
    documents: int = 0
    changed: int = 0
    unchanged: int = 0
    deleted: int = 0
    refused: int = 0
    reasons: list[str] = field(default_factory=list)


def check_backup(folder: Path, on_progress: Progress = lambda _done, _total: None) -> Manifest:
    """Read a backup to its end; `on_progress` is told bytes. Raises `BadBackup`."""
    manifest = read_manifest(folder)
    check_files(folder, manifest, on_progress)
    return manifest


def restore(
    folder: Path,
    manifest: Manifest,
    store: Store,
    *,
    merge: bool = False,
    on_progress: Progress = lambda _done, _total: None,
) -> Restored:
    """Bring in a backup that `check_backup` has read. `on_progress` is told documents.

    Raises `UsageError` for a store that has something already, unless it is to be merged, and `StoreUnavailable`.
    """
    upkeep = store.upkeep()
    mark = upkeep.restored()
    is_ours = mark is not None and mark.backup_id == manifest.backup_id
    is_empty = not any(True for name in _RECORDS for _ in store.find(name, {}, limit=1))
    if not (is_empty or is_ours or merge):
        raise UsageError(
            f"{store.url} has records already: name an empty store, or --merge the backup into it"
        )
    if is_empty or (mark is not None and is_ours and mark.ended_at is None):
        restoring = _Restore(store, upkeep.begin_restore(manifest.backup_id), manifest, on_progress)
        restoring.read(folder)
        upkeep.end_restore(manifest.backup_id)
    else:  # what the store has it keeps, and so what it has told producers still holds
        restoring = _Restore(store, store.identity(), manifest, on_progress)
        restoring.read(folder)
    return restoring.done


class _Restore:
    def __init__(self, store: Store, store_id: str, manifest: Manifest, on_progress: Progress) -> None:
        self._store = store
        self._manifest = manifest
        self._on_progress = on_progress
        self._total = sum(manifest.documents.values())
        self._read = 0
        self._deleted: set[str] = set()
        #: Runs of which something was refused, or that have been deleted here.
        self._incomplete: set[str] = set()
        self.done = Restored(manifest.backup_id, store_id)

    def read(self, folder: Path) -> None:
        """Everything, collection by collection."""
        for name in _ORDER:
            documents = read_collection(folder, self._manifest.collections.get(name, ()))
            for batch in _batches(documents):
                self._read += len(batch)
                try:
                    self._write(name, [_checked(name, document) for document in batch])
                except (ValueError, OverflowError, RecursionError) as error:
                    if isinstance(error, UsageError):
                        raise
                    raise BadBackup(f"{folder}: no document of {name}: {error}") from error
                self._on_progress(self._read, self._total)

    def _write(self, name: str, batch: list[Record]) -> None:
        self.done.documents += len(batch)
        if name == names.TOMBSTONES:
            self._bury(batch)
            return
        living = [document for document in batch if document.get("workflow_id") not in self._deleted]
        self.done.deleted += len(batch) - len(living)
        if name == names.LEDGER:
            ranges = map(whole.range_of, living)
            self._store.add_stored(one for one in ranges if one.workflow_id not in self._incomplete)
        elif name == names.QUARANTINE:
            self._store.put_pieces(living)
        elif name == names.BEATS:
            self._store.put_beats(map(whole.beat_of, living))
        elif name == names.CONSUMERS:
            self._store.upkeep().put(name, living)
        else:
            self._put(name, living)

    def _bury(self, tombstones: list[Record]) -> None:
        """Runs that were deleted where the backup was made; here, one that is there stays."""
        for tombstone in tombstones:
            workflow_id = tombstone["workflow_id"]
            self._deleted.add(workflow_id)
            of_run = {"workflow_id": workflow_id}
            kept = (names.WORKFLOWS, names.PRODUCERS, names.TASKS, names.LEDGER)
            if not any(True for name in kept for _ in self._store.find(name, of_run, limit=1)):
                self._store.upkeep().put(names.TOMBSTONES, [tombstone])

    def _put(self, name: str, documents: list[Record]) -> None:
        written = self._store.put_documents(name, documents, received_at=clock.now_ms())
        self.done.changed += written.stored
        self.done.unchanged += written.duplicates
        self.done.deleted += sum(written.gone.values())
        self.done.refused += len(written.refused)
        self._incomplete |= {refusal.message.workflow_id for refusal in written.refused} | written.gone.keys()
        room = _REFUSALS_KEPT - len(self.done.reasons)
        self.done.reasons += [
            f"{refusal.message.record_id}: {refusal.reason}" for refusal in written.refused[: max(0, room)]
        ]


def _checked(name: str, document: Record) -> Record:
    """A document with what is taken for granted below. Raises `ValueError`."""
    if name == names.TOMBSTONES:
        return whole.tombstone_of(document)
    if name == names.CONSUMERS:
        return whole.mark_of(document)
    if name == names.QUARANTINE:
        return whole.piece_document(document)
    if not isinstance(document.get("workflow_id"), str):
        raise ValueError("workflow_id is missing, or of the wrong type")
    return document


def _batches(documents: Iterator[Record]) -> Iterator[list[Record]]:
    """Some at a time: fewer, where they are large."""
    while batch := list(islice(_small(documents), _BATCH)):
        yield batch


def _small(documents: Iterable[Record]) -> Iterator[Record]:
    size = 0
    for document in documents:
        yield document
        raw = document.get("raw")
        size += len(raw) if isinstance(raw, bytes) else 0
        if size >= _BATCH_BYTES:
            return
