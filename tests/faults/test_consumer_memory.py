"""G5: an outage leaves no mark on a consumer's memory: what was in hand is let go, what comes again is written in slices.

A process seldom gives back what it once held. So how much it holds at its highest is what it takes from then on.
"""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import redis

from provd.common import clock, names
from provd.common.record import Message
from provd.consumer.broker import Broker
from provd.consumer.identity import Identity
from provd.consumer.service import Consumer
from provd.store.open import open_store
from tests.integration.consuming import make_consumers, opened_store, plain_settings, running
from tests.integration.feeder import Feeder
from tests.services.mongo_server import MongoServer
from tests.services.redis_server import RedisServer
from tests.services.waiting import wait_until

PrivateRedis = Callable[..., RedisServer]
PrivateMongo = Callable[..., MongoServer]

#: Bytes that the writing of a default batch of small records may take at its highest, besides the batch.
_WRITING_MAX = 8 << 20


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Cycles stay: in a process with much at hand, the collector comes to old ones only now and then."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def held(producer_id: str) -> int:
    """Messages of a producer that are alive in this process."""
    return sum(type(one) is Message and one.producer_id == producer_id for one in gc.get_objects())


class _StoreBeforeAnOutage:
    """A real store; Redis goes away as soon as it has written."""

    def __init__(self, store: Any, strike: Callable[[], None]) -> None:
        self._store = store
        self._strike = strike

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def write(self, *args: Any, **named: Any) -> Any:
        written = self._store.write(*args, **named)
        self._strike()
        return written


@pytest.mark.usefixtures("no_collector")
def test_a_batch_that_failed_does_not_stay_in_memory_for_the_outage(
    redis_url: str, namespace: str, private_mongo: PrivateMongo, tmp_path: Path
) -> None:
    """G5: the error that a batch met keeps nothing of it, neither during the outage nor after it."""
    mongo = private_mongo()
    url = mongo.database_url("provd")
    settings = plain_settings(redis_url, url, namespace, tmp_path)
    with ExitStack() as stack, redis.Redis.from_url(redis_url) as client, opened_store(url) as store:
        consumer = make_consumers(settings, tmp_path, stack)()
        feeder = Feeder(client, namespace)
        with running(consumer):
            feeder.send(feeder.tasks(100))
            wait_until(lambda: store.count(names.TASKS, {}) == 100)
            mongo.kill()
            feeder.send(feeder.tasks(1000))
            wait_until(lambda: "waiting for the store" in consumer.progress.state)

            assert held(feeder.producer_id) == 0

            mongo.start()
            wait_until(lambda: feeder.length() == 0, 30)
        assert held(feeder.producer_id) == 0


@pytest.mark.usefixtures("no_collector")
def test_what_was_written_and_not_acknowledged_does_not_stay_in_memory_while_redis_is_away(
    private_redis: PrivateRedis, mongo_url: str, tmp_path: Path
) -> None:
    """G5, for the other service."""
    server = private_redis()
    settings = plain_settings(server.url, mongo_url, "ns", tmp_path)
    with ExitStack() as stack, server.client() as client:
        feeder = Feeder(client, "ns")
        feeder.send(feeder.tasks(1000))
        store: Any = _StoreBeforeAnOutage(open_store(mongo_url), server.kill)
        broker = Broker(settings.resolved_broker_url(), connect_timeout_s=1)
        consumer = stack.enter_context(
            Consumer(settings, broker=broker, store=store, identity=Identity(tmp_path, hostname="head"))
        )
        with running(consumer):
            wait_until(lambda: "waiting for Redis" in consumer.progress.state)

            assert held(feeder.producer_id) == 0
        with opened_store(mongo_url) as look:
            assert look.count(names.TASKS, {}) == 1000


def test_a_batch_that_comes_a_second_time_is_written_in_slices(mongo_url: str) -> None:
    """G5: after a lost acknowledgement the store refuses all of a batch, and then merges it: both cost much a message."""
    feeder = Feeder(redis.Redis(), "ns")  # only makes messages
    batch = feeder.tasks(2000)
    with opened_store(mongo_url) as store:
        store.write(batch, received_at=clock.now_ms())
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            written = store.write(batch, received_at=clock.now_ms())
            highest = tracemalloc.get_traced_memory()[1] - before
        finally:
            tracemalloc.stop()

        assert written.duplicates == 2000
        assert highest < _WRITING_MAX
