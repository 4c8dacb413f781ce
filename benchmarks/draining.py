"""A consumer that empties a backlog, watched from outside.

- It is `provd consume` as users run it. What is measured begins when it has stored a first piece and has nothing to do:
  start-up is not in it. It ends when everything is stored and acknowledged.
"""

from __future__ import annotations

import itertools
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pymongo

from benchmarks.backlog import Backlog
from benchmarks.runs import clean_environment
from benchmarks.services import mongo_server, redis_server, scratch
from benchmarks.vitals import cpu_s, resident_mib
from tests.services.child import Child
from tests.services.mongo_server import MongoServer
from tests.services.redis_server import RedisServer
from tests.services.waiting import wait_until

DATABASE = "provd"

#: Tasks that a consumer stores before it is measured.
_FIRST = 5_000
_FIRST_S = 120.0

#: Tasks of the smallest backlog, and how often it is measured beside a long one.
SMALLEST = 10_000
_SMALL_ROUNDS = 7

#: Seconds between two looks.
_LOOK_S = 0.25

#: Seconds without one task more in the store after which a consumer counts as stuck.
_STUCK_S = 120.0


@dataclass(frozen=True, slots=True)
class Look:
    """How things stood at one moment; CPU seconds since the measurement began."""

    at: float
    stored: int
    consumer_s: float
    redis_s: float
    mongod_s: float
    consumer_mib: float


@dataclass(frozen=True, slots=True)
class Drained:
    """A backlog that is in the store."""

    tasks: int
    looks: tuple[Look, ...]

    @property
    def cpu_us(self) -> float:
        """CPU of the consumer for a task, in microseconds."""
        return self.looks[-1].consumer_s / self.tasks * 1e6

    @property
    def redis_us(self) -> float:
        """CPU of Redis for a task, in microseconds."""
        return self.looks[-1].redis_s / self.tasks * 1e6

    @property
    def mongod_us(self) -> float:
        """CPU of MongoDB for a task, in microseconds."""
        return self.looks[-1].mongod_s / self.tasks * 1e6

    @property
    def rate(self) -> float:
        """Tasks stored a second."""
        return self.tasks / self.looks[-1].at


@contextmanager
def consuming(broker_url: str, store_url: str, folder: Path) -> Iterator[Child]:
    """`provd consume`, at home in a folder of its own."""
    runtime = folder / "run"
    runtime.mkdir(parents=True, mode=0o700)
    consumer = Child(
        [sys.executable, "-m", "provd", "consume", "--broker", broker_url, "--store", store_url],
        log=folder / "consume.log",
        env={**clean_environment(), "HOME": str(folder), "XDG_RUNTIME_DIR": str(runtime)},
        cwd=folder,
    )
    consumer.start()
    try:
        yield consumer
    finally:
        consumer.stop()


class Stage:
    """Redis, MongoDB and one consumer that has started up."""

    def __init__(self, redis: RedisServer, mongo: MongoServer, consumer: Child) -> None:
        self.redis = redis
        self.mongo = mongo
        self.consumer = consumer
        client: pymongo.MongoClient[dict[str, object]] = pymongo.MongoClient(mongo.url)
        self._client = client
        self._tasks = client[DATABASE]["tasks"]
        self._labels = map("backlog-{}".format, itertools.count())

    @classmethod
    @contextmanager
    def set_up(cls, *, appendonly: str = "no") -> Iterator[Stage]:
        """Fresh services, and a consumer that has done its first work. Redis writes no file unless asked to."""
        with ExitStack() as stack:
            redis = stack.enter_context(redis_server(appendonly=appendonly))
            mongo = stack.enter_context(mongo_server())
            folder = stack.enter_context(scratch())
            consumer = stack.enter_context(consuming(redis.url, mongo.database_url(DATABASE), folder))
            stage = cls(redis, mongo, consumer)
            stack.callback(stage._client.close)
            first = Backlog(redis.url, "first")
            stack.callback(first.close)
            first.fill(_FIRST)
            first.show()
            wait_until(lambda: stage.stored() == _FIRST and not first.frames(), _FIRST_S, "the first tasks")
            yield stage

    def stored(self) -> int:
        """Tasks in the store."""
        return self._tasks.estimated_document_count()

    def drain_new(self, tasks: int, *, streams: int = 1, producers: int = 1, frame: int = 500) -> Drained:
        """Fill a backlog whose producers are alive, and drain it."""
        backlog = Backlog(self.redis.url, next(self._labels), streams=streams, producers=producers)
        try:
            backlog.fill(tasks, frame=frame)
            with backlog.beating():
                return self.drain(backlog)
        finally:
            backlog.close()

    def drain(self, backlog: Backlog) -> Drained:
        """Show a backlog to the consumer and watch it until nothing of it is left."""
        before = self.stored()
        begun = self._look(0.0, before, None)
        start = time.monotonic()
        backlog.show()
        looks: list[Look] = []
        pause, moved = threading.Event(), start
        while True:
            at = time.monotonic()
            looks.append(self._look(at - start, before, begun))
            if looks[-1].stored >= backlog.tasks and not backlog.frames():
                looks.append(self._look(time.monotonic() - start, before, begun))
                return Drained(backlog.tasks, tuple(looks))
            moved = at if len(looks) < 2 or looks[-1].stored > looks[-2].stored else moved
            if not self.consumer.is_running or at - moved > _STUCK_S:
                raise RuntimeError(f"{self.consumer} stores no more:\n{self.consumer.tail()}")
            rate = looks[-1].stored / looks[-1].at if looks[-1].at else 0.0
            left_s = (backlog.tasks - looks[-1].stored) / rate if rate else _LOOK_S
            pause.wait(min(_LOOK_S, max(0.01, left_s / 2)))

    def _look(self, at: float, before: int, begun: Look | None) -> Look:
        pid = self.consumer.pid
        return Look(
            at,
            self.stored() - before,
            cpu_s(pid) - (begun.consumer_s if begun else 0.0),
            cpu_s(self.redis.child.pid) - (begun.redis_s if begun else 0.0),
            cpu_s(self.mongo.child.pid) - (begun.mongod_s if begun else 0.0),
            resident_mib(pid),
        )


@dataclass(frozen=True, slots=True)
class LongBacklog:
    """A long backlog, and the smallest ones beside it."""

    small: tuple[Drained, ...]
    long: Drained


@cache
def long_backlog(tasks: int) -> LongBacklog:
    """Empty a backlog of so many tasks, once in a run: memory and CPU time are both read from it."""
    with Stage.set_up() as stage:
        small = [stage.drain_new(SMALLEST) for _ in range(_SMALL_ROUNDS)]
        return LongBacklog(tuple(small), stage.drain_new(tasks))
