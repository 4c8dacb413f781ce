"""The consumer's own spool on its way into the store: in slices, between batches of live frames.

- One slice of one file is in memory at a time, and live frames wait for one slice at most.
- A slice that failed is tried again as it is; what was written twice changes nothing.
- When a slice is in the store its numbers are taken out of the note in Redis, and producers that wait for receipts
  get them. What was damaged on the way gets none: its producer has the good copy.
- A file that is still open is renamed before it is read. Should somebody write to it after all (another host of this
  name), the writer finds out before it acknowledges what came later (`provd.common.spool.sync_file`).
- Only files of this consumer's own name and namespace are touched: the name's lock proves that no one else writes
  them, and another namespace may have another store.
- A stored file is removed. One with lines that cannot be read is kept, under a name that nobody reads again, and told
  about; a torn last line was never acknowledged, so nothing is lost with it.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from provd.common import clock
from provd.common.errors import SpoolError
from provd.common.ranges import Ranges
from provd.common.record import Message
from provd.common.spool import TORN, read_spool
from provd.consumer import scripts
from provd.consumer.batch import affected, keep_books
from provd.consumer.broker import Broker
from provd.consumer.progress import Tally
from provd.consumer.registry import Registry
from provd.consumer.setaside import SUFFIX, read_set_aside
from provd.store.interface import Quarantined, Store, Written

log = logging.getLogger("provd.consumer")

#: Bytes of lines in one slice.
_SLICE_BYTES = 4 << 20

#: Workflows whose ledgers are compacted together.
_WORKFLOWS = 100

#: What is added to the name of a file that cannot be read to its end.
_UNREADABLE = ".unreadable"


@dataclass(slots=True)
class _Slice:
    """A part of a file."""

    messages: list[Message] = field(default_factory=list)
    pieces: list[Quarantined] = field(default_factory=list)
    size: int = 0
    #: Whether the file ends with it.
    is_last: bool = False


@dataclass(slots=True)
class _File:
    """The file in hand."""

    path: Path
    bad: int = 0
    messages: int = 0
    #: Whose ledgers have grown by it.
    workflows: set[str] = field(default_factory=set)

    def contents(self) -> Iterator[tuple[Message | Quarantined, int]]:
        """Messages, or pieces, with their sizes. Raises `SpoolError`."""
        if SUFFIX in self.path.name:
            for piece in read_set_aside(self.path):
                if piece is None:
                    self.bad += 1
                else:
                    yield piece, len(piece.raw)
            return
        for line in read_spool(self.path):
            if line.message is not None:
                yield line.message, line.size
            elif line.error != TORN:
                self.bad += 1


class Returning:
    """Brings back what this consumer's name has spooled."""

    def __init__(
        self, broker: Broker, registry: Registry, store: Store, tally: Tally, *, folder: Path, name: str
    ) -> None:
        self._broker = broker
        self._registry = registry
        self._store = store
        self._tally = tally
        self._folder = folder
        self._own = re.compile(re.escape(name) + r"\.\d+-\d+-[0-9a-f]{6}\.(jsonl|quarantine)(\.open)?")
        self._waiting: list[Path] = []
        self._file: _File | None = None
        self._contents: Iterator[tuple[Message | Quarantined, int]] = iter(())
        self._slice: _Slice | None = None
        #: Files that could neither be read nor put away.
        self._stuck: set[Path] = set()

    def look(self) -> None:
        """Find what there is to bring back; nobody may be writing. The file in hand stays in hand."""
        in_hand = self._file.path if self._file is not None else None
        try:
            files = list(self._folder.rglob("*")) if self._folder.is_dir() else []
        except OSError as error:  # a file system that is away; the next look finds them
            log.warning("own spool cannot be looked through: folder=%s error=%s", self._folder, error)
            return
        self._waiting = sorted(
            (
                path
                for path in files
                if self._own.fullmatch(path.name) and path not in self._stuck and path != in_hand
            ),
            reverse=True,
        )
        self._tell()
        if self._waiting:
            log.info("own spool is brought back: files=%d", len(self._waiting))

    @property
    def held_bytes(self) -> int:
        """Bytes of the files that are still there."""
        return sum(map(_size, self._files()))

    def step(self, messages: int) -> bool:
        """Bring back one slice of at most so many messages; says whether there was one.

        Raises `StoreUnavailable`, `StoreError`, `BrokerUnavailable`: the slice stays, for the next step.
        """
        try:
            if self._slice is None and not self._next_slice(messages):
                return False
        except SpoolError as error:
            self._give_up(error)
            return True
        assert self._slice is not None
        assert self._file is not None
        self._bring(self._slice, self._file)
        if self._slice.is_last:
            self._compact(self._file)
            self._finish(self._file)
        self._slice = None
        return True

    def _next_slice(self, messages: int) -> bool:
        if self._file is None:
            if not self._waiting:
                return False
            self._file = _File(_sealed(self._waiting.pop()))
            self._contents = self._file.contents()
        part = _Slice(is_last=True)
        for one, size in self._contents:
            if isinstance(one, Message):
                part.messages.append(one)
            else:
                part.pieces.append(one)
            part.size += size
            if len(part.messages) + len(part.pieces) >= messages or part.size >= _SLICE_BYTES:
                part.is_last = False
                break
        self._slice = part
        return True

    def _bring(self, part: _Slice, file: _File) -> None:
        written = Written(0, 0)
        if part.messages:
            written = self._store.write(part.messages, received_at=clock.now_ms())
        quarantined, _ = keep_books(self._store, part.messages, part.pieces, written)
        self._take_back(part)
        self._tally.add(
            brought_back=len(part.messages) + sum(map(affected, part.pieces)),
            stored=written.stored,
            duplicates=written.duplicates,
            quarantined=sum(map(affected, quarantined)),
            refused=sum(written.gone.values()),
        )
        file.messages += len(part.messages)
        file.workflows |= {message.workflow_id for message in part.messages}

    def _take_back(self, part: _Slice) -> None:
        """The note in Redis, and the receipts."""
        stored = _by_workflow((one.workflow_id, one.producer_id, one.seq, one.seq) for one in part.messages)
        pieces = _by_workflow(
            (one.workflow_id, one.producer_id, one.first_seq or 1, one.last_seq or 0)
            for one in part.pieces
            if one.workflow_id is not None and one.producer_id is not None
        )
        commands: list[tuple[object, ...]] = []
        for workflow_id in stored.keys() | pieces.keys():
            keys = self._registry.keys_of(workflow_id)
            in_store, in_quarantine = stored.get(workflow_id, {}), pieces.get(workflow_id, {})
            arguments = [self._store.identity()]
            for producer_id in in_store.keys() | in_quarantine.keys():
                receipts = in_store.get(producer_id, Ranges())
                left = receipts.union(in_quarantine.get(producer_id, Ranges()))
                arguments += [producer_id, left.text, receipts.text]
            commands.append(("EVAL", scripts.UNSPOOLED, 2, keys.spooled, keys.stored, *arguments))
        for reply in self._broker.run(commands):
            self._broker.sound(reply)

    def _compact(self, file: _File) -> None:
        """A workflow that was retired meanwhile is compacted by nobody else."""
        workflow_ids = sorted(file.workflows)
        for start in range(0, len(workflow_ids), _WORKFLOWS):
            self._store.compact_ledger(*workflow_ids[start : start + _WORKFLOWS])

    def _finish(self, file: _File) -> None:
        self._file = None
        try:
            if file.bad:
                kept = file.path.with_name(file.path.name + _UNREADABLE)
                file.path.rename(kept)
                log.warning("spool file kept: path=%s unreadable_lines=%d", kept, file.bad)
            else:
                file.path.unlink(missing_ok=True)  # somebody may have replayed it, too
        except OSError as error:
            self._stuck.add(file.path)
            log.warning("spool file is stored and cannot be removed: path=%s error=%s", file.path, error)
        log.info("spool file stored: path=%s messages=%d", file.path, file.messages)
        self._tell()

    def _give_up(self, error: SpoolError) -> None:
        assert self._file is not None
        log.warning("own spool file cannot be brought back: %s", error)
        self._stuck.add(self._file.path)
        self._file = None
        self._tell()

    def _files(self) -> list[Path]:
        return [*self._waiting, *([self._file.path] if self._file is not None else [])]

    def _tell(self) -> None:
        self._tally.see_backlog(files=len(self._files()), size=self.held_bytes)


def _by_workflow(
    spans: Iterable[tuple[str, str, int, int]],
) -> dict[str, dict[str, Ranges]]:
    found: dict[str, dict[str, list[tuple[int, int]]]] = {}
    for workflow_id, producer_id, first, last in spans:
        found.setdefault(workflow_id, {}).setdefault(producer_id, []).append((first, last))
    return {
        workflow_id: {producer_id: Ranges.of(these) for producer_id, these in of_workflow.items()}
        for workflow_id, of_workflow in found.items()
    }


def _sealed(path: Path) -> Path:
    """A file under the name of a closed one; as it is, where it cannot be renamed."""
    closed = path.with_name(path.name.removesuffix(".open"))
    if closed == path or os.path.lexists(closed):
        return path
    try:
        return path.rename(closed)
    except OSError as error:
        log.warning("own spool file cannot be renamed: path=%s error=%s", path, error)
        return path


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
