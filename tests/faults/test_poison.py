"""Frames that end whoever touches them, that nobody can read, or that only a later version reads.

G4: one bad record harms only itself. It is quarantined with its raw bytes and the reason; the rest is stored.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import redis

from provd.common import names, wire
from provd.common.record import SCHEMA_VERSION
from provd.consumer.broker import Broker
from provd.consumer.identity import Identity
from provd.consumer.service import Consumer
from provd.consumer.suspects import ALONE_AFTER, CONDEMNED_AFTER
from provd.store.open import open_store
from tests.faults.proof import assert_stored_once
from tests.integration.consuming import consume, make_consumers, opened_store, plain_settings, running
from tests.integration.feeder import Feeder, newer_frame
from tests.services.child import Child
from tests.services.mongo_server import MongoServer
from tests.services.redis_server import RedisServer
from tests.services.waiting import wait_until

PrivateRedis = Callable[..., RedisServer]
PrivateMongo = Callable[..., MongoServer]

#: A consumer that ends by SIGKILL as soon as it reads one certain message, as a fault in a decoder of C would do.
_VICTIM = """
import json, os, signal, sys
from pathlib import Path
from provd.common import wire
from provd.common.settings import Settings
from provd.consumer.broker import Broker
from provd.consumer.identity import Identity
from provd.consumer.service import Consumer
from provd.store.open import open_store
read = wire.decode
def decode(header, body):
    if b"poison" in body:
        os.kill(os.getpid(), signal.SIGKILL)
    return read(header, body)
wire.decode = decode
settings, slots = Settings(**json.loads(sys.argv[1])), Path(sys.argv[2])
with Consumer(settings, broker=Broker(settings.broker_url, connect_timeout_s=1),
              store=open_store(settings.store_url, timeout_s=1), identity=Identity(slots, hostname="head")) as consumer:
    consumer.run_until_empty()
