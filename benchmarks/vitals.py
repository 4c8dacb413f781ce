"""What the system says of a process: CPU time, memory, open files."""

from __future__ import annotations

import os
import time
from pathlib import Path

#: The clock of a process' CPU time, made of its id as Linux does it.
_PROCESS_CLOCK = 2

_PAGE = os.sysconf("SC_PAGE_SIZE")
_MIB = 1 << 20


def cpu_s(pid: int) -> float:
    """Seconds of CPU that a process has used so far, user and system, all threads, to the nanosecond."""
    return time.clock_gettime(~pid << 3 | _PROCESS_CLOCK)


def resident_mib(pid: int) -> float:
    """Memory that a process holds now."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE / _MIB


def handles(pid: int) -> int:
    """Files, sockets and the like that a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))
