"""Several consumers and one frame: nobody steals in circles, and whoever comes late does no harm.

G2: accepted messages reach the store. G3: repetition does not change the stored document. G4: nothing healthy is
quarantined.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis

from provd.common import names
from provd.common.settings import Settings
from provd.consumer import scripts
from provd.consumer.broker import Broker
from provd.consumer.identity import Identity
from provd.consumer.service import Consumer
from provd.store.open import open_store
from tests.conftest import RunProvd, StartProvd
from tests.faults.proof import assert_stored_once, assert_whole
from tests.integration.consuming import make_consumers, opened_store, plain_settings, running
from tests.integration.feeder import Feeder
from tests.services.mongo_server import MongoServer
from tests.services.waiting import wait_until

PrivateMongo = Callable[..., MongoServer]


@pytest.fixture
def store_url(mongo_url: str) -> str:
    return mongo_url


def owners(feeder: Feeder) -> dict[str, str]:
    """Who has which frame in hand."""
    pending = feeder.client.xpending_range(feeder.keys.stream, names.GROUP, "-", "+", 1000)
    return {entry["message_id"].decode(): entry["consumer"].decode() for entry in pending}


def claims(client: redis.Redis) -> int:
    """Frames that were claimed so far, by whomever: renewals and frames put aside included."""
    calls: Any = client.info("commandstats")
    return int(calls.get("cmdstat_xclaim", {}).get("calls", 0))


def claims_at_rest(client: redis.Redis, pause_s: float) -> int:
    """The same, when a renewal that was on its way has come: nothing was claimed for longer than `pause_s`."""
    known, since = -1, 0.0

    def have_rested() -> bool:
        nonlocal known, since
        now = claims(client)
        if now != known:
            known, since = now, time.monotonic()
        return time.monotonic() - since > pause_s

    wait_until(have_rested)
    return known


@pytest.mark.parametrize("how", ["stopped", "frozen"])
def test_mongodb_away_for_longer_than_the_claim_time_makes_nobody_steal(
    client: redis.Redis,
    redis_url: str,
    namespace: str,
    private_mongo: PrivateMongo,
    tmp_path: Path,
    slots: Path,
    how: str,
) -> None:
    """Three consumers with frames in hand lose the store; when it is back each goes on with its own."""
    mongo = private_mongo()
    url = mongo.database_url("provd")
    settings = replace(
        plain_settings(redis_url, url, namespace, tmp_path), claim_after_s=0.3, batch_messages=20
    )
    feeder = Feeder(client, namespace)
    with ExitStack() as stack, opened_store(url) as store:
        store.migrate()
        consumers = [make_consumers(settings, slots, stack)() for _ in range(3)]
        with running(consumers[0]), running(consumers[1]), running(consumers[2]):

            def all_are_at_work() -> bool:
                feeder.send(feeder.tasks(100), frame=5)
                return all(consumer.progress.stored for consumer in consumers)

            wait_until(all_are_at_work, 20)
            # Their first marks are behind them: what they lose the store with is frames.
            wait_until(lambda: store.count(names.CONSUMERS, {}) == 3, 20)
            if how == "frozen":
                mongo.pause()
            else:
                mongo.kill()
            feeder.send(feeder.tasks(900), frame=5)
            wait_until(lambda: all("waiting for the store" in c.progress.state for c in consumers), 60)
            held = owners(feeder)
            before = claims_at_rest(client, settings.claim_after_s)  # four renewals' time
            # Three claim times and more: looks for abandoned frames would come four times in each.
            waited: Any = client.time()[0]
            wait_until(lambda: client.time()[0] >= waited + 2, 10)
            assert owners(feeder) == held
            assert claims(client) == before

            if how == "frozen":
                mongo.resume()
            else:
                mongo.start()
            wait_until(lambda: feeder.length() == 0, 60)

        assert len(held) > 0
        assert_stored_once(store, feeder)
        assert store.count(names.QUARANTINE, {}) == 0
    assert not client.exists(feeder.keys.suspects)


class _SlowStore:
    """A real store whose writes take longer than it takes to lose a frame."""

    def __init__(self, store: Any, pause: Callable[[], None]) -> None:
        self._store = store
        self._pause = pause

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def write(self, *args: Any, **named: Any) -> Any:
        self._pause()
        return self._store.write(*args, **named)


def slow_consumer(settings: Settings, slots: Path, stack: ExitStack, pause: Callable[[], None]) -> Consumer:
    store: Any = _SlowStore(open_store(settings.resolved_store_url()), pause)
    return stack.enter_context(
        Consumer(
            settings,
            broker=Broker(settings.resolved_broker_url(), connect_timeout_s=1),
            store=store,
            identity=Identity(slots, hostname="head"),
        )
    )


def test_two_consumers_that_are_given_each_others_frames_store_each_task_once(
    client: redis.Redis, redis_url: str, store_url: str, namespace: str, tmp_path: Path, slots: Path
) -> None:
    """G2, G3: whoever has a frame in hand may lose it at any moment and go on as if it had not."""
    settings = replace(plain_settings(redis_url, store_url, namespace, tmp_path), batch_messages=20)
    feeder = Feeder(client, namespace, receipt=True)
    chosen = random.Random(7)

    def swap() -> None:
        """Give pending frames to the one or the other, and make both read what they have again."""
        with redis.Redis.from_url(redis_url) as other:
            held = other.xpending_range(feeder.keys.stream, names.GROUP, "-", "+", 200)
            for name in (b"head-0", b"head-1"):
                ids: Any = [one["message_id"] for one in held if chosen.random() < 0.5]
                if ids:
                    other.xclaim(feeder.keys.stream, names.GROUP, name, 0, ids, idle=3_600_000, justid=True)

    with ExitStack() as stack, opened_store(store_url) as store:
        store.migrate()
        feeder.send([feeder.hello(), *feeder.tasks(1998)], frame=5)
        consumers = [
            slow_consumer(replace(settings, claim_after_s=0.1), slots, stack, swap) for _ in range(2)
        ]
        with running(consumers[0]), running(consumers[1]):
            wait_until(lambda: feeder.length() == 0, 60)
            feeder.send([feeder.goodbye()])
            wait_until(lambda: store.count(names.PRODUCERS, {"closed_at": {"$exists": True}}) == 1)

        assert all(consumer.progress.received for consumer in consumers)
        assert sum(consumer.progress.duplicates for consumer in consumers) > 0
        assert_whole(store, feeder)
        assert store.count(names.QUARANTINE, {}) == 0


def test_a_consumer_that_comes_back_late_neither_takes_back_nor_acknowledges_what_nobody_stored(
    client: redis.Redis, namespace: str
) -> None:
    """Its renewals and its letting go touch only what is still its own."""
    feeder = Feeder(client, namespace)
    ids: list[Any] = [*feeder.send(feeder.tasks(3), frame=1)]
    client.xreadgroup(names.GROUP, "late", {feeder.keys.stream: ">"})
    client.xclaim(feeder.keys.stream, names.GROUP, "new", 0, ids[:2], justid=True)

    renewed = client.eval(scripts.TOUCH, 1, feeder.keys.stream, names.GROUP, "late", "", *ids)
    released = client.eval(scripts.TOUCH, 1, feeder.keys.stream, names.GROUP, "late", 60_000, *ids)

    assert (renewed, released) == (1, 1)
    assert sorted(owners(feeder).values()) == ["late", "new", "new"]
    idle: dict[Any, Any] = {
        one["message_id"]: one["time_since_delivered"]
        for one in client.xpending_range(feeder.keys.stream, names.GROUP, "-", "+", 10)
    }
    assert idle[ids[2]] >= 60_000 > max(idle[ids[0]], idle[ids[1]])


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_a_consumer_at_once_and_the_next_has_all_of_it_once(
    start_provd: StartProvd,
    run_provd: RunProvd,
    client: redis.Redis,
    redis_url: str,
    store_url: str,
    namespace: str,
    second: signal.Signals,
) -> None:
    """G2, G3: what was in hand stays pending; what was half written is written again and changes nothing."""
    services = {
        "PROVD_BROKER_URL": redis_url,
        "PROVD_STORE_URL": store_url,
        "PROVD_NAMESPACE": namespace,
        "PROVD_BATCH_MESSAGES": "100",
    }
    feeder = Feeder(client, namespace)
    feeder.send([feeder.hello(), *feeder.tasks(19_998), feeder.goodbye()], frame=10)
    with opened_store(store_url) as store:
        consumer = start_provd("consume", env=services)
        wait_until(lambda: store.count(names.TASKS, {}) > 0, 30)
        consumer.send(signal.SIGTERM)
        consumer.send(second)
        consumer.wait(20)
        stored_by_the_first = store.count(names.TASKS, {})

        ended = run_provd("consume", "--workflow-id", "w1", "--exit-when-done", "--grace", "20", env=services)

        assert ended.returncode == 0, ended.stderr
        assert 0 < stored_by_the_first < 19_998
        assert_whole(store, feeder)


def test_what_is_claimed_while_a_batch_fills_does_not_bring_the_batch_in_hand_again(
    client: redis.Redis, redis_url: str, store_url: str, namespace: str, tmp_path: Path, slots: Path
) -> None:
    """A claim makes all that is pending be read again, so it is not made with anything in hand."""
    settings = replace(
        plain_settings(redis_url, store_url, namespace, tmp_path), claim_after_s=2.0, batch_wait_s=2.0
    )
    with ExitStack() as stack, opened_store(store_url) as store:
        feeder = Feeder(client, namespace)
        entries = feeder.send(feeder.tasks(5), frame=1)
        client.xreadgroup(names.GROUP, "gone", {feeder.keys.stream: ">"})
        # It comes to be abandoned while the batch is being filled.
        client.xclaim(feeder.keys.stream, names.GROUP, "gone", 0, [*entries], idle=1000, justid=True)
        feeder.send(feeder.tasks(10), frame=1)
        consumer = make_consumers(settings, slots, stack)()
        with running(consumer):
            wait_until(lambda: feeder.length() == 0, 30)

        assert_stored_once(store, feeder)
        assert (consumer.progress.received, consumer.progress.duplicates) == (15, 0)