"""


@pytest.fixture
def store_url(mongo_url: str) -> str:
    return mongo_url


@pytest.fixture
def victim(redis_url: str, store_url: str, namespace: str, tmp_path: Path, slots: Path) -> Iterator[Child]:
    settings = plain_settings(redis_url, store_url, namespace, tmp_path)
    child = Child(
        [sys.executable, "-c", _VICTIM, json.dumps(asdict(settings)), slots], log=tmp_path / "victim.log"
    )
    yield child
    child.kill()


def lives(victim: Child, *, at_most: int) -> int:
    """Start it until it survives; returns how often it was killed."""
    for deaths in range(at_most):
        victim.start()
        code = victim.wait(60)
        if code == 0:
            return deaths
        assert code == -signal.SIGKILL, victim.tail()
    raise AssertionError(f"killed {at_most} times")


def suspicions(feeder: Feeder) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = feeder.client.hgetall(feeder.keys.suspects)
    return found


def test_a_frame_that_kills_every_consumer_is_quarantined_and_the_others_are_stored(
    client: redis.Redis, namespace: str, store_url: str, victim: Child
) -> None:
    """G4: after a few deaths it is alone in hand, and after three of those it is not touched any more."""
    feeder, other = Feeder(client, namespace), Feeder(client, namespace, "w2")
    feeder.send(feeder.tasks(20), frame=5)
    (poison,) = feeder.send(feeder.tasks(1, activity_id="poison"))
    feeder.send(feeder.tasks(20), frame=5)
    other.send(other.tasks(20), frame=5)

    deaths = lives(victim, at_most=12)

    assert deaths == ALONE_AFTER - 1 + CONDEMNED_AFTER
    with opened_store(store_url) as store:
        (item,) = store.find(names.QUARANTINE, {})
        assert (item["entry_id"], item["workflow_id"]) == (poison.decode(), "w1")
        assert b"poison" in bytes(item["raw"])
        assert "alone in hand" in item["reason"]
        assert store.count(names.TASKS, {}) == 60
        assert str(store.stored_ranges("w1")[feeder.producer_id]) == "1-20, 22-41"
        assert str(store.stored_ranges("w2")[other.producer_id]) == "1-20"
    assert (feeder.length(), feeder.pending(), other.length()) == (0, 0, 0)
    assert suspicions(feeder) == {}


def test_a_frame_that_was_delivered_often_and_is_sound_is_stored(
    client: redis.Redis, redis_url: str, store_url: str, namespace: str, tmp_path: Path, slots: Path
) -> None:
    """How often it was delivered says that something happened near it, not that it is to blame."""
    feeder = Feeder(client, namespace)
    feeder.send(feeder.tasks(60), frame=10)
    client.xreadgroup(names.GROUP, "head-0", {feeder.keys.stream: ">"})
    for _ in range(50):
        client.xreadgroup(names.GROUP, "head-0", {feeder.keys.stream: "0"})
    with ExitStack() as stack, opened_store(store_url) as store:
        consumer = make_consumers(plain_settings(redis_url, store_url, namespace, tmp_path), slots, stack)()

        consumer.run_until_empty()

        assert_stored_once(store, feeder)
        assert consumer.progress.batches == 6
        assert store.count(names.QUARANTINE, {}) == 0
    assert suspicions(feeder) == {}


def test_outages_of_the_store_never_count_against_a_frame(
    client: redis.Redis,
    redis_url: str,
    namespace: str,
    private_mongo: PrivateMongo,
    tmp_path: Path,
    slots: Path,
) -> None:
    """G4, and nothing healthy is quarantined: the store ends again and again just when frames are alone in hand."""
    mongo = private_mongo()
    url = mongo.database_url("provd")
    feeder = Feeder(client, namespace)
    feeder.send(feeder.tasks(30), frame=10)
    client.xreadgroup(names.GROUP, "head-0", {feeder.keys.stream: ">"})
    for _ in range(ALONE_AFTER):
        client.xreadgroup(names.GROUP, "head-0", {feeder.keys.stream: "0"})
    settings = plain_settings(redis_url, url, namespace, tmp_path)
    with ExitStack() as stack, opened_store(url) as store:
        failing: Any = _EndsBeforeWriting(open_store(url, timeout_s=0.2), mongo, times=CONDEMNED_AFTER + 1)
        consumer = stack.enter_context(
            Consumer(
                settings,
                broker=Broker(redis_url, connect_timeout_s=1),
                store=failing,
                identity=Identity(slots, hostname="head"),
            )
        )
        with running(consumer):
            wait_until(lambda: failing.times == 0, 90)
            wait_until(lambda: feeder.length() == 0, 30)

        assert_stored_once(store, feeder)
        assert store.count(names.QUARANTINE, {}) == 0
    assert suspicions(feeder) == {}


class _EndsBeforeWriting:
    """A real store whose server is killed just before a write, and started again by the next look at it."""

    def __init__(self, store: Any, server: MongoServer, *, times: int) -> None:
        self._store = store
        self._server = server
        self.times = times

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def write(self, *args: Any, **named: Any) -> Any:
        if self.times:
            self.times -= 1
            self._server.kill()
            try:
                return self._store.write(*args, **named)
            finally:
                self._server.start()
        return self._store.write(*args, **named)


def test_a_store_that_answers_and_refuses_one_frame_gets_it_into_quarantine(
    client: redis.Redis, redis_url: str, store_url: str, namespace: str, tmp_path: Path, slots: Path
) -> None:
    """G4: what nobody foresaw stops the one frame, and the others go on."""
    feeder, other = Feeder(client, namespace), Feeder(client, namespace, "w2")
    (bad,) = feeder.send(feeder.tasks(5))
    other.send(other.tasks(5))
    settings = plain_settings(redis_url, store_url, namespace, tmp_path)
    with ExitStack() as stack, opened_store(store_url) as store:
        refusing: Any = _Refuses(open_store(store_url), feeder.producer_id)
        consumer = stack.enter_context(
            Consumer(
                settings,
                broker=Broker(redis_url, connect_timeout_s=1),
                store=refusing,
                identity=Identity(slots, hostname="head"),
            )
        )
        with running(consumer):
            wait_until(lambda: feeder.length() + other.length() == 0, 60)

        (item,) = store.find(names.QUARANTINE, {})
        assert item["entry_id"] == bad.decode()
        assert str(store.stored_ranges("w2")[other.producer_id]) == "1-5"


class _Refuses:
    """A real store that refuses the ledger's entries of one producer."""

    def __init__(self, store: Any, producer_id: str) -> None:
        self._store = store
        self._producer_id = producer_id

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def add_stored(self, ranges: Any) -> None:
        from provd.common.errors import StoreError

        ranges = list(ranges)
        if any(one.producer_id == self._producer_id for one in ranges):
            raise StoreError("an entry of the ledger is not one")
        self._store.add_stored(ranges)


