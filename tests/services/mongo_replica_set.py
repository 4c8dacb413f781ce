"""A MongoDB replica set of three members of the tests' own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pymongo
from pymongo.errors import AutoReconnect, PyMongoError

from tests.services.binaries import find_mongod
from tests.services.child import Child
from tests.services.ports import free_port
from tests.services.waiting import wait_until

NAME = "provd-set"

_READY_S = 90.0

#: An election begins this long after the primary was last heard of: ten seconds by default.
_ELECTION_MS = 2000

#: A look at a member that is away ends soon, and is taken again; a command waits for a member that is only busy.
_LOOK_MS = 1_000
_COMMAND_MS = 30_000


class MongoReplicaSet:
    """Three `mongod`, of which one is primary; any may be stopped, killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.members = [_Member(folder / f"mongo-{number}") for number in range(3)]

    def database_url(self, database: str) -> str:
        """The address that provd is given."""
        hosts = ",".join(member.host for member in self.members)
        return f"mongodb://{hosts}/{database}?replicaSet={NAME}"

    def start(self) -> None:
        """Start all, and return when there is a primary with two secondaries."""
        for member in self.members:
            member.child.start()
        for member in self.members:
            wait_until(member.hello, _READY_S, f"mongod at {member.host}")
        config = {
            "_id": NAME,
            "members": [{"_id": number, "host": one.host} for number, one in enumerate(self.members)],
            "settings": {"electionTimeoutMillis": _ELECTION_MS, "heartbeatIntervalMillis": 500},
        }
        with self.members[0].client() as client:
            client.admin.command("replSetInitiate", config)
        wait_until(self.is_whole, _READY_S, "a primary and two secondaries")

    def is_whole(self) -> bool:
        """Whether one member is primary and all others are secondaries."""
        return sorted(member.role for member in self.members) == ["primary", "secondary", "secondary"]

    @property
    def primary(self) -> _Member:
        """The present primary, waited for: a busy one may be late to answer, and there is none during an election."""
        found: list[_Member] = []

        def is_found() -> bool:
            found[:] = [member for member in self.members if member.role == "primary"]
            return bool(found)

        wait_until(is_found, _READY_S, "a primary")
        return found[0]

    def has_other_primary(self, before: _Member) -> bool:
        """Whether another member than this one is primary now."""
        return any(member.role == "primary" for member in self.members if member is not before)

    def step_down(self) -> _Member:
        """Have the primary give its part to another; returns who it was."""
        primary = self.primary
        with primary.client() as client:
            try:
                client.admin.command("replSetStepDown", 30, secondaryCatchUpPeriodSecs=10)
            except AutoReconnect:
                pass  # some versions close the connection that asked
        return primary

    def client(self) -> pymongo.MongoClient[dict[str, Any]]:
        """A client of the test's own, to be closed by it."""
        return pymongo.MongoClient(self.database_url(""), serverSelectionTimeoutMS=_COMMAND_MS)

    def close(self) -> None:
        """End all; the data need not survive."""
        for member in self.members:
            member.child.kill()


class _Member:
    """One `mongod` of the set."""

    def __init__(self, folder: Path) -> None:
        (folder / "data").mkdir(parents=True)
        self.port = free_port()
        arguments = ["--dbpath", str(folder / "data"), "--port", str(self.port), "--bind_ip", "127.0.0.1"]
        arguments += ["--nounixsocket", "--wiredTigerCacheSizeGB", "0.25", "--oplogSize", "64"]
        arguments += ["--setParameter", "diagnosticDataCollectionEnabled=false", "--replSet", NAME]
        self.child = Child([find_mongod().path, *arguments], log=folder / "mongod.log", cwd=folder)

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def role(self) -> str:
        """`primary`, `secondary`, or empty for neither."""
        hello = self.hello() or {}
        if hello.get("isWritablePrimary"):
            return "primary"
        return "secondary" if hello.get("secondary") else ""

    def client(self, timeout_ms: int = _COMMAND_MS) -> pymongo.MongoClient[dict[str, Any]]:
        """A client of this member alone, whatever its part."""
        return pymongo.MongoClient(
            f"mongodb://{self.host}/?directConnection=true", serverSelectionTimeoutMS=timeout_ms
        )

    def hello(self) -> dict[str, Any] | None:
        if not self.child.is_running:
            return None
        try:
            with self.client(_LOOK_MS) as client:
                return dict(client.admin.command("hello"))
        except PyMongoError:  # refused, or still recovering
            return None
