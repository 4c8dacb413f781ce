"""Two consumers and one on the same full streams: whether the work splits, what that costs, and that nothing is done twice.

- Two are either two processes of `provd consume`, or one of `provd consume --workers 2`. On two cores, shared with Redis
  and MongoDB, throughput itself cannot double: what is compared is the CPU for a task.
- How much each has done is what it says itself in the store when it has ended.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pymongo

from benchmarks.backlog import Backlog
from benchmarks.figure import Figure, Form, Target
from benchmarks.runs import clean_environment, interleaved
from benchmarks.services import mongo_server, redis_server, scratch
from benchmarks.vitals import cpu_s
from provd.common import names
from tests.services.child import Child
from tests.services.mongo_server import MongoServer
from tests.services.redis_server import RedisServer
from tests.services.waiting import wait_until

#: Frames come one of each stream at a time: with many more, a single reading is a large part of a short run.
_STREAMS = 32
_TASKS = {Form.QUICK: 160_000, Form.FULL: 320_000, Form.NIGHTLY: 1_000_000}
_ROUNDS = {Form.QUICK: 1, Form.FULL: 3, Form.NIGHTLY: 9}

_READY_S = 120.0
_STUCK_S = 600.0
_LOOK_S = 0.02


@dataclass(frozen=True, slots=True)
class _Sample:
    """What one run came to, over all its consumers."""

    cpu_us: float
    rate: float
    smallest_share: float
    twice: float


def measure(form: Form) -> Iterator[Figure]:
    """CPU for a task with two consumers beside one; the smaller share; what was done twice."""
    tasks, rounds = _TASKS[form], _ROUNDS[form]
    samples: dict[str, list[_Sample]] = {"one": [], "two": [], "workers": []}
    with redis_server(appendonly="no") as redis_, mongo_server() as mongo, scratch() as folder:
        stage = _Stage(redis_, mongo, folder, tasks)

        def take(kind: str, commands: int, workers: int) -> float:
            samples[kind].append(stage.sample(commands, workers))
            return samples[kind][-1].cpu_us

        one, two, workers = interleaved(
            rounds, lambda: take("one", 1, 1), lambda: take("two", 2, 1), lambda: take("workers", 1, 2)
        )
    note = f"{tasks:,} tasks wait in {_STREAMS} streams"
    for what, kind, cpu in (("two consumers", "two", two), ("--workers 2", "workers", workers)):
        yield Figure(f"CPU for a task, {what}", "us", cpu, "one consumer", one, Target(most=1.1), note)
        rates = [tuple(sample.rate for sample in samples[some]) for some in (kind, "one")]
        yield Figure(f"throughput, {what}", "tasks/s", rates[0], "one consumer", rates[1], note=note)
        shares = tuple(sample.smallest_share for sample in samples[kind])
        yield Figure(f"the smaller share, {what}", "", shares, target=Target(least=0.4), note=note)
        twice = tuple(sample.twice for sample in samples[kind])
        yield Figure(f"tasks done twice, {what}", "", twice, target=Target(most=0.0), note=note)


class _Stage:
    """The services; each sample has a fresh database and consumers of its own."""

    def __init__(self, redis_: RedisServer, mongo: MongoServer, folder: Path, tasks: int) -> None:
        self._redis = redis_
        self._mongo = mongo
        self._folder = folder
        self._tasks = tasks
        self._samples = 0

    def sample(self, commands: int, workers: int) -> _Sample:
        """Empty full streams with so many commands of so many workers each."""
        self._samples += 1
        name = f"sample{self._samples}"
        mongo: pymongo.MongoClient[Any] = pymongo.MongoClient(self._mongo.url)
        with mongo, ExitStack() as stack:
            stack.callback(mongo.drop_database, name)
            backlog = Backlog(self._redis.url, name, streams=_STREAMS)
            stack.callback(backlog.close)
            backlog.fill(self._tasks)
            database = mongo[name]
            with self._consumers(name, commands, workers):
                marks = database[names.CONSUMERS]
                wait_until(lambda: marks.count_documents({}) == commands * workers, _READY_S, "the consumers")
                pids = [mark["pid"] for mark in marks.find()]
                before, started = sum(map(cpu_s, pids)), time.perf_counter()
                backlog.show()
                self._wait_for(database, backlog)
                seconds = time.perf_counter() - started
                cpu = sum(map(cpu_s, pids)) - before
            stored = [mark["figures"]["stored"] for mark in database[names.CONSUMERS].find()]
            twice = sum(mark["figures"]["duplicates"] for mark in database[names.CONSUMERS].find())
            assert sum(stored) == database[names.TASKS].count_documents({}) == self._tasks
        return _Sample(cpu / self._tasks * 1e6, self._tasks / seconds, min(stored) / self._tasks, twice)

    def _wait_for(self, database: Any, backlog: Backlog) -> None:
        pause, until = threading.Event(), time.monotonic() + _STUCK_S
        while database[names.TASKS].estimated_document_count() < self._tasks or backlog.frames():
            if time.monotonic() > until:
                raise RuntimeError(f"the streams are not empty after {_STUCK_S:g} s")
            pause.wait(_LOOK_S)

    @contextmanager
    def _consumers(self, name: str, commands: int, workers: int) -> Iterator[None]:
        """Consumers of one user of one host: they share a home, and find out by it that they are several."""
        runtime = self._folder / name
        runtime.mkdir(mode=0o700)
        command = [sys.executable, "-m", "provd", "consume", "--workers", str(workers)]
        command += ["--broker", self._redis.url, "--store", self._mongo.database_url(name)]
        env = {**clean_environment(), "HOME": str(self._folder), "XDG_RUNTIME_DIR": str(runtime)}
        with ExitStack() as stack:
            for number in range(commands):
                child = Child(command, log=runtime / f"{number}.log", env=env, cwd=runtime)
                child.start()
                stack.callback(child.stop)
            yield
