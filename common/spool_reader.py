"""Reading spool files as they are found: torn, foreign, unreadable, and while somebody writes them.

Invariants:

- What cannot be read, be it a line, a file or a folder, is told with its place and passed over.
- Each file is read once, by whatever names it is found, under the name it has when its turn comes: its writer may
  seal it meanwhile. One that is gone by then was somebody's to remove, and is counted.
- The last line of a file that is still open may be on its way: it is left, and not called bad.
- What is kept to be told is bounded; the rest is counted.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from provd.common.errors import SpoolError
from provd.common.spool import CLOSED_SUFFIX, OPEN_SUFFIX, TORN, BadLine, SpoolLine, read_spool

#: Bad lines that are kept, with their places.
_BAD_KEPT = 1000


@dataclass(slots=True, eq=False)
class SpoolFile:
    """A file in hand: what was found in it so far."""

    path: Path
    messages: int = 0
    bad: int = 0
    #: Of the file, before it was read.
    facts: os.stat_result | None = None

    @property
    def is_open(self) -> bool:
        """Whether somebody may write to it."""
        return self.path.name.endswith(OPEN_SUFFIX)

    def is_done(self) -> bool:
        """Whether nothing would be lost with it: closed, of ours, without a bad line, and what was read is all."""
        if self.is_open or self.bad or self.facts is None or not self.path.name.endswith(CLOSED_SUFFIX):
            return False
        try:
            now = self.path.lstat()
        except OSError:
            return False
        same = ("st_dev", "st_ino", "st_size", "st_mtime_ns")
        return stat.S_ISREG(now.st_mode) and all(
            getattr(now, name) == getattr(self.facts, name) for name in same
        )


@dataclass(slots=True)
class SpoolReader:
    """Goes through files and folders; keeps what there is to tell about them."""

    files: int = 0
    #: Files that were still open when they were read.
    open: int = 0
    #: Files that somebody removed before their turn came.
    gone: int = 0
    bad: list[BadLine] = field(default_factory=list)
    bad_count: int = 0

    def find(self, paths: Iterable[Path]) -> list[Path]:
        """The spool files among `paths` and below its folders, sorted. Raises `SpoolError` for a path that is not there."""
        found: list[Path] = []
        for path in paths:
            if path.is_dir():
                found += sorted(self._walk(path))
            elif os.path.lexists(path):
                found.append(path)
            else:
                raise SpoolError(f"{path}: no such file or folder")
        return found

    def read(self, paths: Iterable[Path]) -> Iterator[SpoolFile]:
        """The files that can be looked at, one by one; the lines of each are to be taken by `lines` in its turn."""
        seen: set[tuple[int, int]] = set()
        for path in self.find(paths):
            current = _current(path)
            try:
                facts = current.stat()
            except FileNotFoundError:
                if path.is_symlink():
                    self._tell(path, 0, "a link to what is not there")
                else:
                    self.gone += 1
                continue
            except OSError as error:
                self._tell(path, 0, error.strerror or str(error))
                continue
            if (facts.st_dev, facts.st_ino) in seen:
                continue
            seen.add((facts.st_dev, facts.st_ino))
            self.files += 1
            file = SpoolFile(current, facts=facts)
            self.open += file.is_open
            yield file

    def lines(self, file: SpoolFile) -> Iterator[SpoolLine]:
        """The lines of a file that hold a message."""
        number = 0
        try:
            for line in read_spool(file.path):
                number = line.number
                if line.message is not None:
                    file.messages += 1
                    yield line
                elif line.error != TORN or not file.is_open:
                    self.tell(file, number, line.error or "unreadable")
        except SpoolError as error:
            cause = error.__cause__
            reason = cause.strerror if isinstance(cause, OSError) else None
            self.tell(file, number + 1 if number else 0, reason or str(error))

    def tell(self, file: SpoolFile, number: int, error: str) -> None:
        """Note that a line of a file is of no use."""
        file.bad += 1
        self._tell(file.path, number, error)

    def _walk(self, folder: Path) -> Iterator[Path]:
        for parent, _, names in os.walk(folder, onerror=self._tell_folder):
            for name in names:
                path = Path(parent, name)
                if name.endswith((CLOSED_SUFFIX, OPEN_SUFFIX)):
                    if path.is_file() or path.is_symlink():
                        yield path
                    elif path.exists():
                        self._tell(path, 0, "not a file that can be read to its end")

    def _tell_folder(self, error: OSError) -> None:
        self._tell(Path(error.filename), 0, error.strerror or str(error))

    def _tell(self, path: Path, number: int, error: str) -> None:
        self.bad_count += 1
        if len(self.bad) < _BAD_KEPT:
            self.bad.append(BadLine(path, number, error))


def _current(path: Path) -> Path:
    """The path of a file that may have been sealed since it was found."""
    if path.name.endswith(OPEN_SUFFIX) and not os.path.lexists(path):
        return path.with_name(path.name.removesuffix(".open"))
    return path
