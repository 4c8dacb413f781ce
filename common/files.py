"""Files and folders on disks that others use, too.

- Only a regular file is opened for reading: a pipe, or a device, would hold up whoever reads it.
- What is made is for this user alone, also what is missing above it.
- A folder in which others may put, rename or remove files is refused: what is written there would be theirs to lose.
  So is one that somebody else has put where everybody may, such as `/tmp/provd`, and a link of theirs.
- A folder of another user elsewhere is taken: a group's spool may belong to one of the group.
- A file that was synced can still lose its name when the power fails: the folders have to be synced, too.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

_SELF_AND_PARENT = 2

#: What file systems answer that do not sync folders, or not for whoever may only write to them.
_NO_SYNC = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EPERM, errno.EBADF})


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a file for reading. Raises `OSError`, also for what is no regular file."""
    # Without O_NONBLOCK a pipe that nobody writes to would not even be opened.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no regular file", os.fspath(path))
    return open(descriptor, "rb")


def sync_name(path: Path) -> None:
    """Wait until a new file's name is on the disk, with those of the folders above it that are this user's.

    Raises `OSError`.
    """
    for place, folder in enumerate(path.parents):
        if place >= _SELF_AND_PARENT and os.stat(folder).st_uid != os.geteuid():
            return
        try:
            _sync_folder(folder)
        except OSError as error:
            if error.errno not in _NO_SYNC:
                raise


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def private_folder(folder: Path) -> None:
    """Make the folder if it is missing. Raises `OSError` whose `strerror` says what is wrong and what mends it."""
    missing = []
    for path in (folder, *folder.parents):
        if os.path.lexists(path):
            break
        missing.append(path)
    for path in reversed(missing):
        with suppress(FileExistsError):  # somebody of ours was faster
            os.mkdir(path, 0o700)
    if not stat.S_ISDIR(os.stat(folder).st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
    _check(folder)


def _check(folder: Path) -> None:
    trusted = (os.geteuid(), 0)
    places = (folder, *folder.parents)
    for path in places[:_SELF_AND_PARENT]:
        if _all_may_write(path) and not os.stat(path).st_mode & stat.S_ISVTX:
            raise _refusal(
                path, f"everybody may remove what is in {path}: chmod o-w {path}, or name another folder"
            )
    for path, parent in pairwise(places):
        if _all_may_write(parent) and not {os.lstat(path).st_uid, os.stat(path).st_uid} <= set(trusted):
            raise _refusal(
                path, f"{path} belongs to another user, in a folder open to all: name another folder"
            )


def _all_may_write(path: Path) -> bool:
    return bool(os.stat(path).st_mode & stat.S_IWOTH)


def _refusal(path: Path, reason: str) -> OSError:
    return PermissionError(errno.EPERM, reason, str(path))
