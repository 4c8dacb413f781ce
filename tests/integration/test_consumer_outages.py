"""A service goes away and comes back: the consumer waits, spools when Redis fills up, and nothing is lost (G2)."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis

from provd.common import names
from provd.common.errors import SettingsError
from provd.common.settings import Settings
from provd.common.spool import SpoolWriter, spool_files
from provd.consumer.broker import Broker
from provd.consumer.identity import Identity
from provd.consumer.service import Consumer
from provd.store.books import read_books
from provd.store.interface import Store
from provd.store.open import open_store
from tests.integration.consuming import make_consumers, opened_store, plain_settings, running
from tests.integration.feeder import Feeder
from tests.integration.freezing import freeze_with_frames_in_hand
from tests.services.child import Child
from tests.services.mongo_server import MongoServer
from tests.services.redis_server import RedisServer
from tests.services.waiting import wait_until

PrivateRedis = Callable[..., RedisServer]
PrivateMongo = Callable[..., MongoServer]

#: A consumer in a process of its own, which can be killed: settings as JSON on the command line.
_CONSUMER = """
import json, sys
from pathlib import Path
from provd.common.settings import Settings
from provd.consumer.broker import Broker
from provd.consumer.identity import Identity
from provd.consumer.identity import Identity
from provd.consumer.service import Consumer
from provd.store.open import open_store
settings, slots = Settings(**json.loads(sys.argv[1])), Path(sys.argv[2])
Consumer(settings, broker=Broker(settings.broker_url, connect_timeout_s=1), store=open_store(settings.store_url),
         identity=Identity(slots, hostname="doomed")).run()
"""


def test_frames_wait_in_redis_while_mongodb_is_away_and_all_are_stored_when_it_is_back(
    redis_url: str,
    namespace: str,
    private_mongo: PrivateMongo,
    tmp_path: Path,
    slots: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    mongo = private_mongo()
    url = mongo.database_url("provd")
    settings = plain_settings(redis_url, url, namespace, tmp_path)
    with ExitStack() as stack, redis.Redis.from_url(redis_url) as client, opened_store(url) as store:
        consumer = make_consumers(settings, slots, stack)()
        feeder = Feeder(client, namespace)
        feeder.send(feeder.tasks(100), frame=5)
        with running(consumer):
            wait_until(lambda: store.count(names.TASKS, {}) == 100)
            wait_until(lambda: feeder.length() == 0)
            mongo.stop()
            feeder.send(feeder.tasks(100), frame=5)
            wait_until(lambda: "waiting for the store" in consumer.progress.state)
            assert feeder.length() == 20

            mongo.start()
            wait_until(lambda: store.count(names.TASKS, {}) == 200, 30)
            wait_until(lambda: feeder.length() == 0)

        away = [record.getMessage() for record in caplog.records if "is away" in record.getMessage()]
        assert len(away) == 1
        assert "frames wait in Redis" in away[0]
        assert str(store.stored_ranges("w1")[feeder.producer_id]) == "1-200"
        assert consumer.progress.spooled == 0


def test_a_consumer_outlives_redis(
    private_redis: PrivateRedis, mongo_url: str, tmp_path: Path, slots: Path
) -> None:
    server = private_redis()
    settings = plain_settings(server.url, mongo_url, "ns", tmp_path)
    with ExitStack() as stack, opened_store(mongo_url) as store:
        consumer = make_consumers(settings, slots, stack)()
        with running(consumer):
            with server.client() as client:
                feeder = Feeder(client, "ns")
                feeder.send(feeder.tasks(50), frame=5)
            wait_until(lambda: store.count(names.TASKS, {}) == 50)

            server.kill()
            wait_until(lambda: "waiting for Redis" in consumer.progress.state)
            server.start()
            with server.client() as client:
                again = Feeder(client, "ns", "w2")
                again.send(again.tasks(50), frame=5)

                wait_until(lambda: store.count(names.TASKS, {}) == 100)


def test_neither_service_need_be_there_at_the_start(tmp_path: Path, slots: Path) -> None:
    settings = plain_settings("redis://127.0.0.1:1/0", "mongodb://127.0.0.1:1/provd", "ns", tmp_path)
    with ExitStack() as stack:
        consumer = make_consumers(settings, slots, stack)()

        with running(consumer):
            wait_until(lambda: "waiting for" in consumer.progress.state)


def test_a_filling_redis_is_drained_to_the_spool_and_the_spool_to_the_store(
    private_redis: PrivateRedis, private_mongo: PrivateMongo, tmp_path: Path, slots: Path
) -> None:
    """Above its share of Redis' memory a consumer without a store spools, and brings it back by itself."""
    server, mongo = private_redis(), private_mongo()
    url = mongo.database_url("provd")
    settings = plain_settings(server.url, url, "ns", tmp_path)
    with ExitStack() as stack, server.client() as client, opened_store(url) as store:
        store.migrate()
        mongo.stop()
        feeder = Feeder(client, "ns")
        feeder.send([feeder.hello(), *feeder.tasks(998)], frame=37)
        feeder.send_raw(b"ruined", b"body")
        flawed = Feeder(client, "ns", "w2")
        flawed.send_garbled(flawed.tasks(10))
        used = int(client.info("memory")["used_memory"])
        client.config_set("maxmemory", used)  # every write that needs memory is refused now
        consumer = make_consumers(settings, slots, stack)(drain_share=0.1)
        with running(consumer):
            # What belongs in quarantine goes to the disk too, beside the spool.
            wait_until(lambda: consumer.progress.spooled == 999 + 1 + 10)
            wait_until(lambda: feeder.length() + flawed.length() == 0)
            assert client.hgetall(feeder.keys.spooled) == {feeder.producer_id.encode(): b"1-999"}
            assert len(spool_files([settings.spool_path], with_open=True)) == 1

            client.config_set("maxmemory", 0)
            mongo.start()
            wait_until(lambda: store.count(names.TASKS, {}) == 998 + 9, 30)
            feeder.send([feeder.goodbye()])
            wait_until(lambda: feeder.length() + flawed.length() == 0)
            wait_until(lambda: store.count(names.QUARANTINE, {}) == 2)

        (producer,) = read_books(store, "w1").producers
        assert (str(producer.stored), producer.produced, producer.complete) == ("1-1000", 1000, True)
        assert store.count(names.QUARANTINE, {}) == 2
        assert spool_files([settings.spool_path], with_open=True) == []


