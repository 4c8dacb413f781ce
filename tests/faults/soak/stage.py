"""The services of a soak and its consumers, in one folder, with the settings that everything of ours gets."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis

from tests.faults.soak.scale import Scale
from tests.services.child import Child
from tests.services.mongo_server import MongoServer
from tests.services.redis_server import RedisServer

DATABASE = "soak"
NAMESPACE = "soak"

#: Redis' memory when it is not meant to be short.
ROOMY_BYTES = 512 << 20

#: Variables of the surroundings that would have a say in who a producer is.
_FOREIGN = (
    "PROVD_",
    "SLURM_",
    "PBS_",
    "LSB_",
    "COBALT_",
    "FLUX_",
    "PMI",
    "PALS_",
    "OMPI_",
    "MPI_",
    "JSM_",
    "XDG_",
)


class Consumer(Child):
    """One `provd consume`, again and again."""

    def __init__(self, name: str, folder: Path, env: Mapping[str, str]) -> None:
        super().__init__(
            [sys.executable, "-m", "provd", "consume"], log=folder / f"{name}.log", env=env, cwd=folder
        )
        self._log_began = 0

    def start(self) -> None:
        self._log_began = self.log.stat().st_size if self.log.exists() else 0
        super().start()

    def has_begun(self) -> bool:
        """Whether it has said so: from then on SIGTERM is an order, before it is the interpreter's end."""
        with self.log.open("rb") as output:
            output.seek(self._log_began)
            return b"consumer started" in output.read()


class Stage:
    """Redis, MongoDB and a few consumers."""

    def __init__(self, scale: Scale, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.redis = RedisServer(folder / "redis", config={"maxmemory": str(ROOMY_BYTES)})
        self.mongo = MongoServer(folder / "mongo")
        self.spool = folder / "spool"
        self.consumer_spool = folder / "consumer-spool"
        self.env = self._environment(scale)
        consuming = {**self.env, "PROVD_SPOOL_DIR": str(self.consumer_spool)}
        self.consumers = {
            name: Consumer(name, folder, consuming)
            for name in (f"consumer-{number}" for number in range(scale.consumers))
        }

    def _environment(self, scale: Scale) -> dict[str, str]:
        home = self.folder / "home"
        runtime = self.folder / "run"
        for place in (home, runtime):
            place.mkdir(mode=0o700, exist_ok=True)
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
        return {
            **inherited,
            "HOME": str(home),
            "XDG_RUNTIME_DIR": str(runtime),
            "PROVD_BROKER_URL": self.redis.url,
            "PROVD_STORE_URL": self.mongo.database_url(DATABASE),
            "PROVD_NAMESPACE": NAMESPACE,
            "PROVD_SPOOL_DIR": str(self.spool),
            "PROVD_DATA_DIR": str(home / "data"),
            "PROVD_DURABILITY": scale.durability,
            "PROVD_CLAIM_AFTER_S": str(scale.claim_after_s),
            "PROVD_HEARTBEAT_S": str(scale.heartbeat_s),
            "PROVD_BATCH_MESSAGES": str(scale.batch_messages),
            "PROVD_SPOOL_FREE_FLOOR": "0",
        }

    @property
    def steady(self) -> Consumer:
        """The consumer that is never ended before the soak is."""
        return self.consumers["consumer-0"]

    def mortal(self) -> list[str]:
        """Consumers that may be ended."""
        return list(self.consumers)[1:]

    def start(self) -> None:
        self.redis.start()
        self.mongo.start()
        for consumer in self.consumers.values():
            consumer.start()

    @contextmanager
    def broker(self) -> Iterator[Any]:
        """A client of the soak's own."""
        client = self.redis.client()
        try:
            yield client
        finally:
            client.close()

    def torn(self, count: int) -> None:
        """Take the last bytes off the file that Redis, which does not run, left behind, as a machine's crash does."""
        files = sorted((self.redis.folder / "appendonlydir").glob("*.incr.aof"))
        for file in files[-1:]:
            os.truncate(file, max(0, file.stat().st_size - count))

    def wiped(self) -> None:
        """Take away all that Redis, which does not run, left behind."""
        for file in (self.redis.folder / "appendonlydir").iterdir():
            file.unlink()

    def close(self) -> None:
        """End everything, whatever state it is in."""
        for consumer in self.consumers.values():
            consumer.kill()
        self.redis.child.kill()
        self.mongo.close()
        self.redis.close()


def is_settled(client: redis.Redis) -> bool:
    """Whether no stream has an entry, delivered or not."""
    streams = list(client.scan_iter(match=f"{NAMESPACE}:*:stream:*", count=1000))
    return all(client.xlen(stream) == 0 for stream in streams)


def settings_of(env: Mapping[str, str]) -> dict[str, str]:
    """Only our own variables, as one would type them to look into a soak that failed."""
    return {name: value for name, value in env.items() if name.startswith("PROVD_")}
