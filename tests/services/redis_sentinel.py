"""Redis with Sentinel: a master, two replicas and three Sentinels of the tests' own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import redis

from tests.services.binaries import find_redis_server
from tests.services.child import Child
from tests.services.ports import free_port
from tests.services.redis_server import RedisServer
from tests.services.waiting import wait_until

SERVICE = "provd"

_READY_S = 30.0

_SENTINEL = """\
port {port}
bind 127.0.0.1
dir {folder}
daemonize no
sentinel monitor {service} 127.0.0.1 {master} 2
sentinel down-after-milliseconds {service} 1500
sentinel failover-timeout {service} 4000
sentinel parallel-syncs {service} 2
"""


class RedisSentinel:
    """Three servers, of which the Sentinels keep one as master."""

    def __init__(
        self,
        folder: Path,
        *,
        config: Mapping[str, str] | None = None,
        password: str = "",
        sentinel_password: str = "",
    ) -> None:
        """`config` is that of every server. A replica takes part in the first synchronisation at once."""
        settings = {"repl-diskless-sync-delay": "0", **(config or {})}
        if password:
            settings |= {"requirepass": password, "masterauth": password}
        self._password = password
        self._sentinel_password = sentinel_password
        self.servers = [
            RedisServer(
                folder / f"redis-{number}", config=settings, credentials=f":{password}" if password else ""
            )
            for number in range(3)
        ]
        self.sentinels = [
            _Sentinel(
                folder / f"sentinel-{number}", self.servers[0], password=password, own=sentinel_password
            )
            for number in range(3)
        ]

    @property
    def url(self) -> str:
        """The address that provd is given."""
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        user = f":{self._password}@" if self._password else ""
        option = f"?sentinel_password={self._sentinel_password}" if self._sentinel_password else ""
        return f"redis+sentinel://{user}{hosts}/{SERVICE}{option}"

    def start(self) -> None:
        """Start all, and return when the replicas follow the master and the Sentinels know everybody."""
        for server in self.servers:
            server.start()
        for replica in self.servers[1:]:
            with replica.client() as client:
                client.replicaof("127.0.0.1", self.servers[0].port)
        wait_until(lambda: self.replicas_of(self.servers[0]) == 2, _READY_S, "two replicas")
        for sentinel in self.sentinels:
            sentinel.child.start()
        wait_until(
            lambda: all(sentinel.knows(replicas=2, sentinels=2) for sentinel in self.sentinels),
            _READY_S,
            "three Sentinels that know one another",
        )

    @property
    def master(self) -> RedisServer:
        """The server that the first Sentinel has as master."""
        port = self.sentinels[0].master_port()
        return next(server for server in self.servers if server.port == port)

    def replicas_of(self, server: RedisServer) -> int:
        """How many replicas follow this server, and have all that it had when they began."""
        with server.client() as client:
            facts: Any = client.info("replication")
        return sum(
            1
            for number in range(int(facts["connected_slaves"]))
            if facts[f"slave{number}"]["state"] == "online"
        )

    def wait_for_failover(self, before: RedisServer, timeout: float = 60.0) -> RedisServer:
        """Wait until another server than this one is master, for all Sentinels and for itself; returns it."""

        def is_done() -> bool:
            named = {sentinel.master_port() for sentinel in self.sentinels}
            return len(named) == 1 and before.port not in named and _is_master(self.master)

        wait_until(is_done, timeout, "another master")
        return self.master

    def close(self) -> None:
        """End all."""
        for sentinel in self.sentinels:
            sentinel.child.kill()
        for server in self.servers:
            server.close()


class _Sentinel:
    """One Sentinel; it keeps what it learns in its configuration file."""

    def __init__(self, folder: Path, master: RedisServer, *, password: str, own: str) -> None:
        """`password` is that of the servers, `own` that of the Sentinels; empty for none."""
        folder.mkdir(parents=True)
        self.port = free_port()
        file = folder / "sentinel.conf"
        file.write_text(_SENTINEL.format(port=self.port, folder=folder, service=SERVICE, master=master.port))
        self._own = own
        with file.open("a") as more:
            more.write(f"sentinel auth-pass {SERVICE} {password}\n" if password else "")
            more.write(f"requirepass {own}\n" if own else "")
        self.child = Child(
            [find_redis_server().path, str(file), "--sentinel"], log=folder / "sentinel.log", cwd=folder
        )

    def client(self) -> redis.Redis:
        return redis.Redis(
            port=self.port, password=self._own or None, socket_timeout=5, decode_responses=True
        )

    def knows(self, *, replicas: int, sentinels: int) -> bool:
        try:
            with self.client() as client:
                facts: Any = client.sentinel_master(SERVICE)
        except redis.RedisError:
            return False
        return bool(facts["num-slaves"] == replicas and facts["num-other-sentinels"] == sentinels)

    def quorum(self) -> str:
        try:
            with self.client() as client:
                return str(client.execute_command("SENTINEL", "CKQUORUM", SERVICE))
        except redis.ResponseError as error:
            return str(error)

    def master_port(self) -> int:
        with self.client() as client:
            address: Any = client.sentinel_get_master_addr_by_name(SERVICE)
        return int(address[1])


def _is_master(server: RedisServer) -> bool:
    with server.client() as client:
        facts: Any = client.info("replication")
    return bool(facts["role"] == "master")
