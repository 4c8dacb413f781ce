"""Real servers for a run, each with a fresh folder, ended with the block."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.services.mongo_server import MongoServer
from tests.services.redis_server import RedisServer


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="provd-bench-") as folder:
        yield Path(folder)


@contextmanager
def redis_server(**config: str) -> Iterator[RedisServer]:
    """A Redis as deploy/redis/redis.conf has it (AOF every second, noeviction); `config` overrides."""
    with scratch() as folder:
        server = RedisServer(folder, config={name.replace("_", "-"): value for name, value in config.items()})
        server.start()
        try:
            yield server
        finally:
            server.close()


@contextmanager
def mongo_server(*, cache_gib: float = 2.0) -> Iterator[MongoServer]:
    """A single mongod with a journal, and a cache of the size a small server gives it."""
    with scratch() as folder:
        server = MongoServer(folder, cache_gib=cache_gib)
        server.start()
        try:
            yield server
        finally:
            server.close()
