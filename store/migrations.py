"""The schema of both stores, as numbered changes applied in order.

- A change is a function here and never altered once released; the next change is a new function.
- A change is applied at most once to a store and may be started by several processes at once: MongoDB's are
  idempotent, the embedded store's run in one transaction.
- The names of the changes that have been made are in the collection `migrations`.

Why each index is there: `docs/decisions/0004-indexes.md`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from provd.common import clock, ids, names, values

if TYPE_CHECKING:
    from pymongo.database import Database

_MongoChange: TypeAlias = "Callable[[Database[dict[str, Any]]], None]"
_SqliteChange: TypeAlias = Callable[[sqlite3.Connection], None]

#: Beside the changes that have been made: which store this is.
_IDENTITY = "identity"


# --- MongoDB ---------------------------------------------------------------------------------------------------


def m001_task_indexes(database: Database[dict[str, Any]]) -> None:
    """The four secondary indexes on tasks."""
    tasks = database[names.TASKS]
    by_activity = [("workflow_id", 1), ("activity_id", 1), ("status", 1), ("started_at", 1)]
    tasks.create_index(by_activity, name="by_activity")
    tasks.create_index([("workflow_id", 1), ("status", 1), ("started_at", 1)], name="by_status")
    tasks.create_index([("workflow_id", 1), ("producer_id", 1), ("status", 1)], name="by_producer")
    tasks.create_index(
        [("workflow_id", 1), ("parent_task_id", 1)],
        name="by_parent",
        partialFilterExpression={"parent_task_id": {"$exists": True}},
    )


def m002_other_indexes(database: Database[dict[str, Any]]) -> None:
    """What runs are listed by, and the books of a workflow."""
    workflows = database[names.WORKFLOWS]
    workflows.create_index([("started_at", -1)], name="by_time")
    workflows.create_index([("campaign_id", 1), ("started_at", -1)], name="by_campaign")
    workflows.create_index([("name", 1), ("started_at", -1)], name="by_name")
    for collection in (names.PRODUCERS, names.SAMPLES, names.BEATS, names.QUARANTINE):
        database[collection].create_index([("workflow_id", 1)], name="by_workflow")
    order = [("workflow_id", 1), ("producer_id", 1), ("last_seq", 1), ("first_seq", -1)]
    database[names.LEDGER].create_index(order, name="by_workflow")


MONGO: tuple[_MongoChange, ...] = (m001_task_indexes, m002_other_indexes)


def migrate_mongo(database: Database[dict[str, Any]]) -> list[str]:
    """Apply what has not been applied. Two processes may both make a change; one of them reports it."""
    made = {document["_id"] for document in database[names.MIGRATIONS].find()}
    applied = []
    for change in MONGO:
        if change.__name__ in made:
            continue
        change(database)
        entry = {"$setOnInsert": {"applied_at": clock.to_datetime(clock.now_ms())}}
        result = database[names.MIGRATIONS].update_one({"_id": change.__name__}, entry, upsert=True)
        if result.upserted_id is not None:
            applied.append(change.__name__)
    return applied


def identify_mongo(database: Database[dict[str, Any]]) -> str:
    """The store's identity, given to it now if it has none."""
    given = {"$setOnInsert": {"store_id": ids.new_store_id()}}
    database[names.MIGRATIONS].update_one({"_id": _IDENTITY}, given, upsert=True)
    (found,) = database[names.MIGRATIONS].find({"_id": _IDENTITY})
    return str(found["store_id"])


# --- the embedded store ----------------------------------------------------------------------------------------

#: Fields that the embedded store keeps in columns beside the document, and so can search and sort by. Times are
#: UTC milliseconds there, text is text, and text with lone surrogates is bytes.
COLUMNS: dict[str, tuple[str, ...]] = {
    names.TASKS: (
        *(
            "workflow_id",
            "campaign_id",
            "activity_id",
            "status",
            "producer_id",
            "parent_task_id",
            "started_at",
        ),
        *("ended_at", "task_id", "seq"),
    ),
    names.WORKFLOWS: ("workflow_id", "campaign_id", "name", "status", "started_at"),
    names.PRODUCERS: ("workflow_id", "producer_id", "status", "started_at"),
    names.SAMPLES: ("workflow_id", "producer_id", "seq"),
    names.LEDGER: ("workflow_id", "producer_id", "first_seq", "last_seq"),
    names.BEATS: ("workflow_id", "producer_id"),
    names.QUARANTINE: ("workflow_id", "producer_id"),
    names.CONSUMERS: (),
}

