"""The schema of both stores, as numbered changes applied in order.

- A change is a function here and never altered once released; the next change is a new function.
- A change is applied at most once to a store and may be started by several processes at once: MongoDB's are
  idempotent, the embedded store's run in one transaction.
- An index that a later one replaces is dropped by whoever migrates and finds both: a process that is still at an
  earlier change may have made it again, or have ended between the two.
- The names of the changes that have been made are in the collection `migrations`.

Why each index is there: `docs/decisions/0004-indexes.md`.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from provd.common import clock, ids, names, values
from provd.common.errors import StoreError

if TYPE_CHECKING:
    from pymongo.collection import Collection
    from pymongo.database import Database

_MongoChange: TypeAlias = "Callable[[Database[dict[str, Any]]], None]"
_SqliteChange: TypeAlias = Callable[[sqlite3.Connection], None]

#: Beside the changes that have been made: which store this is, and which backup was restored into it.
IDENTITY = "identity"
RESTORE = "restore"

#: What the names of changes look like.
_CHANGE = re.compile(r"m[0-9]{3}_")

#: MongoDB's indexes that others have replaced, by collection and name.
_REPLACED = {(names.TASKS, "by_activity"): "by_activity_times"}

#: What MongoDB says of an index that somebody drops while it is built.
_BUILD_ABORTED = 276

#: It says that the index is not there any more, or that another one of the collection is being built: then whoever
#: builds that, or migrates next, drops it. Or that this user may not (13): whoever may drops it by migrating.
_DROPPED_OR_LATER = frozenset({26, 27, 12587, 13})


# --- MongoDB ---------------------------------------------------------------------------------------------------


def m001_task_indexes(database: Database[dict[str, Any]]) -> None:
    """The four secondary indexes on tasks."""
    tasks = database[names.TASKS]
    by_activity = [("workflow_id", 1), ("activity_id", 1), ("status", 1), ("started_at", 1)]
    _create_replaced(tasks, by_activity, "by_activity")
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


def m003_durations(database: Database[dict[str, Any]]) -> None:
    """What tasks took beside their activity and status, so that `runs show` reads an index and no task."""
    tasks = database[names.TASKS]
    by_activity = [("workflow_id", 1), ("activity_id", 1), ("status", 1), ("started_at", 1), ("duration", 1)]
    tasks.create_index(by_activity, name="by_activity_times")
    database[names.PRODUCERS].create_index(
        [("campaign_id", 1), ("workflow_id", 1)],
        name="by_campaign",
        partialFilterExpression={"campaign_id": {"$exists": True}},
    )


def m004_link_indexes(database: Database[dict[str, Any]]) -> None:
    """What is asked of links: those of some tasks, and the tasks of some keys. No earlier version wrote any."""
    links = database[names.LINKS]
    links.create_index([("workflow_id", 1), ("task_id", 1)], name="by_task")
    links.create_index([("key", 1), ("direction", 1), ("task_id", 1)], name="by_key")


def m005_tombstones(database: Database[dict[str, Any]]) -> None:
    """Deleted runs by their names, and the latest. No earlier version deleted any."""
    tombstones = database[names.TOMBSTONES]
    tombstones.create_index([("name", 1)], name="by_name")
    tombstones.create_index([("deleted_at", -1)], name="by_time")


def m006_named_campaigns(database: Database[dict[str, Any]]) -> None:
    """The producers some of whose tasks are in further campaigns. No earlier version wrote which."""
    database[names.PRODUCERS].create_index(
        [("campaigns", 1), ("workflow_id", 1)],
        name="by_named_campaign",
        partialFilterExpression={"campaigns": {"$exists": True}},
    )


def m007_parents(database: Database[dict[str, Any]]) -> None:
    """The runs that a run started."""
    database[names.WORKFLOWS].create_index(
        [("parent_workflow_id", 1), ("started_at", -1)],
        name="by_parent",
        partialFilterExpression={"parent_workflow_id": {"$exists": True}},
    )


MONGO: tuple[_MongoChange, ...] = (
    m001_task_indexes,
    m002_other_indexes,
    m003_durations,
    m004_link_indexes,
    m005_tombstones,
    m006_named_campaigns,
    m007_parents,
)


def made_in_mongo(database: Database[dict[str, Any]]) -> frozenset[str]:
    """The changes that have been made. Raises `StoreError` where one is of a later provd: this one cannot know what it
    means.
    """
    from pymongo import ReadPreference  # the embedded store does without

    notes = database.get_collection(names.MIGRATIONS, read_preference=ReadPreference.PRIMARY)
    made = frozenset(document["_id"] for document in notes.find({}, {"_id": 1}))
    later = {name for name in made if _CHANGE.match(name)} - {change.__name__ for change in MONGO}
    if later:
        raise StoreError(
            f"{database.name} is a store of a later provd ({max(later)}, this one knows up to {MONGO[-1].__name__}):"
            " upgrade"
        )
    return made


def migrate_mongo(database: Database[dict[str, Any]]) -> list[str]:
    """Apply what has not been applied. Two processes may both make a change; one of them reports it."""
    made = made_in_mongo(database)
    applied = []
    for change in MONGO:
        if change.__name__ in made:
            continue
        change(database)
        entry = {"$setOnInsert": {"applied_at": clock.to_datetime(clock.now_ms())}}
        result = database[names.MIGRATIONS].update_one({"_id": change.__name__}, entry, upsert=True)
        if result.upserted_id is not None:
            applied.append(change.__name__)
    _drop_replaced(database)
    return applied


def _create_replaced(collection: Collection[dict[str, Any]], order: list[tuple[str, int]], name: str) -> None:
    """Make an index, unless another process has come so far that the one in its place is there. Dropping an index also
    ends the building of it.
    """
    from pymongo import errors  # the embedded store does without

    by = _REPLACED[collection.name, name]
    if by in collection.index_information():
        return
    try:
        collection.create_index(order, name=name)
    except errors.OperationFailure as error:
        if error.code != _BUILD_ABORTED or by not in collection.index_information():
            raise


def _drop_replaced(database: Database[dict[str, Any]]) -> None:
    """After all changes: no question is ever without an index."""
    from pymongo import errors

    for (collection, old), new in _REPLACED.items():
        there = database[collection].index_information()
        if old in there and new in there:
            try:
                database[collection].drop_index(old)
            except errors.OperationFailure as error:
                if error.code not in _DROPPED_OR_LATER:
                    raise


def identify_mongo(database: Database[dict[str, Any]]) -> str:
    """The store's identity, given to it now if it has none."""
    given = {"$setOnInsert": {"store_id": ids.new_store_id()}}
    database[names.MIGRATIONS].update_one({"_id": IDENTITY}, given, upsert=True)
    (found,) = database[names.MIGRATIONS].find({"_id": IDENTITY})
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
        *("ended_at", "task_id", "seq", "duration"),
    ),
    names.LINKS: ("workflow_id", "task_id", "direction", "key", "producer_id", "seq"),
    names.WORKFLOWS: ("workflow_id", "campaign_id", "name", "status", "started_at", "parent_workflow_id"),
    names.PRODUCERS: ("workflow_id", "producer_id", "status", "started_at", "campaign_id", "campaigns"),
    names.SAMPLES: ("workflow_id", "producer_id", "seq"),
    names.LEDGER: ("workflow_id", "producer_id", "first_seq", "last_seq"),
    names.BEATS: ("workflow_id", "producer_id"),
    names.QUARANTINE: ("workflow_id", "producer_id"),
    names.CONSUMERS: (),
    names.TOMBSTONES: ("workflow_id", "campaign_id", "name", "deleted_at"),
}

