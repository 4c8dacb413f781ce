"""Exported runs into the store.

- A file is read twice: all of it is checked before anything is written.
- Documents go in before the ledger, and the ledger only when every document of the run is in: the books never claim more
  than the store holds.
- Repeating it changes nothing; a run that is there already is merged (G3).
- Memory is bounded by one batch, beside the ledger of one run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from provd.common import clock, names
from provd.common.record import Record
from provd.store import whole
from provd.store.interface import Store, Stored
from provd.store.run_file import Item, read_runs

#: Documents in one write, and about how many bytes of quarantined pieces.
_BATCH = 2000
_BATCH_BYTES = 16 << 20

#: Refusals that are told one by one.
_REFUSALS_KEPT = 20


@dataclass(slots=True)
class Imported:
    """What an import did. `refused` documents are not in the store, and their runs' ledgers are not entered."""

    workflow_ids: list[str] = field(default_factory=list)
    documents: int = 0
    changed: int = 0
    unchanged: int = 0
    refused: int = 0
    reasons: list[str] = field(default_factory=list)
    #: Documents of runs that have been deleted, which are not kept.
    gone: int = 0

    def add(self, other: Imported) -> None:
        """Count another file in."""
        self.workflow_ids += other.workflow_ids
        self.documents += other.documents
        self.changed += other.changed
        self.unchanged += other.unchanged
        self.refused += other.refused
        self.reasons += other.reasons
        self.gone += other.gone


def check_export(path: Path) -> list[str]:
    """Read a file to its end; returns the runs in it. Raises `BadExport`, which names the line."""
    return [item.workflow_id for item in read_runs(path) if item.end]


def import_runs(path: Path, store: Store, *, on_progress: Callable[[int], None] | None = None) -> Imported:
    """Bring the runs of a file into the store. Raises `BadExport` before anything is written, and `StoreUnavailable`.

    `on_progress` is told the lines written so far.
    """
    check_export(path)
    return import_checked(path, store, on_progress=on_progress)


def import_checked(path: Path, store: Store, *, on_progress: Callable[[int], None] | None = None) -> Imported:
    """The same of a file that `check_export` has read. Should it have changed since, its ledger is not entered."""
    importing = _Import(store)
    for item in read_runs(path):
        importing.take(item)
        if on_progress is not None and importing.is_empty:
            on_progress(item.number)
    return importing.done


class _Import:
    """The batch in hand, all of one collection, and the ledger of the run in hand."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.done = Imported()
        self._collection = ""
        self._batch: list[Record] = []
        self._size = 0
        self._ledger: list[Stored] = []
        #: Documents of the run in hand that the store did not take.
        self._missing = 0

    @property
    def is_empty(self) -> bool:
        return not self._batch

    def take(self, item: Item) -> None:
        if item.end:
            self._end(item.workflow_id)
            return
        if item.collection == names.LEDGER:
            self._ledger.append(whole.range_of(item.document))
            return
        if item.collection != self._collection:
            self._write()
            self._collection = item.collection
        self._batch.append(item.document)
        self._size += len(item.document.get("raw", b"")) if item.collection == names.QUARANTINE else 0
        if len(self._batch) >= _BATCH or self._size >= _BATCH_BYTES:
            self._write()

    def _end(self, workflow_id: str) -> None:
        self._write()
        if not self._missing:
            self._store.add_stored(self._ledger)
        self.done.workflow_ids.append(workflow_id)
        self._ledger, self._missing = [], 0

    def _write(self) -> None:
        batch, self._batch, self._size = self._batch, [], 0
        if not batch:
            return
        self.done.documents += len(batch)
        if self._collection == names.BEATS:
            self._store.put_beats(map(whole.beat_of, batch))
        elif self._collection == names.QUARANTINE:
            self._store.put_pieces(batch)
        else:
            written = self._store.put_documents(self._collection, batch, received_at=clock.now_ms())
            self.done.changed += written.stored
            self.done.unchanged += written.duplicates
            self._missing += len(written.refused) + sum(written.gone.values())
            self.done.refused += len(written.refused)
            self.done.gone += sum(written.gone.values())
            room = _REFUSALS_KEPT - len(self.done.reasons)
            self.done.reasons += [
                f"{refusal.message.record_id}: {refusal.reason}" for refusal in written.refused[:room]
            ]
