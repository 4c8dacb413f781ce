"""The spool: JSONL files that hold messages while Redis or the store is away.

Invariants:

- One file per process and opening, `<name>.<pid>-<opening>-<random>.jsonl.open` until it is closed, then without
  `.open`; never reopened, never overwritten.
- The first line is a header (who writes it: host, boot, pid); every other line is one message, complete in itself.
- A call of `write` is one `write(2)`. When that is short or fails, the file is closed as it is and what did not get
  goes to a new one, whole: a torn line is always the last of its file.
- A reader skips and counts what it cannot read, anywhere, and goes on.
- Files are 0600 in folders 0700, spread over hashed sub-folders: parallel file systems dislike thousands in one.
- A writer refuses (`SpoolError`) beyond its ceiling and when the disk's free share falls below the floor.

A line is the record as stored (`provd.common.record.to_document`) in tagged JSON, with `kind` and the message's
place in the books (`producer_id`, `workflow_id`, `seq`).
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from provd.common import clock, values
from provd.common.errors import SpoolError
from provd.common.record import SCHEMA_VERSION, Kind, Message, from_document, to_document

CLOSED_SUFFIX = ".jsonl"
OPEN_SUFFIX = ".jsonl.open"

_HEADER_KIND = "spool"

#: Bytes between looks at the disk's free space: `statvfs` on a parallel file system is not free.
_LOOK_EVERY = 4 << 20


@dataclass(frozen=True, slots=True)
class SpoolLine:
    """One line of a spool file: a message, or what is wrong with it."""

    number: int
    message: Message | None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that holds no message, and where it stands."""

    path: Path
    number: int
    error: str


