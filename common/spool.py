"""The spool: JSONL files that hold messages while Redis or the store is away.

Invariants:

- One file per process and opening, `<name>.<pid>-<opening>-<random>.jsonl.open` until it is closed, then without
  `.open`; never reopened, never overwritten.
- The first line is a header (who writes it: host, boot, pid namespace, pid, start of the process); every other line
  is one message, complete in itself.
- A call of `write` is one `write(2)`. When that is short or fails, the file is closed as it is and what did not get
  goes to a new one, whole: a torn line is always the last of its file.
- What `sync` has returned for is on the disk under a name: the folder is synced once for each file.
- A reader skips and counts what it cannot read, anywhere, and goes on.
- Files are 0600 in folders 0700, spread over hashed sub-folders: parallel file systems dislike thousands in one.
- A writer refuses (`SpoolError`) beyond its ceiling and when the disk's free share falls below the floor.

A line is the record as stored (`provd.common.record.to_document`) in tagged JSON, with `kind` and the message's
place in the books (`producer_id`, `workflow_id`, `seq`).
"""

from __future__ import annotations

import errno
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from provd.common import clock, ids, values
from provd.common.errors import SpoolError
from provd.common.files import open_regular, private_folder, sync_name
from provd.common.owner import Owner
from provd.common.record import SCHEMA_VERSION, SEQ_MAX, TIME_FIELDS, Kind, Message, Record, from_document

CLOSED_SUFFIX = ".jsonl"
OPEN_SUFFIX = ".jsonl.open"

_HEADER_KIND = "spool"

_TIMES = frozenset(TIME_FIELDS)

#: Bytes of a line that is read; no message that a producer makes and a store takes comes near.
LINE_BYTES_MAX = 64 << 20

#: Bytes that are passed over at once, of a line that is too long.
_SKIP_BYTES = 1 << 20

#: What is said of a last line without an end.
TORN = "torn: the line has no end"

#: Bytes between looks at the disk's free space: `statvfs` on a parallel file system is not free.
_LOOK_EVERY = 4 << 20


@dataclass(frozen=True, slots=True)
class SpoolLine:
    """One line of a spool file: a message, or what is wrong with it."""

    number: int
    message: Message | None
    error: str | None = None
    #: Bytes, as far as they were read.
    size: int = 0


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
        self._folder = sub_folder(folder, name)
        self._name = name
        self._ceiling = ceiling_bytes
        self._free_floor = free_floor
        self._hostname = hostname
        self._file = -1
        self._path: Path | None = None
        #: Whether the name of the file in hand is on the disk.
        self._is_named = False
        self._openings = 0
        self._written = 0
        self._released = 0
        self._look_at = 0

    def write(self, messages: Sequence[Message]) -> None:
        """Append messages. Raises `SpoolError` when nothing, or not all, could be written."""
        self.append(b"".join(encode_line(message) for message in messages))

    def append(self, lines: bytes) -> Path:
        """Append whole lines; returns the file that holds them all. Raises `SpoolError` when there is none."""
        self._check_room(len(lines))
        if self._file < 0:
            self._open()
        if not self._append(lines):
            self._open()
            if not self._append(lines):
                raise SpoolError(f"spool {self._folder}: its disk does not take whole lines")
        assert self._path is not None
        return self._path

    def reserve(self, size: int) -> None:
        """Count bytes that go to a file beside its own. Raises `SpoolError` when there is no room for them."""
        self._check_room(size)
        self._written += size

    def release(self, size: int) -> None:
        """Count bytes no more: their file is gone."""
        self._released += size

    def sync(self) -> None:
        """Wait until what was written is on the disk. Raises `SpoolError`.

        What was written since the last time is then not safe, whatever a later `sync` says; the next `write` opens a
        new file.
        """
        if self._file < 0 or self._path is None:
            return
        try:
            sync_file(self._file, self._path, is_named=self._is_named)
        except OSError as error:
            with suppress(OSError):
                self.forget()
            raise SpoolError(f"spool {self._path}: {error.strerror}") from error
        self._is_named = True

    def duplicate(self) -> tuple[int, Path | None]:
        """A descriptor of the file in hand for the caller to sync and close, -1 when there is none; and the name, where
        that is to be synced with it.
        """
        if self._file < 0:
            return -1, None
        file, path = os.dup(self._file), None if self._is_named else self._path
        self._is_named = True
        return file, path

    def detach(self) -> Detached | None:
        """Let go of the file in hand, which the caller seals; the next `write` opens a new one."""
        if self._file < 0 or self._path is None:
            return None
        file, self._file = self._file, -1
        return Detached(file, self._path, self._is_named)

    def close(self) -> None:
        """Sync and seal the file; the next `write` opens a new one."""
        detached = self.detach()
        if detached is not None:
            detached.seal()

    def forget(self) -> None:
        """Let go of the file without sealing it: after a fork it is the parent's."""
        if self._file >= 0:
            file, self._file = self._file, -1
            os.close(file)

    def _check_room(self, size: int) -> None:
        if self._written - self._released + size > self._ceiling:
            text = f"spool {self._folder}: its ceiling of {self._ceiling} bytes is reached"
            raise SpoolError(text, kind=SpoolError.CEILING)
        if self._written + size < self._look_at:
            return
        try:
            private_folder(self._folder)
            is_scarce = is_nearly_full(self._folder, self._free_floor)
        except OSError as error:
            raise SpoolError(f"spool {self._folder}: {error.strerror}") from error
        if is_scarce:
            text = f"spool {self._folder}: less than {self._free_floor:.0%} of its disk is free"
            raise SpoolError(text, kind=SpoolError.FREE_FLOOR)
        self._look_at = self._written + size + _LOOK_EVERY

    def _open(self) -> None:
        self._openings += 1
        path = self._folder / new_name(self._name, self._openings, OPEN_SUFFIX)
        try:
            private_folder(self._folder)
            self._file = create(path)
        except OSError as error:
            raise SpoolError(f"spool {path}: {error.strerror}") from error
        self._path, self._is_named = path, False
        header = _header_line(self._hostname)
        try:
            complete = os.write(self._file, header) == len(header)
            reason = "the disk is full"
        except OSError as error:
            complete, reason = False, error.strerror or type(error).__name__
        if not complete:
            self.forget()
            with suppress(OSError):  # a full disk is asked again and again: no empty file each time
                path.unlink()
            raise SpoolError(f"spool {path}: {reason}")
        self._written += len(header)

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


