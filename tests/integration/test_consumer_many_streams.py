"""Many streams cost a consumer little: what it asks of all of them, it asks of a bucket at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from provd.common import names
from provd.consumer.beats import Beats
from provd.consumer.broker import Broker
from provd.consumer.claims import Claims
from provd.consumer.registry import Registry
from provd.consumer.streams import Entry, Streams
from provd.store.interface import Store
from tests.integration.consuming import opened_store
from tests.integration.feeder import BUCKETS, Feeder
from tests.services.redis_server import RedisServer
from tests.services.waiting import wait_until

MANY = 300


@pytest.fixture
def server(private_redis: Callable[..., RedisServer]) -> RedisServer:
    return private_redis()


@pytest.fixture
def client(server: RedisServer) -> Iterator[redis.Redis]:
    with server.client() as client:
        yield client


@pytest.fixture
def broker(server: RedisServer) -> Iterator[Broker]:
    broker = Broker(server.url, connect_timeout_s=1)
    yield broker
    broker.close()


@pytest.fixture
def store(mongo_url: str) -> Iterator[Store]:
    with opened_store(mongo_url) as store:
        store.migrate()
        yield store


@pytest.fixture
def feeders(client: redis.Redis) -> list[Feeder]:
    """One in each of many workflows, in all buckets, each with one frame."""
    feeders = [Feeder(client, "ns", f"w{number}") for number in range(MANY)]
    for feeder in feeders:
        feeder.send(feeder.tasks(1))
    assert len({feeder.keys.registry for feeder in feeders}) == BUCKETS
    return feeders


def registry_of(broker: Broker) -> Registry:
    registry = Registry(broker, namespace="ns", buckets=BUCKETS)
    registry.refresh()
    return registry


def bytes_sent_by(client: redis.Redis) -> int:
    return int(client.info("stats")["total_net_output_bytes"])


def test_heartbeats_of_many_workflows_each_come_into_the_store_once(
    broker: Broker, store: Store, feeders: list[Feeder]
) -> None:
    beats = Beats(broker, store)
    streams = registry_of(broker).streams
    for number, feeder in enumerate(feeders):
        feeder.beat(1_800_000_000_000, ended=number)

    copied = [beats.copy(streams), beats.copy(streams)]
    feeders[7].beat(1_800_000_001_000, ended=8)
    copied.append(beats.copy(streams))

    assert copied == [MANY, 0, 1]
    found = {beat["workflow_id"]: beat["tasks_ended"] for beat in store.find(names.BEATS, {})}
    assert found == {feeder.workflow_id: number for number, feeder in enumerate(feeders)} | {"w7": 8}


def test_what_only_a_consumers_spool_has_heard_of_comes_into_the_store_too(
    client: redis.Redis, broker: Broker, store: Store, feeders: list[Feeder]
) -> None:
    client.hset(feeders[3].keys.spooled, feeders[3].producer_id, "1-5")

    copied = Beats(broker, store).copy(registry_of(broker).streams)

    assert copied == 1
    [beat] = store.find(names.BEATS, {})
    assert (beat["workflow_id"], beat["held"]) == ("w3", [[1, 5]])


@pytest.mark.usefixtures("feeders")
def test_a_workflow_without_a_sign_of_life_costs_a_copy_no_answer(
    client: redis.Redis, broker: Broker, store: Store
) -> None:
    beats, streams = Beats(broker, store), registry_of(broker).streams
    asking = -bytes_sent_by(client) + bytes_sent_by(client)
    before = bytes_sent_by(client)

    beats.copy(streams)

    # Two empty answers for each workflow would be eight bytes, and client and server handle each of them.
    assert bytes_sent_by(client) - before - asking < 4 * MANY


def test_the_lengths_of_many_streams_are_known_whatever_is_among_them(
    client: redis.Redis, broker: Broker, feeders: list[Feeder]
) -> None:
    feeders[5].send(feeders[5].tasks(3), frame=1)
    client.sadd(feeders[6].keys.registry, f"{feeders[6].keys.stream}-text")
    client.set(f"{feeders[6].keys.stream}-text", "not a stream")
    streams = Streams(
        broker, registry_of(broker), consumer="c", read_bytes=1 << 20, read_frames=100, read_messages=2000
    )

    lengths = streams.lengths()

    assert lengths == {feeder.keys.stream: 1 for feeder in feeders} | {feeders[5].keys.stream: 4}


def test_a_look_for_abandoned_frames_asks_only_the_streams_in_which_others_have_some(
    client: redis.Redis, broker: Broker, feeders: list[Feeder]
) -> None:
    registry = registry_of(broker)
    streams = Streams(broker, registry, consumer="c", read_bytes=1 << 20, read_frames=100, read_messages=2000)
    claims = Claims(broker, registry, streams, consumer="c", claim_after_s=0.1)
    for stream, reader in ((feeders[7].keys.stream, "gone"), (feeders[8].keys.stream, "c")):
        client.xreadgroup(names.GROUP, reader, {stream: ">"})
    before = int(client.info("commandstats").get("cmdstat_eval", {}).get("calls", 0))

    claims.look()

    asked = int(client.info("commandstats")["cmdstat_eval"]["calls"]) - before
    assert asked <= BUCKETS + 1
    wait_until(lambda: owners(client, feeders[7]) == ["c"] or claims.look())
    assert owners(client, feeders[7]) == ["c"]


@pytest.mark.parametrize("count", [8, 64])
def test_two_consumers_take_turns_at_streams_with_large_frames(
    client: redis.Redis, broker: Broker, count: int
) -> None:
    """A frame of each stream would be most of what there is, and the other's share what is left."""
    feeders = [Feeder(client, "ns", f"w{number}") for number in range(count)]
    frame = feeders[0].encoded(feeders[0].tasks(500))
    frames = 128 // count
    for feeder in feeders:
        for _ in range(frames):
            feeder.send_raw(*frame)
    registry = registry_of(broker)
    readers = [
        Streams(broker, registry, consumer=name, read_bytes=16 << 20, read_frames=40, read_messages=4000)
        for name in ("one", "two")
    ]

    read: list[list[Entry]] = [[], []]
    while len(read[0]) + len(read[1]) < 128:
        for reader, found in zip(readers, read, strict=True):
            found.extend(reader.read())

    assert abs(len(read[0]) - len(read[1])) <= 128 // 10
    assert {(one.stream, one.entry_id) for one in read[0]}.isdisjoint(
        (one.stream, one.entry_id) for one in read[1]
    )


def test_a_round_over_many_streams_with_a_small_frame_each_takes_few_readings(
    broker: Broker, feeders: list[Feeder]
) -> None:
    streams = Streams(
        broker, registry_of(broker), consumer="c", read_bytes=16 << 20, read_frames=40, read_messages=4000
    )

    readings: list[int] = []
    while sum(readings) < MANY:
        readings.append(len(streams.read()))

    assert len(readings) <= 16  # of a bucket or two each, and never one a stream
    assert {feeder.pending() for feeder in feeders} == {1}


def owners(client: redis.Redis, feeder: Feeder) -> list[str]:
    """Who has the frames of a stream in hand."""
    pending: Any = client.xpending_range(feeder.keys.stream, names.GROUP, "-", "+", 10)
    return [entry["consumer"].decode() for entry in pending]
