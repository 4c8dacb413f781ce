"""Redis killed and restarted in the middle, under each persistence: what it lost is counted, exactly.

G2: Redis keeps what its AOF policy keeps, and a loss there is counted as `missing`. G7: each number is in exactly one
bucket. Consumer and producers go on by themselves.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from provd.common import names, wire
from provd.common.ranges import Ranges
from tests.conftest import RunProvd, StartProvd
from tests.faults.ingest import bring_in_what_is_spooled
from tests.integration.consuming import opened_store
from tests.integration.feeder import Feeder
from tests.integration.freezing import freeze
from tests.services.child import Child
from tests.services.redis_server import RedisServer
from tests.services.waiting import wait_until
from tests.streams import Script

PrivateRedis = Callable[..., RedisServer]

WORKFLOW = "restarts.1"

#: Says `TASKS` tasks in each of its parts, and begins a part when it is told to.
PRODUCER = """
import sys
import provd

@provd.task
def work(part, index):
    return {"product": part * index}

with provd.workflow("restarts", workflow_id="restarts.1", own=True):
    for part in range(4):
        for index in range(500):
            work(part, index)
        provd.flush(30)
        print("said", part, flush=True)
        sys.stdin.readline()
"""
TASKS = 4 * 500

#: Goes on without being told to, slowly enough that Redis goes away in the middle.
PACED = """
import threading
import provd

@provd.task
def work(index):
    return {"square": index * index}

with provd.workflow("restarts", workflow_id="restarts.1"):
    for index in range(2000):
        work(index)
        if index % 50 == 0:
            threading.Event().wait(0.08)
