"""A spool that is larger than the memory of Redis is replayed: it waits for room while a consumer makes some.

G2: what was spooled reaches the store. G5: Redis' memory has a ceiling, and nothing is lost at it.
"""

from __future__ import annotations

import random
import signal
import string
from collections.abc import Callable
from pathlib import Path

import pytest

from provd.common.errors import BrokerFull
from provd.common.settings import load
from provd.common.spool import SpoolWriter
from provd.producer.replay import replay_into_broker
from tests.conftest import StartProvd
from tests.faults.proof import assert_whole
from tests.integration.consuming import opened_store
from tests.integration.feeder import Feeder
from tests.services.redis_server import RedisServer
from tests.services.waiting import wait_until

PrivateRedis = Callable[..., RedisServer]

#: Tasks, and characters of text in each: twice what Redis has room for.
TASKS = 200
TEXT = 60_000


@pytest.fixture
def small_redis(private_redis: PrivateRedis) -> RedisServer:
    """A Redis with little memory."""
    return private_redis(config={"maxmemory": "5mb", "appendonly": "no"})


def spool(folder: Path, feeder: Feeder) -> None:
    """A run with large tasks, which little compresses, in closed files."""
    writer = SpoolWriter(folder, feeder.producer_id, ceiling_bytes=1 << 30, free_floor=0, hostname="node1")
    writer.write([feeder.hello()])
    for _ in range(TASKS):
        writer.write(feeder.tasks(1, stdout="".join(random.choices(string.printable, k=TEXT))))
    writer.write([feeder.goodbye()])
    writer.close()


def test_a_spool_larger_than_redis_comes_in_while_a_consumer_drains_it(
    small_redis: RedisServer, start_provd: StartProvd, mongo_url: str, tmp_path: Path
) -> None:
    """It waits, says so once, and ends with 0: nobody repeats it."""
    environment = {
        "PROVD_BROKER_URL": small_redis.url,
        "PROVD_STORE_URL": mongo_url,
        "PROVD_NAMESPACE": "ns",
        "PROVD_SPOOL_DIR": str(tmp_path / "own"),
        "XDG_RUNTIME_DIR": str(tmp_path),
    }
    with small_redis.client() as client, opened_store(mongo_url) as store:
        feeder = Feeder(client, "ns")
        spool(tmp_path / "spool", feeder)

        # Redis is full long before the end
        replay = start_provd("replay", "spool", env=environment)
        wait_until(lambda: "is full: waiting for a consumer" in replay.log.read_text(), 30)
        assert replay.is_running

        # A consumer is started now
        consumer = start_provd("consume", env=environment)
        assert replay.wait(60) == 0, replay.log.read_text()
        assert replay.log.read_text().count("is full") == 1
        wait_until(lambda: feeder.length() == 0, 60)
        assert_whole(store, feeder)
        consumer.send(signal.SIGTERM)
        assert consumer.wait(30) == 0


def test_a_redis_in_which_nobody_makes_room_is_given_up_after_the_patience(
    small_redis: RedisServer, tmp_path: Path
) -> None:
    """The error says what is missing: a consumer."""
    with small_redis.client() as client:
        spool(tmp_path / "spool", Feeder(client, "ns"))
    told: list[BrokerFull] = []
    settings = load(overrides={"broker_url": small_redis.url, "namespace": "ns"})

    with pytest.raises(BrokerFull, match=r"nothing fitted for 0\.5 s: start `provd consume`"):
        replay_into_broker([tmp_path / "spool"], settings, on_full=told.append, patience_s=0.5)

    assert len(told) == 1
