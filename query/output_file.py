"""A file that appears whole or not at all.

- What is written goes to a temporary file beside the wanted one, hidden, for this user alone until it is done.
- Only when all is on the disk does it take the name. Whatever goes wrong before leaves what was there as it was.
- What a killed process has left (nobody cleans up after SIGKILL) goes when the same file is written a day later.
- A link is followed: what it points at is replaced. What is no regular file (`/dev/stdout`, a pipe) is refused: taking
  its place would remove it.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from provd.common import clock
from provd.common.errors import OutputError, ProvdError, UsageError

_SUFFIX = ".part"
_TOKEN_BYTES = 6

#: Characters of the wanted name that are in the temporary one.
_STEM = 100

#: What has not been written to for so long has nobody who writes it.
_ABANDONED_MS = 24 * 3600 * 1000


@contextmanager
def replaced(path: str | os.PathLike[str]) -> Iterator[Path]:
    """An empty temporary file to write to, which becomes `path` when the block ends without an error.

    Raises `UsageError` where no file can be, and `OutputError` where the disk refuses.
    """
    wanted = Path(os.path.realpath(path))
    mode = _mode_of(wanted, path)
    _remove_abandoned(wanted)
    temporary = wanted.with_name(f".{wanted.name[:_STEM]}.{secrets.token_hex(_TOKEN_BYTES)}{_SUFFIX}")
    try:
        try:
            os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
            yield temporary
            os.chmod(temporary, mode)
            _sync(temporary)
            os.replace(temporary, wanted)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise
        with suppress(OSError):  # not every file system syncs folders; the file itself is safe
            _sync(wanted.parent)
    except OSError as error:
        if isinstance(error, ProvdError):  # the store went away meanwhile, say
            raise
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error


def check_output(path: str | os.PathLike[str]) -> None:
    """Raise `UsageError` where `replaced` would: to be asked before long work."""
    _mode_of(Path(os.path.realpath(path)), path)


def _remove_abandoned(wanted: Path) -> None:
    """Remove old temporary files of this very file. Where its name was cut they may be another's, and stay."""
    if len(wanted.name) > _STEM:
        return
    ours = re.compile(rf"\.{re.escape(wanted.name)}\.[0-9a-f]{{{2 * _TOKEN_BYTES}}}{re.escape(_SUFFIX)}")
    before = clock.now_ms() - _ABANDONED_MS
    with suppress(OSError), os.scandir(wanted.parent) as entries:
        for entry in entries:
            if ours.fullmatch(entry.name) is None or not entry.is_file(follow_symlinks=False):
                continue
            with suppress(OSError):  # another's, who may not be helped
                if entry.stat(follow_symlinks=False).st_mtime * 1000 < before:
                    os.unlink(entry.path)


def _mode_of(wanted: Path, path: str | os.PathLike[str]) -> int:
    """The permissions of the file: those of the one that is there, else what the user's mask says."""
    try:
        facts = os.stat(wanted)
    except FileNotFoundError:
        if not wanted.parent.is_dir():
            raise UsageError(f"there is no folder {wanted.parent} to write {wanted.name} into") from None
        return 0o666 & ~_umask()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    if stat.S_ISDIR(facts.st_mode):
        raise UsageError(f"{path} is a folder; name a file in it")
    if not stat.S_ISREG(facts.st_mode):
        raise UsageError(
            f"{path} is no regular file; `-` writes to standard output where the format allows it"
        )
    return stat.S_IMODE(facts.st_mode)


def _umask() -> int:
    """The process' mask. Reading it means setting it, so it is set to the strictest for that moment."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
