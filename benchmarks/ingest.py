"""From producers into the store: tasks a second, all stored and acknowledged.

- A sample has a database and an empty Redis of its own. It begins when producers are told to begin, or when a full stream
  becomes visible: no start-up is in it. It ends when every task is counted in the store, the streams are empty and
  nothing is pending.
- The bare loop reads whole records, an entry each, as many at a time as a batch of ours has, and waits for majority and
  journal as ours does. It knows no damage, no repetition and no books. The same loop on frames of whole records is shown
  beside it: it saves what reading an entry costs.
"""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pymongo
import redis
from pymongo.database import Database

from benchmarks.backlog import Backlog
from benchmarks.draining import consuming
from benchmarks.figure import Figure, Form, Target
from benchmarks.peers import FLOWCEPT
from benchmarks.runs import Program, interleaved
from benchmarks.services import mongo_server, redis_server, scratch
from benchmarks.vitals import cpu_s
from benchmarks.whole_records import WholeRecords
from provd.common import names
from provd.common.settings import Settings
from provd.store.open import open_store
from tests.services.mongo_server import MongoServer
from tests.services.redis_server import RedisServer
from tests.services.waiting import wait_until

_READY_S = 120.0
_STUCK_S = 120.0

#: Seconds between two looks at how much is stored.
_LOOK_S = 0.01

#: The share of its tasks that Flowcept has to store: the last ones wait for a timer.
_MOST = 0.99

_FRAME = Settings().frame_messages
_BATCH = Settings().batch_messages


@dataclass(frozen=True, slots=True)
class _Sizes:
    """How many samples, of how many tasks."""

    rounds: int
    produced: int
    produced_flowcept: int
    backlog: int
    embedded: int
    announced: int


_SIZES = {
    Form.QUICK: _Sizes(1, 60_000, 8_000, 60_000, 20_000, 5_000),
    Form.FULL: _Sizes(5, 200_000, 40_000, 200_000, 100_000, 20_000),
    Form.NIGHTLY: _Sizes(9, 400_000, 80_000, 400_000, 200_000, 100_000),
}


@dataclass(frozen=True, slots=True)
class _Sample:
    """Tasks a second, and microseconds of the consumer's CPU for a task."""

    rate: float
    cpu_us: float


def measure(form: Form) -> Iterator[Figure]:
    """Two producers and one consumer; one consumer and a full stream; both beside the bare loop."""
    sizes = _SIZES[form]
    FLOWCEPT.python()
    with redis_server() as redis_, mongo_server() as mongo, scratch() as folder:
        stage = _Stage(redis_, mongo, folder)
        yield from _with_producers(stage, sizes)
        yield from _with_a_full_stream(stage, sizes)
        yield from _other_ways(stage, sizes)


def _with_producers(stage: _Stage, sizes: _Sizes) -> Iterator[Figure]:
    ours, flowcept, bare = interleaved(
        sizes.rounds,
        lambda: stage.provd_with_producers(sizes.produced).rate,
        lambda: stage.flowcept_with_producers(sizes.produced_flowcept).rate,
        lambda: stage.bare(sizes.produced, frame=1, beside_producers=True).rate,
    )
    what, unit = "into MongoDB, two producers", "tasks/s"
    note = (
        f"{sizes.produced:,} tasks, stored and acknowledged, all production indexes; Flowcept: {sizes.produced_flowcept:,}"
        f" tasks until {_MOST:.0%} of them are stored, its own indexes, its sample settings: buffers of 50,"
        " flushed every five seconds, no telemetry, no enrichment"
    )
    yield Figure(what, unit, ours, str(FLOWCEPT), flowcept, Target(least=5.0), note)
    note = f"the bare loop has {sizes.produced:,} whole records waiting, and the same producers beside it"
    yield Figure(what, unit, ours, "bare loop", bare, Target(least=0.8), note)


def _with_a_full_stream(stage: _Stage, sizes: _Sizes) -> Iterator[Figure]:
    ours: list[_Sample] = []
    bare: list[_Sample] = []
    framed: list[_Sample] = []
    rates = interleaved(
        sizes.rounds,
        _kept(ours, lambda: stage.provd_on_a_backlog(sizes.backlog)),
        _kept(bare, lambda: stage.bare(sizes.backlog, frame=1)),
        _kept(framed, lambda: stage.bare(sizes.backlog, frame=_FRAME)),
    )
    note = f"{sizes.backlog:,} tasks wait; batches of {_BATCH:,}"
    what = "into MongoDB, one consumer on a full stream"
    yield Figure(what, "tasks/s", rates[0], "bare loop", rates[1], Target(least=0.8), note)
    note = f"the bare loop reads frames of {_FRAME} whole records"
    yield Figure(what, "tasks/s", rates[0], "bare loop, framed", rates[2], note=note)
    what = "CPU of that consumer for a task"
    for name, others in (("bare loop", bare), ("bare loop, framed", framed)):
        cpu = [tuple(sample.cpu_us for sample in samples) for samples in (ours, others)]
        yield Figure(what, "us", cpu[0], name, cpu[1])