@pytest.mark.parametrize(
    "changes",
    [
        {"producer_id": "\ud800"},
        {"producer_id": ""},
        {"producer_id": "p/../q"},
        {"first_seq": 1 << 63},
        {"first_seq": 1 << 200},
        {"count": 1 << 60},
        {"hostname": "\ud800"},
        {"rank": "zero"},
    ],
    ids=str,
)
def test_a_header_whose_checksum_is_right_and_whose_content_is_not_costs_its_frame_only(
    client: redis.Redis,
    redis_url: str,
    store_url: str,
    namespace: str,
    tmp_path: Path,
    slots: Path,
    changes: dict[str, Any],
) -> None:
    feeder = Feeder(client, namespace)
    header, body = feeder.encoded(feeder.tasks(3))
    feeder.send_raw(wire.encode_header(replace(wire.decode_header(header), **changes)), body)
    sound = Feeder(client, namespace)
    sound.send(sound.tasks(5))

    consume(redis_url, store_url, namespace, tmp_path, slots)

    with opened_store(store_url) as store:
        assert_stored_once(store, sound)
        stored = store.count(names.TASKS, {"producer_id": {"$ne": sound.producer_id}})
        assert stored == 3 or store.count(names.QUARANTINE, {}) >= 1
    assert (feeder.length(), feeder.pending()) == (0, 0)


# --- frames of another version -----------------------------------------------------------------------------------


def deliveries(feeder: Feeder) -> list[tuple[str, int]]:
    pending = feeder.client.xpending_range(feeder.keys.stream, names.GROUP, "-", "+", 100)
    return [(entry["consumer"].decode(), entry["times_delivered"]) for entry in pending]


def test_frames_of_a_later_schema_stay_pending_over_restarts_and_claims_and_hold_nobody_up(
    client: redis.Redis,
    redis_url: str,
    store_url: str,
    namespace: str,
    tmp_path: Path,
    slots: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """They are read once, told of, and left alone: not read again, not claimed, not quarantined, not retired."""
    settings = replace(plain_settings(redis_url, store_url, namespace, tmp_path), claim_after_s=0.1)
    feeder = Feeder(client, namespace)
    for _ in range(20):
        feeder.send_raw(*newer_frame(feeder))
    with ExitStack() as stack, opened_store(store_url) as store:
        make = make_consumers(settings, slots, stack)
        for _ in range(3):
            feeder.send(feeder.tasks(10), frame=2)
            make().run_until_empty()
        first, second = make(), make()
        with running(first), running(second):
            for _ in range(5):
                feeder.send(feeder.tasks(10), frame=2)
                wait_until(lambda: feeder.length() == 20)

        assert store.count(names.TASKS, {}) == 80
        assert store.count(names.QUARANTINE, {}) == 0
    assert deliveries(feeder) == [(f"newer:{SCHEMA_VERSION + 1}", 1)] * 20
    assert "upgrade this consumer" in caplog.text


def test_frames_that_an_older_consumer_left_are_stored_by_one_that_reads_them(
    client: redis.Redis, redis_url: str, store_url: str, namespace: str, tmp_path: Path, slots: Path
) -> None:
    """The upgrade: a consumer of an earlier schema put them aside; this one need not wait until they seem abandoned."""
    feeder = Feeder(client, namespace)
    feeder.send(feeder.tasks(40), frame=2)
    client.xreadgroup(names.GROUP, f"newer:{SCHEMA_VERSION}", {feeder.keys.stream: ">"})
    settings = plain_settings(redis_url, store_url, namespace, tmp_path)
    with ExitStack() as stack, opened_store(store_url) as store:
        consumers = [make_consumers(settings, slots, stack)() for _ in range(2)]
        with running(consumers[0]), running(consumers[1]):
            wait_until(lambda: feeder.length() == 0)

        assert_stored_once(store, feeder)
        assert sum(consumer.progress.duplicates for consumer in consumers) == 0


def test_a_suspect_frame_is_processed_alone_also_where_redis_is_full(
    private_redis: PrivateRedis, store_url: str, tmp_path: Path, slots: Path
) -> None:
    """The note against it is written though there is no room: what frees memory may not wait for memory."""
    server = private_redis()
    with ExitStack() as stack, server.client() as client, opened_store(store_url) as store:
        feeder = Feeder(client, "ns")
        feeder.send(feeder.tasks(30), frame=10)
        client.xreadgroup(names.GROUP, "head-0", {feeder.keys.stream: ">"})
        for _ in range(ALONE_AFTER):
            client.xreadgroup(names.GROUP, "head-0", {feeder.keys.stream: "0"})
        client.config_set("maxmemory", 1)

        make_consumers(
            plain_settings(server.url, store_url, "ns", tmp_path), slots, stack
        )().run_until_empty()

        assert_stored_once(store, feeder)
        assert feeder.length() == 0
