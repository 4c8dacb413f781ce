"""The producer's connection to one Redis: which life of it this is, and what it has of receipts."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from provd.common.errors import BrokerUnavailable
from provd.common.ranges import Ranges
from provd.producer.broker import Broker
from tests.services.redis_server import RedisServer


def open_broker(url: str) -> Broker:
    broker = Broker(url, namespace="ns", buckets=16, timeout_s=1)
    broker.open()
    return broker


def test_the_generation_stays_while_redis_lives_and_is_the_same_for_everybody(
    private_redis: Callable[..., RedisServer],
) -> None:
    server = private_redis()
    one, other = open_broker(server.url), open_broker(server.url)
    before = one.generation
    one.open()

    assert one.generation == other.generation == before != ""
    one.close()
    other.close()


def test_a_restart_of_redis_between_two_sends_is_noticed(private_redis: Callable[..., RedisServer]) -> None:
    """The client connects again without a word: what Redis lost meanwhile must be sent again all the same."""
    server = private_redis()
    broker = open_broker(server.url)
    keys = broker.keys_of("w1", None)
    before = broker.generation

    server.kill()
    server.start()
    broker.stored([(keys, "p1")])  # answered, by another life of Redis
    broker.open()

    assert broker.generation != before
    broker.close()


def test_another_master_of_a_replica_is_another_generation(private_redis: Callable[..., RedisServer]) -> None:
    """A server that was made a replica, and then master again, has thrown away what it had of its own."""
    first, second = private_redis(), private_redis()
    before = open_broker(first.url)
    with first.client() as client:
        client.replicaof("127.0.0.1", second.port)
        with pytest.raises(BrokerUnavailable, match="read only"):
            Broker(first.url, namespace="other", buckets=16, timeout_s=1).open()
        client.execute_command("REPLICAOF", "NO", "ONE")
    after = open_broker(first.url)

    assert after.generation != before.generation
    before.close()
    after.close()


def test_receipts_are_read_as_ranges(private_redis: Callable[..., RedisServer]) -> None:
    server = private_redis()
    broker = open_broker(server.url)
    one, other = broker.keys_of("w1", None), broker.keys_of("w2", "camp")
    with server.client() as client:
        client.hset(one.stored, "p1", "1-500,701-900")
        client.hset(other.stored, "p1", "1-3")

    found = broker.stored([(one, "p1"), (one, "p2"), (other, "p1")])

    assert found == [Ranges.of([(1, 500), (701, 900)]), Ranges(), Ranges.of([(1, 3)])]
    assert broker.stored([]) == []
    broker.close()


def test_a_url_that_makes_no_sense_is_told_as_a_broker_that_is_away() -> None:
    """G1: inside a program nothing is raised but what the sender knows."""
    with pytest.raises(BrokerUnavailable, match="names no service") as caught:
        Broker("redis+sentinel://u:geheim12@h1:26379", namespace="ns", buckets=16, timeout_s=1)

    assert "geheim12" not in str(caught.value)
