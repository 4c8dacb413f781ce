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
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from provd.common import clock, names, values
from provd.common.errors import StoreError, StoreUnavailable
from provd.common.ranges import Ranges
from provd.common.record import Message, Record
from provd.store import documents, filters, sql_tombstones, sqlite_file
from provd.store.interface import (
    Beat,
    ConsumerMark,
    Filter,
    Quarantined,
    Refusal,
    Sort,
    Stored,
    TaskTimes,
    Written,
)
from provd.store.links import links_of
from provd.store.matcher import matcher
from provd.store.migrations import COLUMNS, LISTS, identify_sqlite, migrate_sqlite
from provd.store.network_file_systems import refuse_network_file_system
from provd.store.ordering import sort_documents
from provd.store.pipeline import check_pipeline, paths_of, run_pipeline
from provd.store.projection import project
from provd.store.sql_counts import count_columns, first_rows, read_times
from provd.store.sql_filter import SqlFilter, from_column, sql_filter
from provd.store.sql_rows import (
    ENCODE_ERRORS,
    compact,
    forget_consumers,
    insert,
    ledger,
    load,
    merge_all,
    parts_of,
    row_of,
)
from provd.store.sqlite_file import connect, transaction, translated
from provd.store.sqlite_upkeep import SqliteUpkeep
from provd.store.time_limit import TimeLimit, rows_within
from provd.store.tombstones import Progress, count_documents, count_gone, new_tombstone, workflow_ids_of
from provd.store.whole import piece_document, whole

