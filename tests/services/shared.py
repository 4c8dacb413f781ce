"""The one Redis and the one MongoDB that a whole run of tests shares.

Taken in this order: a URL in the environment, a binary on `PATH`, the binary in a wheel, a container.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pymongo
import redis
from pymongo.errors import PyMongoError

from tests.services.binaries import Binary, ServiceMissing, find_mongod, find_redis_server
from tests.services.mongo_server import MongoServer
from tests.services.redis_server import RedisServer

REDIS_VARIABLE = "PROVD_TEST_REDIS_URL"
MONGO_VARIABLE = "PROVD_TEST_MONGO_URL"

_REDIS_IMAGE = "redis:7.2"
_MONGO_IMAGE = "mongo:6.0"


@dataclass(frozen=True, slots=True)
class Source:
    """Where a shared service comes from, and how to have it for the length of a run."""

    description: str
    open: Callable[[Path], Iterator[str]]


@functools.cache
def redis_source() -> Source:
    """The Redis of this run; raises `ServiceMissing`."""
    given = os.environ.get(REDIS_VARIABLE)
    if given:
        return Source(f"redis {_redis_version(given)} ({REDIS_VARIABLE})", lambda _: iter([given]))
    try:
        binary = find_redis_server()
    except ServiceMissing as missing:
        return _container(missing, _REDIS_IMAGE, REDIS_VARIABLE, _redis_container)
    return Source(_describe("redis", binary), _run_redis)


@functools.cache
def mongo_source() -> Source:
    """The MongoDB of this run; raises `ServiceMissing`."""
    given = os.environ.get(MONGO_VARIABLE)
    if given:
        return Source(f"mongodb {_mongo_version(given)} ({MONGO_VARIABLE})", lambda _: iter([given]))
    try:
        binary = find_mongod()
    except ServiceMissing as missing:
        return _container(missing, _MONGO_IMAGE, MONGO_VARIABLE, _mongo_container)
    return Source(_describe("mongodb", binary), _run_mongo)


@contextmanager
def opened(source: Source, folder: Path) -> Iterator[str]:
    """The URL of a running service; it is ended on leaving."""
    yield from source.open(folder)


def _describe(name: str, binary: Binary) -> str:
    return f"{name} {binary.version} ({binary.origin}: {binary.path})"


def _run_redis(folder: Path) -> Iterator[str]:
    # Durability is a matter for the fault tests, which run servers of their own.
    server = RedisServer(folder, config={"appendonly": "no"})
    try:
        server.start()
        yield server.url
    finally:
        server.close()


def _run_mongo(folder: Path) -> Iterator[str]:
    server = MongoServer(folder)
    try:
        server.start()
        yield server.url
    finally:
        server.close()


def _redis_version(url: str) -> str:
    try:
        with redis.Redis.from_url(url, socket_connect_timeout=5, socket_timeout=5) as client:
            return str(client.info("server")["redis_version"])
    except redis.RedisError as error:
        raise ServiceMissing(f"{REDIS_VARIABLE}={_masked(url)} does not answer: {error}") from error


def _mongo_version(url: str) -> str:
    try:
        with pymongo.MongoClient[dict[str, object]](url, serverSelectionTimeoutMS=5000) as client:
            return str(client.server_info()["version"])
    except PyMongoError as error:
        raise ServiceMissing(f"{MONGO_VARIABLE}={_masked(url)} does not answer") from error


def _masked(url: str) -> str:
    password = urlsplit(url).password
    return url.replace(f":{password}@", ":***@") if password else url


def _container(
    missing: ServiceMissing, image: str, variable: str, run: Callable[[Path], Iterator[str]]
) -> Source:
    if not _docker_answers():
        raise ServiceMissing(f"{missing}; no Docker engine answers; or set {variable}") from missing
    return Source(f"{image} (container)", run)


@functools.cache
def _docker_answers() -> bool:
    try:
        import docker
        from docker.errors import DockerException
    except ImportError:
        return False
    try:
        client = docker.from_env(timeout=5)
    except DockerException:
        return False
    try:
        return bool(client.ping())
    except DockerException:
        return False
    finally:
        client.close()


def _redis_container(_: Path) -> Iterator[str]:
    from testcontainers.redis import RedisContainer

    with RedisContainer(_REDIS_IMAGE) as container:
        yield f"redis://{container.get_container_host_ip()}:{container.get_exposed_port(6379)}/0"


def _mongo_container(_: Path) -> Iterator[str]:
    from testcontainers.mongodb import MongoDbContainer

    with MongoDbContainer(_MONGO_IMAGE) as container:
        yield container.get_connection_url()


def main() -> int:
    """Say which services the tests will use; exit 1 and say what to install when one is missing."""
    code = 0
    for source in (redis_source, mongo_source):
        try:
            print(source().description)
        except ServiceMissing as missing:
            print(f"error: {missing}", file=sys.stderr)
            code = 1
    return code


if __name__ == "__main__":
    raise SystemExit(main())