@dataclass(frozen=True, slots=True)
class Detached:
    """A file that its writer has let go of, before it is sealed."""

    file: int
    path: Path
    #: Whether its name is on the disk; under which of the two does not matter.
    is_named: bool = False

    def seal(self) -> Path:
        """Sync and close it, and take `.open` off its name, which is returned. Raises `SpoolError`."""
        sealed = self.path.with_name(self.path.name[: -len(".open")])
        try:
            try:
                os.fsync(self.file)
            finally:
                os.close(self.file)
            os.rename(self.path, sealed)
            if not self.is_named:
                sync_name(sealed)
        except OSError as error:
            if isinstance(error, FileNotFoundError) and sealed.exists():
                return sealed  # a recovery has sealed it, after long silence
            raise SpoolError(f"spool {self.path}: {error.strerror}") from error
        return sealed


def sub_folder(folder: Path, name: str) -> Path:
    """Where the files of a writer lie below the spool's folder."""
    return folder / f"{zlib.crc32(name.encode()) & 0xFF:02x}"


def new_name(name: str, opening: int, suffix: str) -> str:
    """The name of a writer's next file. A name may return with a pid that returns, in a container: the random part keeps
    what was sealed before.
    """
    return f"{name}.{os.getpid()}-{opening}-{os.urandom(3).hex()}{suffix}"


def create(path: Path) -> int:
    """Make a file for this user alone, to be appended to; returns its descriptor. Raises `OSError`."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW, 0o600)


def is_nearly_full(folder: Path, free_floor: float) -> bool:
    """Whether the free share of a folder's disk is below the floor. Raises `OSError`."""
    disk = os.statvfs(folder)
    return bool(disk.f_blocks) and disk.f_bavail / disk.f_blocks < free_floor


def sync_file(file: int, path: Path, *, is_named: bool) -> None:
    """Wait until a file that is written to is on the disk, with its name unless that is there already.

    Raises `OSError`, also when it has another name by now, or none: whoever takes a file away renames it first, and
    has seen all that was written before.
    """
    os.fsync(file)
    if not is_named:
        sync_name(path)
    if not os.path.exists(path) or not os.path.samestat(os.stat(path), os.fstat(file)):
        raise FileNotFoundError(errno.ENOENT, "somebody has taken it away while it was written to")