#: Collections that came later than the first change.
_LATER = (names.CONSUMERS,)


def m001_tables(connection: sqlite3.Connection) -> None:
    """One table a collection: the id, the document as tagged JSON, and the columns of its indexed fields."""
    for collection in COLUMNS:
        if collection not in _LATER:
            _create_table(connection, collection)
    connection.execute(f"CREATE TABLE {names.MIGRATIONS} (_id TEXT PRIMARY KEY, document TEXT NOT NULL)")


def m002_indexes(connection: sqlite3.Connection) -> None:
    """The same indexes as in MongoDB."""
    for table, name, columns in (
        (names.TASKS, "by_activity", "workflow_id, activity_id, status, started_at"),
        (names.TASKS, "by_status", "workflow_id, status, started_at"),
        (names.TASKS, "by_producer", "workflow_id, producer_id, status"),
        (names.WORKFLOWS, "by_time", "started_at"),
        (names.WORKFLOWS, "by_campaign", "campaign_id, started_at"),
        (names.WORKFLOWS, "by_name", "name, started_at"),
        (names.PRODUCERS, "by_workflow", "workflow_id"),
        (names.SAMPLES, "by_workflow", "workflow_id"),
        (names.BEATS, "by_workflow", "workflow_id"),
        (names.QUARANTINE, "by_workflow", "workflow_id"),
        (names.LEDGER, "by_workflow", "workflow_id, producer_id, first_seq, last_seq"),
    ):
        connection.execute(f"CREATE INDEX {table}_{name} ON {table} ({columns})")
    connection.execute(
        f"CREATE INDEX {names.TASKS}_by_parent ON {names.TASKS} (workflow_id, parent_task_id)"
        " WHERE parent_task_id IS NOT NULL"
    )


def m003_consumers(connection: sqlite3.Connection) -> None:
    """What consumers say of themselves."""
    _create_table(connection, names.CONSUMERS)


def _create_table(connection: sqlite3.Connection, collection: str) -> None:
    listed = "".join(f", {column}" for column in COLUMNS[collection])
    connection.execute(f"CREATE TABLE {collection} (_id TEXT PRIMARY KEY, document TEXT NOT NULL{listed})")


SQLITE: tuple[_SqliteChange, ...] = (m001_tables, m002_indexes, m003_consumers)


def migrate_sqlite(connection: sqlite3.Connection) -> list[str]:
    """Apply what has not been applied, inside a write transaction that the caller has begun."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    applied = []
    for change in SQLITE[version:]:
        change(connection)
        document = values.to_json({"_id": change.__name__, "applied_at": clock.to_datetime(clock.now_ms())})
        connection.execute(f"INSERT INTO {names.MIGRATIONS} VALUES (?, ?)", (change.__name__, document))  # noqa: S608
        applied.append(change.__name__)
    connection.execute(f"PRAGMA user_version = {len(SQLITE)}")
    return applied


def identify_sqlite(connection: sqlite3.Connection) -> str:
    """The store's identity, given to it now if it has none, inside a write transaction that the caller has begun."""
    document = values.to_json({"_id": _IDENTITY, "store_id": ids.new_store_id()})
    connection.execute(f"INSERT OR IGNORE INTO {names.MIGRATIONS} VALUES (?, ?)", (_IDENTITY, document))  # noqa: S608
    query = f"SELECT document FROM {names.MIGRATIONS} WHERE _id = ?"  # noqa: S608
    (found,) = connection.execute(query, (_IDENTITY,)).fetchone()
    return str(values.from_json(found)["store_id"])
