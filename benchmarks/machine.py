"""What a table must say beside its figures: machine, versions, date."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

from tests.services.binaries import find_mongod, find_redis_server

_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Machine:
    """Where a run took place."""

    date: str
    processor: str
    cores: int
    memory_gib: int
    system: str
    python: str
    provd: str
    redis: str
    mongodb: str
    #: One-minute load when the run began: above a few tenths, another program took part.
    load: float

    @classmethod
    def here(cls) -> Machine:
        """This machine, now."""
        return cls(
            date=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
            processor=_processor(),
            cores=os.cpu_count() or 1,
            memory_gib=round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / (1024 * _MIB)),
            system=f"{_distribution()}, Linux {platform.release()}",
            python=f"{platform.python_implementation()} {platform.python_version()}",
            provd=version("provd"),
            redis=find_redis_server().version,
            mongodb=find_mongod().version,
            load=round(os.getloadavg()[0], 2),
        )

    def __str__(self) -> str:
        return (
            f"{self.date}; {self.cores} cores of {self.processor}, {self.memory_gib} GiB; {self.system}; "
            f"{self.python}; provd {self.provd}, Redis {self.redis}, MongoDB {self.mongodb}; load {self.load:g}"
        )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return " ".join(line.partition(":")[2].split())
    return platform.machine()


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.system()
