"""A `redis-server` of the tests' own."""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Mapping
from pathlib import Path

import redis

from tests.services.binaries import find_redis_server
from tests.services.child import Child
from tests.services.ports import free_port
from tests.services.waiting import wait_until

_READY_S = 15.0


class RedisServer:
    """A private Redis on a free port, or on a unix socket, that keeps its data and address over restarts.

    It runs with an append-only file and `noeviction`, as `deploy/redis.conf` has it; `config` adds or overrides.
    """

    def __init__(
        self,
        folder: Path,
        *,
        unix_socket: bool = False,
        config: Mapping[str, str] | None = None,
        credentials: str = "",
        port: int | None = None,
    ) -> None:
        """`credentials` are `user:password` of who may do all, where `config` asks for that."""
        self._credentials = f"{credentials}@" if credentials else ""
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        # The path of a socket has 107 characters at most, which a folder of pytest's may exceed.
        self._socket_folder = Path(tempfile.mkdtemp(prefix="provd-redis-")) if unix_socket else None
        self._port = 0 if unix_socket else port or free_port()
        self._config = {
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "maxmemory-policy": "noeviction",
        }
        self._config.update(config or {})
        self._child = Child(
            [find_redis_server().path, *self._arguments()], log=folder / "redis.log", cwd=folder
        )

    def _arguments(self) -> list[str]:
        arguments = [
            "--bind",
            "127.0.0.1",
            "--port",
            str(self._port),
            "--dir",
            str(self.folder),
            "--daemonize",
            "no",
        ]
        if self._socket_folder:
            arguments += ["--unixsocket", str(self._socket_folder / "redis.sock"), "--unixsocketperm", "700"]
        for name, value in self._config.items():
            arguments += [f"--{name}", value]
        return arguments

    @property
    def url(self) -> str:
        """The address that provd is given."""
        if self._socket_folder:
            return f"unix://{self._credentials}{self._socket_folder}/redis.sock"
        return f"redis://{self._credentials}127.0.0.1:{self._port}/0"

    def url_as(self, user: str, password: str) -> str:
        """The address for another user."""
        return f"redis://{user}:{password}@127.0.0.1:{self._port}/0"

    @property
    def port(self) -> int:
        """Its TCP port, 0 on a unix socket."""
        return self._port

    @property
    def child(self) -> Child:
        """The process."""
        return self._child

    def start(self) -> None:
        """Start it, and return when it answers."""
        self._child.start()
        wait_until(self._is_ready, _READY_S, f"redis-server at {self.url}")

    def stop(self) -> None:
        """End it in order: the data is on disk."""
        self._child.stop()

    def kill(self) -> None:
        """End it as a crash would."""
        self._child.kill()

    def restart(self) -> None:
        """Stop and start it."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Freeze it: connections are accepted by the kernel and never answered."""
        self._child.send(signal.SIGSTOP)

    def resume(self) -> None:
        """Undo `pause`."""
        self._child.send(signal.SIGCONT)

    def close(self) -> None:
        """End it and remove the socket's folder."""
        self._child.stop()
        if self._socket_folder:
            shutil.rmtree(self._socket_folder, ignore_errors=True)

    def client(self) -> redis.Redis:
        """A client of the test's own, to be closed by it."""
        return redis.Redis.from_url(self.url, socket_timeout=10)

    def _is_ready(self) -> bool:
        if not self._child.is_running:
            raise RuntimeError(f"redis-server ended with {self._child.returncode}:\n{self._child.tail()}")
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.RedisError:  # refused, or still loading its data
            return False