"""


def services(server: RedisServer, mongo_url: str, folder: Path) -> dict[str, str]:
    return {
        "PROVD_BROKER_URL": server.url,
        "PROVD_STORE_URL": mongo_url,
        "PROVD_NAMESPACE": "ns",
        "PROVD_SPOOL_DIR": str(folder / "spool"),
        "PROVD_BATCH_MESSAGES": "100",
        # Nobody takes over what Redis has forgotten was acknowledged: whose it was finds it.
        "PROVD_CLAIM_AFTER_S": "600",
        "XDG_RUNTIME_DIR": str(folder),
    }


def in_redis(server: RedisServer) -> dict[str, Ranges]:
    """The numbers that Redis holds, by producer."""
    held: dict[str, Ranges] = {}
    with server.client() as client:
        for key in client.scan_iter(match="*:stream:*"):
            entries: Any = client.xrange(key)
            for _, fields in entries:
                header = wire.decode_header(fields[names.HEADER_FIELD])
                span = Ranges.of([(header.first_seq, header.last_seq)])
                held[header.producer_id] = held.get(header.producer_id, Ranges()).union(span)
    return held


def verified(run_provd: RunProvd, environment: Mapping[str, str]) -> dict[str, Any]:
    """The books, as `provd runs verify` gives them."""
    books: dict[str, Any] = json.loads(
        run_provd("runs", "verify", WORKFLOW, "--json", env=environment).stdout
    )
    return books


def written_file(server: RedisServer) -> Path:
    """The append-only file, when it has all that Redis has answered: during an fsync it answers, and writes later."""
    with server.client() as client:
        wait_until(lambda: client.info("persistence")["aof_buffer_length"] == 0)
    (file,) = (server.folder / "appendonlydir").glob("*.incr.aof")
    return file


def test_redis_that_syncs_always_is_killed_three_times_and_nothing_is_lost(
    private_redis: PrivateRedis,
    script: Script,
    start_provd: StartProvd,
    run_provd: RunProvd,
    mongo_url: str,
    tmp_path: Path,
) -> None:
    """G2: three producers and a consumer at work; what Redis acknowledged is in its file before it said so."""
    server = private_redis(config={"appendfsync": "always"})
    environment = services(server, mongo_url, tmp_path)
    consumer = start_provd("consume", env=environment)
    producers = [script.start(PACED, "--workflow-id", WORKFLOW, env=joined(environment)) for _ in range(3)]
    try:
        with opened_store(mongo_url) as store:
            for enough in (200, 1500, 3000):
                wait_until(lambda enough=enough: stored(store) > enough, 60)  # type: ignore[misc]
                server.kill()
                server.start()
            ends = [producer.communicate(timeout=60) for producer in producers]
            assert [producer.returncode for producer in producers] == [0, 0, 0], ends
            bring_in_what_is_spooled(run_provd, environment)
            wait_until(lambda: verified(run_provd, environment)["complete"], 60)
            assert stored(store) == 6000
    finally:
        for producer in producers:
            producer.kill()
            producer.communicate()

    books = verified(run_provd, environment)
    assert books["produced"] == books["stored"]
    assert (books["missing"], books["quarantined"], books["dropped"], books["unclosed"]) == (0, 0, 0, [])
    consumer.send(signal.SIGTERM)
    assert consumer.wait(30) == 0


def joined(environment: Mapping[str, str]) -> dict[str, str]:
    return {**environment, "PROVD_WORKFLOW_ID": WORKFLOW}


def stored(store: Any) -> int:
    count: int = store.count(names.TASKS, {})
    return count


def end_redis(server: RedisServer, event: str, before: int) -> None:
    """Kill Redis; a power cut takes from its file what the disk had not got yet: the last of what came after `before`."""
    file = written_file(server) if has_file(event) else None
    server.kill()
    if file is not None and event.startswith("power"):
        os.truncate(file, before + (file.stat().st_size - before) * 3 // 4)  # within the second of two parts


def has_file(event: str) -> bool:
    return "no file" not in event


def restarted_with_two_parts(
    server: RedisServer,
    producer: subprocess.Popen[str],
    consumer: Child,
    store: Any,
    event: str,
) -> tuple[dict[str, Ranges], dict[str, Ranges]]:
    """Redis ends with two parts that it alone has, and is started: what it had, and what it has. `consumer` is frozen."""
    # The first part is in the store
    finish_part(producer)
    wait_until(lambda: stored(store) == 500, 30)
    wait_until(lambda: not in_redis(server), 30)
    freeze(consumer)

    # Two more are in Redis alone when it ends
    before = written_file(server).stat().st_size if has_file(event) else 0
    for _ in range(2):
        begin_part(producer)
        finish_part(producer)
    had = in_redis(server)
    end_redis(server, event, before)
    server.start()
    return had, in_redis(server)


@pytest.mark.parametrize(
    ("event", "config"),
    [
        ("killed, everysec", {"appendfsync": "everysec"}),
        ("power cut, everysec", {"appendfsync": "everysec"}),
        ("killed, no file", {"appendonly": "no"}),
    ],
)
def test_what_redis_lost_is_counted_as_missing_exactly_and_everyone_goes_on(
    private_redis: PrivateRedis,
    script: Script,
    start_provd: StartProvd,
    run_provd: RunProvd,
    mongo_url: str,
    tmp_path: Path,
    event: str,
    config: dict[str, str],
) -> None:
    """G2, G7: the consumer is frozen while a part of the messages is in Redis alone, and then Redis ends."""
    server = private_redis(config=config)
    environment = services(server, mongo_url, tmp_path)
    consumer = start_provd("consume", env=environment)
    producer = script.start(PRODUCER, env=environment)
    try:
        with opened_store(mongo_url) as store:
            had, has = restarted_with_two_parts(server, producer, consumer, store, event)

            # The rest is said, and stored
            consumer.send(signal.SIGCONT)
            begin_part(producer)
            finish_part(producer)
            begin_part(producer)
            _, errors = producer.communicate(timeout=60)
            assert producer.returncode == 0, errors
            bring_in_what_is_spooled(run_provd, environment)
            (producer_id,) = had
            lost = had[producer_id].minus(has.get(producer_id, Ranges()))
            wait_until(lambda: not in_redis(server), 30)
            books = verified(run_provd, environment)

            # And the books say what Redis lost, neither more nor less
            (of_producer,) = books["producers"]
            assert of_producer["missing"] == [list(span) for span in lost], books
            assert books["missing"] == len(lost)
            assert books["stored"] == books["produced"] - len(lost)
            assert books["complete"] == (len(lost) == 0)
            assert stored(store) == TASKS - len(lost)
            if event == "killed, everysec":
                assert len(lost) == 0
            elif event == "killed, no file":
                assert lost == had[producer_id]
            else:
                assert 0 < len(lost) < len(had[producer_id])
    finally:
        producer.kill()
        producer.communicate()
    consumer.send(signal.SIGTERM)
    assert consumer.wait(30) == 0


@pytest.mark.parametrize(
    ("event", "config"),
    [
        ("power cut, everysec", {"appendfsync": "everysec"}),
        ("killed, no file", {"appendonly": "no"}),
    ],
)
def test_what_redis_lost_is_sent_again_by_producers_that_are_durable_on_disk(
    private_redis: PrivateRedis,
    script: Script,
    start_provd: StartProvd,
    run_provd: RunProvd,
    mongo_url: str,
    tmp_path: Path,
    event: str,
    config: dict[str, str],
) -> None:
    """G2: `durability: disk`: without a receipt of the store nothing is let go of, so the gap closes by itself."""
    server = private_redis(config=config)
    environment = services(server, mongo_url, tmp_path) | {"PROVD_DURABILITY": "disk"}
    consumer = start_provd("consume", env=environment)
    producer = script.start(PRODUCER, env=environment)
    try:
        with opened_store(mongo_url) as store:
            had, has = restarted_with_two_parts(server, producer, consumer, store, event)
            (producer_id,) = had
            assert len(had[producer_id].minus(has.get(producer_id, Ranges()))) > 0

            # The producer still runs: it finds out by itself, and nobody replays anything
            consumer.send(signal.SIGCONT)
            begin_part(producer)
            finish_part(producer)
            wait_until(lambda: stored(store) == TASKS, 60)
            begin_part(producer)
            _, errors = producer.communicate(timeout=60)
            assert producer.returncode == 0, errors
            wait_until(lambda: verified(run_provd, environment)["complete"], 60)
            books = verified(run_provd, environment)
            assert (books["missing"], books["stored"]) == (0, books["produced"])
            assert stored(store) == TASKS
    finally:
        producer.kill()
        producer.communicate()
    consumer.send(signal.SIGTERM)
    assert consumer.wait(30) == 0


def finish_part(producer: subprocess.Popen[str]) -> None:
    assert producer.stdout is not None
    line = producer.stdout.readline()
    assert line.startswith("said"), line


def begin_part(producer: subprocess.Popen[str]) -> None:
    assert producer.stdin is not None
    producer.stdin.write("\n")
    producer.stdin.flush()


def test_acknowledgement_and_deletion_stay_together_when_redis_is_killed(
    private_redis: PrivateRedis, start_provd: StartProvd, mongo_url: str, tmp_path: Path
) -> None:
    """What one script did is in the file as a whole, or not at all: nothing acknowledged is left in the stream."""
    server = private_redis()
    environment = services(server, mongo_url, tmp_path)
    with server.client() as client, opened_store(mongo_url) as store:
        feeder = Feeder(client, "ns")
        feeder.send(feeder.tasks(4000), frame=5)
        consumer = start_provd("consume", env=environment)
        for share in (0.25, 0.5, 0.75):
            wait_until(lambda share=share: feeder.length() < 800 * (1 - share), 30)  # type: ignore[misc]
            file = written_file(server)
            server.kill()
            # The end of the file may be torn in the middle of anything.
            os.truncate(file, file.stat().st_size - 17)
            server.start()
        wait_until(lambda: feeder.length() == 0, 30)
        assert feeder.pending() == 0
        assert stored(store) == 4000
        consumer.send(signal.SIGTERM)
        assert consumer.wait(30) == 0


def test_what_redis_forgets_was_acknowledged_is_read_again_at_once_by_whose_it_was(
    private_redis: PrivateRedis, start_provd: StartProvd, mongo_url: str, tmp_path: Path
) -> None:
    """G2: Redis is another between two commands of the consumer, which connects anew without an error."""
    server = private_redis()
    with server.client() as client, opened_store(mongo_url) as store:
        feeder = Feeder(client, "ns")
        feeder.send(feeder.tasks(100), frame=10)
        consumer = start_provd("consume", env=services(server, mongo_url, tmp_path))
        wait_until(lambda: feeder.length() == 0, 30)
        freeze(consumer)
        file = written_file(server)
        server.kill()
        os.truncate(file, file.read_bytes().index(b"XACK"))
        server.start()
        assert feeder.length() == feeder.pending() == 10

        consumer.send(signal.SIGCONT)
        wait_until(lambda: feeder.length() == 0, 30)
        assert stored(store) == 100
        consumer.send(signal.SIGTERM)
        assert consumer.wait(30) == 0


def test_a_redis_that_comes_back_without_its_memory_is_served_from_the_start(
    private_redis: PrivateRedis, start_provd: StartProvd, mongo_url: str, tmp_path: Path
) -> None:
    """Streams, groups, registry and bucket count are gone: whoever comes first makes them again."""
    server = private_redis(config={"appendonly": "no"})
    environment = services(server, mongo_url, tmp_path)
    with opened_store(mongo_url) as store:
        consumer = start_provd("consume", env=environment)
        for round_ in range(1, 4):
            with server.client() as client:
                feeder = Feeder(client, "ns")
                feeder.send(feeder.tasks(100), frame=5)
                wait_until(lambda round_=round_: stored(store) == 100 * round_, 30)  # type: ignore[misc]
            server.kill()
            server.start()
        consumer.send(signal.SIGTERM)
        assert consumer.wait(30) == 0
