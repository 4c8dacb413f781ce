"""`deploy/mongodb/roles.json`: the consumer's user writes and drops nothing, people's users read (G8)."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pymongo
import pytest
from pymongo.errors import OperationFailure

from provd.common import names
from provd.common.errors import StoreUnavailable
from provd.store.open import open_store
from tests.builders import START_MS, finished_run
from tests.conftest import RunProvd, StartProvd
from tests.integration.programs import SWEEP
from tests.services.mongo_server import MongoServer
from tests.services.waiting import wait_until
from tests.streams import Script

ROLES = Path(__file__).parents[2] / "deploy" / "mongodb" / "roles.json"
PASSWORD = "mongo-hunter2"


@dataclass(frozen=True)
class Site:
    """A MongoDB that asks who one is, with the roles of `roles.json`, a user of each, and one without any."""

    server: MongoServer

    def url(self, user: str) -> str:
        return self.server.url_as(user, PASSWORD, "provd")

    def client(self, user: str) -> pymongo.MongoClient[dict[str, Any]]:
        return pymongo.MongoClient(self.url(user), serverSelectionTimeoutMS=10_000)

    def grant(self, user: str, role: str) -> None:
        with self.administrator() as admin:
            admin["provd"].command("grantRolesToUser", user, roles=[role])

    def administrator(self) -> pymongo.MongoClient[dict[str, Any]]:
        return pymongo.MongoClient(self.server.url_as("admin", PASSWORD, "admin"))


@pytest.fixture
def site(private_mongo: Callable[..., MongoServer]) -> Site:
    server = private_mongo(options=["--auth"])
    with server.client() as first:  # who comes first, from this machine, may make the first user
        first["admin"].command("createUser", "admin", pwd=PASSWORD, roles=["root"])
    site = Site(server)
    with site.administrator() as admin:
        for command in json.loads(ROLES.read_text()):
            admin["provd"].command(command)
        for user, roles in (
            ("writer", ["provdWriter"]),
            ("reader", ["provdReader"]),
            ("keeper", ["provdKeeper"]),
            ("nobody", []),
        ):
            admin["provd"].command("createUser", user, pwd=PASSWORD, roles=roles)
    return site


@pytest.fixture
def broker(redis_url: str, namespace: str) -> dict[str, str]:
    return {"PROVD_BROKER_URL": redis_url, "PROVD_NAMESPACE": namespace}


def test_the_writer_stores_all_and_the_reader_reads_it(
    site: Site, script: Script, broker: dict[str, str], run_provd: RunProvd
) -> None:
    """Also what is rarer: migrations, the ledger's compaction, the quarantine."""
    script.run(SWEEP)

    writing = {**broker, "PROVD_STORE_URL": site.url("writer")}
    consumed = run_provd("consume", "--workflow-id", "w1", "--exit-when-done", "--grace", "20", env=writing)
    store = open_store(site.url("writer"))
    store.compact_ledger("w1")
    store.close()

    assert consumed.returncode == 0, consumed.stderr
    assert "not authorized" not in consumed.stderr
    reading = {"PROVD_STORE_URL": site.url("reader")}
    assert json.loads(run_provd("runs", "verify", "w1", "--json", env=reading).stdout)["complete"] is True
    for command in (["runs", "tail"], ["runs", "show", "w1"], ["tasks", "--json"], ["query", "tasks", "{}"]):
        done = run_provd(*command, env=reading)
        assert done.returncode == 0, done.stderr
    levels = [json.loads(line) for line in run_provd("doctor", "--json", env=reading).stdout.splitlines()]
    assert {"store": "ok"}.items() <= {check["check"]: check["level"] for check in levels}.items()


def test_the_reader_backs_up_and_the_writer_brings_back(
    site: Site, run_provd: RunProvd, tmp_path: Path
) -> None:
    """Also a reader whose role is from before the sizes: those are what it is not told."""
    with site.administrator() as admin:
        find = {"resource": {"db": "provd", "collection": ""}, "actions": ["find", "listCollections"]}
        admin["provd"].command("createRole", "early", privileges=[find], roles=[])
    site.grant("nobody", "early")
    store = open_store(site.url("writer"))
    store.migrate()
    finished_run(store, "alpha")
    store.close()

    for user, size in (("reader", int), ("nobody", type(None))):
        backup = run_provd("backup", f"of-{user}", "--store", site.url(user))
        stats = run_provd("store", "stats", "--json", "--store", site.url(user))
        assert (backup.returncode, stats.returncode) == (0, 0), backup.stderr + stats.stderr
        assert type(json.loads(stats.stdout)["disk_bytes"]) is size
        assert json.loads(stats.stdout)["collections"]["tasks"]["documents"] == 5
        assert run_provd("store", "stats", "--store", site.url(user)).returncode == 0
    with site.administrator() as admin:
        for name in names.COLLECTIONS:
            admin["provd"][name].delete_many({})
    restored = run_provd("restore", "of-reader", "--store", site.url("writer"))

    assert restored.returncode == 0, restored.stderr
    assert run_provd("runs", "verify", "alpha", "--store", site.url("reader")).returncode == 0
    compacted = run_provd("store", "compact", "--json", "--store", site.url("writer"))
    assert compacted.returncode == 0, compacted.stderr
    assert "not authorized" in json.loads(compacted.stdout)["refused"][0]


