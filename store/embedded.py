"""The store in one SQLite file, for one machine without services.

- A table for each collection: the id, the document as tagged JSON (`provd.common.values`), and the columns that
  SQL searches and sorts by. What SQL cannot answer is decided document by document (`matcher`, `pipeline`).
- A batch is one transaction; its merges are `provd.common.record.merge` itself.
- What was written to a file that somebody has removed or replaced meanwhile is not confirmed.
- Every read has a connection of its own: it streams one consistent state while others write.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

from provd.common import clock, names, values
from provd.common.errors import StoreError, StoreUnavailable
from provd.common.ranges import Ranges
from provd.common.record import LENT_FIELDS, Message, Record, from_document, merge, merge_key, to_document
from provd.store import documents, filters, sqlite_file
from provd.store.interface import Beat, ConsumerMark, Filter, Quarantined, Refusal, Sort, Stored, Written
from provd.store.matcher import matcher
from provd.store.migrations import COLUMNS, identify_sqlite, migrate_sqlite
from provd.store.network_file_systems import refuse_network_file_system
from provd.store.ordering import sort_documents
from provd.store.pipeline import check_pipeline, paths_of, run_pipeline
from provd.store.projection import project
from provd.store.sql_filter import SqlFilter, column_value, from_column, sql_filter
from provd.store.sqlite_file import connect, transaction, translated

#: Ids in one SELECT; SQLite allows at least 999 parameters.
_IDS_AT_ONCE = 500

#: JSON without one of these holds no value in portable form, and needs no second walk.
_TAG = '"~'

_ENCODE_ERRORS = (TypeError, ValueError, OverflowError, RecursionError)


class EmbeddedStore:
    """A store in a file. Safe for threads, and for any number of processes of one machine."""

    def __init__(self, path: str | Path, *, timeout_s: float = 5.0) -> None:
        """Opens on first use. `timeout_s` is how long a write waits for another's. Raises `UnsafeStore`."""
        self._path = Path(path).expanduser().absolute()
        self.url = f"sqlite:///{self._path}"
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._writer: sqlite3.Connection | None = None
        #: Which file the writer writes to.
        self._place: tuple[int, int] | None = None
        self._closed = False
        self._identity = ""
        refuse_network_file_system(self._path)

    def ping(self) -> None:
        """Raise `StoreUnavailable` unless the file is there and can be read."""
        with translated(self.url), closing(self._connect()) as connection:
            connection.execute("SELECT 1 FROM workflows LIMIT 1").fetchone()

    def migrate(self) -> list[str]:
        """Make the file and its tables; returns the names of the changes that this call made."""
        self._identity = ""
        with translated(self.url), self._lock:
            sqlite_file.create(self._path)
            with sqlite_file.alone(self._path), closing(self._connect(migrating=True)) as connection:
                sqlite_file.initialise(connection)
                with transaction(connection):
                    connection.execute(f"PRAGMA application_id = {sqlite_file.APPLICATION_ID}")
                    return migrate_sqlite(connection)

    def identity(self) -> str:
        """What tells this store from every other; read again after `migrate`."""
        if not self._identity:
            with self._writing() as connection:
                self._identity = identify_sqlite(connection)
        return self._identity

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._closed = True
            if self._writer is not None:
                self._writer.close()
                self._writer = None

    def _connect(self, *, migrating: bool = False) -> sqlite3.Connection:
        if self._closed:
            raise StoreUnavailable(self.url, "the store has been closed")
        return connect(self._path, self.url, timeout_s=self._timeout_s, migrating=migrating)

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction. What went into a file that is not the store any more is not confirmed."""
        with translated(self.url), self._lock:
            if self._writer is None:
                self._place = _place(self._path)
                self._writer = self._connect()
            with transaction(self._writer):
                yield self._writer
            if _place(self._path) != self._place:
                self._writer.close()
                self._writer = None
                raise StoreUnavailable(self.url, "its file was removed or replaced while it was written to")

    # --- writing -----------------------------------------------------------------------------------------------

    def write(self, messages: Sequence[Message], *, received_at: int) -> Written:
        """Merge messages into their documents, in one transaction."""
        refusals: list[Refusal] = []
        batches: dict[str, list[tuple[str, Message, Record]]] = {}
        for message in messages:
            try:
                one = documents.record_id(message), message, documents.stated(message)
                batches.setdefault(message.kind.collection, []).append(one)
            except _ENCODE_ERRORS as error:
                refusals.append(Refusal(message, str(error) or type(error).__name__))
        stored = duplicates = 0
        with self._writing() as connection:
            for collection, batch in batches.items():
                done = _merge_all(connection, collection, batch, received_at, refusals)
                stored, duplicates = stored + done[0], duplicates + done[1]
        return Written(stored, duplicates, tuple(refusals))

    def add_stored(self, ranges: Iterable[Stored]) -> None:
        """Enter ranges into the ledger."""
        self._add(names.LEDGER, [documents.range_document(stored) for stored in ranges])

    def add_quarantined(self, items: Iterable[Quarantined]) -> None:
        """Keep what could not be stored."""
        self._add(
            names.QUARANTINE, [piece for item in items for piece in documents.quarantine_documents(item)]
        )

    def _add(self, collection: str, new: Sequence[Record]) -> None:
        """Insert documents; those whose `_id` is there already stay as they are."""
        rows = [_row(collection, document) for document in new]
        with self._writing() as connection:
            connection.executemany(_insert(collection, "OR IGNORE"), rows)

    def put_beats(self, beats: Iterable[Beat]) -> None:
        """Keep the latest beat of each producer and workflow."""
        new = [documents.beat_document(beat) for beat in beats]
        with self._writing() as connection:
            for document in new:
                known = _load(connection, names.BEATS, [document["_id"]]).get(document["_id"])
                if not known or known["beat_at"] <= document["beat_at"]:
                    connection.execute(_insert(names.BEATS, "OR REPLACE"), _row(names.BEATS, document))

    def put_consumer(self, mark: ConsumerMark) -> None:
        """Keep a consumer's latest mark, beside this host's clock."""
        now = clock.now_ms()
        document = documents.consumer_document(mark) | {"store_at": clock.to_datetime(now)}
        with self._writing() as connection:
            connection.execute(_insert(names.CONSUMERS, "OR REPLACE"), _row(names.CONSUMERS, document))
            _forget_consumers(connection, before=clock.to_datetime(now - documents.FORGET_CONSUMER_MS))

    def consumers(self) -> list[Record]:
        """All marks, the newest first, each with this host's clock."""
        now = clock.to_datetime(clock.now_ms())
        found = self.find(names.CONSUMERS, {}, sort=[("broker_at", -1)])
        return [{**document, "_id": document["name"], "now": now} for document in found]

    # --- quarantine --------------------------------------------------------------------------------------------

    def note_quarantined(self, piece_id: str, reason: str) -> None:
        """Give a quarantined piece a new reason."""
        with self._writing() as connection:
            parts = [piece_id, *_parts(connection, piece_id)]
            for document in _load(connection, names.QUARANTINE, parts).values():
                row = _row(names.QUARANTINE, {**document, "reason": reason})
                connection.execute(_insert(names.QUARANTINE, "OR REPLACE"), row)

    def drop_quarantined(self, piece_ids: Iterable[str]) -> None:
        """Remove quarantined pieces."""
        with self._writing() as connection:
            for piece_id in piece_ids:
                ids = [(one,) for one in (piece_id, *_parts(connection, piece_id))]
                connection.executemany(f"DELETE FROM {names.QUARANTINE} WHERE _id = ?", ids)  # noqa: S608

    # --- the ledger --------------------------------------------------------------------------------------------

    def compact_ledger(self, *workflow_ids: str) -> int:
        """Replace the parts by the merged ranges, in one transaction."""
        left = 0
        with self._writing() as connection:
            for workflow_id in workflow_ids:
                left += _compact(connection, workflow_id)
        return left

    def stored_ranges(self, workflow_id: str) -> dict[str, Ranges]:
        """The ledger of a workflow: the stored numbers of each producer."""
        with translated(self.url), closing(self._connect()) as connection:
            return _ledger(connection, workflow_id)

    # --- reading -----------------------------------------------------------------------------------------------

    def find(
        self,
        collection: str,
        filter: Filter,
        *,
        fields: Sequence[str] | None = None,
        sort: Sort = (),
        limit: int = 0,
    ) -> Iterator[Record]:
        """Documents that match, streamed where SQL can sort them."""
        columns = _columns(collection)
        where = filters.prepare(filter)
        test = matcher(where)
        paths = None if fields is None else filters.projected(collection, fields)
        order = filters.check_sort(sort)
        sql = sql_filter(where, columns)
        in_sql = all(field in columns for field, _ in order)
        found = self._select(collection, sql, None if sql.exact else test, order if in_sql else [])
        if not in_sql:
            found = _deferred_sort(found, order, limit)
        return self._presented(islice(found, limit) if limit else found, collection, paths)

    def _presented(
        self, found: Iterator[Record], collection: str, paths: Sequence[str] | None
    ) -> Iterator[Record]:
        hides_id = documents.hides_id(collection)
        for document in found:
            if hides_id:
                document.pop("_id", None)
            yield values.from_portable(document if paths is None else project(document, paths))

    def _select(
        self, collection: str, sql: SqlFilter, test: Any, order: Sequence[tuple[str, int]] = ()
    ) -> Iterator[Record]:
        """Stream documents in portable form. Closing the iterator closes its connection."""
        ordering = ", ".join(f"{field} {'ASC' if direction > 0 else 'DESC'}" for field, direction in order)
        query = f"SELECT document FROM {collection}{sql.where}" + (f" ORDER BY {ordering}" if order else "")  # noqa: S608
        with translated(self.url, reading=True), closing(self._connect()) as connection:
            for (text,) in connection.execute(query, sql.parameters):
                document = _decode(text)
                if test is None or test(document):
                    yield document

    def count(self, collection: str, filter: Filter) -> int:
        """How many documents match."""
        columns = _columns(collection)
        where = filters.prepare(filter)
        test = matcher(where)
        sql = sql_filter(where, columns)
        if not sql.exact:
            return sum(1 for _ in self._select(collection, sql, test))
        with translated(self.url, reading=True), closing(self._connect()) as connection:
            query = f"SELECT count(*) FROM {collection}{sql.where}"  # noqa: S608
            (total,) = connection.execute(query, sql.parameters).fetchone()
        return int(total)

    def aggregate(self, collection: str, pipeline: Sequence[Mapping[str, Any]]) -> Iterator[Record]:
        """Run a read-only pipeline: a leading `$match` in SQL as far as it goes, the rest on the documents."""
        columns = _columns(collection)
        stages = check_pipeline(filters.prepare(pipeline))
        first = stages[0][1] if stages and stages[0][0] == "$match" else {}
        sql = sql_filter(first, columns)
        rest = stages[1:] if stages and stages[0][0] == "$match" else stages
        paths = paths_of(rest[0]) if rest and sql.exact else None
        if paths is not None and paths <= columns:
            found = self._select_columns(collection, sql, sorted(paths))
        else:
            found = self._select(collection, sql, None if sql.exact else matcher(first))
        return map(values.from_portable, run_pipeline(found, rest))

    def _select_columns(self, collection: str, sql: SqlFilter, columns: Sequence[str]) -> Iterator[Record]:
        """Documents with nothing but some columns, which need no decoding."""
        query = f"SELECT {', '.join(columns) or '1'} FROM {collection}{sql.where}"  # noqa: S608
        with translated(self.url, reading=True), closing(self._connect()) as connection:
            for row in connection.execute(query, sql.parameters):
                yield {
                    column: from_column(column, value)
                    for column, value in zip(columns, row, strict=False)
                    if value is not None
                }


