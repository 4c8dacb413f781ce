"""A lock that one process of a node holds: for a thing that every process of a node could do and one should.

- It is a lock of the kernel on a file, so it falls with its holder, however that ends.
- The file is in `/tmp/provd-<uid>/`, where a lock costs no network, and its name has the host's: where `/tmp` is shared
  by nodes all the same, each has its own. The variables that name a user's or a job's own folder are not asked:
  processes of one job do not always agree on them.
- It is a POSIX lock, which belongs to a process: a fork does not take it along.
- The holder removes the file before it lets go; who has locked a file that is gone tries again with the new one.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import stat


class NodeLock:
    """One lock, by name. Not for several threads at once, and to be held by one object of a process at a time."""

    def __init__(self, name: str) -> None:
        digest = hashlib.sha256(f"{os.uname().nodename}\0{name}".encode()).hexdigest()[:32]
        self.path = os.path.join(f"/tmp/provd-{os.getuid()}", f"{digest}.lock")  # noqa: S108 - made 0700 and checked
        self._descriptor = -1

    @property
    def is_held(self) -> bool:
        """Whether this process has it."""
        return self._descriptor >= 0

    def acquire(self) -> bool:
        """Take it if nobody has it; never waits. Raises `OSError` where there can be no such file."""
        while not self.is_held:
            _make_private(os.path.dirname(self.path))
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                if not _lock(descriptor):
                    return False
                if _is_file(descriptor, self.path):
                    self._descriptor, descriptor = descriptor, -1
            finally:
                if descriptor >= 0:
                    os.close(descriptor)
        return True

    def release(self) -> None:
        """Let go. Nothing, when it is not held."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor < 0:
            return
        try:
            if _is_file(descriptor, self.path):
                os.unlink(self.path)
        finally:
            os.close(descriptor)

    def forget(self) -> None:
        """Close the file in the child after a fork; the lock stays with the parent."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return False  # someone has it
        raise
    return True


def _is_file(descriptor: int, path: str) -> bool:
    """Whether the path still names the open file: the last holder may have removed it, and another made it anew."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False


def _make_private(folder: str) -> None:
    """Make the folder for this user alone. Raises `OSError` when it is someone else's: `/tmp` is everybody's."""
    try:
        os.mkdir(folder, 0o700)
    except FileExistsError:
        pass
    found = os.stat(folder, follow_symlinks=False)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise PermissionError(errno.EACCES, "the folder is not this user's alone", folder)
