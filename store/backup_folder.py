"""The folder that holds a backup of a whole store.

manifest.json                     the version of this format, which store, when, and each file's documents and digest
<collection>-<number>.jsonl.gz    documents as the store has them, one a line of tagged JSON (`provd.common.values`)

- The folder appears when all of it is on the disk, and the manifest is written last: half a backup has neither.
- Files are for this user alone: they hold what the store holds.
- A reader checks every file against the manifest before it uses the first.
- What producers do not say is not there: links, which follow from the tasks, and the store's own notes.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import secrets
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from provd.common import names, values
from provd.common.errors import BadBackup, OutputError, ProvdError, UsageError
from provd.common.files import open_regular, sync_name
from provd.common.record import Record
from provd.store import migrations

#: The version of the format. Later versions of provd read all earlier ones.
VERSION = 1

MANIFEST = "manifest.json"

#: The collections of a backup.
COLLECTIONS = (
    names.BEATS, names.QUARANTINE, names.LEDGER, names.WORKFLOWS, names.PRODUCERS, names.TASKS, names.SAMPLES,
    names.CONSUMERS, names.TOMBSTONES,
)  # fmt: skip

#: Bytes of lines in one file, before it is compressed.
PART_BYTES = 256 << 20

#: Bytes of a line that is read: a part of a quarantined piece, or the largest record of the embedded store.
_LINE_BYTES_MAX = 64 << 20

_COMPRESSION = 6
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Part:
    """A file: its name, its documents, and its size and digest as it lies there."""

    name: str
    documents: int
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Origin:
    """The store that was backed up: its masked URL, identity, kind, and the changes of its schema."""

    url: str
    store_id: str | None
    kind: str
    changes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a backup says of itself; times are ISO 8601."""

    backup_id: str
    provd_version: str
    started_at: str
    ended_at: str
    origin: Origin
    collections: Mapping[str, tuple[Part, ...]]

    @property
    def documents(self) -> dict[str, int]:
        """Documents by collection."""
        return {name: sum(part.documents for part in parts) for name, parts in self.collections.items()}

    @property
    def bytes(self) -> int:
        """Bytes of all files but the manifest."""
        return sum(part.bytes for parts in self.collections.values() for part in parts)


# --- writing ---------------------------------------------------------------------------------------------------


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder, which becomes `folder` when the block ends without an error.

    Raises `UsageError` where something is in the way, and `OutputError` where the disk refuses.
    """
    wanted = Path(os.path.realpath(folder))
    check_new(folder)
    temporary = wanted.with_name(f".{wanted.name[:100]}.{secrets.token_hex(6)}.part")
    try:
        os.mkdir(temporary, 0o700)
        try:
            yield temporary
            sync_name(temporary / MANIFEST)
            os.rename(temporary, wanted)  # an empty folder gives way, a full one does not
            sync_name(wanted / MANIFEST)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    except OSError as error:
        if isinstance(error, ProvdError):
            raise
        raise OutputError(f"{folder} cannot be written: {error.strerror or error}") from error


def check_new(folder: Path) -> None:
    """Raise `UsageError` unless a backup can be made there: to be asked before long work."""
    wanted = Path(os.path.realpath(folder))
    if not wanted.parent.is_dir():
        raise UsageError(f"there is no folder {wanted.parent} to make {wanted.name} in")
    if not os.path.lexists(wanted):
        return
    if not wanted.is_dir():
        raise UsageError(f"{folder} is there and is no folder; name a new one")
    if any(wanted.iterdir()):
        raise UsageError(f"{folder} is not empty: a backup is made in a folder of its own; name a new one")


def write_collection(
    folder: Path,
    collection: str,
    documents: Iterator[Record],
    *,
    part_bytes: int = PART_BYTES,
    on_document: Callable[[], None] = lambda: None,
) -> tuple[Part, ...]:
    """Write documents into as many files as it takes."""
    parts: list[Part] = []
    for first in documents:
        name = f"{collection}-{len(parts) + 1:06}.jsonl.gz"
        parts.append(_write_part(folder / name, first, documents, part_bytes, on_document))
    return tuple(parts)


def _write_part(
    path: Path, first: Record, rest: Iterator[Record], part_bytes: int, on_document: Callable[[], None]
) -> Part:
    number = written = 0
    document: Record | None = first
    with _new_file(path) as raw:
        file = _Digesting(raw)
        # A file object of gzip's own would note the time, and the same documents would make another file.
        with gzip.GzipFile("", "wb", _COMPRESSION, file, mtime=0) as packed:
            while document is not None:
                line = values.to_json(document).encode() + b"\n"
                packed.write(line)
                written += len(line)
                number += 1
                on_document()
                document = next(rest, None) if written < part_bytes else None
        _settle(raw)
        return Part(path.name, number, file.size, file.digest.hexdigest())


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the last file."""
    text = json.dumps({"provd_backup": VERSION, **asdict(manifest)}, indent=2) + "\n"
    with _new_file(folder / MANIFEST) as file:
        file.write(text.encode())
        _settle(file)


