"""The services that other tests stand on: they start, die, and come back with their data."""

from __future__ import annotations

from collections.abc import Callable

import pymongo
import pytest
import redis
from pymongo.errors import PyMongoError

from tests.services.mongo_server import MongoServer
from tests.services.ports import free_port, free_port_with
from tests.services.redis_server import RedisServer


def test_the_shared_redis_takes_keys_of_the_tests_namespace(redis_url: str, namespace: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.set(f"{namespace}:key", "value")

        assert client.get(f"{namespace}:key") == b"value"


def test_the_shared_mongodb_gives_every_test_an_empty_database(mongo_url: str) -> None:
    with pymongo.MongoClient[dict[str, object]](mongo_url) as client:
        assert client.get_default_database().list_collection_names() == []

        client.get_default_database()["things"].insert_one({"_id": 1})


@pytest.mark.parametrize("unix_socket", [False, True])
def test_a_private_redis_that_was_restarted_has_its_data_and_its_address(
    private_redis: Callable[..., RedisServer], unix_socket: bool
) -> None:
    server = private_redis(unix_socket=unix_socket)
    url = server.url
    with server.client() as client:
        client.set("key", "value")

    server.restart()

    assert server.url == url
    with server.client() as client:
        assert client.get("key") == b"value"


def test_no_port_is_given_twice_though_nobody_listens_on_it_yet() -> None:
    alone = [free_port() for _ in range(1000)]
    first = [free_port_with(10_000) for _ in range(500)]
    given = [*alone, *first, *(port + 10_000 for port in first)]

    assert len(set(given)) == len(given)


def test_a_killed_redis_refuses_connections(private_redis: Callable[..., RedisServer]) -> None:
    server = private_redis()

    server.kill()

    with server.client() as client, pytest.raises(redis.ConnectionError):
        client.ping()


def test_a_paused_redis_does_not_answer_until_it_is_resumed(
    private_redis: Callable[..., RedisServer],
) -> None:
    server = private_redis()

    server.pause()

    with redis.Redis.from_url(server.url, socket_timeout=0.2, retry=None) as client:
        with pytest.raises(redis.TimeoutError):
            client.ping()

    server.resume()

    with server.client() as client:
        assert client.ping()


@pytest.mark.parametrize("replica_set", [False, True])
def test_a_private_mongodb_that_was_killed_comes_back_with_its_durable_data(
    private_mongo: Callable[..., MongoServer], replica_set: bool
) -> None:
    server = private_mongo(replica_set=replica_set)
    durable = pymongo.WriteConcern(w="majority", j=True)
    with server.client() as client:
        client["provd"].get_collection("things", write_concern=durable).insert_one({"_id": 1})

    server.kill()

    with pymongo.MongoClient[dict[str, object]](server.url, serverSelectionTimeoutMS=100) as client:
        with pytest.raises(PyMongoError):
            client.admin.command("ping")

    server.start()

    with server.client() as client:
        assert client["provd"]["things"].find_one() == {"_id": 1}