def _place(path: Path) -> tuple[int, int] | None:
    """Which file has this name now."""
    try:
        facts = path.stat()
    except FileNotFoundError:
        return None
    return facts.st_dev, facts.st_ino


def _columns(collection: str) -> frozenset[str]:
    return frozenset({"_id", *COLUMNS.get(filters.check_collection(collection), ())})


def _deferred_sort(found: Iterator[Record], order: Sequence[tuple[str, int]], limit: int) -> Iterator[Record]:
    yield from sort_documents(found, order, limit)


def _decode(text: str) -> Record:
    """The document in portable form, which is what filters see, as in MongoDB."""
    try:
        document: Record = values.from_json(text)
    except ValueError as error:
        raise StoreError(f"a stored document cannot be read: {error}") from error
    return values.to_portable(document) if _TAG in text else document


def _insert(collection: str, conflict: str) -> str:
    marks = ", ".join("?" * (2 + len(COLUMNS[collection])))
    return f"INSERT {conflict} INTO {collection} VALUES ({marks})"  # noqa: S608


def _row(collection: str, document: Record) -> tuple[Any, ...]:
    columns = [column_value(values.to_portable(document.get(column))) for column in COLUMNS[collection]]
    return document["_id"], values.to_json(document), *columns


def _load(connection: sqlite3.Connection, collection: str, ids: Sequence[str]) -> dict[str, Record]:
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


