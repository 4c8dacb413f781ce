"""Documents and the rows of the embedded store's tables; everything here works inside a transaction of the caller's."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from provd.common import names, values
from provd.common.ranges import Ranges
from provd.common.record import Message, Record, from_document, merge, to_document
from provd.store import depth, documents
from provd.store.interface import Refusal, Stored
from provd.store.migrations import COLUMNS
from provd.store.sql_filter import column_value
from provd.store.whole import same

#: Ids in one SELECT; SQLite allows at least 999 parameters.
_IDS_AT_ONCE = 500

#: What a value raises that cannot be a row.
ENCODE_ERRORS = (TypeError, ValueError, OverflowError, RecursionError)


def insert(collection: str, conflict: str) -> str:
    """The statement that takes a `row_of`."""
    marks = ", ".join("?" * (2 + len(COLUMNS[collection])))
    return f"INSERT {conflict} INTO {collection} VALUES ({marks})"  # noqa: S608


def row_of(collection: str, document: Record) -> tuple[Any, ...]:
    """A document as its table has it: the id, the JSON, the columns. Raises `ValueError` for what cannot be one."""
    stated = map(document.get, COLUMNS[collection])
    columns = [None if value is None else column_value(values.to_portable(value)) for value in stated]
    text = values.to_json(document)
    depth.check_json(document, text)
    return document["_id"], text, *columns


def load(connection: sqlite3.Connection, collection: str, ids: Sequence[str]) -> dict[str, Record]:
    """The documents of these ids, by id."""
    found: dict[str, Record] = {}
    for start in range(0, len(ids), _IDS_AT_ONCE):
        part = ids[start : start + _IDS_AT_ONCE]
        query = f"SELECT _id, document FROM {collection} WHERE _id IN ({', '.join('?' * len(part))})"  # noqa: S608
        for record_id, text in connection.execute(query, part):
            try:
                found[record_id] = values.from_json(text)
            except ValueError:
                found[record_id] = {}  # unreadable: nothing may be merged into it
    return found


def forget_consumers(connection: sqlite3.Connection, *, before: datetime) -> None:
    """Remove the marks of consumers that were last seen before."""
    query = f"SELECT _id, document FROM {names.CONSUMERS}"  # noqa: S608
    old = [
        (name,)
        for name, text in connection.execute(query).fetchall()
        if values.from_json(text)["store_at"] < before
    ]
    connection.executemany(f"DELETE FROM {names.CONSUMERS} WHERE _id = ?", old)  # noqa: S608


def parts_of(connection: sqlite3.Connection, piece_id: str) -> list[str]:
    """The documents of a quarantined piece that is kept in parts."""
    query = f"SELECT _id FROM {names.QUARANTINE} WHERE _id >= ? AND _id < ?"  # noqa: S608
    return [found for (found,) in connection.execute(query, (f"{piece_id}-", f"{piece_id}."))]


def ledger(connection: sqlite3.Connection, workflow_id: str) -> dict[str, Ranges]:
    """The stored numbers of each producer of a workflow."""
    query = f"SELECT producer_id, first_seq, last_seq FROM {names.LEDGER} WHERE workflow_id = ?"  # noqa: S608
    spans: dict[str, list[tuple[int, int]]] = {}
    for producer_id, first, last in connection.execute(query, (workflow_id,)):
        spans.setdefault(producer_id, []).append((first, last))
    return {producer_id: Ranges.of(found) for producer_id, found in sorted(spans.items())}


def compact(connection: sqlite3.Connection, workflow_id: str) -> int:
    """Within a transaction: leave the fewest ranges; returns how many."""
    merged = [
        documents.range_document(Stored(producer_id, workflow_id, first, last))
        for producer_id, spans in ledger(connection, workflow_id).items()
        for first, last in spans
    ]
    query = f"SELECT count(*) FROM {names.LEDGER} WHERE workflow_id = ?"  # noqa: S608
    (known,) = connection.execute(query, (workflow_id,)).fetchone()
    if known > len(merged):
        connection.execute(f"DELETE FROM {names.LEDGER} WHERE workflow_id = ?", (workflow_id,))  # noqa: S608
        rows = [row_of(names.LEDGER, document) for document in merged]
        connection.executemany(insert(names.LEDGER, "OR IGNORE"), rows)
    return len(merged)


def merge_all(
    connection: sqlite3.Connection,
    collection: str,
    batch: Sequence[tuple[str, Message, Record]],
    received_at: int,
    refusals: list[Refusal],
) -> tuple[int, int]:
    """Merge a batch into one collection; returns how many were stored and how many changed nothing."""
    known = {
        record_id: from_document(document)
        for record_id, document in load(connection, collection, list({one[0] for one in batch})).items()
    }
    rows: dict[str, tuple[Any, ...]] = {}
    stored = duplicates = 0
    for record_id, message, record in batch:
        old = known.get(record_id)
        if old is not None and old.get("workflow_id") != message.workflow_id:
            reason = (
                "its id belongs to a record of another workflow" if old else "its document cannot be read"
            )
            refusals.append(Refusal(message, reason))
            continue
        new = record if old is None else merge(old, record)
        if old is not None and same(old, new):
            duplicates += 1
            continue
        # A whole document (`put_documents`) that is new here keeps the time at which the other store received it.
        received = received_at if old is not None else record.get("received_at", received_at)
        new = {**new, "_id": record_id, "received_at": received}
        try:
            rows[record_id] = row_of(collection, to_document(new))
        except ENCODE_ERRORS as error:
            refusals.append(Refusal(message, str(error) or type(error).__name__))
            continue
        known[record_id] = new
        stored += 1
    connection.executemany(insert(collection, "OR REPLACE"), rows.values())
    return stored, duplicates
