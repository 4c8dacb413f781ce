"""SIGKILL at each point of a frame's way through the consumer: every task once, books exact.

G2: accepted messages reach the store whatever of ours is killed; a frame is acknowledged only after the store
confirmed it, or after fsync of the consumer's own spool. G3: repetition does not change the stored document.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import redis

from provd.common import names
from provd.common.settings import Settings
from provd.common.spool import spool_files
from tests.faults import doomed
from tests.faults.proof import assert_stored_once, assert_whole
from tests.integration.consuming import make_consumers, opened_store, plain_settings, running
from tests.integration.feeder import Feeder
from tests.services.child import Child
from tests.services.redis_server import RedisServer
from tests.services.waiting import wait_until

PrivateRedis = Callable[..., RedisServer]

#: Where nobody listens.
NO_STORE = "mongodb://127.0.0.1:1/provd"


def kill_a_consumer(settings: Settings, slots: Path, point: str) -> None:
    """Run a consumer in a process of its own until it has ended itself at `point`."""
    child = Child(
        [sys.executable, doomed.__file__, json.dumps(asdict(settings)), slots, point],
        log=slots / "doomed.log",
        env={**os.environ, "PYTHONPATH": str(Path(doomed.__file__).parents[2])},
    )
    child.start()
    try:
        assert child.wait(60) == -signal.SIGKILL, child.tail()
    finally:
        child.kill()


@pytest.mark.parametrize("point", [*doomed.STORE_POINTS, "twice, " + doomed.STORE_POINTS[2]])
def test_a_consumer_killed_with_frames_in_hand_loses_and_doubles_nothing(
    client: redis.Redis,
    redis_url: str,
    store_url: str,
    namespace: str,
    tmp_path: Path,
    slots: Path,
    point: str,
) -> None:
    """G2, G3: the consumer that is started next has all of it stored, once, with the books exact."""
    settings = replace(plain_settings(redis_url, store_url, namespace, tmp_path), batch_messages=1000)
    feeder, flawed = Feeder(client, namespace), Feeder(client, namespace, "w2")
    feeder.send([feeder.hello(), *feeder.tasks(2998), feeder.goodbye()], frame=100)
    flawed.send_garbled(flawed.tasks(20))
    with ExitStack() as stack, opened_store(store_url) as store:
        times = 2 if point.startswith("twice, ") else 1
        for _ in range(times):
            kill_a_consumer(settings, slots, point.removeprefix("twice, "))
        stored_by_the_dead = sum(map(len, store.stored_ranges("w1").values()))

        make_consumers(settings, slots, stack)().run_until_empty()

        assert_whole(store, feeder)
        assert stored_by_the_dead <= 1000
        assert store.count(names.TASKS, {"workflow_id": "w2"}) == 19
        assert store.count(names.QUARANTINE, {}) == 1
        assert (flawed.length(), flawed.pending()) == (0, 0)


def test_acknowledgement_and_deletion_are_one_step_of_redis(
    client: redis.Redis, redis_url: str, mongo_url: str, namespace: str, tmp_path: Path, slots: Path
) -> None:
    """There is no moment between them at which a kill could leak an entry: both are in one script."""
    settings = plain_settings(redis_url, mongo_url, namespace, tmp_path)
    feeder = Feeder(client, namespace)
    feeder.send(feeder.tasks(500), frame=10)
    with ExitStack() as stack, client.monitor() as monitor:  # type: ignore[no-untyped-call]
        make_consumers(settings, slots, stack)().run_until_empty()
        client.echo("the end")
        commands = []
        told: Any = monitor.listen()
        for seen in told:
            if "the end" in seen["command"]:
                break
            commands.append((seen["client_type"], seen["command"].split()[0].upper(), seen["command"]))

    ours = [(kind, name) for kind, name, text in commands if feeder.keys.stream in text]
    steps = [(kind, name) for kind, name in ours if name in ("XACK", "XDEL")]
    assert {kind for kind, _ in steps} == {"lua"}
    assert [name for _, name in steps] == ["XACK", "XDEL"] * (len(steps) // 2)
    assert steps


@pytest.mark.parametrize("point", doomed.SPOOL_POINTS)
def test_a_consumer_killed_on_the_way_to_its_own_spool_loses_and_doubles_nothing(
    private_redis: PrivateRedis, store_url: str, tmp_path: Path, slots: Path, point: str
) -> None:
    """G2: the store is away and Redis fills up: acknowledged is what is synced, and nothing else."""
    server = private_redis(config={"maxmemory": "64mb"})
    settings = replace(
        plain_settings(server.url, NO_STORE, "ns", tmp_path), drain_share=0.01, spool_free_floor=0.0
    )
    with ExitStack() as stack, server.client() as client, opened_store(store_url) as store:
        feeder = Feeder(client, "ns")
        feeder.send([feeder.hello(), *feeder.tasks(398)], frame=40)
        kill_a_consumer(settings, slots, point)
        frames_acknowledged = 10 - feeder.length()
        spooled = spool_files([settings.spool_path], with_open=True)

        consumer = make_consumers(replace(settings, store_url=store_url), slots, stack)()
        consumer.run_until_empty()
        feeder.send([feeder.goodbye()])
        consumer.run_until_empty()

        assert_whole(store, feeder)
        assert len(spooled) == 1
        assert (frames_acknowledged > 0) == (point == doomed.SPOOL_POINTS[-1])
        assert store.count(names.QUARANTINE, {}) == 0


@pytest.mark.parametrize("point", doomed.BRINGING_POINTS)
def test_a_consumer_killed_while_it_brings_its_spool_back_loses_and_doubles_nothing(
    private_redis: PrivateRedis, store_url: str, tmp_path: Path, slots: Path, point: str
) -> None:
    """G2: what a consumer spooled while the store was away reaches it, once."""
    server = private_redis(config={"maxmemory": "64mb"})
    settings = replace(
        plain_settings(server.url, NO_STORE, "ns", tmp_path), drain_share=0.01, spool_free_floor=0.0
    )
    with ExitStack() as stack, server.client() as client, opened_store(store_url) as store:
        feeder = Feeder(client, "ns")
        feeder.send([feeder.hello(), *feeder.tasks(5000)], frame=40)
        spool_everything(settings, slots, feeder)

        kill_a_consumer(replace(settings, store_url=store_url), slots, point)
        assert spool_files([settings.spool_path], with_open=True) != []

        consumer = make_consumers(replace(settings, store_url=store_url), slots, stack)()
        consumer.run_until_empty()
        assert_stored_once(store, feeder)
        feeder.send([feeder.goodbye()])
        consumer.run_until_empty()

        assert_whole(store, feeder)
        wait_until(lambda: spool_files([settings.spool_path], with_open=True) == [])


def spool_everything(settings: Settings, slots: Path, feeder: Feeder) -> None:
    """Have a consumer without a store take all of a stream to its own spool."""
    with ExitStack() as stack:
        with running(make_consumers(settings, slots, stack)()):
            wait_until(lambda: feeder.length() == 0, 20)