def test_the_writer_can_neither_drop_nor_change_what_is_not_its_own(site: Site) -> None:
    with site.client("writer") as client:
        database = client["provd"]
        database["tasks"].insert_one({"_id": "t", "workflow_id": "w"})
        database["ledger"].insert_one({"_id": "l", "workflow_id": "w"})
        database["ledger"].delete_many({"_id": "l"})  # compaction's right
        refused: list[Callable[[], object]] = [
            lambda: database.drop_collection("tasks"),
            lambda: client.drop_database("provd"),
            lambda: database["tasks"].delete_many({}),
            lambda: database["workflows"].delete_many({}),
            database["tasks"].drop_indexes,
            lambda: database["tasks"].rename("gone"),
            lambda: database.command("createUser", "eve", pwd="x", roles=[]),
            lambda: database.command("grantRolesToUser", "writer", roles=["provdReader"]),
            lambda: database.command("updateRole", "provdWriter", privileges=[]),
            lambda: client["other"]["tasks"].insert_one({}),
            client["other"]["tasks"].find_one,
            lambda: client["admin"].command("shutdown"),
            client["local"]["oplog.rs"].find_one,
        ]
        for attempt in refused:
            with pytest.raises(OperationFailure, match=r"not authorized|requires authentication"):
                attempt()
        assert database["tasks"].count_documents({}) == 1


def test_the_writer_deletes_no_run_and_the_keeper_does(site: Site, run_provd: RunProvd) -> None:
    store = open_store(site.url("writer"))
    store.migrate()
    part = finished_run(store, "alpha")
    command = ("runs", "delete", "alpha", "--yes")

    refused = run_provd(*command, "--store", site.url("writer"))
    assert refused.returncode != 0
    assert "not authorized" in refused.stderr
    assert store.count(names.TOMBSTONES, {}) == 0
    assert run_provd(*command, "--store", site.url("keeper")).returncode == 0

    # What a consumer that was killed left behind is reported by the next, which may not remove it.
    task = next(message.record for message in part.messages if "task_id" in message.record)
    with site.administrator() as admin:
        admin["provd"]["tasks"].insert_one({"_id": task["task_id"], "workflow_id": "alpha"})
    assert store.write(part.messages, received_at=START_MS).gone == {"alpha": len(part.messages)}
    (tombstone,) = store.find(names.TOMBSTONES, {})
    assert "finished_at" not in tombstone
    assert run_provd(*command, "--store", site.url("keeper")).returncode == 0
    assert store.count(names.TASKS, {}) == 0
    store.close()


def test_the_reader_cannot_write(site: Site) -> None:
    with site.client("writer") as client:
        client["provd"]["tasks"].insert_one({"_id": "t", "workflow_id": "w"})
    with site.client("reader") as client:
        database = client["provd"]
        refused: list[Callable[[], object]] = [
            lambda: database["tasks"].insert_one({"_id": "u"}),
            lambda: database["tasks"].update_many({}, {"$set": {"status": "FINISHED"}}),
            lambda: database["tasks"].delete_many({}),
            lambda: list(database["tasks"].aggregate([{"$out": "copy"}])),
            lambda: list(database["tasks"].aggregate([{"$merge": "copy"}])),
            lambda: database["tasks"].create_index("x"),
            lambda: database.drop_collection("tasks"),
            lambda: database.command("createUser", "eve", pwd="x", roles=[]),
            client["admin"]["system.users"].find_one,
        ]
        for attempt in refused:
            with pytest.raises(OperationFailure, match="not authorized"):
                attempt()
        assert database["tasks"].count_documents({}) == 1


def test_a_forbidden_write_is_an_outage_that_says_what_to_mend_and_nothing_is_lost(
    site: Site, script: Script, broker: dict[str, str], start_provd: StartProvd, run_provd: RunProvd
) -> None:
    """G2: frames stay in Redis until the store has confirmed them."""
    script.run(SWEEP)
    env = {**broker, "PROVD_STORE_URL": site.url("nobody")}

    consumer = start_provd("consume", env=env)
    wait_until(lambda: "deploy/mongodb/roles.json" in consumer.tail(), 20)
    site.grant("nobody", "provdWriter")

    reading = {"PROVD_STORE_URL": site.url("reader")}
    wait_until(lambda: run_provd("runs", "verify", "w1", env=reading).returncode == 0, 30)
    assert PASSWORD not in consumer.log.read_text()
    with site.client("reader") as client:
        assert client["provd"][names.QUARANTINE].count_documents({}) == 0


@pytest.mark.parametrize("user", ["writer", "stranger"])
def test_a_wrong_password_is_an_outage_whose_message_has_no_password(site: Site, user: str) -> None:
    url = site.url(user).replace(PASSWORD, "wrong-hunter3")

    store = open_store(url, timeout_s=2)
    with pytest.raises(StoreUnavailable, match="check user, password and authSource") as caught:
        store.ping()
    store.close()

    assert "hunter3" not in str(caught.value)


def test_without_a_user_the_message_says_to_name_one(site: Site) -> None:
    store = open_store(site.server.database_url("provd"), timeout_s=2)

    with pytest.raises(StoreUnavailable, match="name a user in the store's URL"):
        store.migrate()
    store.close()
