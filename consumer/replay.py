"""Spool files into the store.

- Replaying twice changes nothing: a message is merged as it would be from a stream, in whatever order it comes (G3).
- A torn or garbled line is counted with its number and skipped; the file's other lines are stored.
- Files are only read here. One that is still open is read as far as it goes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from provd.common import clock
from provd.common.record import Message
from provd.common.spool import BadLine, read_spool, spool_files
from provd.consumer.batch import ledger, refused_items
from provd.store.interface import Store

#: Messages in one write, where nobody says otherwise.
BATCH_MESSAGES = 2000


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """What a replay did. `complete` is false when it was stopped."""

    files: int = 0
    messages: int = 0
    stored: int = 0
    duplicates: int = 0
    refused: int = 0
    bad_lines: tuple[BadLine, ...] = ()
    complete: bool = True


def replay_into_store(
    paths: Iterable[Path],
    store: Store,
    *,
    batch_messages: int = BATCH_MESSAGES,
    on_progress: Callable[[int], None] | None = None,
    stop: threading.Event | None = None,
) -> ReplayReport:
    """Write the messages of spool files, and of those below folders, to the store.

    `on_progress` is told the messages read so far. Raises `SpoolError` for a path that cannot be read and
    `StoreUnavailable`; what was written before stays, and the replay can simply be repeated.
    """
    files = spool_files(paths, with_open=True)
    bad: list[BadLine] = []
    messages = stored = duplicates = refused = 0
    for batch in _batches(_messages(files, bad), batch_messages):
        if stop is not None and stop.is_set():
            return ReplayReport(len(files), messages, stored, duplicates, refused, tuple(bad), complete=False)
        written = store.write(batch, received_at=clock.now_ms())
        if written.refused:
            store.add_quarantined(refused_items(written.refused))
        store.add_stored(ledger(batch, written.refused))
        messages += len(batch)
        stored += written.stored
        duplicates += written.duplicates
        refused += len(written.refused)
        if on_progress is not None:
            on_progress(messages)
    return ReplayReport(len(files), messages, stored, duplicates, refused, tuple(bad))


def _messages(files: Iterable[Path], bad: list[BadLine]) -> Iterator[Message]:
    for path in files:
        for line in read_spool(path):
            if line.message is not None:
                yield line.message
            else:
                bad.append(BadLine(path, line.number, line.error or "unreadable"))


def _batches(messages: Iterable[Message], size: int) -> Iterator[list[Message]]:
    batch: list[Message] = []
    for message in messages:
        batch.append(message)
        if len(batch) >= size:
            yield batch
            batch = []
    if batch:
        yield batch