def _forget_consumers(connection: sqlite3.Connection, *, before: datetime) -> None:
    query = f"SELECT _id, document FROM {names.CONSUMERS}"  # noqa: S608
    old = [
        (name,)
        for name, text in connection.execute(query).fetchall()
        if values.from_json(text)["store_at"] < before
    ]
    connection.executemany(f"DELETE FROM {names.CONSUMERS} WHERE _id = ?", old)  # noqa: S608


def _parts(connection: sqlite3.Connection, piece_id: str) -> list[str]:
    """The documents of a quarantined piece that is kept in parts."""
    query = f"SELECT _id FROM {names.QUARANTINE} WHERE _id >= ? AND _id < ?"  # noqa: S608
    return [found for (found,) in connection.execute(query, (f"{piece_id}-", f"{piece_id}."))]


def _ledger(connection: sqlite3.Connection, workflow_id: str) -> dict[str, Ranges]:
    query = f"SELECT producer_id, first_seq, last_seq FROM {names.LEDGER} WHERE workflow_id = ?"  # noqa: S608
    spans: dict[str, list[tuple[int, int]]] = {}
    for producer_id, first, last in connection.execute(query, (workflow_id,)):
        spans.setdefault(producer_id, []).append((first, last))
    return {producer_id: Ranges.of(found) for producer_id, found in sorted(spans.items())}


