"""The process that a file belongs to, and whether it still lives.

Invariants:

- Dead is said only where it is proven: another boot of the same host, or the same boot and pid namespace without that
  process. Everything else is not known.
- A pid that came back is told by the time its process was started.
- A fact that the kernel does not tell is absent, and absent facts prove nothing.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

#: Fields of `/proc/PID/stat` behind the command's name, which is in parentheses and may hold anything: the state, and
#: the start of the process in ticks since boot.
_STATE, _START = 0, 19

#: States of a process that has ended and waits to be collected.
_ENDED = frozenset("ZXx")


class Fate(Enum):
    """What is known of a process."""

    DEAD = "dead"
    ALIVE = "alive"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Owner:
    """A process, so that any other on the same host can tell whether it is still there."""

    hostname: str | None = None
    boot_id: str | None = None
    pid_namespace: str | None = None
    pid: int | None = None
    #: Ticks from boot to the start of the process.
    started: int | None = None

    @classmethod
    def here(cls, hostname: str) -> Owner:
        """This process."""
        pid = os.getpid()
        return cls(hostname, boot_id(), pid_namespace(), pid, start_of(pid))

    @classmethod
    def read(cls, facts: dict[str, Any]) -> Owner:
        """Undo `facts`; what is absent or of another type is not known."""
        hostname, boot, namespace = (facts.get(key) for key in ("hostname", "boot_id", "pid_namespace"))
        pid, started = facts.get("pid"), facts.get("process_started")
        return cls(
            hostname if isinstance(hostname, str) else None,
            boot if isinstance(boot, str) else None,
            namespace if isinstance(namespace, str) else None,
            pid if isinstance(pid, int) and pid > 0 else None,
            started if isinstance(started, int) else None,
        )

    def facts(self) -> dict[str, Any]:
        """The process as the fields of a document."""
        fields = {
            "hostname": self.hostname,
            "boot_id": self.boot_id,
            "pid_namespace": self.pid_namespace,
            "pid": self.pid,
            "process_started": self.started,
        }
        return {name: value for name, value in fields.items() if value is not None}

    @property
    def is_of_another_boot(self) -> bool:
        """Whether it ran on a host of this name, before or after another start of it."""
        here = boot_id()
        return (
            here is not None
            and self.boot_id is not None
            and self.boot_id != here
            and self.hostname == os.uname().nodename
        )

    def fate(self) -> Fate:
        """Whether it lives, as far as this process can see it."""
        if self.pid is None or self.boot_id is None or self.boot_id != boot_id():
            return Fate.UNKNOWN
        if self.pid_namespace is None or self.pid_namespace != pid_namespace():
            return Fate.UNKNOWN
        started = start_of(self.pid)
        if started is None:
            # Where the pid is taken, /proc hides other users' processes (hidepid): nobody knows whose it is.
            return Fate.UNKNOWN if _exists(self.pid) else Fate.DEAD
        if self.started is not None and started != self.started:
            return Fate.DEAD
        return Fate.ALIVE


def boot_id() -> str | None:
    """What tells this boot of this host from every other, where the kernel says so."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return None


def pid_namespace() -> str | None:
    """What tells this set of pids from that of another container, where the kernel says so."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return None


def start_of(pid: int) -> int | None:
    """When a process was started, in ticks since boot; None when there is none, or it has ended, or is not shown."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    fields = stat[stat.rfind(b")") + 2 :].split()
    if len(fields) <= _START or fields[_STATE].decode("ascii", "replace") in _ENDED:
        return None
    return int(fields[_START])


def has_open(pid: int, path: Path) -> bool | None:
    """Whether a process has a file open; None where it does not let us look."""
    try:
        wanted = path.stat()
        folder = f"/proc/{pid}/fd"
        for name in os.listdir(folder):
            try:
                found = os.stat(f"{folder}/{name}")
            except OSError:  # closed meanwhile
                continue
            if (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino):
                return True
    except OSError:
        return None
    return False


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return not _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False
    return stat[stat.rfind(b")") + 2 :][:1].decode("ascii", "replace") in _ENDED