#: Fields that are lists: their column is 1 where there is one, and nothing else is told by it.
LISTS: dict[str, tuple[str, ...]] = {names.PRODUCERS: ("campaigns",)}

#: Collections and columns that came later than the first change.
_LATER = (names.CONSUMERS, names.LINKS, names.TOMBSTONES)
_LATER_COLUMNS = {
    names.TASKS: ("duration",),
    names.PRODUCERS: ("campaign_id", "campaigns"),
    names.WORKFLOWS: ("parent_workflow_id",),
}


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


def m004_durations(connection: sqlite3.Connection) -> None:
    """The same as in MongoDB: what tasks took, beside their activity and status; a campaign's producers."""
    for collection, column, types in (
        (names.TASKS, "duration", "'integer', 'real'"),
        (names.PRODUCERS, "campaign_id", "'text'"),
    ):
        connection.execute(f"ALTER TABLE {collection} ADD COLUMN {column}")
        connection.execute(
            f"UPDATE {collection} SET {column} = json_extract(document, '$.{column}')"  # noqa: S608
            f" WHERE json_type(document, '$.{column}') IN ({types})"
        )
    connection.execute(f"DROP INDEX {names.TASKS}_by_activity")
    connection.execute(
        f"CREATE INDEX {names.TASKS}_by_activity_times"
        f" ON {names.TASKS} (workflow_id, activity_id, status, started_at, duration)"
    )
    # SQLite does not merge the stretches of an index, one a status, as MongoDB does.
    connection.execute(
        f"CREATE INDEX {names.TASKS}_by_start ON {names.TASKS} (workflow_id, started_at, status)"
    )
    connection.execute(
        f"CREATE INDEX {names.PRODUCERS}_by_campaign ON {names.PRODUCERS} (campaign_id, workflow_id)"
        " WHERE campaign_id IS NOT NULL"
    )


