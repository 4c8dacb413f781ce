"""A Redis Cluster of the tests' own: three masters, each with a replica."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import redis

from tests.services.ports import free_port_with
from tests.services.redis_server import RedisServer
from tests.services.waiting import wait_until

_READY_S = 60.0
_SLOTS = 16_384
_BUS = 10_000

_CONFIG = {
    "cluster-enabled": "yes",
    "cluster-node-timeout": "1000",
    "cluster-config-file": "nodes.conf",
    "repl-diskless-sync-delay": "0",
}


class RedisCluster:
    """Six servers; the first three begin as masters, the fourth as replica of the first, and so on."""

    def __init__(
        self,
        folder: Path,
        *,
        masters: int = 3,
        replicas: bool = True,
        config: Mapping[str, str] | None = None,
    ) -> None:
        """`config` is that of every server."""
        count = masters * 2 if replicas else masters
        self._masters = masters
        self.servers = [
            RedisServer(
                folder / f"redis-{number}", config={**_CONFIG, **(config or {})}, port=free_port_with(_BUS)
            )
            for number in range(count)
        ]

    @property
    def url(self) -> str:
        """The address that provd is given: every server, since any may be asked."""
        return "redis+cluster://" + ",".join(f"127.0.0.1:{server.port}" for server in self.servers)

    def start(self) -> None:
        """Start all, make them one cluster, and return when every slot is served and every replica follows."""
        for server in self.servers:
            server.start()
        for number, server in enumerate(self.servers[: self._masters]):
            first, end = (_SLOTS * at // self._masters for at in (number, number + 1))
            _ask(server, "CLUSTER", "ADDSLOTS", *range(first, end))
            _ask(server, "CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for server in self.servers[1:]:
            _ask(self.servers[0], "CLUSTER", "MEET", "127.0.0.1", server.port)
        wait_until(lambda: all(self._has_met(server) for server in self.servers), _READY_S, "a cluster")
        for number, server in enumerate(self.servers[self._masters :]):
            master = _ask(self.servers[number], "CLUSTER", "MYID")
            wait_until(partial(self._replicates, server, master), _READY_S, "a replica's master")
        wait_until(lambda: all(map(self._is_sound, self.servers)), _READY_S, "a sound cluster")

    def master_of(self, key: str) -> RedisServer:
        """The server that has this key, for a server that is up."""
        slot = int(_ask(self._any(), "CLUSTER", "KEYSLOT", key))
        return next(server for first, last, server in self.slots() if first <= slot <= last)

    def masters(self) -> list[RedisServer]:
        """The servers that have slots."""
        return list({id(server): server for _, _, server in self.slots()}.values())

    def slots(self) -> list[tuple[int, int, RedisServer]]:
        """First slot, last slot, and the server that has them."""
        by_port = {server.port: server for server in self.servers}
        lines: Any = _ask(self._any(), "CLUSTER", "SLOTS")
        return [(int(first), int(last), by_port[int(master[1])]) for first, last, master, *_ in lines]

    def move_slot(self, slot: int, target: RedisServer) -> None:
        """Give a slot without keys to another master."""
        source = next(server for first, last, server in self.slots() if first <= slot <= last)
        source_id, target_id = (_ask(server, "CLUSTER", "MYID") for server in (source, target))
        _ask(target, "CLUSTER", "SETSLOT", slot, "IMPORTING", source_id)
        _ask(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", target_id)
        for server in (target, source, *(one for one in self.masters() if one not in (source, target))):
            _ask(server, "CLUSTER", "SETSLOT", slot, "NODE", target_id)

    def wait_for_failover(self, dead: RedisServer, timeout: float = 60.0) -> None:
        """Wait until every other server has another in the place of this one, and serves."""
        others = [server for server in self.servers if server is not dead and server.child.is_running]

        def is_done() -> bool:
            for server in others:
                lines: Any = _ask(server, "CLUSTER", "SLOTS")
                if any(int(line[2][1]) == dead.port for line in lines) or not _is_ok(server):
                    return False
            return True

        wait_until(is_done, timeout, "another master in the place of the dead one")

    def clients(self) -> list[redis.Redis]:
        """A client of every master, to be closed by the test."""
        return [server.client() for server in self.masters()]

    def close(self) -> None:
        """End all."""
        for server in self.servers:
            server.close()

    def _any(self) -> RedisServer:
        return next(server for server in self.servers if server.child.is_running)

    def _has_met(self, server: RedisServer) -> bool:
        facts = _facts(_ask(server, "CLUSTER", "INFO"))
        return facts["cluster_known_nodes"] == str(len(self.servers)) and facts["cluster_state"] == "ok"

    def _replicates(self, server: RedisServer, master_id: Any) -> bool:
        try:
            return bool(_ask(server, "CLUSTER", "REPLICATE", master_id))
        except redis.ResponseError:  # it has not heard of its master yet
            return False

    def _is_sound(self, server: RedisServer) -> bool:
        facts: Any = _ask(server, "INFO", "replication")
        if facts["role"] == "slave":
            return _is_ok(server) and facts["master_link_status"] == "up"
        return _is_ok(server) and facts["connected_slaves"] == len(self.servers) // self._masters - 1


def _ask(server: RedisServer, *command: Any) -> Any:
    with server.client() as client:
        client.response_callbacks.pop("CLUSTER SLOTS", None)
        return client.execute_command(*command)


def _is_ok(server: RedisServer) -> bool:
    return _facts(_ask(server, "CLUSTER", "INFO"))["cluster_state"] == "ok"


def _facts(reply: bytes | dict[str, str]) -> dict[str, str]:
    if isinstance(reply, dict):
        return reply
    return dict(line.split(":", 1) for line in reply.decode().splitlines() if ":" in line)
