"""Files for what belongs in quarantine while the store is away.

- They lie beside the spool files, `<name>.<pid>-<opening>-<random>.quarantine.open` until closed, then without
  `.open`: `provd replay` and producers pass them over, because no line of theirs is a message.
- Every line is one piece: the fields of `Quarantined`, those that are absent left out, as tagged JSON.
- 0600 in folders 0700; never reopened, never overwritten; after a short write a new file. A line without an end was
  never acknowledged, so its frame is still in Redis, and nothing is lost with it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, fields
from pathlib import Path

from provd.common import values
from provd.common.errors import SpoolError
from provd.common.files import private_folder
from provd.common.spool import create, is_nearly_full, new_name, sub_folder, sync_file
from provd.store.interface import Quarantined

SUFFIX = ".quarantine"

_FIELDS = frozenset(field.name for field in fields(Quarantined))


class SetAside:
    """Writes the files of one consumer. Not for use by two threads at once."""

    def __init__(self, folder: Path, name: str, *, free_floor: float) -> None:
        """Nothing is touched before `write`."""
        self._folder = sub_folder(folder, name)
        self._name = name
        self._free_floor = free_floor
        self._openings = 0
        self._path: Path | None = None
        #: Whether the name of the file in hand is on the disk.
        self._is_named = False
        self._file = -1

    def write(self, items: Iterable[Quarantined]) -> None:
        """Append pieces. Raises `SpoolError` when nothing, or not all, could be written."""
        for item in items:
            known = {name: value for name, value in asdict(item).items() if value is not None}
            data = values.to_json(known).encode() + b"\n"
            try:
                self._open()
                complete = os.write(self._file, data) == len(data)
            except OSError as error:
                self.close()
                raise SpoolError(f"quarantine file {self._path}: {error.strerror or error}") from error
            if not complete:
                self.close()
                raise SpoolError(f"quarantine file {self._path}: its disk is full")

    def sync(self) -> None:
        """Wait until what was written is on the disk. Raises `SpoolError`; the next `write` then opens a new file."""
        if self._file < 0 or self._path is None:
            return
        try:
            sync_file(self._file, self._path, is_named=self._is_named)
        except OSError as error:
            file, self._file = self._file, -1
            with suppress(OSError):
                os.close(file)
            raise SpoolError(f"quarantine file {self._path}: {error.strerror}") from error
        self._is_named = True

    def close(self) -> None:
        """Sync and seal the file in hand."""
        if self._file < 0 or self._path is None:
            return
        file, self._file = self._file, -1
        try:
            sync_file(file, self._path, is_named=self._is_named)
            os.rename(self._path, self._path.with_suffix(""))
        except OSError as error:
            raise SpoolError(f"quarantine file {self._path}: {error.strerror}") from error
        finally:
            os.close(file)

    def _open(self) -> None:
        if self._file >= 0:
            return
        self._openings += 1
        self._path = self._folder / new_name(self._name, self._openings, f"{SUFFIX}.open")
        private_folder(self._folder)
        if is_nearly_full(self._folder, self._free_floor):
            raise SpoolError(f"spool {self._folder}: less than {self._free_floor:.0%} of its disk is free")
        self._file = create(self._path)
        self._is_named = False


def read_set_aside(path: Path) -> Iterator[Quarantined | None]:
    """The pieces of a file; None for a line that holds none. A line without an end is passed over.

    Raises `SpoolError`.
    """
    try:
        with path.open("rb") as stream:
            for line in stream:
                if line.endswith(b"\n"):
                    yield _read(line)
    except OSError as error:
        raise SpoolError(f"quarantine file {path}: {error.strerror}") from error


def _read(line: bytes) -> Quarantined | None:
    try:
        document = values.from_json(line)
        item = Quarantined(**{name: value for name, value in document.items() if name in _FIELDS})
        return item if isinstance(item.raw, bytes) and isinstance(item.reason, str) else None
    except (ValueError, TypeError, AttributeError):
        return None
