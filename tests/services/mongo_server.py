"""A `mongod` of the tests' own."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pymongo
from pymongo.errors import PyMongoError

from tests.services.binaries import find_mongod
from tests.services.child import Child
from tests.services.ports import free_port
from tests.services.waiting import wait_until

_READY_S = 60.0
_REPLICA_SET = "provd-tests"


class MongoServer:
    """A private MongoDB on a free port that keeps its data and address over restarts."""

    def __init__(
        self,
        folder: Path,
        *,
        replica_set: bool = False,
        parameters: Mapping[str, str] | None = None,
        options: Sequence[str] = (),
        cache_gib: float = 0.25,
    ) -> None:
        """`options` are more of the command line, such as `--auth`."""
        self.folder = folder
        self._options = options
        self._cache_gib = cache_gib
        self._parameters = {"diagnosticDataCollectionEnabled": "false", **(parameters or {})}
        (folder / "data").mkdir(parents=True, exist_ok=True)
        self._port = free_port()
        self._replica_set = replica_set
        self._child = Child([find_mongod().path, *self._arguments()], log=folder / "mongod.log", cwd=folder)

    def _arguments(self) -> list[str]:
        arguments = [
            "--dbpath",
            str(self.folder / "data"),
            "--port",
            str(self._port),
            "--bind_ip",
            "127.0.0.1",
        ]
        arguments += ["--nounixsocket", "--wiredTigerCacheSizeGB", f"{self._cache_gib:g}"]
        for name, value in self._parameters.items():
            arguments += ["--setParameter", f"{name}={value}"]
        arguments += self._options
        return [*arguments, "--replSet", _REPLICA_SET] if self._replica_set else arguments

    @property
    def url(self) -> str:
        """The server's address, without a database."""
        return self.database_url("")

    @property
    def child(self) -> Child:
        """The process."""
        return self._child

    def database_url(self, database: str) -> str:
        """The address that provd is given."""
        options = f"?replicaSet={_REPLICA_SET}" if self._replica_set else ""
        return f"mongodb://127.0.0.1:{self._port}/{database}{options}"

    def url_as(self, user: str, password: str, database: str) -> str:
        """The address for a user whom the database itself knows."""
        return f"mongodb://{user}:{password}@127.0.0.1:{self._port}/{database}?authSource={database}"

    def start(self) -> None:
        """Start it, and return when it takes writes."""
        self._child.start()
        wait_until(self._is_ready, _READY_S, f"mongod at {self.url}")

    def stop(self) -> None:
        """End it in order."""
        self._child.stop(timeout=30)

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
        """End it; the data need not survive."""
        self._child.kill()

    def client(self) -> pymongo.MongoClient[dict[str, Any]]:
        """A client of the test's own, to be closed by it."""
        return pymongo.MongoClient(self.url, serverSelectionTimeoutMS=10_000)

    def _is_ready(self) -> bool:
        if not self._child.is_running:
            raise RuntimeError(f"mongod ended with {self._child.returncode}:\n{self._child.tail()}")
        address = f"mongodb://127.0.0.1:{self._port}/?directConnection=true"
        try:
            with pymongo.MongoClient[dict[str, Any]](address, serverSelectionTimeoutMS=500) as client:
                hello = client.admin.command("hello")
                if self._replica_set and "setName" not in hello:
                    member = {"_id": 0, "host": f"127.0.0.1:{self._port}"}
                    client.admin.command("replSetInitiate", {"_id": _REPLICA_SET, "members": [member]})
                    return False
                return bool(hello["isWritablePrimary"])
        except PyMongoError:  # refused, or still recovering
            return False
