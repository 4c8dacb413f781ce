"""The store in MongoDB.

- Writes are `w: majority, j: true`: what `write` returned for survives the loss of a minority of the servers.
- Nothing is written singly, and one message that the server refuses spoils no other (`mongo_batch`).
- The ledger is read in an order in which a compacted range stands behind all its parts, and is compacted by
  inserting first: a reader never sees less than was there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from functools import partial
from itertools import groupby
from typing import Any

import pymongo
from bson.datetime_ms import DatetimeMS
from pymongo import errors
from pymongo.cursor import Cursor
from pymongo.database import Database
from pymongo.uri_parser import parse_uri
from pymongo.write_concern import WriteConcern

from provd.common import names, values
from provd.common.errors import SettingsError, StoreError
from provd.common.passwords import hide, mask_url
from provd.common.ranges import Ranges
from provd.common.record import Kind, Message, Record
from provd.store import documents, filters, migrations
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
from provd.store.literal_keys import for_server
from provd.store.mongo_batch import INSERTS_AT_ONCE, RACES, Batch, failures, slices
from provd.store.mongo_encode import CODEC, Encoded, encode
from provd.store.mongo_errors import timed, translated
from provd.store.mongo_times import read_times
from provd.store.mongo_tombstones import Tombstones
from provd.store.mongo_upkeep import MongoUpkeep
from provd.store.mongo_whole import put_whole
from provd.store.tombstones import (
    Progress,
    count_documents,
    count_gone,
    living,
    new_tombstone,
    workflow_ids_of,
)
from provd.store.whole import piece_document, whole

#: The database where the URL names none.
DEFAULT_DATABASE = "provd"

#: Milliseconds between two looks at a server that are made beside the work. A server that hangs is known by the next
#: one's timeout, and whatever waits for it is then cut off; a write that only takes long is let go on.
_HEARTBEAT_MS = 5_000

#: Milliseconds that an answer may take from a server that is otherwise well, and a majority to confirm a write: the
#: server says then that it is slow, and what was written stays.
_ANSWER_MS = 60_000
_MAJORITY_MS = 30_000

#: Whole documents in one answer: the server would give 16 MiB of them, which as objects of Python are a hundred.
_WHOLE_AT_ONCE = 1_000

#: Documents in one deletion: their ids go in one message.
_PARTS_AT_ONCE = 10_000

#: The order in which kinds are written.
_KINDS = tuple(Kind)


class MongoStore:
    """A store in a MongoDB server, replica set or sharded cluster."""

    def __init__(self, url: str, *, timeout_s: float = 5.0) -> None:
        """Connects on first use. `timeout_s` bounds the search for a server; a write may take longer."""
        self.url = mask_url(url)
        self._identity = ""
        milliseconds = int(timeout_s * 1000)
        try:
            parsed = parse_uri(url)
            looks: dict[str, Any] = {"heartbeatFrequencyMS": _HEARTBEAT_MS}
            if "heartbeatFrequencyMS" in parsed["options"]:  # what the URL says stands
                looks = {}
            looks |= {
                "serverSelectionTimeoutMS": milliseconds,
                "connectTimeoutMS": milliseconds,
                "appname": "provd",
            }
            self._patient = partial(pymongo.MongoClient[Record], url, **looks, socketTimeoutMS=None)
            self._client: pymongo.MongoClient[Record] = pymongo.MongoClient(
                url, **looks, socketTimeoutMS=max(_ANSWER_MS, milliseconds)
            )
            name = parsed.get("database") or DEFAULT_DATABASE
            self._database: Database[Record] = self._client.get_database(
                name,
                codec_options=CODEC,
                write_concern=WriteConcern(w="majority", j=True, wtimeout=_MAJORITY_MS),
            )
            self._tombstones = Tombstones(self._database, self.url)
        except (errors.ConfigurationError, errors.InvalidURI, errors.InvalidName, ValueError) as error:
            raise SettingsError(
                f"the store URL {self.url!r} is not one MongoDB understands: {hide(str(error), url)}"
            ) from error

    def ping(self) -> None:
        """Raise `StoreUnavailable` unless a server answers now, and `StoreError` for a store of a later provd."""
        with translated(self.url):
            self._database.command("ping")
            migrations.made_in_mongo(self._database)

    def migrate(self) -> list[str]:
        """Create what indexes are missing; returns the names of the migrations that this call applied."""
        self._identity = ""
        return self.upkeep().migrate(lambda _done, _total: None)

    def upkeep(self) -> MongoUpkeep:
        """What a keeper does with the store as a whole."""
        return MongoUpkeep(self.url, self._database, patient=self._patient, on_primary=self._reading)

    def _reading(self, database: Database[Record]) -> MongoStore:
        """The same store, over the same connections, reading from a database with options of its own."""
        other = copy(self)
        other._database = database  # noqa: SLF001 - its own
        return other

    def identity(self) -> str:
        """What tells this store from every other; read again after `migrate`."""
        if not self._identity:
            with translated(self.url):
                self._identity = migrations.identify_mongo(self._database)
        return self._identity

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    # --- writing -----------------------------------------------------------------------------------------------

    def write(self, messages: Sequence[Message], *, received_at: int) -> Written:
        """Merge messages into their documents by a few bulk writes for each collection."""
        with translated(self.url):
            deleted = self._tombstones.among(workflow_ids_of(messages))
        written = self._write(living(messages, deleted) if deleted else messages, received_at)
        return self._refused(messages, deleted, written)

    def _write(self, messages: Sequence[Message], received_at: int) -> Written:
        refusals: list[Refusal] = []
        encoded: dict[Kind, list[Encoded]] = {}
        date = DatetimeMS(received_at)
        for message in messages:
            result = encode(message, date)
            if isinstance(result, Refusal):
                refusals.append(result)
            else:
                encoded.setdefault(message.kind, []).append(result)
        # Before the tasks: who reads a task finds its links.
        for some in slices(links_of(one.message for one in encoded.get(Kind.TASK, ())), INSERTS_AT_ONCE):
            self._add(names.LINKS, some)
        stored = duplicates = 0
        with translated(self.url):
            for kind in sorted(encoded, key=_KINDS.index):
                batch = Batch(self._database[kind.collection], received_at, refusals)
                done = batch.write(encoded[kind])
                stored, duplicates = stored + done[0], duplicates + done[1]
        return Written(stored, duplicates, tuple(refusals))

    def put_documents(
        self, collection: str, items: Iterable[Mapping[str, Any]], *, received_at: int
    ) -> Written:
        """Bring in whole documents: insert them, or merge them with what is there."""
        refusals: list[Refusal] = []
        wholes = [whole(collection, item) for item in items]
        messages = [one.message for one in wholes]
        with translated(self.url):
            deleted = self._tombstones.among(workflow_ids_of(messages))
        batch = [one for one in wholes if one.message.workflow_id not in deleted]
        if collection == names.TASKS:
            for some in slices(links_of(one.message for one in batch), INSERTS_AT_ONCE):
                self._add(names.LINKS, some)
        with translated(self.url):
            stored, unchanged = put_whole(self._database[collection], batch, received_at, refusals)
        return self._refused(messages, deleted, Written(stored, unchanged, tuple(refusals)))

    def _refused(self, messages: Sequence[Message], deleted: Mapping[str, bool], written: Written) -> Written:
        """What became of a batch: that of deleted runs is taken back, also where they were deleted meanwhile."""
        with translated(self.url):
            late = self._tombstones.ask(workflow_ids_of(messages) - deleted.keys())
            known = {**deleted, **late}
            gone = count_gone(messages, known)
            if not gone:
                return written
            self._tombstones.refuse(messages, known, gone)
        taken_back = sum(gone[workflow_id] for workflow_id in late)
        refused = tuple(one for one in written.refused if one.message.workflow_id not in gone)
        return Written(max(0, written.stored - taken_back), written.duplicates, refused, gone)

    def put_pieces(self, pieces: Iterable[Mapping[str, Any]]) -> None:
        """Bring in quarantined pieces as they were kept elsewhere."""
        self._add(names.QUARANTINE, [values.to_portable(piece_document(piece)) for piece in pieces])

    def add_stored(self, ranges: Iterable[Stored]) -> None:
        """Enter ranges into the ledger."""
        self._add(names.LEDGER, [documents.range_document(stored) for stored in ranges])

    def add_quarantined(self, items: Iterable[Quarantined]) -> None:
        """Keep what could not be stored."""
        pieces = [piece for item in items for piece in documents.quarantine_documents(item)]
        self._add(names.QUARANTINE, [values.to_portable(piece) for piece in pieces])

    def _add(self, collection: str, new: Sequence[Record]) -> None:
        """Insert documents; those whose `_id` is there already stay as they are."""
        if not new:
            return
        with translated(self.url):
            try:
                self._database[collection].insert_many(new, ordered=False)
            except errors.BulkWriteError as error:
                if failures(error):
                    raise
            if collection != names.LINKS:  # those are taken back with their tasks
                self._tombstones.take_back(collection, new)

    def put_beats(self, beats: Iterable[Beat]) -> None:
        """Keep the latest beat of each producer and workflow."""
        updates = []
        new = self._living([documents.beat_document(beat) for beat in beats])
        for document in new:
            is_later = {"$gte": [{"$literal": document["beat_at"]}, "$beat_at"]}
            latest = {"$cond": [is_later, {"$literal": document}, "$$ROOT"]}
            updates.append(
                pymongo.UpdateOne({"_id": document["_id"]}, [{"$replaceWith": latest}], upsert=True)
            )
        with translated(self.url):
            for _ in range(RACES):
                if not updates:
                    return
                try:
                    self._database[names.BEATS].bulk_write(updates, ordered=False)
                    self._tombstones.take_back(names.BEATS, new)
                    return
                except errors.BulkWriteError as error:
                    if failures(error):
                        raise
                    updates = [updates[failure["index"]] for failure in error.details["writeErrors"]]
        raise StoreError("beats of one producer are written by too many at once")

    def _living(self, new: Sequence[Record]) -> list[Record]:
        """Documents of runs that have not been deleted, as far as is known for some seconds."""
        with translated(self.url):
            deleted = self._tombstones.among({document["workflow_id"] for document in new})
        return [document for document in new if document["workflow_id"] not in deleted]

    def put_consumer(self, mark: ConsumerMark) -> None:
        """Keep a consumer's latest mark; a consumer not seen for a week is forgotten when a new one comes."""
        document = documents.consumer_document(mark)
        collection = self._database[names.CONSUMERS]
        update = [{"$replaceWith": {"$mergeObjects": [{"$literal": document}, {"store_at": "$$NOW"}]}}]
        with translated(self.url):
            result = collection.update_one({"_id": mark.name}, update, upsert=True)
            if result.upserted_id is not None:
                long_ago = {"$subtract": ["$$NOW", documents.FORGET_CONSUMER_MS]}
                collection.delete_many({"$expr": {"$lt": ["$store_at", long_ago]}})

    def consumers(self) -> list[Record]:
        """All marks, the newest first, each with the server's clock."""
        pipeline: list[dict[str, Any]] = [{"$sort": {"broker_at": -1}}, {"$addFields": {"now": "$$NOW"}}]
        with translated(self.url, reading=True):
            found = list(self._database[names.CONSUMERS].aggregate(pipeline))
        return [values.from_portable({**document, "_id": document["name"]}) for document in found]

    # --- quarantine --------------------------------------------------------------------------------------------

    def note_quarantined(self, piece_id: str, reason: str) -> None:
        """Give a quarantined piece a new reason."""
        with translated(self.url):
            self._database[names.QUARANTINE].update_many(
                documents.piece_filter(piece_id), {"$set": {"reason": values.to_portable(reason)}}
            )

    def drop_quarantined(self, piece_ids: Iterable[str]) -> None:
        """Remove quarantined pieces."""
        deletes = [pymongo.DeleteMany(documents.piece_filter(piece_id)) for piece_id in piece_ids]
        if deletes:
            with translated(self.url):
                self._database[names.QUARANTINE].bulk_write(deletes, ordered=False)

    # --- deleted runs ------------------------------------------------------------------------------------------

    def deleted_among(self, workflow_ids: Iterable[str]) -> frozenset[str]:
        """Those of these runs that have been deleted."""
        with translated(self.url):
            return frozenset(self._tombstones.ask(workflow_ids))

    def begin_deletion(self, workflow_id: str, *, by: str, archive: str | None = None) -> None:
        """Write the run's tombstone."""
        with translated(self.url):
            self._tombstones.check_rights()
        workflow = next(iter(self.find(names.WORKFLOWS, {"_id": workflow_id}, limit=1)), {})
        counts = count_documents(self, workflow_id)
        with translated(self.url):
            tombstone = new_tombstone(workflow_id, workflow, counts, by=by, archive=archive)
            self._tombstones.begin(tombstone, archive)

    def delete_run(self, workflow_id: str, *, on_progress: Progress | None = None) -> None:
        """Delete everything of a run."""
        total = sum(count_documents(self, workflow_id).values())
        with translated(self.url):
            self._tombstones.delete(workflow_id, total, on_progress or (lambda _done, _total: None))

    def undelete_run(self, workflow_id: str) -> bool:
        """Remove the tombstone."""
        with translated(self.url):
            return self._tombstones.remove(workflow_id)

    # --- the ledger --------------------------------------------------------------------------------------------

    def compact_ledger(self, *workflow_ids: str) -> int:
        """Insert the merged ranges, then delete the parts.

        What is deleted lies within a range that was inserted before. So where several do it at once, a range that one
        deletes as a part is covered by a larger one of another's, and the largest are nobody's parts.
        """
        with translated(self.url):
            found = list(self._ledger(workflow_ids))
        merged = [
            documents.range_document(Stored(producer_id, workflow_id, first, last))
            for workflow_id, ranges in _by_workflow(found)
            for producer_id, spans in ranges.items()
            for first, last in spans
        ]
        known = {document["_id"] for document in found}
        kept = {document["_id"] for document in merged}
        self._add(names.LEDGER, [document for document in merged if document["_id"] not in known])
        parts = sorted(known - kept)
        for start in range(0, len(parts), _PARTS_AT_ONCE):
            some = parts[start : start + _PARTS_AT_ONCE]
            with translated(self.url):
                where = {"workflow_id": {"$in": list(workflow_ids)}, "_id": {"$in": some}}
                self._database[names.LEDGER].delete_many(where)
        return len(merged)

    def stored_ranges(self, workflow_id: str) -> dict[str, Ranges]:
        """The ledger of a workflow: the stored numbers of each producer."""
        with translated(self.url):
            return _by_producer(self._ledger([workflow_id]))

    def _ledger(self, workflow_ids: Sequence[str]) -> Cursor[Record]:
        where = {"workflow_id": workflow_ids[0] if len(workflow_ids) == 1 else {"$in": list(workflow_ids)}}
        found: Cursor[Record] = self._database[names.LEDGER].find(where)
        found.sort(list(documents.LEDGER_ORDER))
        return found

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
        """Documents that match, streamed; an operator we refuse raises here, the server's refusal on first use."""
        source = self._database[filters.check_collection(collection)]
        projection = None
        if fields is not None:
            projection = {"_id": not documents.hides_id(collection)}
            projection |= dict.fromkeys(filters.projected(collection, fields), True)
        order = filters.check_sort(sort)
        where = for_server(filters.prepare(filter))
        with translated(self.url, reading=True):
            cursor = source.find(
                where,
                projection,
                sort=order or None,
                limit=limit,
                batch_size=_WHOLE_AT_ONCE if fields is None else 0,
                max_time_ms=_ms(timeout_s),
            )
        return self._streamed(cursor, hides_id=documents.hides_id(collection), timeout_s=timeout_s)

    def _streamed(
        self, cursor: Iterator[Record], *, hides_id: bool, timeout_s: float | None
    ) -> Iterator[Record]:
        with translated(self.url, reading=True), timed(timeout_s):
            for document in cursor:
                if hides_id:
                    document.pop("_id", None)
                yield values.from_portable(document)

    def count(self, collection: str, filter: Filter) -> int:
        """How many documents match."""
        source = self._database[filters.check_collection(collection)]
        where = for_server(filters.prepare(filter))
        with translated(self.url, reading=True):
            return source.count_documents(where)

    def count_by(self, collection: str, filter: Filter, fields: Sequence[str]) -> dict[tuple[Any, ...], int]:
        """How many documents match for each combination of values, counted in the server."""
        source = self._database[filters.check_collection(collection)]
        where = for_server(filters.prepare(filter))
        group = {"_id": {field: f"${field}" for field in fields}, "count": {"$sum": 1}}
        counts: dict[tuple[Any, ...], int] = {}
        with translated(self.url, reading=True):
            for row in source.aggregate([{"$match": where}, {"$group": group}]):
                found = values.from_portable(row["_id"])
                key = tuple(found.get(field) for field in fields)
                counts[key] = counts.get(key, 0) + row["count"]  # a null counts with what is absent
        return counts

    def task_times(self, workflow_id: str, *, expected: int = 0) -> Iterator[TaskTimes]:
        """All tasks of a workflow by activity and status, from an index alone."""
        with translated(self.url, reading=True):
            yield from read_times(self._database[names.TASKS], workflow_id, expected)

    def aggregate(
        self, collection: str, pipeline: Sequence[Mapping[str, Any]], *, timeout_s: float | None = None
    ) -> Iterator[Record]:
        """Run a read-only pipeline in the server."""
        source = self._database[filters.check_collection(collection)]
        stages = for_server(filters.prepare_pipeline(pipeline))
        within: dict[str, Any] = {"maxTimeMS": _ms(timeout_s)} if timeout_s else {}
        with translated(self.url, reading=True), timed(timeout_s):
            cursor = source.aggregate(stages, allowDiskUse=True, **within)
        return self._streamed(cursor, hides_id=False, timeout_s=timeout_s)


def _ms(seconds: float | None) -> int | None:
    return max(1, int(seconds * 1000)) if seconds else None


def _by_workflow(found: Iterable[Record]) -> Iterator[tuple[str, dict[str, Ranges]]]:
    """Ranges of documents that come workflow by workflow, and within them producer by producer."""
    for workflow_id, group in groupby(found, lambda document: str(document["workflow_id"])):
        yield workflow_id, _by_producer(group)


def _by_producer(found: Iterable[Record]) -> dict[str, Ranges]:
    """Ranges of documents that come producer by producer."""
    return {
        producer_id: Ranges.of((document["first_seq"], document["last_seq"]) for document in group)
        for producer_id, group in groupby(found, key=lambda document: document["producer_id"])
    }
