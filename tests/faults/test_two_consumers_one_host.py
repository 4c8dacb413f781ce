"""Two consumers on one host: names of their own, and a killed one's place and frames go to the next that is started.

G2: accepted messages reach the store whatever of ours is killed.
"""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import redis

from provd.common import names
from tests.conftest import StartProvd
from tests.faults.proof import assert_stored_once, assert_whole
from tests.integration.consuming import opened_store
from tests.integration.feeder import Feeder
from tests.integration.freezing import freeze_with_frames_in_hand
from tests.services.waiting import wait_until


@pytest.fixture
def services(redis_url: str, mongo_url: str, namespace: str, slots: Path) -> dict[str, str]:
    """The environment of consumers on one host. Nobody takes frames over: a minute is longer than any of these tests."""
    return {
        "PROVD_BROKER_URL": redis_url,
        "PROVD_STORE_URL": mongo_url,
        "PROVD_NAMESPACE": namespace,
        "PROVD_CLAIM_AFTER_S": "600",
        "PROVD_BATCH_MESSAGES": "100",
        "XDG_RUNTIME_DIR": str(slots),
    }


def consumers_of(client: redis.Redis, feeder: Feeder) -> dict[str, int]:
    """Who has read from a stream, and how many frames each holds."""
    found: Any = client.xinfo_consumers(feeder.keys.stream, names.GROUP)
    return {one["name"].decode(): one["pending"] for one in found}


def test_a_killed_consumers_place_and_frames_go_to_the_next_one_at_once(
    start_provd: StartProvd,
    client: redis.Redis,
    mongo_url: str,
    namespace: str,
    services: dict[str, str],
) -> None:
    feeder = Feeder(client, namespace)
    feeder.send([feeder.hello(), *feeder.tasks(8000)], frame=5)
    with opened_store(mongo_url) as store:
        # Two of them share the stream under names that differ
        first = start_provd("consume", env=services)
        wait_until(lambda: store.count(names.TASKS, {}) > 0, 30)
        freeze_with_frames_in_hand(first, feeder)
        (first_name,) = consumers_of(client, feeder)
        second = start_provd("consume", env=services)
        wait_until(lambda: len(consumers_of(client, feeder)) == 2, 30)

        # One is killed with frames in hand; the other one leaves them alone, for they may be in work
        first.kill()
        wait_until(lambda: consumers_of(client, feeder)[first_name] == feeder.length(), 60)
        left = feeder.length()
        assert left > 0

        # The next consumer to be started is the killed one again, and goes on where it was
        third = start_provd("consume", env=services)
        wait_until(lambda: feeder.length() == 0, 30)

        assert set(consumers_of(client, feeder)) == {first_name, first_name.removesuffix("-0") + "-1"}
        assert f"name={first_name} " in third.tail()
        assert_stored_once(store, feeder)

        # And both work on
        feeder.send([*feeder.tasks(1000), feeder.goodbye()], frame=5)
        wait_until(lambda: not client.exists(feeder.keys.stream), 60)
        assert_whole(store, feeder)
    for consumer in (second, third):
        consumer.send(signal.SIGTERM)
        assert consumer.wait(30) == 0, consumer.tail()
