"""The watch over a soak: how much memory the long-lived processes take, and how the store keeps up.

- A process' memory is its resident set, read from /proc; a series is judged by the means of its thirds. It begins
  when a twentieth of the work is done: imports, connections and the first full batch are no growth.
- A standstill is a time in which tasks wait and the store gets none of them.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pymongo
import redis
from pymongo.errors import PyMongoError

from tests.faults.soak.plan import Fault
from tests.faults.soak.receipts import unfounded
from tests.faults.soak.stage import DATABASE, Stage

_INTERVAL_S = 0.5

#: How much higher the mean of the last third of a series may be than that of its first.
GROWTH = 0.05

#: The share of the work after which processes count as warm.
_WARM_SHARE = 0.05

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

#: Milliseconds after which a MongoDB that does not answer counts as one that gets nothing.
_ANSWER_MS = 500


@dataclass(frozen=True, slots=True)
class Memory:
    """The memory of one process over the soak, in bytes."""

    process: str
    samples: tuple[int, ...]

    @property
    def first_third(self) -> float:
        return _mean(self.samples[: max(1, len(self.samples) // 3)])

    @property
    def last_third(self) -> float:
        return _mean(self.samples[-max(1, len(self.samples) // 3) :])

    @property
    def growth(self) -> float:
        """How much higher the last third is than the first, as a share."""
        return self.last_third / self.first_third - 1 if self.first_third else 0.0

    @property
    def is_flat(self) -> bool:
        return self.last_third <= self.first_third * (1 + GROWTH)


@dataclass(frozen=True, slots=True)
class Standstill:
    """The longest time in which nothing was stored, and the last fault before its end."""

    seconds: float = 0.0
    fault: Fault | None = None


class Watch:
    """A thread that looks, from `start` to `stop`."""

    def __init__(
        self,
        stage: Stage,
        pids: Mapping[str, int],
        *,
        produced: Callable[[], int],
        tasks: int,
        last_fault: Callable[[], Fault | None],
    ) -> None:
        self._stage = stage
        self._pids = dict(pids)
        self._produced = produced
        self._warm_at = int(tasks * _WARM_SHARE)
        self._last_fault = last_fault
        self._samples: dict[str, list[int]] = {process: [] for process in pids}
        self._client: pymongo.MongoClient[dict[str, Any]] = pymongo.MongoClient(
            stage.mongo.database_url(DATABASE),
            serverSelectionTimeoutMS=_ANSWER_MS,
            socketTimeoutMS=_ANSWER_MS,
            connectTimeoutMS=_ANSWER_MS,
        )
        seconds = _ANSWER_MS / 1000
        self._redis = redis.Redis.from_url(
            stage.redis.url, socket_timeout=seconds, socket_connect_timeout=seconds
        )
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="soak-watch", daemon=True)
        self._stored = 0
        self._stored_at = time.monotonic()
        self.standstill = Standstill()
        #: Processes that were to live to the end and did not.
        self.gone: set[str] = set()
        #: Receipts for what the store did not have.
        self.unfounded: list[str] = []
        #: The most that the producers' spool held, in bytes.
        self.highest_spool = 0

    def start(self) -> None:
        self._thread.start()

    def release(self, process: str) -> None:
        """Look at a process no more: from now on it may end."""
        self._pids = {name: pid for name, pid in self._pids.items() if name != process}

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()
        self._client.close()
        self._redis.close()

    def memories(self) -> list[Memory]:
        return [Memory(process, tuple(samples)) for process, samples in self._samples.items()]

    def _run(self) -> None:
        while not self._ended.wait(_INTERVAL_S):
            for process, pid in self._pids.items():
                resident = _resident(pid)
                if resident is None and process in self._pids:
                    self.gone.add(process)
                elif resident is not None and self._produced() >= self._warm_at:
                    self._samples[process].append(resident)
            self._look_at_store()
            self.highest_spool = max(self.highest_spool, bytes_below(self._stage.spool))
            self._compare_receipts()

    def _compare_receipts(self) -> None:
        try:
            self.unfounded += unfounded(self._redis, self._client.get_default_database())
        except (PyMongoError, redis.RedisError):
            pass  # one of the two is away: another look will tell

    def _look_at_store(self) -> None:
        now = time.monotonic()
        try:
            stored = self._client.get_default_database()["tasks"].estimated_document_count()
        except PyMongoError:
            stored = self._stored
        if stored != self._stored or stored >= self._produced():
            if now - self._stored_at > self.standstill.seconds:
                self.standstill = Standstill(now - self._stored_at, self._last_fault())
            self._stored, self._stored_at = stored, now


def bytes_below(folder: Path) -> int:
    """What the files of a folder hold together; those that vanish meanwhile hold nothing."""
    total = 0
    for path in folder.rglob("*.jsonl*"):
        try:
            total += path.stat().st_size
        except FileNotFoundError:
            continue
    return total


def _resident(pid: int) -> int | None:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
        return pages * _PAGE_BYTES or None  # one that has ended and is not collected yet has none
    except OSError:
        return None


def _mean(samples: tuple[int, ...]) -> float:
    return sum(samples) / len(samples) if samples else 0.0