def _other_ways(stage: _Stage, sizes: _Sizes) -> Iterator[Figure]:
    announced, embedded = interleaved(
        sizes.rounds,
        lambda: stage.provd_on_a_backlog(sizes.announced, announced=True).rate,
        lambda: stage.provd_on_a_backlog(sizes.embedded, embedded=True).rate,
    )
    note = f"{sizes.announced:,} tasks, each announced as RUNNING before: two messages, one of them merged on the server"
    yield Figure("into MongoDB, tasks that were announced, full stream", "tasks/s", announced, note=note)
    note = f"{sizes.embedded:,} tasks, synchronous=FULL"
    yield Figure("into the embedded store, full stream", "tasks/s", embedded, note=note)


def _kept(samples: list[_Sample], take: Callable[[], _Sample]) -> Callable[[], float]:
    def rate() -> float:
        samples.append(take())
        return samples[-1].rate

    return rate


class _Stage:
    """The services that all share; each sample has a fresh database and an empty Redis."""

    def __init__(self, redis_: RedisServer, mongo: MongoServer, folder: Path) -> None:
        self._redis = redis_
        self._mongo = mongo
        self._folder = folder
        self._samples = 0

    # --- samples ----------------------------------------------------------------------------------------------

    def provd_with_producers(self, tasks: int) -> _Sample:
        """Two producers in saturating loops, and one `provd consume`."""
        with self._fresh() as database:
            url = self._mongo.database_url(database.name)
            with self._provd(url, lambda: _has_a_consumer(database)) as pid, _held(self._feeds(tasks)) as go:
                return self._timed(go, tasks, database["tasks"].estimated_document_count, pid)

    def provd_on_a_backlog(self, tasks: int, *, announced: bool = False, embedded: bool = False) -> _Sample:
        """One `provd consume`, for which tasks wait."""
        with self._fresh() as database, ExitStack() as stack:
            url = self._mongo.database_url(database.name)
            stored: Callable[[], int] = database["tasks"].estimated_document_count
            is_ready = lambda: _has_a_consumer(database)  # noqa: E731
            if embedded:
                url = f"sqlite:///{self._folder}/{database.name}.db"
                store = open_store(url)
                store.migrate()
                stack.callback(store.close)
                stored = lambda: store.count("tasks", {})  # noqa: E731
                is_ready = lambda: bool(store.consumers())  # noqa: E731
            backlog = Backlog(self._redis.url, database.name)
            stack.callback(backlog.close)
            backlog.fill(tasks, announced=announced)
            pid = stack.enter_context(self._provd(url, is_ready))
            return self._timed(backlog.show, tasks, stored, pid)

    def bare(self, tasks: int, *, frame: int, beside_producers: bool = False) -> _Sample:
        """The bare loop on a full stream."""
        stream = "whole-records"
        with self._fresh() as database, ExitStack() as stack:
            store = open_store(self._mongo.database_url(database.name))
            store.migrate()
            store.close()
            records = WholeRecords(self._redis.url, stream)
            stack.callback(records.close)
            records.fill(tasks, frame=frame)
            numbers = map(str, (tasks, max(1, _BATCH // frame)))
            loop = Program("bare_loop", (self._redis.url, self._mongo.url, database.name, stream, *numbers))
            feeds = self._feeds(tasks) if beside_producers else []
            said: list[dict[str, Any]] = []
            with _held([loop, *feeds], said) as go:
                go()
            assert database["tasks"].count_documents({}) == tasks
            return _Sample(tasks / said[0]["seconds"], said[0]["cpu"] / tasks * 1e6)

    def flowcept_with_producers(self, tasks: int) -> _Sample:
        """Two producers and one consumer, all of Flowcept."""
        with self._fresh() as database:
            settings = self._folder / f"{database.name}.yaml"
            settings.write_text(self._flowcept_settings(database.name))
            env = {"FLOWCEPT_SETTINGS_PATH": str(settings)}
            python = FLOWCEPT.python()
            consumer = Program("ingest_flowcept", (), env, python).start()
            try:
                wait_until(self._has_a_subscriber, _READY_S, "Flowcept's consumer")
                feeds = [Program("feed_flowcept", (str(tasks // 2),), env, python)] * 2
                with _held(feeds) as go:
                    enough = int(tasks * _MOST)
                    return self._timed(go, enough, database["tasks"].estimated_document_count, consumer.pid)
            finally:
                _end(consumer)

    # --- how --------------------------------------------------------------------------------------------------

    @contextmanager
    def _fresh(self) -> Iterator[Database[Any]]:
        self._samples += 1
        mongo: pymongo.MongoClient[Any] = pymongo.MongoClient(self._mongo.url)
        with mongo, self._client() as client:
            client.flushdb()
            try:
                yield mongo[f"sample{self._samples}"]
            finally:
                mongo.drop_database(f"sample{self._samples}")

    @contextmanager
    def _client(self) -> Iterator[Any]:
        client = redis.Redis.from_url(self._redis.url)
        try:
            yield client
        finally:
            client.close()

    @contextmanager
    def _provd(self, store_url: str, is_ready: Callable[[], bool]) -> Iterator[int]:
        folder = self._folder / f"consumer{self._samples}"
        with consuming(self._redis.url, store_url, folder) as consumer:
            wait_until(is_ready, _READY_S, "the consumer")
            yield consumer.pid

    def _feeds(self, tasks: int) -> list[Program]:
        env = {"PROVD_BROKER_URL": self._redis.url, "PROVD_SPOOL_DIR": str(self._folder / "spool")}
        return [Program("feed_provd", (f"two-{self._samples}", str(tasks // 2)), env)] * 2

    def _timed(self, go: Callable[[], None], tasks: int, stored: Callable[[], int], pid: int) -> _Sample:
        """From now until so many tasks are stored and no stream holds anything."""
        pause, before, started = threading.Event(), cpu_s(pid), time.perf_counter()
        go()
        with self._client() as client:
            while (found := stored()) < tasks or not _is_empty(client):
                if time.perf_counter() - started > _STUCK_S:
                    raise RuntimeError(f"{found:,} of {tasks:,} tasks stored after {_STUCK_S:g} s")
                pause.wait(_LOOK_S)
        seconds = time.perf_counter() - started
        return _Sample(tasks / seconds, (cpu_s(pid) - before) / tasks * 1e6)

    def _has_a_subscriber(self) -> bool:
        with self._client() as client:
            return bool(client.pubsub_numpat())

    def _flowcept_settings(self, database: str) -> str:
        """Its sample settings, with the services named; what it measures and enriches beside tasks is off."""
        where = {"host": "127.0.0.1", "port": self._redis.port}
        settings = {
            "project": {"debug": False, "enrich_messages": False, "db_flush_mode": "online"},
            "log": {"log_file_level": "disable", "log_stream_level": "disable"},
            "mq": {
                **where, "enabled": True, "type": "redis", "channel": "interception", "buffer_size": 50,
                "insertion_buffer_time_secs": 5, "chunk_size": -1,
            },
            "kv_db": {**where, "enabled": True},
            "db_buffer": {"buffer_size": 50, "insertion_buffer_time_secs": 5},
            "databases": {
                "mongodb": {
                    "enabled": True, "uri": self._mongo.url, "db": database, "create_collection_index": True,
                },
            },
        }  # fmt: skip
        return json.dumps(settings)  # which is YAML


def _has_a_consumer(database: Any) -> bool:
    return bool(database[names.CONSUMERS].count_documents({}))


def _is_empty(client: Any) -> bool:
    """Whether no stream of ours holds a frame, or has one pending."""
    for stream in client.scan_iter(match="provd:*:stream:*", count=1000):
        try:
            if client.xlen(stream) or client.xpending(stream, names.GROUP)["pending"]:
                return False
        except redis.ResponseError:  # retired in between
            continue
    return True


@contextmanager
def _held(
    programs: Sequence[Program], said: list[dict[str, Any]] | None = None
) -> Iterator[Callable[[], None]]:
    """Programs that wait until they are let go all together; afterwards, what each of them said."""
    started = [program.start() for program in programs]
    try:
        for process in started:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line == "ready\n", f"{process.args!r} said {line!r}"
        yield lambda: _let_go(started)
        for process in started:
            output, _ = process.communicate(timeout=_STUCK_S)
            assert process.returncode == 0, f"{process.args!r}: exit {process.returncode}"
            if said is not None:
                said.append(json.loads(output.splitlines()[-1]))
    finally:
        for process in started:
            _end(process)


def _let_go(started: Sequence[subprocess.Popen[str]]) -> None:
    for process in started:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()