class SpoolWriter:
    """Appends messages to spool files of its own. Not for use by two threads at once."""

    def __init__(
        self, folder: Path, name: str, *, ceiling_bytes: int, free_floor: float, hostname: str
    ) -> None:
        """`name` is unique to this process (a producer id, a consumer's name); nothing is touched before `write`."""
        self._folder = folder / f"{zlib.crc32(name.encode()) & 0xFF:02x}"
        self._name = name
        self._ceiling = ceiling_bytes
        self._free_floor = free_floor
        self._hostname = hostname
        self._file = -1
        self._path: Path | None = None
        self._openings = 0
        self._written = 0
        self._look_at = 0

    def write(self, messages: Sequence[Message]) -> None:
        """Append whole lines. Raises `SpoolError` when nothing, or not all, could be written."""
        data = b"".join(encode_line(message) for message in messages)
        self._check_room(len(data))
        if self._file < 0:
            self._open()
        if not self._append(data):
            self._open()
            if not self._append(data):
                raise SpoolError(f"spool {self._folder}: its disk does not take whole lines")

    def sync(self) -> None:
        """Wait until what was written is on the disk."""
        if self._file >= 0:
            os.fsync(self._file)

    def close(self) -> None:
        """Sync and seal the file; the next `write` opens a new one."""
        if self._file < 0 or self._path is None:
            return
        try:
            os.fsync(self._file)
            os.close(self._file)
            os.rename(self._path, self._path.with_name(self._path.name[: -len(".open")]))
        except OSError as error:
            raise SpoolError(f"spool {self._path}: {error.strerror}") from error
        finally:
            self._file = -1

    def forget(self) -> None:
        """Let go of the file without sealing it: after a fork it is the parent's."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _check_room(self, size: int) -> None:
        if self._written + size > self._ceiling:
            raise SpoolError(f"spool {self._folder}: its ceiling of {self._ceiling} bytes is reached")
        if self._written + size < self._look_at:
            return
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            disk = os.statvfs(self._folder)
        except OSError as error:
            raise SpoolError(f"spool {self._folder}: {error.strerror}") from error
        if disk.f_blocks and disk.f_bavail / disk.f_blocks < self._free_floor:
            raise SpoolError(f"spool {self._folder}: less than {self._free_floor:.0%} of its disk is free")
        self._look_at = self._written + size + _LOOK_EVERY

    def _open(self) -> None:
        self._openings += 1
        # A name may return with a pid that returns, in a container: the random part keeps what was sealed before.
        path = (
            self._folder / f"{self._name}.{os.getpid()}-{self._openings}-{os.urandom(3).hex()}{OPEN_SUFFIX}"
        )
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file = os.open(
                path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW, 0o600
            )
        except OSError as error:
            raise SpoolError(f"spool {path}: {error.strerror}") from error
        self._path = path
        if not self._append(_header_line(self._hostname)):
            raise SpoolError(f"spool {path}: the disk is full")

    def _append(self, data: bytes) -> bool:
        """Write once; False when the disk took only a part, whose file is then closed as it is."""
        try:
            count = os.write(self._file, data)
        except OSError as error:
            self.close()
            raise SpoolError(f"spool {self._path}: {error.strerror}") from error
        self._written += count
        if count == len(data):
            return True
        self.close()
        return False


def encode_line(message: Message) -> bytes:
    """A message as one line."""
    document = to_document(message.record)
    document["kind"] = message.kind.value
    document["producer_id"] = message.producer_id
    document["workflow_id"] = message.workflow_id
    document["seq"] = message.seq
    return values.to_json(document).encode() + b"\n"


def decode_line(line: bytes) -> Message:
    """Undo `encode_line`; raises `ValueError` that says what is wrong."""
    document = values.from_json(line)
    if not isinstance(document, dict):
        raise ValueError("not a record")
    try:
        kind = Kind(document.pop("kind"))
        producer_id, workflow_id, seq = document["producer_id"], document["workflow_id"], document["seq"]
        if kind is Kind.TASK:
            document["task_id"]
    except KeyError as error:
        raise ValueError(f"the field {error} is missing") from error
    if document.get("schema_version", 0) > SCHEMA_VERSION:
        raise ValueError(f"schema {document['schema_version']} is newer than this provd reads; upgrade it")
    if not (
        isinstance(producer_id, str) and isinstance(workflow_id, str) and isinstance(seq, int) and seq > 0
    ):
        raise ValueError("producer_id, workflow_id or seq is of the wrong type")
    return Message(kind, producer_id, workflow_id, seq, from_document(document))


def read_spool(path: Path) -> Iterator[SpoolLine]:
    """The lines of a file, header aside, in order; torn and foreign ones as errors. Raises `SpoolError`."""
    try:
        with path.open("rb") as stream:
            for number, line in enumerate(stream, start=1):
                if line.strip() and not (number == 1 and _is_header(line)):
                    yield _read_line(number, line)
    except OSError as error:
        raise SpoolError(f"spool {path}: {error.strerror}") from error


def spool_files(paths: Iterable[Path], *, with_open: bool = False) -> list[Path]:
    """The spool files among `paths` and below its folders, sorted; those still open only when asked for.

    Raises `SpoolError` for a path that does not exist.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(path.rglob(f"*{CLOSED_SUFFIX}"))
            if with_open:
                found += sorted(path.rglob(f"*{OPEN_SUFFIX}"))
        elif path.exists():
            found.append(path)
        else:
            raise SpoolError(f"{path}: no such file or folder")
    return found


def _read_line(number: int, line: bytes) -> SpoolLine:
    if not line.endswith(b"\n"):
        return SpoolLine(number, None, "torn: the line has no end")
    try:
        return SpoolLine(number, decode_line(line))
    except ValueError as error:
        return SpoolLine(number, None, str(error))


def _is_header(line: bytes) -> bool:
    try:
        document = values.from_json(line)
    except ValueError:
        return False
    return isinstance(document, dict) and document.get("kind") == _HEADER_KIND


def _header_line(hostname: str) -> bytes:
    header: dict[str, Any] = {
        "kind": _HEADER_KIND,
        "schema_version": SCHEMA_VERSION,
        "hostname": hostname,
        "boot_id": boot_id(),
        "pid": os.getpid(),
        "opened_at": clock.to_datetime(clock.now_ms()),
    }
    return values.to_json(header).encode() + b"\n"


def boot_id() -> str | None:
    """What tells this boot of this host from every other, where the kernel says so."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return None