def _new_file(path: Path) -> BinaryIO:
    return open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600), "wb")


def _settle(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


class _Digesting:
    """What is written to a file, counted and digested on the way."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()
        self.size = 0

    def write(self, chunk: Any) -> int:
        self.digest.update(chunk)
        self.size += len(chunk)
        return self._file.write(chunk)

    def flush(self) -> None:
        self._file.flush()


# --- reading ---------------------------------------------------------------------------------------------------


def read_manifest(folder: Path) -> Manifest:
    """What a backup says of itself. Raises `BadBackup`."""
    path = folder / MANIFEST
    try:
        with open_regular(path) as file:
            said = json.loads(file.read())
    except FileNotFoundError:
        raise BadBackup(f"{folder} has no {MANIFEST}: it is no backup, or half of one") from None
    except OSError as error:
        raise BadBackup(f"{path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise BadBackup(f"{path} cannot be read: {error}") from error
    version = said.get("provd_backup") if isinstance(said, dict) else None
    if type(version) is not int:
        raise BadBackup(f"{path} is not the manifest of a backup of provd")
    if version > VERSION:
        raise BadBackup(
            f"{path}: version {version} of the format; this provd reads up to {VERSION}: upgrade it"
        )
    try:
        manifest = _manifest(said)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadBackup(f"{path} is not as it was written: {error!r}") from error
    _check_schema(path, manifest.origin)
    return manifest


def _manifest(said: Mapping[str, Any]) -> Manifest:
    origin = said["origin"]
    texts = (said["backup_id"], said["provd_version"], said["started_at"], said["ended_at"])
    if not all(isinstance(text, str) for text in (*texts, origin["url"], origin["kind"])):
        raise ValueError("what should be text is not")
    return Manifest(
        *texts,
        Origin(origin["url"], origin["store_id"], origin["kind"], tuple(map(str, origin["changes"]))),
        {name: tuple(map(_part, parts)) for name, parts in said["collections"].items()},
    )


def _part(said: Mapping[str, Any]) -> Part:
    part = Part(said["name"], said["documents"], said["bytes"], said["sha256"])
    if not isinstance(part.name, str) or os.path.basename(part.name) != part.name or "\0" in part.name:
        raise ValueError(f"{part.name!r} is no name of a file")
    if type(part.documents) is not int or type(part.bytes) is not int or not isinstance(part.sha256, str):
        raise ValueError(f"what is said of {part.name} is not of the right types")
    return part


def _check_schema(path: Path, origin: Origin) -> None:
    known = {"mongodb": migrations.MONGO, "embedded": migrations.SQLITE}.get(origin.kind, ())
    later = set(origin.changes) - {change.__name__ for change in known}
    if later:
        raise BadBackup(f"{path}: the backup of a store of a later provd (it has {max(later)}): upgrade")


def check_files(folder: Path, manifest: Manifest, on_progress: Callable[[int, int], None]) -> None:
    """Read all files to their ends. Raises `BadBackup`, which names the file that is missing or changed."""
    unknown = manifest.collections.keys() - set(COLLECTIONS)
    if unknown:
        raise BadBackup(f"{folder / MANIFEST} has a collection that this provd does not know: {min(unknown)}")
    done = 0
    for parts in manifest.collections.values():
        for part in parts:
            path = folder / part.name
            digest, size = hashlib.sha256(), 0
            try:
                with open_regular(path) as file:
                    while chunk := file.read(_CHUNK):
                        digest.update(chunk)
                        size += len(chunk)
                        on_progress(done + size, manifest.bytes)
            except OSError as error:
                raise BadBackup(f"{path}: {error.strerror or error}") from error
            if size != part.bytes or digest.hexdigest() != part.sha256:
                raise BadBackup(f"{path} is not as it was written: its digest differs")
            done += size


def read_collection(folder: Path, parts: tuple[Part, ...]) -> Iterator[Record]:
    """The documents of a collection. Raises `BadBackup`, which names the line."""
    for part in parts:
        path, number = folder / part.name, 0
        try:
            with open_regular(path) as file, gzip.GzipFile(fileobj=file) as packed:
                while line := packed.readline(_LINE_BYTES_MAX + 1):
                    number += 1
                    document = values.from_json(line)
                    if not isinstance(document, dict) or not line.endswith(b"\n"):
                        raise ValueError("no line of a backup")
                    yield document
        except (ValueError, EOFError, zlib.error) as error:
            if isinstance(error, ProvdError):
                raise
            raise BadBackup(f"{path}:{number}: cannot be read: {error}") from error
        except OSError as error:
            if isinstance(error, ProvdError):
                raise
            raise BadBackup(f"{path}: {error.strerror or error}") from error
        if number != part.documents:
            raise BadBackup(f"{path} has {number} documents, not {part.documents}")
