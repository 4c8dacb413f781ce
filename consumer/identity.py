"""The name of a consumer: `<host>-<slot>`.

The name outlives the process, so that a consumer that is started again finds what it had in hand. A slot is held by
a lock on a local file; the system lets go of it however the process ends. The lowest free slot is taken.
"""

from __future__ import annotations

import fcntl
import os
import socket
import stat
from pathlib import Path
from types import TracebackType

from provd.common.errors import SettingsError

_SLOTS = 1000


def runtime_dir() -> Path:
    """A folder of this user on a local disk, 0700; made if it does not exist. Raises `SettingsError`."""
    given = os.environ.get("XDG_RUNTIME_DIR")
    if given and os.access(given, os.W_OK):
        return private_dir(Path(given, "provd"))
    # A world-writable parent is safe here: the folder must be ours alone, or it is refused.
    return private_dir(Path(f"/tmp/provd-{os.getuid()}"))  # noqa: S108


def private_dir(folder: Path) -> Path:
    """Make a folder that is this user's alone, or check that it is. Raises `SettingsError`."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        facts = folder.lstat()
    except OSError as error:
        raise SettingsError(f"folder {folder}: {error.strerror}; choose another data_dir") from error
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid():
        raise SettingsError(f"folder {folder} belongs to someone else; remove it or set XDG_RUNTIME_DIR")
    if facts.st_mode & 0o077:
        folder.chmod(0o700)
    return folder


def short_hostname() -> str:
    """The name of this host up to the first dot."""
    return socket.gethostname().partition(".")[0] or "localhost"


class Identity:
    """A consumer's name, its own for as long as this is open."""

    def __init__(self, folder: Path | None = None, *, hostname: str | None = None) -> None:
        """Take the lowest free slot of `folder` (default: the runtime folder). Raises `SettingsError`."""
        self._folder = runtime_dir() if folder is None else folder
        self._file, slot = self._take()
        self.hostname = hostname or short_hostname()
        self.name = f"{self.hostname}-{slot}"

    def close(self) -> None:
        """Give the slot back; calling it twice is harmless."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> Identity:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _take(self) -> tuple[int, int]:
        for slot in range(_SLOTS):
            # The file is never removed: two processes could then lock two files of one name.
            path = self._folder / f"consumer-{slot}.lock"
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(file)
                continue
            return file, slot
        raise SettingsError(f"folder {self._folder}: all {_SLOTS} consumer slots are taken")
