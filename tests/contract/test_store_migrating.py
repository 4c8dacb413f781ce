"""A store of an earlier schema answers after it has been migrated, and keeps what it has."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pymongo import monitoring
from pymongo.collection import Collection

from provd.query.runs import read_children
from provd.store import migrations
from provd.store.open import open_store
from provd.store.sqlite_file import APPLICATION_ID
from tests.contract.messages import START_MS, task
from tests.services.mongo_server import MongoServer

#: As the first change had it, and a process of an earlier version may make it at any time.
BY_ACTIVITY = [("workflow_id", 1), ("activity_id", 1), ("status", 1), ("started_at", 1)]


def test_an_embedded_store_from_before_durations_had_a_column_knows_them(tmp_path: Path) -> None:
    path = tmp_path / "provd.db"
    with closing(sqlite3.connect(path)) as connection:
        for change in migrations.SQLITE[:3]:
            change(connection)
        for number, duration in enumerate(("0.5", "2", '{"~float":"nan"}', "null")):
            document = f'{{"_id":"t{number}","task_id":"t{number}","workflow_id":"w1","activity_id":"train","status":"FINISHED","duration":{duration}}}'
            connection.execute(
                "INSERT INTO tasks (_id, document, workflow_id, activity_id, status) VALUES (?, ?, ?, ?, ?)",
                (f"t{number}", document, "w1", "train", "FINISHED"),
            )
        hello = {"_id": "p/w1", "producer_id": "p", "workflow_id": "w1", "campaign_id": "exp"}
        connection.execute(
            "INSERT INTO producers (_id, document, workflow_id, producer_id) VALUES (?, ?, ?, ?)",
            ("p/w1", json.dumps(hello), "w1", "p"),
        )
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute("PRAGMA user_version = 3")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.commit()

    store = open_store(f"sqlite:///{path}")
    assert "m004_durations" in store.migrate()

    (times,) = store.task_times("w1")
    assert (times.activity_id, times.status, times.tasks) == ("train", "FINISHED", 4)
    assert sorted(one for one in times.seconds if one is not None) == [0.5, 2]
    assert [one["workflow_id"] for one in store.find("producers", {"campaign_id": "exp"})] == ["w1"]
    assert store.write([task(9)], received_at=START_MS).stored == 1
    store.close()


def test_an_embedded_store_from_before_parents_had_a_column_finds_child_runs_by_an_index(
    tmp_path: Path,
) -> None:
    path = tmp_path / "provd.db"
    with closing(sqlite3.connect(path)) as connection:
        for change in migrations.SQLITE[:7]:
            change(connection)
        for name, parent in (("outer", None), ("inner", "outer"), ("odd", 7)):
            record = {"_id": name, "workflow_id": name, "parent_workflow_id": parent}
            document = json.dumps({key: value for key, value in record.items() if value is not None})
            connection.execute(
                "INSERT INTO workflows (_id, document, workflow_id) VALUES (?, ?, ?)", (name, document, name)
            )
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute("PRAGMA user_version = 7")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.commit()

    store = open_store(f"sqlite:///{path}")
    assert store.migrate() == ["m008_parents"]

    assert [run.workflow_id for run in read_children(store, "outer")] == ["inner"]
    store.close()
    with closing(sqlite3.connect(path)) as connection:
        children = "SELECT document FROM workflows WHERE parent_workflow_id = ? ORDER BY started_at DESC"
        (plan,) = connection.execute(f"EXPLAIN QUERY PLAN {children}", ("outer",))
    assert "USING INDEX workflows_by_parent" in plan[-1]


def test_a_mongodb_store_from_before_exchanges_its_index(mongo_url: str) -> None:
    store = open_store(mongo_url)
    database = store._database  # type: ignore[attr-defined]
    migrations.m001_task_indexes(database)
    migrations.m002_other_indexes(database)
    store.write([task(1)], received_at=START_MS)

    store.migrate()

    indexes = database["tasks"].index_information()
    assert "by_activity" not in indexes
    assert [name for name, _ in indexes["by_activity_times"]["key"]][-1] == "duration"
    assert len(indexes) <= 1 + 4
    (times,) = store.task_times("w1")
    assert list(times.seconds) == [0.5]
    store.close()


def test_an_index_that_was_made_again_after_it_was_replaced_goes_with_the_next_migration(
    mongo_url: str,
) -> None:
    store = open_store(mongo_url)
    tasks = store._database["tasks"]  # type: ignore[attr-defined]
    store.migrate()
    tasks.create_index(BY_ACTIVITY, name="by_activity")

    assert store.migrate() == []

    assert "by_activity" not in tasks.index_information()
    store.close()


def test_a_change_that_is_made_again_does_not_bring_a_replaced_index_back(mongo_url: str) -> None:
    store = open_store(mongo_url)
    database = store._database  # type: ignore[attr-defined]
    store.migrate()

    migrations.m001_task_indexes(database)

    assert "by_activity" not in database["tasks"].index_information()
    store.close()


def test_a_replaced_index_may_be_dropped_by_several_at_once(mongo_url: str) -> None:
    stores = [open_store(mongo_url) for _ in range(4)]
    tasks = stores[0]._database["tasks"]  # type: ignore[attr-defined]
    stores[0].migrate()
    with ThreadPoolExecutor(4) as pool:
        for _ in range(10):
            tasks.create_index(BY_ACTIVITY, name="by_activity")
            assert list(pool.map(lambda one: one.migrate(), stores)) == [[]] * 4
            assert "by_activity" not in tasks.index_information()
    for one in stores:
        one.close()


class _First(monitoring.CommandListener):
    """Does something once, when a command is about to be sent: whoever sends it waits."""

    def __init__(self, command: str, act: Callable[[], None]) -> None:
        self._command = command
        self._act = act
        self.is_over = False

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        if event.command_name == self._command and not self.is_over:
            self.is_over = True
            self._act()

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        """Nothing."""

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        """Nothing."""


def _come_further(tasks: Collection[Any]) -> None:
    """What a process does that is at a later change."""
    tasks.create_index([*BY_ACTIVITY, ("duration", 1)], name="by_activity_times")


def test_who_builds_an_index_that_another_drops_meanwhile_goes_on(
    private_mongo: Callable[..., MongoServer],
) -> None:
    """The building is ended by the server in the middle: 276 is what it says then."""
    server = private_mongo(parameters={"enableTestCommands": "1"})
    ended: dict[str, Any] = {"failCommands": ["createIndexes"], "errorCode": 276, "appName": "provd"}
    with server.client() as client:
        client.admin.command({"configureFailPoint": "failCommand", "mode": {"times": 1}, "data": ended})
        first = _First("createIndexes", lambda: _come_further(client.provd.tasks))
        monitoring.register(first)  # of clients made from now on
        store = open_store(server.database_url("provd"))

        assert "m003_durations" in store.migrate()
        assert first.is_over
        assert "by_activity" not in client.provd.tasks.index_information()
    store.close()


def test_an_index_may_take_longer_than_any_answer(
    private_mongo: Callable[..., MongoServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("provd.store.mongo._ANSWER_MS", 2000)
    server = private_mongo(parameters={"enableTestCommands": "1"})
    store = open_store(server.database_url("provd"), timeout_s=2.0)
    slow: dict[str, Any] = {"failCommands": ["createIndexes"], "blockConnection": True, "blockTimeMS": 4000}
    with server.client() as client:
        client.admin.command({"configureFailPoint": "failCommand", "mode": {"times": 1}, "data": slow})

        assert "m001_task_indexes" in store.migrate()
    store.close()