#: JSON without one of these holds no value in portable form, and needs no second walk.
_TAG = '"~'


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

    def upkeep(self) -> SqliteUpkeep:
        """What a keeper does with the store as a whole."""
        return SqliteUpkeep(
            self._path, self.url, migrate=self.migrate, writing=self._writing, timeout_s=self._timeout_s
        )

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
                record, _ = documents.stated(message)
                batches.setdefault(message.kind.collection, []).append((record["_id"], message, record))
            except ENCODE_ERRORS as error:
                refusals.append(Refusal(message, str(error) or type(error).__name__))
        new_links = [
            row_of(names.LINKS, link)
            for link in links_of(message for _, message, _ in batches.get(names.TASKS, ()))
        ]
        stored = duplicates = 0
        with self._writing() as connection:
            gone = _refuse(connection, messages)
            if gone:
                batches = {name: _living(batch, gone) for name, batch in batches.items()}
                new_links = list(sql_tombstones.living_rows(connection, new_links))
                refusals = [one for one in refusals if one.message.workflow_id not in gone]
            if new_links:
                connection.executemany(insert(names.LINKS, "OR IGNORE"), new_links)
            for collection, batch in batches.items():
                done = merge_all(connection, collection, batch, received_at, refusals)
                stored, duplicates = stored + done[0], duplicates + done[1]
        return Written(stored, duplicates, tuple(refusals), gone)

    def put_documents(
        self, collection: str, items: Iterable[Mapping[str, Any]], *, received_at: int
    ) -> Written:
        """Bring in whole documents, in one transaction."""
        refusals: list[Refusal] = []
        batch = [whole(collection, item) for item in items]
        links = links_of(one.message for one in batch) if collection == names.TASKS else []
        new_links = [row_of(names.LINKS, link) for link in links]
        with self._writing() as connection:
            gone = _refuse(connection, [one.message for one in batch])
            if gone:
                batch = [one for one in batch if one.message.workflow_id not in gone]
                new_links = list(sql_tombstones.living_rows(connection, new_links))
            connection.executemany(insert(names.LINKS, "OR IGNORE"), new_links)
            stored, unchanged = merge_all(connection, collection, batch, received_at, refusals)
        return Written(stored, unchanged, tuple(refusals), gone)

    def put_pieces(self, pieces: Iterable[Mapping[str, Any]]) -> None:
        """Bring in quarantined pieces as they were kept elsewhere."""
        self._add(names.QUARANTINE, [piece_document(piece) for piece in pieces])

    def add_stored(self, ranges: Iterable[Stored]) -> None:
        """Enter ranges into the ledger."""
        self._add(names.LEDGER, [documents.range_document(stored) for stored in ranges])

    def add_quarantined(self, items: Iterable[Quarantined]) -> None:
        """Keep what could not be stored."""
        self._add(
            names.QUARANTINE, [piece for item in items for piece in documents.quarantine_documents(item)]
        )

    def _add(self, collection: str, new: Sequence[Record]) -> None:
        """Insert documents of runs that have not been deleted; those whose `_id` is there already stay as they are."""
        rows = [row_of(collection, document) for document in new]
        with self._writing() as connection:
            living = sql_tombstones.living_rows(connection, rows)
            connection.executemany(insert(collection, "OR IGNORE"), living)

    def put_beats(self, beats: Iterable[Beat]) -> None:
        """Keep the latest beat of each producer and workflow."""
        new = [documents.beat_document(beat) for beat in beats]
        with self._writing() as connection:
            deleted = sql_tombstones.deleted_among(connection, {document["workflow_id"] for document in new})
            for document in new:
                if document["workflow_id"] in deleted:
                    continue
                known = load(connection, names.BEATS, [document["_id"]]).get(document["_id"])
                if not known or known["beat_at"] <= document["beat_at"]:
                    connection.execute(insert(names.BEATS, "OR REPLACE"), row_of(names.BEATS, document))

    def put_consumer(self, mark: ConsumerMark) -> None:
        """Keep a consumer's latest mark, beside this host's clock."""
        now = clock.now_ms()
        document = documents.consumer_document(mark) | {"store_at": clock.to_datetime(now)}
        with self._writing() as connection:
            connection.execute(insert(names.CONSUMERS, "OR REPLACE"), row_of(names.CONSUMERS, document))
            forget_consumers(connection, before=clock.to_datetime(now - documents.FORGET_CONSUMER_MS))

    def consumers(self) -> list[Record]:
        """All marks, the newest first, each with this host's clock."""
        now = clock.to_datetime(clock.now_ms())
        found = self.find(names.CONSUMERS, {}, sort=[("broker_at", -1)])
        return [{**document, "_id": document["name"], "now": now} for document in found]

    # --- quarantine --------------------------------------------------------------------------------------------

    def note_quarantined(self, piece_id: str, reason: str) -> None:
        """Give a quarantined piece a new reason."""
        with self._writing() as connection:
            parts = [piece_id, *parts_of(connection, piece_id)]
            for document in load(connection, names.QUARANTINE, parts).values():
                row = row_of(names.QUARANTINE, {**document, "reason": reason})
                connection.execute(insert(names.QUARANTINE, "OR REPLACE"), row)

    def drop_quarantined(self, piece_ids: Iterable[str]) -> None:
        """Remove quarantined pieces."""
        with self._writing() as connection:
            for piece_id in piece_ids:
                ids = [(one,) for one in (piece_id, *parts_of(connection, piece_id))]
                connection.executemany(f"DELETE FROM {names.QUARANTINE} WHERE _id = ?", ids)  # noqa: S608

    # --- deleted runs ------------------------------------------------------------------------------------------

    def deleted_among(self, workflow_ids: Iterable[str]) -> frozenset[str]:
        """Those of these runs that have been deleted."""
        with translated(self.url), closing(self._connect()) as connection:
            return sql_tombstones.deleted_among(connection, workflow_ids)

    def begin_deletion(self, workflow_id: str, *, by: str, archive: str | None = None) -> None:
        """Write the run's tombstone."""
        workflow = next(iter(self.find(names.WORKFLOWS, {"_id": workflow_id}, limit=1)), {})
        counts = count_documents(self, workflow_id)
        tombstone = new_tombstone(workflow_id, workflow, counts, by=by, archive=archive)
        with self._writing() as connection:
            sql_tombstones.begin(connection, tombstone, archive)

    def delete_run(self, workflow_id: str, *, on_progress: Progress | None = None) -> None:
        """Delete everything of a run, a transaction for some thousand documents."""
        total, done = sum(count_documents(self, workflow_id).values()), 0
        while True:
            with self._writing() as connection:
                deleted = sql_tombstones.delete_some(connection, workflow_id)
            if not deleted:
                return
            done += deleted
            if on_progress is not None:
                on_progress(done, max(done, total))

    def undelete_run(self, workflow_id: str) -> bool:
        """Remove the tombstone."""
        with self._writing() as connection:
            return sql_tombstones.remove(connection, workflow_id)

    # --- the ledger --------------------------------------------------------------------------------------------

    def compact_ledger(self, *workflow_ids: str) -> int:
        """Replace the parts by the merged ranges, in one transaction."""
        left = 0
        with self._writing() as connection:
            for workflow_id in workflow_ids:
                left += compact(connection, workflow_id)
        return left

    def stored_ranges(self, workflow_id: str) -> dict[str, Ranges]:
        """The ledger of a workflow: the stored numbers of each producer."""
        with translated(self.url), closing(self._connect()) as connection:
            return ledger(connection, workflow_id)

    # --- reading -----------------------------------------------------------------------------------------------

    def find(
        self,
        collection: str,
        filter: Filter,
        *,
        fields: Sequence[str] | None = None,
        sort: Sort = (),
        limit: int = 0,
        timeout_s: float | None = None,
    ) -> Iterator[Record]:
        """Documents that match, streamed where SQL can sort them."""
        columns = _columns(collection)
        where = filters.prepare(filter)
        test = matcher(where)
        paths = None if fields is None else filters.projected(collection, fields)
        order = filters.check_sort(sort)
        sql = sql_filter(where, columns, LISTS.get(collection, ()))
        in_sql = all(field in columns for field, _ in order)
        time_limit = TimeLimit(timeout_s) if timeout_s else None
        first = limit if in_sql and sql.exact else 0
        if (
            collection == names.LINKS
            and paths is not None
            and columns.issuperset(paths)
            and sql.exact
            and not order
        ):
            # Lineage reads thousands of them, and all that they say is in columns.
            rows = self._select_columns(collection, sql, paths, time_limit)
            return map(values.from_portable, islice(rows, limit or None))
        found = self._select(
            collection, sql, None if sql.exact else test, order if in_sql else [], time_limit, first
        )
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
        self,
        collection: str,
        sql: SqlFilter,
        test: Any,
        order: Sequence[tuple[str, int]] = (),
        time_limit: TimeLimit | None = None,
        limit: int = 0,
    ) -> Iterator[Record]:
        """Stream documents in portable form, the first `limit` unless it is 0. Closing it closes its connection."""
        listed = ", ".join(f"{field} {'ASC' if direction > 0 else 'DESC'}" for field, direction in order)
        ordering = f" ORDER BY {listed}" if order else ""
        where = first_rows(collection, sql.where, ordering, limit) if order and limit else sql.where
        query = f"SELECT document FROM {collection}{where}{ordering}"  # noqa: S608
        with translated(self.url, reading=True), closing(self._connect()) as connection:
            for (text,) in rows_within(connection, query, sql.parameters, time_limit):
                document = _decode(text)
                if test is None or test(document):
                    yield document

    def count(self, collection: str, filter: Filter) -> int:
        """How many documents match."""
        columns = _columns(collection)
        where = filters.prepare(filter)
        test = matcher(where)
        sql = sql_filter(where, columns, LISTS.get(collection, ()))
        if not sql.exact:
            return sum(1 for _ in self._select(collection, sql, test))
        with translated(self.url, reading=True), closing(self._connect()) as connection:
            query = f"SELECT count(*) FROM {collection}{sql.where}"  # noqa: S608
            (total,) = connection.execute(query, sql.parameters).fetchone()
        return int(total)

    def count_by(self, collection: str, filter: Filter, fields: Sequence[str]) -> dict[tuple[Any, ...], int]:
        """How many documents match for each combination of values; counted by SQL where it knows all the fields."""
        columns = _columns(collection)
        where = filters.prepare(filter)
        test = matcher(where)
        sql = sql_filter(where, columns, LISTS.get(collection, ()))
        if not (sql.exact and columns.issuperset(fields)):
            found = self._select(collection, sql, None if sql.exact else test)
            rows = (values.from_portable([document.get(field) for field in fields]) for document in found)
            return dict(Counter(map(tuple, rows)))
        with translated(self.url, reading=True), closing(self._connect()) as connection:
            return count_columns(connection, collection, sql, fields)

    def task_times(self, workflow_id: str, *, expected: int = 0) -> Iterator[TaskTimes]:  # noqa: ARG002
        """All tasks of a workflow by activity and status, from an index alone."""
        with translated(self.url, reading=True), closing(self._connect()) as connection:
            yield from read_times(connection, workflow_id)

    def aggregate(
        self, collection: str, pipeline: Sequence[Mapping[str, Any]], *, timeout_s: float | None = None
    ) -> Iterator[Record]:
        """Run a read-only pipeline: a leading `$match` in SQL as far as it goes, the rest on the documents."""
        columns = _columns(collection)
        stages = check_pipeline(filters.prepare_pipeline(pipeline))
        first = stages[0][1] if stages and stages[0][0] == "$match" else {}
        sql = sql_filter(first, columns, LISTS.get(collection, ()))
        rest = stages[1:] if stages and stages[0][0] == "$match" else stages
        paths = paths_of(rest[0]) if rest and sql.exact else None
        time_limit = TimeLimit(timeout_s) if timeout_s else None
        if paths is not None and paths <= columns:
            found = self._select_columns(collection, sql, sorted(paths), time_limit)
        else:
            found = self._select(collection, sql, None if sql.exact else matcher(first), (), time_limit)
        return map(values.from_portable, run_pipeline(found, rest))

    def _select_columns(
        self, collection: str, sql: SqlFilter, columns: Sequence[str], time_limit: TimeLimit | None
    ) -> Iterator[Record]:
        """Documents with nothing but some columns, which need no decoding."""
        query = f"SELECT {', '.join(columns) or '1'} FROM {collection}{sql.where}"  # noqa: S608
        with translated(self.url, reading=True), closing(self._connect()) as connection:
            for row in rows_within(connection, query, sql.parameters, time_limit):
                yield {
                    column: from_column(column, value)
                    for column, value in zip(columns, row, strict=False)
                    if value is not None
                }


