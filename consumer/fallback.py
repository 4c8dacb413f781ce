"""The consumer's own spool: where frames go when the store is away and Redis fills up.

- A frame is acknowledged only after its messages are on the disk (fsync); its numbers are noted in Redis in the same
  step that deletes it, so the books show it as spooled.
- Only whole, sound frames are spooled. One with a flaw waits in Redis, because a flaw's bytes belong in quarantine.
- What this consumer's name has spooled is written to the store before anything new is read, and then removed: the
  name's lock proves that no one else writes these files. A file with unreadable lines is kept and told about.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterable
from pathlib import Path

from provd.common.errors import SpoolError
from provd.common.spool import SpoolWriter, spool_files
from provd.consumer.batch import Batch
from provd.consumer.replay import ReplayReport, replay_into_store
from provd.consumer.streams import Entry, Streams
from provd.store.interface import Store

log = logging.getLogger("provd.consumer")


class Fallback:
    """Spools frames, and brings them back."""

    def __init__(
        self,
        streams: Streams,
        *,
        folder: Path,
        name: str,
        hostname: str,
        ceiling_bytes: int,
        free_floor: float,
    ) -> None:
        self._streams = streams
        self._folder = folder
        self._name = name
        self._hostname = hostname
        self._ceiling_bytes = ceiling_bytes
        self._free_floor = free_floor
        self._writer: SpoolWriter | None = None
        #: Files that were replayed and kept, because some of their lines cannot be read.
        self._kept: set[Path] = set()

    def take(self, entries: Iterable[Entry]) -> int:
        """Spool and acknowledge frames; returns the number of messages. Raises `SpoolError`, `BrokerUnavailable`."""
        taken: list[tuple[Entry, Batch]] = []
        writer = self._open()
        for entry in entries:
            batch = Batch()
            batch.add(entry)
            if batch.messages and not batch.quarantined and _spool(writer, batch):
                taken.append((entry, batch))
        writer.sync()
        for entry, batch in taken:
            first, last = batch.messages[0], batch.messages[-1]
            self._streams.acknowledge_spooled(entry, first.producer_id, first.seq, last.seq)
        return sum(len(batch.messages) for _, batch in taken)

    def bring_back(self, store: Store, stop: threading.Event) -> ReplayReport:
        """Write what this name has spooled to the store, and remove it. Raises `StoreUnavailable`, `SpoolError`."""
        self.close()
        total = ReplayReport()
        for path in self._files():
            report = replay_into_store([path], store, stop=stop)
            if not report.complete:
                return report
            if report.bad_lines:
                log.warning("spool file kept: path=%s unreadable_lines=%d", path, len(report.bad_lines))
                self._kept.add(path)
            else:
                _remove(path)
            log.info("spool file stored: path=%s messages=%d", path, report.messages)
            total = ReplayReport(
                total.files + 1,
                total.messages + report.messages,
                total.stored + report.stored,
                total.duplicates + report.duplicates,
                total.refused + report.refused,
                total.bad_lines + report.bad_lines,
            )
        return total

    def close(self) -> None:
        """Seal the file in hand."""
        if self._writer is not None:
            writer, self._writer = self._writer, None
            writer.close()

    def _open(self) -> SpoolWriter:
        if self._writer is None:
            self._writer = SpoolWriter(
                self._folder,
                self._name,
                ceiling_bytes=self._ceiling_bytes,
                free_floor=self._free_floor,
                hostname=self._hostname,
            )
        return self._writer

    def _files(self) -> list[Path]:
        if not self._folder.is_dir():
            return []
        own = re.compile(re.escape(self._name) + r"\.\d+-\d+-[0-9a-f]{6}\.jsonl(\.open)?")
        files = spool_files([self._folder], with_open=True)
        return [path for path in files if own.fullmatch(path.name) and path not in self._kept]


def _spool(writer: SpoolWriter, batch: Batch) -> bool:
    try:
        writer.write(batch.messages)
    except (ValueError, OverflowError, TypeError):  # what a line cannot hold, quarantine can
        return False
    return True


def _remove(path: Path) -> None:
    try:
        path.unlink()
    except OSError as error:
        raise SpoolError(f"spool {path}: {error.strerror}") from error
