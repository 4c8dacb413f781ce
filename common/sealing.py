"""Spool files that nobody will close any more: who wrote them, and whether that is over.

Invariants:

- A file is sealed when its writer is proven dead, when its writer lives and has let go of it, or when nothing has been
  written to it for long and nothing is known of its writer. The file of a living writer is never sealed.
- How long is told by the file system's own clock, that of a file made beside it: those of the nodes differ.
- Sealing renames. Nothing is changed in a file, nothing is deleted, nothing is overwritten.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from provd.common.owner import Fate, Owner, has_open
from provd.common.spool import OPEN_SUFFIX, read_header

#: Seconds of silence after which the file of a writer that nobody knows of is taken for abandoned.
SILENT_S = 3600.0

#: Seconds that a living writer has between closing a file and renaming it.
_RENAMING_S = 60.0

#: Bytes in which a header stands.
_HEADER_BYTES = 4096


@dataclass(frozen=True, slots=True)
class LeftOpen:
    """A file that was not sealed, and why."""

    path: Path
    reason: str


@dataclass(frozen=True, slots=True)
class Sealed:
    """What became of open files: those sealed by their new names, and the others."""

    sealed: tuple[Path, ...] = ()
    left: tuple[LeftOpen, ...] = ()


def seal_abandoned(files: Iterable[Path], *, silent_s: float = SILENT_S) -> Sealed:
    """Seal those of the open files among `files` that nobody writes any more."""
    sealed: list[Path] = []
    left: list[LeftOpen] = []
    for path in files:
        if not path.name.endswith(OPEN_SUFFIX):
            continue
        try:
            reason = why_not(path, silent_s=silent_s)
            if reason is None:
                sealed.append(_seal(path))
                continue
        except FileNotFoundError:  # its writer, or another recovery, was faster
            continue
        except OSError as error:
            reason = error.strerror or str(error)
        left.append(LeftOpen(path, reason))
    return Sealed(tuple(sealed), tuple(left))


def why_not(path: Path, *, silent_s: float = SILENT_S) -> str | None:
    """Why an open file must not be sealed; None when it may. Raises `OSError`."""
    owner = _read_owner(path)
    fate = owner.fate()
    if fate is Fate.DEAD:
        return None
    silence = _silence(path)
    if owner.is_of_another_boot and silence > _uptime():
        return None  # unless it was written since: then another host has the same name
    if fate is Fate.ALIVE:
        assert owner.pid is not None
        if has_open(owner.pid, path) is not False:
            return f"process {owner.pid} is running"
        silent_s = min(silent_s, _RENAMING_S)
    if silence >= silent_s:
        return None
    who = f"whether process {owner.pid} on {owner.hostname} is running" if owner.pid else "whose it is"
    return f"{who} is not known from here, and it was written to {_ago(silence)} ago"


def _read_owner(path: Path) -> Owner:
    with path.open("rb") as stream:
        line = stream.readline(_HEADER_BYTES)
    return read_header(line) or Owner()


def _silence(path: Path) -> float:
    """Seconds since the last write to a file, by the clock that has stamped it."""
    probe = path.with_name(f".clock-{os.getpid()}-{os.urandom(4).hex()}")
    handle = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        now = os.fstat(handle).st_mtime
    finally:
        os.close(handle)
        probe.unlink(missing_ok=True)
    return now - path.stat().st_mtime


def _uptime() -> float:
    """Seconds since this host was started; endless where it does not say."""
    try:
        return float(Path("/proc/uptime").read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return float("inf")


def _seal(path: Path) -> Path:
    target = path.with_name(path.name.removesuffix(".open"))
    if os.path.lexists(target):
        path.lstat()  # else another recovery was faster
        raise OSError(f"there is a {target.name} already")
    path.rename(target)
    return target


def _ago(seconds: float) -> str:
    return f"{max(0.0, seconds):.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
