"""Spool files into the store.

- Replaying twice changes nothing: a message is merged as it would be from a stream, in whatever order it comes (G3).
- What the ledger has is passed over: an entry is made after the store has confirmed the documents, so it proves them.
- A torn or garbled line is counted with its number and skipped; the file's other lines are stored.
- Files are only read here, unless removal is asked for: then a file goes when it is closed, has no bad line, has not
  changed while it was read, and every message of it is confirmed by the store. One that is still open is read as far
  as it goes.
- Memory is bounded by one batch, in messages and in bytes, beside the ledger of the workflows at hand.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from provd.common import clock
from provd.common.ranges import Ranges
from provd.common.record import Message
from provd.common.spool import BadLine
from provd.common.spool_reader import SpoolFile, SpoolReader
from provd.consumer.batch import keep_books
from provd.store.interface import Store, Stored

#: Messages in one write, where nobody says otherwise.
BATCH_MESSAGES = 2000

#: Bytes of lines in one write.
_BATCH_BYTES = 16 << 20

#: Above every number.
_BEYOND = 1 << 62

#: Workflows whose ledgers are kept at hand.
_LEDGERS_MAX = 256


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """What a replay did. `complete` is false when it was stopped.

    `bad_lines` holds the first of `bad_count`; those of line 0 are files or folders that could not be read at all.
    """

    files: int = 0
    messages: int = 0
    stored: int = 0
    duplicates: int = 0
    refused: int = 0
    #: Messages of deleted runs, which are not kept: they are settled.
    of_deleted_runs: int = 0
    bad_lines: tuple[BadLine, ...] = ()
    complete: bool = True
    bad_count: int = 0
    #: Files that were still open when they were read, that were gone, and that were removed as asked for.
    open: int = 0
    gone: int = 0
    removed: int = 0


def replay_into_store(
    paths: Iterable[Path],
    store: Store,
    *,
    batch_messages: int = BATCH_MESSAGES,
    on_progress: Callable[[int], None] | None = None,
    stop: threading.Event | None = None,
    remove: bool = False,
) -> ReplayReport:
    """Write the messages of spool files, and of those below folders, to the store; `remove` what is then confirmed.

    `on_progress` is told the messages read so far. Raises `SpoolError` for a path that is not there and
    `StoreUnavailable`; what was written before stays, and the replay can simply be repeated.
    """
    reader = SpoolReader()
    replay = _Replay(store, batch_messages, on_progress)
    stopped = False
    for file in reader.read(paths):
        for line in reader.lines(file):
            if line.message is not None:
                replay.take(line.message, line.size)
            if replay.is_full:
                replay.write()
                stopped = stop is not None and stop.is_set()
            if stopped:
                break
        if stopped:
            break
        if remove:
            replay.finished.append(file)
    if not stopped:
        replay.write()
    return ReplayReport(
        files=reader.files,
        messages=replay.messages,
        stored=replay.stored,
        duplicates=replay.duplicates,
        refused=replay.refused,
        of_deleted_runs=replay.of_deleted_runs,
        bad_lines=tuple(reader.bad),
        complete=not stopped,
        bad_count=reader.bad_count,
        open=reader.open,
        gone=reader.gone,
        removed=replay.removed,
    )


@dataclass(slots=True)
class _Replay:
    """The batch in hand, and what has become of those before."""

    store: Store
    batch_messages: int
    on_progress: Callable[[int], None] | None
    #: Files whose last message is in the batch in hand or was in one before.
    finished: list[SpoolFile] = field(default_factory=list)
    messages: int = 0
    stored: int = 0
    duplicates: int = 0
    refused: int = 0
    of_deleted_runs: int = 0
    removed: int = 0
    _batch: list[Message] = field(default_factory=list)
    _taken: int = 0
    _size: int = 0
    _known: dict[str, dict[str, Ranges]] = field(default_factory=dict)

    def take(self, message: Message, size: int) -> None:
        """Have a message written, unless the ledger has it."""
        self._taken += 1
        if not self._is_stored(message):
            self._batch.append(message)
            self._size += size

    @property
    def is_full(self) -> bool:
        """Whether it is time to write: also where there is nothing but progress to tell."""
        return self._taken >= self.batch_messages or self._size >= _BATCH_BYTES

    def write(self) -> None:
        """Write what is in hand, and enter it into the ledger; then what is confirmed may go."""
        batch, self._batch, self._size = self._batch, [], 0
        taken, self._taken = self._taken, 0
        stored = 0
        if batch:
            written = self.store.write(batch, received_at=clock.now_ms())
            _, entries = keep_books(self.store, batch, (), written)
            self._note(entries)
            stored = written.stored
            self.refused += len(written.refused)
            gone = sum(written.gone.values())
            self.of_deleted_runs += gone
            self.duplicates -= len(written.refused) + gone
        self.messages += taken
        self.stored += stored
        self.duplicates += taken - stored
        self._remove_finished()
        if taken and self.on_progress is not None:
            self.on_progress(self.messages)

    def _is_stored(self, message: Message) -> bool:
        known = self._known.get(message.workflow_id)
        if known is None:
            while len(self._known) >= _LEDGERS_MAX:
                del self._known[next(iter(self._known))]
            known = self._known[message.workflow_id] = self.store.stored_ranges(message.workflow_id)
        spans = known.get(message.producer_id, Ranges()).spans
        index = (
            bisect_right(spans, (message.seq, _BEYOND)) - 1
        )  # the last that begins at this number or before
        return index >= 0 and spans[index][1] >= message.seq

    def _note(self, entries: Iterable[Stored]) -> None:
        """What was just stored, in case another file has it too."""
        for entry in entries:
            known = self._known.get(entry.workflow_id)
            if known is not None:
                span = Ranges(((entry.first_seq, entry.last_seq),))
                known[entry.producer_id] = known.get(entry.producer_id, Ranges()).union(span)

    def _remove_finished(self) -> None:
        for file in self.finished:
            if file.is_done():
                try:
                    file.path.unlink()
                except OSError:
                    continue  # it stays, and says so by being there
                self.removed += 1
        self.finished.clear()
