"""Redis at its `maxmemory` under `noeviction`: producers spool, and a consumer started after it filled drains it.

G2: accepted messages reach the store. G5: Redis' memory has a ceiling, and nothing is lost at it.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis

from provd.common import names
from provd.common.spool import spool_files
from provd.store.books import read_books
from tests.conftest import RunProvd, StartProvd
from tests.faults.proof import assert_stored_once, assert_whole
from tests.integration.consuming import make_consumers, opened_store, plain_settings, running
from tests.integration.feeder import Feeder
from tests.services.mongo_server import MongoServer
from tests.services.redis_server import RedisServer
from tests.services.waiting import wait_until
from tests.streams import Script

PrivateRedis = Callable[..., RedisServer]
PrivateMongo = Callable[..., MongoServer]

#: A hundred kilobytes in each task, which nothing compresses; goes on after it was told to, and ends.
PRODUCER = """
import os, sys
import provd

@provd.task
def simulate(index, state):
    return {"energy": index}

with provd.workflow("full", workflow_id="full.1", own=True):
    for index in range(150):
        simulate(index, os.urandom(100_000).hex())
        if index == 120:
            provd.flush(30)
            print("said", flush=True)
            sys.stdin.readline()
"""


@pytest.fixture
def full_redis(private_redis: PrivateRedis) -> RedisServer:
    """A Redis with little memory."""
    return private_redis(config={"maxmemory": "6mb", "appendonly": "no"})


def is_full(client: redis.Redis) -> bool:
    """Whether Redis refuses what needs memory."""
    try:
        client.set("probe", "x")
    except redis.OutOfMemoryError:
        return True
    client.delete("probe")
    return False


def make_full(client: redis.Redis) -> None:
    """Leave no byte: what a refused command took in buffers is free again by now, or soon."""

    def leaves_none() -> bool:
        client.config_set("maxmemory", int(client.info("memory")["used_memory"]) - 200_000)
        return is_full(client)

    wait_until(leaves_none)


def fill(client: redis.Redis, feeder: Feeder) -> None:
    """Send frames until Redis refuses the next; what it refused was never sent."""
    seq, made = feeder.seq, feeder.tasks_made
    try:
        while True:
            seq, made = feeder.seq, feeder.tasks_made
            feeder.send(feeder.tasks(10, stdout="x" * 5000))
    except redis.OutOfMemoryError:
        feeder.seq, feeder.tasks_made = seq, made
    make_full(client)


def test_producers_spool_and_a_consumer_started_after_redis_filled_drains_it(
    full_redis: RedisServer,
    script: Script,
    start_provd: StartProvd,
    run_provd: RunProvd,
    mongo_url: str,
    tmp_path: Path,
) -> None:
    environment = {
        "PROVD_BROKER_URL": full_redis.url,
        "PROVD_STORE_URL": mongo_url,
        "PROVD_NAMESPACE": "ns",
        "PROVD_SPOOL_DIR": str(tmp_path / "spool"),
        "PROVD_VALUE_TEXT_MAX": "1000000",
        "XDG_RUNTIME_DIR": str(tmp_path),
    }
    with full_redis.client() as client, opened_store(mongo_url) as store:
        # A producer fills Redis; what does not fit goes to its spool, and it goes on
        producer = script.start(PRODUCER, env=environment)
        try:
            assert producer.stdout is not None
            assert producer.stdout.readline() == "said\n"
            assert spool_files([tmp_path / "spool"], with_open=True) != []
            make_full(client)

            # A consumer is started now
            consumer = start_provd("consume", env=environment)
            wait_until(lambda: store.count(names.TASKS, {}) > 0, 30)
            wait_until(lambda: not is_full(client), 30)
            _, errors = producer.communicate("\n", timeout=60)
            assert producer.returncode == 0, errors
        finally:
            producer.kill()
            producer.communicate()

        # What the producer has not shipped by itself is brought in, and nothing is missing
        if (tmp_path / "spool").is_dir() and spool_files([tmp_path / "spool"]):
            # Straight into the store: the spool is larger than Redis.
            replayed = run_provd("replay", str(tmp_path / "spool"), "--store", mongo_url, env=environment)
            assert replayed.returncode == 0, replayed.stderr
        wait_until(lambda: read_books(store, "full.1").complete, 60)
        assert store.count(names.TASKS, {}) == 150
        consumer.send(signal.SIGTERM)
        assert consumer.wait(30) == 0


def test_a_full_redis_is_drained_to_the_end_by_a_consumer_that_comes_late(
    full_redis: RedisServer, store_url: str, tmp_path: Path, slots: Path
) -> None:
    """Reading, claiming, acknowledging and retiring need no memory."""
    settings = plain_settings(full_redis.url, store_url, "ns", tmp_path)
    with ExitStack() as stack, full_redis.client() as client, opened_store(store_url) as store:
        feeder = Feeder(client, "ns")
        feeder.send([feeder.hello()])
        fill(client, feeder)
        # A consumer died over a part of it
        client.xreadgroup(names.GROUP, "dead-0", {feeder.keys.stream: ">"}, count=20)
        client.xclaim(
            feeder.keys.stream, names.GROUP, "dead-0", 0,
            [entry["message_id"] for entry in client.xpending_range(feeder.keys.stream, names.GROUP, "-", "+", 20)],
            idle=60_000, justid=True,
        )  # fmt: skip

        make_consumers(settings, slots, stack)(claim_after_s=1.0).run_until_empty()
        assert_stored_once(store, feeder)
        feeder.send([feeder.goodbye()])
        make_consumers(settings, slots, stack)().run_until_empty()

        assert_whole(store, feeder)
        assert not client.exists(feeder.keys.stream)


def test_a_group_that_is_gone_is_made_again_though_redis_is_full(
    full_redis: RedisServer, mongo_url: str, tmp_path: Path, slots: Path
) -> None:
    """An administrator's slip, and then no memory to mend it with."""
    settings = plain_settings(full_redis.url, mongo_url, "ns", tmp_path)
    with ExitStack() as stack, full_redis.client() as client, opened_store(mongo_url) as store:
        feeder = Feeder(client, "ns")
        feeder.send([feeder.hello()])
        fill(client, feeder)
        client.xgroup_destroy(feeder.keys.stream, names.GROUP)
        assert is_full(client)

        make_consumers(settings, slots, stack)().run_until_empty()

        assert_stored_once(store, feeder)
        assert feeder.length() == 0