def test_the_spool_of_a_killed_consumer_is_brought_back_by_the_next_of_its_name(
    redis_url: str, mongo_url: str, namespace: str, tmp_path: Path, slots: Path
) -> None:
    settings = plain_settings(redis_url, mongo_url, namespace, tmp_path)
    with ExitStack() as stack, redis.Redis.from_url(redis_url) as client, opened_store(mongo_url) as store:
        feeder = Feeder(client, namespace)
        for name in ("head-0", "head-1"):
            writer = SpoolWriter(
                settings.spool_path,
                f"{name}.{namespace}",
                ceiling_bytes=1 << 20,
                free_floor=0,
                hostname="h",
            )
            writer.write(feeder.tasks(10))
            writer.forget()

        make_consumers(settings, slots, stack)().run_until_empty()

        left = spool_files([settings.spool_path], with_open=True)
        assert store.count(names.TASKS, {}) == 10
        assert [path.name.partition(".")[0] for path in left] == ["head-1"]


def test_the_frames_of_a_killed_consumer_are_stored_by_another(
    redis_url: str, mongo_url: str, namespace: str, tmp_path: Path, slots: Path
) -> None:
    """Killed in the middle of its work, with frames in hand."""
    options: dict[str, Any] = {
        "broker_url": redis_url, "store_url": mongo_url, "namespace": namespace, "data_dir": str(tmp_path),
        "claim_after_s": 0.5, "batch_messages": 50,
    }  # fmt: skip
    child = Child([sys.executable, "-c", _CONSUMER, json.dumps(options), slots], log=tmp_path / "doomed.log")
    settings = plain_settings(redis_url, mongo_url, namespace, tmp_path)
    with ExitStack() as stack, redis.Redis.from_url(redis_url) as client, opened_store(mongo_url) as store:
        store.migrate()
        feeder = Feeder(client, namespace)
        feeder.send(feeder.tasks(20_000), frame=10)
        child.start()
        try:
            wait_until(lambda: store.count(names.TASKS, {}) > 0, 30)
            held = freeze_with_frames_in_hand(child, feeder)
        finally:
            child.kill()
        assert feeder.length() > 0
        consumer = make_consumers(settings, slots, stack)(claim_after_s=0.5)

        with running(consumer):
            wait_until(lambda: store.count(names.TASKS, {}) == 20_000, 60)
            wait_until(lambda: feeder.length() == 0, 30)

        assert held > 0
        assert str(store.stored_ranges("w1")[feeder.producer_id]) == "1-20000"


