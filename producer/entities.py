"""Values that can be followed from task to task, wherever the tasks ran: files, and whatever has a declared key.

- What a task used is looked at before the call, what it generated after it: a file's size and checksum are those of
  that moment.
- Nothing here raises: a file that is missing or cannot be read is recorded by its path alone.
- Nothing but regular files is opened: a pipe would wait for its writer.
"""

from __future__ import annotations

import os
import stat
import time
from typing import Any

#: Bytes of the largest file whose checksum is taken unless a program says otherwise: half a second, as a rule.
CHECKSUM_MAX = 256 << 20

_BLOCK = 1 << 20

#: Checksums of files that did not change since, by which file they are, its size and its times.
_known: dict[tuple[int, ...], str] = {}
_KNOWN_MAX = 1024

#: A file that was changed less than this many seconds ago may change again without its time showing it.
_SETTLED_S = 2.0


class File:
    """A file that a task reads or writes, in place of its path: `open(provd.File("model.pt"))` works.

    ```python
    @provd.task
    def train(data: provd.File) -> provd.File: ...

    with provd.Task("convert", used={"raw": provd.File("in.dat")}) as t:
        t.generated(table=provd.File("out.csv"))
    ```

    Recorded are the absolute path, the size and the SHA-256. Of a file larger than `checksum_max`, and with
    `checksum=False`, the time of its last change stands for the checksum: nothing is read then.
    """

    __slots__ = ("__weakref__", "_checksum_max", "_path")

    def __init__(
        self, path: str | os.PathLike[str], *, checksum: bool = True, checksum_max: int = CHECKSUM_MAX
    ) -> None:
        """Nothing is looked at yet."""
        self._path = path
        self._checksum_max = checksum_max if checksum else -1

    def __fspath__(self) -> str:
        """The path, as it was given."""
        return os.fspath(self._path)

    def __str__(self) -> str:
        """The path, as it was given."""
        return str(self._path)

    def __repr__(self) -> str:
        """As it was made."""
        return f"provd.File({str(self._path)!r})"

    def __eq__(self, other: object) -> bool:
        """Whether it has the same path."""
        return str(self) == str(other) if isinstance(other, File) else NotImplemented

    def __hash__(self) -> int:
        """Equal for equal paths."""
        return hash(str(self._path))

    def to_provd_dict(self) -> dict[str, Any]:
        """What is recorded, as the file is now."""
        path = os.fsdecode(os.fspath(self._path))
        if "://" in path:
            return {"type": "provd.File", "path": path}
        said: dict[str, Any] = {"type": "provd.File", "path": os.path.abspath(path)}
        try:
            said |= _facts(path, self._checksum_max)
        except (OSError, ValueError):
            pass  # missing, not ours to read, or no path at all
        return said


class Key:
    """A value under a key of your own: equal keys are the same value, in every task of a campaign.

    ```python
    with provd.Task("fit", used={"data": provd.Key("events/2026-11")}) as t:
        t.generated(model=provd.Key(f"model/{step}", accuracy))
    ```
    """

    __slots__ = ("__weakref__", "key", "value")

    def __init__(self, key: object, value: Any = None) -> None:
        """`value` is recorded beside the key, as any other."""
        self.key = key
        self.value = value

    def __repr__(self) -> str:
        """As it was made."""
        return (
            f"provd.Key({self.key!r})" if self.value is None else f"provd.Key({self.key!r}, {self.value!r})"
        )

    def to_provd_dict(self) -> dict[str, Any]:
        """What is recorded."""
        said: dict[str, Any] = {"type": "provd.Key", "key": str(self.key)}
        return said if self.value is None else {**said, "value": self.value}


def _facts(path: str, checksum_max: int) -> dict[str, Any]:
    """The size of a regular file, and its checksum or the time of its last change."""
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
        return {}
    if found.st_size > checksum_max:
        return {"size": found.st_size, "modified_ns": found.st_mtime_ns}
    which = _which(found)
    checksum = _known.get(which)
    if checksum is None:
        checksum = _checksum(path, found.st_size)
        if checksum is None or _which(os.stat(path)) != which:
            return {}  # somebody writes to it at this moment: what was read is neither the old file nor the new one
        if time.time() - max(found.st_mtime, found.st_ctime) > _SETTLED_S:
            if len(_known) >= _KNOWN_MAX:
                _known.clear()
            _known[which] = checksum
    return {"size": found.st_size, "sha256": checksum}


def _which(found: os.stat_result) -> tuple[int, ...]:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _checksum(path: str, size: int) -> str | None:
    """That of a file of this size; None where there is more to read: in `/proc`, files of no size have no end."""
    import hashlib

    digest = hashlib.sha256()
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb", buffering=0) as file:
        while block := file.read(_BLOCK):
            size -= len(block)
            if size < 0:
                return None
            digest.update(block)
    return digest.hexdigest()
