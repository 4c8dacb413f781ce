"""Whether this machine gives provd what it needs: disk, files, packages."""

from __future__ import annotations

import os
import platform
import resource
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from provd.cli import human
from provd.cli.checks import Check, Level, judge
from provd.common.settings import Settings

#: File systems that a restart empties.
_FLEETING = frozenset({"tmpfs", "ramfs"})

_WHO_EMPTIES = "as a restart, the system or the end of a job does with this one"

#: Open files below which a consumer of many streams, or a large client, may run out.
_FEW_FILES = 1024

#: Distributions that matter, and the extra that brings those which the base install has not.
_PACKAGES = (
    ("msgpack", ""), ("redis", ""), ("pymongo", "consumer"), ("prometheus-client", "consumer"), ("mongomock", "embedded"),
)  # fmt: skip


def check_machine(settings: Settings) -> Iterator[Check]:
    """Ask about this machine; nothing is left behind."""
    yield from _check_folder("spool", settings.spool_path, settings.spool_free_floor)
    if settings.data_path != settings.spool_path:
        yield from _check_folder("data folder", settings.data_path, 0.0)
    yield _open_files()
    yield _versions()


def file_system_of(path: Path, mounts: str = "/proc/self/mounts") -> str:
    """The type of the file system that holds `path`, `unknown` where the system does not say."""
    best, kind = "", "unknown"
    try:
        lines = Path(mounts).read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return kind
    real = os.path.realpath(path)
    for line in lines:
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        point = fields[1].encode().decode("unicode_escape")
        # Later mounts cover earlier ones on the same point.
        if len(point) >= len(best) and (real == point or real.startswith(point.rstrip("/") + "/")):
            best, kind = point, fields[2]
    return kind


def nearest_existing(path: Path) -> Path:
    """The path itself, or the closest folder above it that exists."""
    for candidate in (path, *path.parents):
        if candidate.exists():
            return candidate
    return Path("/")


def _check_folder(subject: str, path: Path, floor: float) -> Iterator[Check]:
    standing = nearest_existing(path)
    kind = file_system_of(standing)
    reason = _why_not_writable(standing)
    if reason is not None:
        yield Check(
            subject, Level.FAILED, f"{path}: {reason}", f"make {standing} writable, or name another folder"
        )
        return
    fleeting = kind in _FLEETING or _is_temporary(standing)
    finding = f"{path} is writable, on {kind}" if path == standing else f"{path} can be made, on {kind}"
    yield judge(
        subject, not fleeting, finding, fix=f"choose a folder on a disk that nobody empties, {_WHO_EMPTIES}"
    )
    room = os.statvfs(standing)
    free = room.f_bavail / room.f_blocks if room.f_blocks else 0.0
    yield judge(
        f"{subject} space",
        free > max(floor, 0.01),
        f"{human.size(room.f_bavail * room.f_frsize)} free ({free:.0%})",
        fix=f"free some: below {floor:.0%} messages are dropped and counted" if floor else "free some",
        otherwise=Level.FAILED,
    )


def _is_temporary(path: Path) -> bool:
    """Whether a folder is for temporary files: systems clear /tmp, and schedulers a job's $TMPDIR."""
    real = os.path.realpath(path)
    folders = {os.path.realpath(folder) for folder in ("/tmp", os.environ.get("TMPDIR")) if folder}  # noqa: S108
    return any(real == folder or real.startswith(folder.rstrip("/") + "/") for folder in folders)


def _why_not_writable(folder: Path) -> str | None:
    if not folder.is_dir():
        return f"{folder} is not a folder"
    try:
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as error:
        return error.strerror or type(error).__name__


def _open_files() -> Check:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    words = f"{'no limit' if soft == unlimited else f'{soft:,}'} (hard {'none' if hard == unlimited else f'{hard:,}'})"
    return judge(
        "open files", soft == unlimited or soft >= _FEW_FILES, words, fix=f"raise it: ulimit -n {_FEW_FILES}"
    )


def _versions() -> Check:
    parts = [f"provd {_version('provd') or 'unknown'}", f"Python {platform.python_version()}"]
    absent = []
    for name, extra in _PACKAGES:
        version = _version(name)
        if version is not None:
            parts.append(f"{name} {version}")
        else:
            absent.append(f'no {name} (pip install "provd[{extra}]")' if extra else f"no {name}")
    return Check("versions", Level.OK, ", ".join(parts + absent))


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