class SlowStore:
    """A real store whose writes take long: only the time is added."""

    def __init__(self, store: Store, seconds: float) -> None:
        self._store = store
        self._seconds = seconds

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def write(self, *args: Any, **named: Any) -> Any:
        threading.Event().wait(self._seconds)
        return self._store.write(*args, **named)


def slow_consumer(settings: Settings, slots: Path, stack: ExitStack, *, seconds: float) -> Consumer:
    slow_store: Any = SlowStore(open_store(settings.resolved_store_url()), seconds)
    return stack.enter_context(
        Consumer(
            settings,
            broker=Broker(settings.resolved_broker_url(), connect_timeout_s=1),
            store=slow_store,
            identity=Identity(slots, hostname="slow"),
        )
    )


def test_frames_in_hand_are_renewed_while_a_write_takes_long(
    redis_url: str, mongo_url: str, namespace: str, tmp_path: Path, slots: Path
) -> None:
    settings = replace(plain_settings(redis_url, mongo_url, namespace, tmp_path), claim_after_s=0.8)
    with ExitStack() as stack, redis.Redis.from_url(redis_url) as client:
        feeder = Feeder(client, namespace)
        feeder.send(feeder.tasks(100), frame=10)
        slow = slow_consumer(settings, slots, stack, seconds=2.0)
        quick = make_consumers(settings, slots, stack)()
        with running(slow):
            wait_until(lambda: feeder.pending() == 10)
            with running(quick):
                wait_until(lambda: feeder.length() == 0)

        assert (slow.progress.stored, quick.progress.received) == (100, 0)


def test_an_acknowledgement_that_redis_did_not_hear_is_made_again(
    private_redis: PrivateRedis, mongo_url: str, tmp_path: Path, slots: Path
) -> None:
    server = private_redis()
    # The batch is full with what there is, so the next thing that Redis is asked is the acknowledgement.
    settings = replace(plain_settings(server.url, mongo_url, "ns", tmp_path), batch_messages=10)
    with ExitStack() as stack, opened_store(mongo_url) as store, server.client() as client:
        feeder = Feeder(client, "ns")
        feeder.send(feeder.tasks(10), frame=1)
        consumer = slow_consumer(settings, slots, stack, seconds=1.0)
        with running(consumer):
            wait_until(lambda: feeder.pending() == 10)
            server.stop()
            wait_until(lambda: "waiting for Redis" in consumer.progress.state)
            assert store.count(names.TASKS, {}) == 10

            server.start()
            wait_until(lambda: feeder.length() == 0)

        assert store.count(names.TASKS, {}) == 10


def test_redis_that_evicts_is_warned_about_with_the_fix(
    private_redis: PrivateRedis, mongo_url: str, tmp_path: Path, slots: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = private_redis(config={"maxmemory-policy": "allkeys-lru"})
    with ExitStack() as stack:
        make_consumers(
            plain_settings(server.url, mongo_url, "ns", tmp_path), slots, stack
        )().run_until_empty()

    assert "CONFIG SET maxmemory-policy noeviction" in caplog.text


@pytest.mark.parametrize("url", ["amqp://u:secret@h", "file:///spool", ""])
def test_a_broker_of_another_kind_is_refused_with_what_is_taken(url: str) -> None:
    with pytest.raises(SettingsError, match=r"redis://, rediss://, unix://") as caught:
        Broker(url, connect_timeout_s=1)

    assert "secret" not in str(caught.value)
