"""Facts of a git repository, read from its files: no subprocess is started, because forking after `MPI_Init` breaks
jobs.

- `commit`, `branch`, `repository` are what `.git` says.
- `dirty` is about the code that runs: it is true when something is staged, or when one of the given files differs from
  what the index has. Other files of the working tree are not looked at: on a parallel file system that is dear.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

_ENTRY = struct.Struct(">10I20sH")
_EXTENDED = 0x4000

#: Files larger than this are compared by size and time alone.
_HASHED_MAX = 8 << 20


@dataclass(frozen=True, slots=True)
class Repository:
    """A working tree and its `.git` folder; `common` is the main repository's where this is a linked worktree."""

    root: Path
    git: Path
    common: Path


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """What the index says of one file."""

    size: int
    mtime_s: int
    mtime_ns: int
    sha1: bytes


def find_repository(folder: Path) -> Repository | None:
    """The repository that a folder lies in. Raises `OSError`."""
    for place in (folder, *folder.parents):
        git = place / ".git"
        if git.is_file():  # a worktree or submodule: a file that names the folder
            git = (place / _first_line(git).removeprefix("gitdir: ")).resolve()
        if git.is_dir():
            common = git / _first_line(git / "commondir") if (git / "commondir").exists() else git
            return Repository(place, git, common)
    return None


def read_head(repository: Repository) -> dict[str, str]:
    """`commit` and `branch`, those that there are. Raises `OSError`."""
    head = _first_line(repository.git / "HEAD")
    if not head.startswith("ref: "):
        return {"commit": head} if head else {}
    reference = head.removeprefix("ref: ")
    facts = {"branch": reference.removeprefix("refs/heads/")}
    commit = _resolve(repository, reference)
    return facts | ({"commit": commit} if commit else {})


def read_origin(repository: Repository) -> str:
    """The URL of the remote `origin`, as it stands in the configuration; empty without one. Raises `OSError`."""
    section = ""
    with (repository.common / "config").open(encoding="utf-8") as stream:
        for line in map(str.strip, stream):
            if line.startswith("["):
                section = line
            elif section == '[remote "origin"]' and line.partition("=")[0].strip() == "url":
                return line.partition("=")[2].strip()
    return ""


def is_dirty(repository: Repository, files: Iterable[Path]) -> bool | None:
    """Whether the commit does not tell what these files are; None where that cannot be read. Raises `OSError`."""
    try:
        data = (repository.git / "index").read_bytes()
        entries = dict(_index_entries(data))
        staged = _has_staged(data)
    except (FileNotFoundError, ValueError, struct.error, IndexError):
        return None
    return staged or any(_differs(repository, file, entries) for file in files)


def _first_line(file: Path) -> str:
    with file.open(encoding="utf-8") as stream:
        return stream.readline().strip()


def _resolve(repository: Repository, reference: str) -> str:
    for base in (repository.git, repository.common):
        if (base / reference).is_file():
            return _first_line(base / reference)
    packed = repository.common / "packed-refs"
    if packed.is_file():
        with packed.open(encoding="utf-8") as stream:
            for line in stream:
                commit, _, name = line.strip().partition(" ")
                if name == reference:
                    return commit
    return ""


# --- the index: git's Documentation/gitformat-index -------------------------------------------------------------


def _index_entries(data: bytes) -> Iterator[tuple[str, IndexEntry]]:
    signature, version, count = struct.unpack_from(">4sII", data)
    if signature != b"DIRC" or version not in (2, 3, 4):
        raise ValueError("an index of an unknown version")
    position, path = 12, b""
    for _ in range(count):
        fields = _ENTRY.unpack_from(data, position)
        start = position + _ENTRY.size + (2 if fields[11] & _EXTENDED else 0)
        if version == 4:
            dropped, start = _variable_number(data, start)
            end = data.index(b"\0", start)
            path = path[: len(path) - dropped] + data[start:end]
            position = end + 1
        else:
            end = data.index(b"\0", start)
            path = data[start:end]
            position += (end - position + 8) // 8 * 8
        entry = IndexEntry(size=fields[9], mtime_s=fields[2], mtime_ns=fields[3], sha1=fields[10])
        yield os.fsdecode(path), entry


def _variable_number(data: bytes, position: int) -> tuple[int, int]:
    byte = data[position]
    number = byte & 0x7F
    while byte & 0x80:
        position += 1
        byte = data[position]
        number = ((number + 1) << 7) | (byte & 0x7F)
    return number, position + 1


def _has_staged(data: bytes) -> bool:
    """`git add` spoils the cached tree at its root, and `git commit` makes it whole again."""
    found = data.rfind(b"TREE", 12, len(data) - 20)
    if found < 0 or data[found + 8] != 0:
        return False
    entry_count = data[found + 9 :].partition(b" ")[0]
    return entry_count == b"-1"


def _differs(repository: Repository, file: Path, entries: dict[str, IndexEntry]) -> bool:
    entry = entries.get(str(file.relative_to(repository.root)))
    if entry is None:
        return True  # untracked
    found = file.stat()
    if (found.st_size & 0xFFFFFFFF) != entry.size:
        return True
    if int(found.st_mtime) == entry.mtime_s and (found.st_mtime_ns % 1_000_000_000) == entry.mtime_ns:
        return False
    if found.st_size > _HASHED_MAX:
        return True
    content = file.read_bytes()
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False)
    return blob.digest() != entry.sha1