def _refuse(connection: sqlite3.Connection, messages: Sequence[Message]) -> dict[str, int]:
    """How many of the messages are of which deleted run; they are counted there."""
    gone = count_gone(messages, sql_tombstones.deleted_among(connection, workflow_ids_of(messages)))
    sql_tombstones.count_refused(connection, gone)
    return gone


def _living(
    batch: Sequence[tuple[str, Message, Record]], gone: Mapping[str, int]
) -> list[tuple[str, Message, Record]]:
    return [one for one in batch if one[1].workflow_id not in gone]


def _place(path: Path) -> tuple[int, int] | None:
    """Which file has this name now."""
    try:
        facts = path.stat()
    except FileNotFoundError:
        return None
    return facts.st_dev, facts.st_ino


def _columns(collection: str) -> frozenset[str]:
    """What SQL may search and sort by; it knows no NaN, so what tasks took is not among it."""
    known = COLUMNS.get(filters.check_collection(collection), ())
    return frozenset({"_id", *known} - {"duration", *LISTS.get(collection, ())})


def _deferred_sort(found: Iterator[Record], order: Sequence[tuple[str, int]], limit: int) -> Iterator[Record]:
    yield from sort_documents(found, order, limit)


def _decode(text: str) -> Record:
    """The document in portable form, which is what filters see, as in MongoDB."""
    try:
        document: Record = values.from_json(text)
    except ValueError as error:
        raise StoreError(f"a stored document cannot be read: {error}") from error
    return values.to_portable(document) if _TAG in text else document
