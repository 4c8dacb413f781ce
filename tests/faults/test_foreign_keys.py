"""Keys in Redis that somebody has put where ours stand: they hold nobody up (G4)."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis

from provd.common import names
from provd.consumer.broker import Broker
from provd.consumer.registry import Registry
from tests.integration.consuming import consume, opened_store
from tests.integration.feeder import BUCKETS, Feeder


@pytest.mark.parametrize("receipt", [False, True], ids=["memory", "disk"])
@pytest.mark.parametrize("which", ["beats", "spooled", "stored", "suspects"])
def test_a_workflows_key_of_another_type_holds_nobody_up(
    redis_url: str,
    client: redis.Redis,
    mongo_url: str,
    namespace: str,
    tmp_path: Path,
    slots: Path,
    which: str,
    receipt: bool,
) -> None:
    feeders = [Feeder(client, namespace, f"w{number}", receipt=receipt) for number in range(20)]
    for feeder in feeders:
        feeder.whole_run(3)
        feeder.beat(1_800_000_000_000, ended=3)
    foreign = getattr(feeders[3].keys, which)
    client.delete(foreign)
    client.set(foreign, "x")

    consume(redis_url, mongo_url, namespace, tmp_path, slots)

    with opened_store(mongo_url) as store:
        assert store.count(names.TASKS, {}) == 60
        beats = {beat["workflow_id"] for beat in store.find(names.BEATS, {})}
        assert beats >= {feeder.workflow_id for feeder in feeders} - {"w3"}
    assert not list(client.scan_iter(f"{namespace}:*:stream:*"))


def test_what_stands_in_a_registry_and_is_no_stream_of_its_bucket_is_left_alone(
    redis_url: str, client: redis.Redis, namespace: str
) -> None:
    """A Cluster refuses a call about keys of two buckets as a whole."""
    feeder = Feeder(client, namespace)
    feeder.send(feeder.tasks(1))
    other = next(
        Feeder(client, namespace, f"w{number}")
        for number in range(100)
        if names.bucket_of(f"w{number}", BUCKETS) != names.bucket_of("w1", BUCKETS)
    )
    for foreign in (other.keys.stream, "text", f"{feeder.keys.registry}", feeder.keys.beats, b"\xff"):
        client.sadd(feeder.keys.registry, foreign)
    broker = Broker(redis_url, connect_timeout_s=2)
    registry = Registry(broker, namespace=namespace, buckets=BUCKETS)

    registry.refresh()

    assert registry.streams == [feeder.keys.stream]
    broker.close()
