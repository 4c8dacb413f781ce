"""A consumer that is frozen past the claim time and then goes on (SIGSTOP, SIGCONT): nothing lost, nothing twice.

G2: accepted messages reach the store. G3: repetition does not change the stored document.
"""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
import redis

from provd.common import names
from tests.conftest import StartProvd
from tests.faults.proof import assert_stored_once, assert_whole
from tests.integration.consuming import opened_store
from tests.integration.feeder import Feeder
from tests.integration.freezing import freeze_with_frames_in_hand
from tests.services.waiting import wait_until

CLAIM_AFTER_S = 1.0


@pytest.fixture
def services(redis_url: str, store_url: str, namespace: str, slots: Path) -> dict[str, str]:
    """The environment of consumers on one host."""
    return {
        "PROVD_BROKER_URL": redis_url,
        "PROVD_STORE_URL": store_url,
        "PROVD_NAMESPACE": namespace,
        "PROVD_CLAIM_AFTER_S": str(CLAIM_AFTER_S),
        "PROVD_BATCH_MESSAGES": "100",
        "XDG_RUNTIME_DIR": str(slots),
    }


def idle_s(feeder: Feeder) -> float:
    """For how long nobody has shown interest in the frames in hand, as Redis counts it: the least of them."""
    pending = feeder.client.xpending_range(feeder.keys.stream, names.GROUP, "-", "+", 1000)
    return float(min(entry["time_since_delivered"] for entry in pending)) / 1000


@pytest.mark.parametrize("store_url", ["mongodb"], indirect=True)
def test_a_frozen_consumers_frames_are_stored_by_another_and_it_goes_on_when_it_is_thawed(
    start_provd: StartProvd, client: redis.Redis, store_url: str, namespace: str, services: dict[str, str]
) -> None:
    """G2, G3: the second consumer takes over what the first holds; the first then finishes what it had begun."""
    feeder = Feeder(client, namespace)
    feeder.send([feeder.hello(), *feeder.tasks(5000)], frame=5)
    first = start_provd("consume", env=services)
    with opened_store(store_url) as store:
        wait_until(lambda: store.count(names.TASKS, {}) > 0, 30)
        held = freeze_with_frames_in_hand(first, feeder)
        paused_at = time.monotonic()
        idle_before_s = idle_s(feeder)

        second = start_provd("consume", env=services)
        wait_until(lambda: store.count(names.TASKS, {}) == 5000, 60)
        wait_until(lambda: feeder.length() == 0, 30)
        assert held > 0
        assert idle_before_s + time.monotonic() - paused_at > CLAIM_AFTER_S
        assert_stored_once(store, feeder)
        before = sorted(store.find(names.TASKS, {}), key=lambda task: task["task_id"])

        # Thawed, it writes once more what it had in hand. Both go on: first together, then the first alone.
        first.send(signal.SIGCONT)
        feeder.send(feeder.tasks(2000), frame=5)
        wait_until(lambda: store.count(names.TASKS, {}) == 7000, 60)
        after = {task["task_id"]: task for task in store.find(names.TASKS, {})}
        assert [after[task["task_id"]] for task in before] == before

        second.send(signal.SIGTERM)
        assert second.wait(30) == 0
        feeder.send([*feeder.tasks(500), feeder.goodbye()], frame=5)
        wait_until(lambda: store.count(names.PRODUCERS, {"closed_at": {"$exists": True}}) == 1, 30)
        wait_until(lambda: not client.exists(feeder.keys.stream) or feeder.length() == 0, 30)
        assert_whole(store, feeder)
    first.send(signal.SIGTERM)
    assert first.wait(30) == 0, first.tail()


@pytest.mark.parametrize("store_url", ["embedded"], indirect=True)
def test_a_consumer_frozen_while_it_writes_to_the_embedded_store_holds_the_other_up_and_costs_nothing(
    start_provd: StartProvd, client: redis.Redis, store_url: str, namespace: str, services: dict[str, str]
) -> None:
    """G2, G3: the file has one writer at a time; whoever waits for it waits, and then goes on."""
    feeder = Feeder(client, namespace)
    feeder.send([feeder.hello(), *feeder.tasks(4998), feeder.goodbye()], frame=5)
    first = start_provd("consume", env=services)
    with opened_store(store_url) as store:
        wait_until(lambda: Path(store_url.removeprefix("sqlite:///")).exists(), 30)
        wait_until(lambda: feeder.length() < 1000, 30)
        freeze_with_frames_in_hand(first, feeder)
        second = start_provd("consume", env=services)
        wait_until(lambda: "consumer started" in second.tail(), 30)
        # Past the claim time: the second looks four times within it, and has then waited that long at least.
        paused_at = time.monotonic()
        wait_until(lambda: time.monotonic() - paused_at > 1.5 * CLAIM_AFTER_S)

        first.send(signal.SIGCONT)
        wait_until(lambda: not client.exists(feeder.keys.stream), 60)

        assert_whole(store, feeder)
    for consumer in (first, second):
        consumer.send(signal.SIGTERM)
        assert consumer.wait(30) == 0, consumer.tail()