def encode_line(message: Message) -> bytes:
    """A message as one line."""
    record = message.record
    plain = {name: value for name, value in record.items() if name not in _TIMES}
    plain["kind"] = message.kind.value
    plain["producer_id"] = message.producer_id
    plain["workflow_id"] = message.workflow_id
    plain["seq"] = message.seq
    # A time is written as it reads, without a way over a datetime: a line is on the path of `durability: disk`.
    times = [
        f',"{name}":{time_json(record[name]) if type(record[name]) is int else values.to_json(record[name])}'
        for name in record.keys() & _TIMES
    ]
    return f"{values.to_json(plain)[:-1]}{''.join(times)}}}\n".encode()


def time_json(ms: int) -> str:
    """UTC milliseconds as a line has them."""
    return f'{{"$date":"{clock.to_iso(ms)}"}}'


def decode_line(line: bytes) -> Message:
    """Undo `encode_line`; raises `ValueError` that says what is wrong."""
    document = values.from_json(line)
    if not isinstance(document, dict):
        raise ValueError("not a record")
    try:
        kind = Kind(document.pop("kind"))
        producer_id, workflow_id, seq = document["producer_id"], document["workflow_id"], document["seq"]
        _check_stated(kind, document)
    except KeyError as error:
        raise ValueError(f"the field {error} is missing") from error
    if type(seq) is not int or not 0 < seq <= SEQ_MAX:
        raise ValueError("seq is of the wrong type")
    ids.check_id(producer_id, "producer_id")
    ids.check_id(workflow_id, "workflow_id")
    return Message(kind, producer_id, workflow_id, seq, from_document(document))


def encode_checked(message: Message) -> bytes:
    """A message as one line, of a record that came from elsewhere. Raises `ValueError`, `TypeError`, `OverflowError` or
    `RecursionError` unless the line could be read again.
    """
    _check_stated(message.kind, message.record)
    line = encode_line(message)
    if len(line) > LINE_BYTES_MAX:
        raise ValueError(f"longer than {LINE_BYTES_MAX:,} bytes")
    return line


def _check_stated(kind: Kind, record: Record) -> None:
    if kind is Kind.TASK and not isinstance(record["task_id"], str):
        raise ValueError("task_id is of the wrong type")
    if not all(map(values.is_plain_key, record)):
        raise ValueError("a field has a name that could be taken for an operator")
    version, status = record.get("schema_version", 0), record.get("status", "")
    if not (isinstance(version, int) and isinstance(status, str)):
        raise ValueError("schema_version or status is of the wrong type")
    if version > SCHEMA_VERSION:
        raise ValueError(f"schema {version} is newer than this provd reads; upgrade it")
    if record.get("campaign_id") is not None:
        ids.check_id(record["campaign_id"], "campaign_id")


def read_spool(path: Path) -> Iterator[SpoolLine]:
    """The lines of a file, header aside, in order; torn and foreign ones as errors. Raises `SpoolError`."""
    try:
        with open_regular(path) as stream:
            for number, line in enumerate(_bounded_lines(stream), start=1):
                if line.strip() and not (number == 1 and is_header(line)):
                    yield _read_line(number, line)
    except OSError as error:
        raise SpoolError(f"spool {path}: {error.strerror}") from error


def _bounded_lines(stream: BinaryIO) -> Iterator[bytes]:
    """The lines of a file; of one that is too long, only as much as tells so."""
    while line := stream.readline(LINE_BYTES_MAX + 1):
        rest = line
        while rest and len(line) > LINE_BYTES_MAX and not rest.endswith(b"\n"):
            rest = stream.readline(_SKIP_BYTES)
        yield line


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
    if len(line) > LINE_BYTES_MAX:
        return SpoolLine(
            number, None, f"longer than {LINE_BYTES_MAX:,} bytes, which no message is", len(line)
        )
    if not line.endswith(b"\n"):
        return SpoolLine(number, None, TORN, len(line))
    try:
        return SpoolLine(number, decode_line(line), None, len(line))
    except ValueError as error:
        return SpoolLine(number, None, str(error), len(line))


def is_header(line: bytes) -> bool:
    """Whether this is the first line of a spool file."""
    return line.startswith(b"{") and read_header(line) is not None


def read_header(line: bytes) -> Owner | None:
    """Whose file it is, by its first line; None when that is no header."""
    try:
        document = values.from_json(line)
    except ValueError:
        return None
    if not isinstance(document, dict) or document.get("kind") != _HEADER_KIND:
        return None
    return Owner.read(document)


def _header_line(hostname: str) -> bytes:
    header: dict[str, Any] = {"kind": _HEADER_KIND, "schema_version": SCHEMA_VERSION}
    header |= Owner.here(hostname).facts()
    header["opened_at"] = clock.to_datetime(clock.now_ms())
    return values.to_json(header).encode() + b"\n"