def test_a_full_redis_is_drained_to_the_consumers_spool_while_the_store_is_away(
    full_redis: RedisServer, private_mongo: PrivateMongo, tmp_path: Path, slots: Path
) -> None:
    """The frames' numbers are noted in Redis in the step that frees their memory."""
    mongo = private_mongo()
    url = mongo.database_url("provd")
    settings = plain_settings(full_redis.url, url, "ns", tmp_path)
    with ExitStack() as stack, full_redis.client() as client, opened_store(url) as store:
        store.migrate()
        mongo.stop()
        feeder = Feeder(client, "ns")
        feeder.send([feeder.hello()])
        fill(client, feeder)
        filled = int(client.info("memory")["used_memory"])
        consumer = make_consumers(settings, slots, stack)(drain_share=0.5, spool_free_floor=0.0)
        with running(consumer):
            wait_until(lambda: int(client.info("memory")["used_memory"]) < 0.55 * filled, 30)
            assert client.hget(feeder.keys.spooled, feeder.producer_id)
            assert not is_full(client)
            mongo.start()
            wait_until(lambda: feeder.length() == 0, 30)
            wait_until(lambda: len(store.stored_ranges("w1")[feeder.producer_id]) == feeder.seq, 30)
            feeder.send([feeder.goodbye()])
            wait_until(lambda: not client.exists(feeder.keys.stream), 30)

        assert_whole(store, feeder)
        assert spool_files([settings.spool_path], with_open=True) == []