def m005_links(connection: sqlite3.Connection) -> None:
    """Which values that can be followed tasks used and generated. No earlier version wrote any."""
    _create_table(connection, names.LINKS)
    connection.execute(f"CREATE INDEX {names.LINKS}_by_task ON {names.LINKS} (workflow_id, task_id)")
    connection.execute(f"CREATE INDEX {names.LINKS}_by_key ON {names.LINKS} (key, direction, task_id)")


def m006_tombstones(connection: sqlite3.Connection) -> None:
    """The same as in MongoDB: deleted runs."""
    _create_table(connection, names.TOMBSTONES)
    connection.execute(f"CREATE INDEX {names.TOMBSTONES}_by_name ON {names.TOMBSTONES} (name)")
    connection.execute(f"CREATE INDEX {names.TOMBSTONES}_by_time ON {names.TOMBSTONES} (deleted_at)")


def m007_named_campaigns(connection: sqlite3.Connection) -> None:
    """The same as in MongoDB, but for which campaigns they are: few producers have any."""
    connection.execute(f"ALTER TABLE {names.PRODUCERS} ADD COLUMN campaigns")
    connection.execute(
        f"CREATE INDEX {names.PRODUCERS}_by_named_campaign ON {names.PRODUCERS} (workflow_id)"
        " WHERE campaigns IS NOT NULL"
    )


def m008_parents(connection: sqlite3.Connection) -> None:
    """The same as in MongoDB: the runs that a run started."""
    table, column = names.WORKFLOWS, "parent_workflow_id"
    connection.execute(f"ALTER TABLE {table} ADD COLUMN {column}")
    connection.execute(
        f"UPDATE {table} SET {column} = json_extract(document, '$.{column}')"  # noqa: S608
        f" WHERE json_type(document, '$.{column}') = 'text'"
    )
    connection.execute(
        f"CREATE INDEX {table}_by_parent ON {table} ({column}, started_at) WHERE {column} IS NOT NULL"
    )


def _create_table(connection: sqlite3.Connection, collection: str) -> None:
    later = _LATER_COLUMNS.get(collection, ())
    listed = "".join(f", {column}" for column in COLUMNS[collection] if column not in later)
    connection.execute(f"CREATE TABLE {collection} (_id TEXT PRIMARY KEY, document TEXT NOT NULL{listed})")


SQLITE: tuple[_SqliteChange, ...] = (
    m001_tables,
    m002_indexes,
    m003_consumers,
    m004_durations,
    m005_links,
    m006_tombstones,
    m007_named_campaigns,
    m008_parents,
)


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
    document = values.to_json({"_id": IDENTITY, "store_id": ids.new_store_id()})
    connection.execute(f"INSERT OR IGNORE INTO {names.MIGRATIONS} VALUES (?, ?)", (IDENTITY, document))  # noqa: S608
    query = f"SELECT document FROM {names.MIGRATIONS} WHERE _id = ?"  # noqa: S608
    (found,) = connection.execute(query, (IDENTITY,)).fetchone()
    return str(values.from_json(found)["store_id"])