def _compact(connection: sqlite3.Connection, workflow_id: str) -> int:
    """Within a transaction: leave the fewest ranges; returns how many."""
    merged = [
        documents.range_document(Stored(producer_id, workflow_id, first, last))
        for producer_id, spans in _ledger(connection, workflow_id).items()
        for first, last in spans
    ]
    query = f"SELECT count(*) FROM {names.LEDGER} WHERE workflow_id = ?"  # noqa: S608
    (known,) = connection.execute(query, (workflow_id,)).fetchone()
    if known > len(merged):
        connection.execute(f"DELETE FROM {names.LEDGER} WHERE workflow_id = ?", (workflow_id,))  # noqa: S608
        rows = [_row(names.LEDGER, document) for document in merged]
        connection.executemany(_insert(names.LEDGER, "OR IGNORE"), rows)
    return len(merged)


def _merge_all(
    connection: sqlite3.Connection,
    collection: str,
    batch: Sequence[tuple[str, Message, Record]],
    received_at: int,
    refusals: list[Refusal],
) -> tuple[int, int]:
    """Merge a batch into one collection; returns how many were stored and how many changed nothing."""
    known = {
        record_id: from_document(document)
        for record_id, document in _load(connection, collection, list({one[0] for one in batch})).items()
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
        if old is not None and _same(old, new):
            duplicates += 1
            continue
        new = {**new, "_id": record_id, "received_at": received_at}
        try:
            rows[record_id] = _row(collection, to_document(new))
        except _ENCODE_ERRORS as error:
            refusals.append(Refusal(message, str(error) or type(error).__name__))
            continue
        known[record_id] = new
        stored += 1
    connection.executemany(_insert(collection, "OR REPLACE"), rows.values())
    return stored, duplicates


def _same(old: Record, new: Record) -> bool:
    """Whether a merge changed nothing: the same message stands, and has been lent the same times."""
    return merge_key(old) == merge_key(new) and all(
        old.get(name) == new.get(name) for name in ("filled", *LENT_FIELDS)
    )
