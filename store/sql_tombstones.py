"""Tombstones in the embedded store; each function works inside a transaction of the caller's, and so is exact."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from provd.common import clock, names
from provd.common.record import Record
from provd.store.sql_rows import insert, load, row_of
from provd.store.tombstones import AT_ONCE, RUN_COLLECTIONS, askable

#: Ids in one question; SQLite allows at least 999 parameters.
_IDS_AT_ONCE = 500

#: The place of the workflow's id in a row: after the id and the document.
_WORKFLOW = 2


def deleted_among(connection: sqlite3.Connection, workflow_ids: Iterable[str]) -> frozenset[str]:
    """Those of the runs that have been deleted."""
    wanted = askable(workflow_ids)
    found: set[str] = set()
    for start in range(0, len(wanted), _IDS_AT_ONCE):
        some = wanted[start : start + _IDS_AT_ONCE]
        query = f"SELECT _id FROM {names.TOMBSTONES} WHERE _id IN ({', '.join('?' * len(some))})"  # noqa: S608
        found.update(identity for (identity,) in connection.execute(query, some))
    return frozenset(found)


def living_rows(connection: sqlite3.Connection, rows: Sequence[tuple[Any, ...]]) -> Sequence[tuple[Any, ...]]:
    """Rows of runs that have not been deleted, of a collection whose first column is `workflow_id`."""
    deleted = deleted_among(connection, {row[_WORKFLOW] for row in rows if isinstance(row[_WORKFLOW], str)})
    return [row for row in rows if row[_WORKFLOW] not in deleted] if deleted else rows


def count_refused(connection: sqlite3.Connection, gone: Mapping[str, int]) -> None:
    """Count refused messages."""
    for workflow_id, refused in gone.items():
        tombstone = load(connection, names.TOMBSTONES, [workflow_id])[workflow_id]
        _put(connection, {**tombstone, "refused": tombstone.get("refused", 0) + refused})


def begin(connection: sqlite3.Connection, tombstone: Record, archive: str | None) -> None:
    """Write the tombstone, unless it stands."""
    known = load(connection, names.TOMBSTONES, [tombstone["_id"]]).get(tombstone["_id"])
    if known is None:
        _put(connection, tombstone)
    elif archive is not None:
        _put(connection, {**known, "archive": archive})


def delete_some(connection: sqlite3.Connection, workflow_id: str) -> int:
    """Delete some thousand documents of a run whose tombstone stands; 0 when it is over, which is then noted."""
    tombstone = load(connection, names.TOMBSTONES, [workflow_id]).get(workflow_id)
    if tombstone is None:
        return 0
    if "begun_at" not in tombstone:
        tombstone["begun_at"] = clock.to_datetime(clock.now_ms())
        _put(connection, tombstone)
    for collection in RUN_COLLECTIONS:
        some = f"SELECT rowid FROM {collection} WHERE workflow_id = ? LIMIT {AT_ONCE}"  # noqa: S608
        query = f"DELETE FROM {collection} WHERE rowid IN ({some})"  # noqa: S608
        deleted = connection.execute(query, (workflow_id,)).rowcount
        if deleted:
            return deleted
    if "finished_at" not in tombstone:
        _put(connection, {**tombstone, "finished_at": clock.to_datetime(clock.now_ms())})
    return 0


def remove(connection: sqlite3.Connection, workflow_id: str) -> bool:
    """Remove the tombstone of a deletion that is over, or has done nothing yet."""
    tombstone = load(connection, names.TOMBSTONES, [workflow_id]).get(workflow_id)
    if tombstone is None:
        return False
    if "finished_at" not in tombstone and ("begun_at" in tombstone or tombstone.get("refused")):
        return False
    connection.execute(f"DELETE FROM {names.TOMBSTONES} WHERE _id = ?", (workflow_id,))  # noqa: S608
    return True


def _put(connection: sqlite3.Connection, tombstone: Record) -> None:
    connection.execute(insert(names.TOMBSTONES, "OR REPLACE"), row_of(names.TOMBSTONES, tombstone))
