"""The store in MongoDB.

- Writes are `w: majority, j: true`: what `write` returned for survives the loss of a minority of the servers.
- Nothing is written singly: messages never announced go by bulk insert, `RUNNING` announcements by another, and
  what has or meets a document goes by bulk conditional update (`mongo_merge`).
- A batch that the server refuses as a whole is halved until the message that spoils it stands alone.
- The ledger is read in an order in which a compacted range stands behind all its parts, and is compacted by
  inserting first: a reader never sees less than was there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, TypeAlias

import pymongo
from pymongo import errors
from pymongo.collection import Collection
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
from provd.store.interface import Beat, ConsumerMark, Filter, Quarantined, Refusal, Sort, Stored, Written
from provd.store.mongo_encode import CODEC, Encoded, encode
from provd.store.mongo_errors import DUPLICATE_KEY, is_transient, translated
from provd.store.mongo_merge import merge_update

#: The database where the URL names none.
DEFAULT_DATABASE = "provd"

#: Milliseconds between two looks at a server that are made beside the work. A server that hangs is known by the next
#: one's timeout, and whatever waits for it is then cut off; a write that only takes long is let go on.
_HEARTBEAT_MS = 5_000

#: Milliseconds that an answer may take from a server that is otherwise well, and a majority to confirm a write: the
#: server says then that it is slow, and what was written stays.
_ANSWER_MS = 60_000
_MAJORITY_MS = 30_000

#: An upsert loses the race to another writer's at most a few times, and then finds that writer's document.
_RACES = 5

#: Messages in one bulk write. A batch that comes a second time is refused one by one, with 3 KiB of words for each, and
#: then all merges, each 12 KiB of expressions on its way: that would set the mark that a process' memory stays at.
_INSERTS_AT_ONCE = 500
_MERGES_AT_ONCE = 200

#: A part's document comes before that of any range around it, whatever is compacted meanwhile.
_LEDGER_ORDER = [("workflow_id", 1), ("producer_id", 1), ("last_seq", 1), ("first_seq", -1)]

#: Documents in one deletion: their ids go in one message.
_PARTS_AT_ONCE = 10_000

_Bulk: TypeAlias = Callable[[Sequence[Encoded]], tuple[int, int]]


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
            self._client: pymongo.MongoClient[Record] = pymongo.MongoClient(
                url,
                serverSelectionTimeoutMS=milliseconds,
                connectTimeoutMS=milliseconds,
                **looks,
                socketTimeoutMS=max(_ANSWER_MS, milliseconds),
                appname="provd",
            )
            name = parsed.get("database") or DEFAULT_DATABASE
            self._database: Database[Record] = self._client.get_database(
                name,
                codec_options=CODEC,
                write_concern=WriteConcern(w="majority", j=True, wtimeout=_MAJORITY_MS),
            )
        except (errors.ConfigurationError, errors.InvalidURI, errors.InvalidName, ValueError) as error:
            raise SettingsError(
                f"the store URL {self.url!r} is not one MongoDB understands: {hide(str(error), url)}"
            ) from error

    def ping(self) -> None:
        """Raise `StoreUnavailable` unless a server answers now."""
        with translated(self.url):
            self._database.command("ping")

    def migrate(self) -> list[str]:
        """Create what indexes are missing; returns the names of the migrations that this call applied."""
        self._identity = ""
        with translated(self.url):
            return migrations.migrate_mongo(self._database)

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
        refusals: list[Refusal] = []
        encoded: list[Encoded] = []
        for message in messages:
            result = encode(message, received_at)
            if isinstance(result, Refusal):
                refusals.append(result)
            else:
                encoded.append(result)
        stored = duplicates = 0
        with translated(self.url):
            for kind in Kind:
                batch = [one for one in encoded if one.message.kind is kind]
                if batch:
                    done = _Batch(self._database[kind.collection], received_at, refusals).write(batch)
                    stored, duplicates = stored + done[0], duplicates + done[1]
        return Written(stored, duplicates, tuple(refusals))

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
                if _failures(error):
                    raise

    def put_beats(self, beats: Iterable[Beat]) -> None:
        """Keep the latest beat of each producer and workflow."""
        updates = []
        for document in map(documents.beat_document, beats):
            is_later = {"$gte": [{"$literal": document["beat_at"]}, "$beat_at"]}
            latest = {"$cond": [is_later, {"$literal": document}, "$$ROOT"]}
            updates.append(
                pymongo.UpdateOne({"_id": document["_id"]}, [{"$replaceWith": latest}], upsert=True)
            )
        with translated(self.url):
            for _ in range(_RACES):
                if not updates:
                    return
                try:
                    self._database[names.BEATS].bulk_write(updates, ordered=False)
                    return
                except errors.BulkWriteError as error:
                    if _failures(error):
                        raise
                    updates = [updates[failure["index"]] for failure in error.details["writeErrors"]]
        raise StoreError("beats of one producer are written by too many at once")

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
        found.sort(_LEDGER_ORDER)
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
    ) -> Iterator[Record]:
        """Documents that match, streamed; an operator we refuse raises here, the server's refusal on first use."""
        source = self._database[filters.check_collection(collection)]
        projection = None
        if fields is not None:
            projection = {"_id": not documents.hides_id(collection)}
            projection |= dict.fromkeys(filters.projected(collection, fields), True)
        order = filters.check_sort(sort)
        where = filters.prepare(filter)
        with translated(self.url, reading=True):
            cursor = source.find(where, projection, sort=order or None, limit=limit)
        return self._streamed(cursor, hides_id=documents.hides_id(collection))

    def _streamed(self, cursor: Iterator[Record], *, hides_id: bool) -> Iterator[Record]:
        with translated(self.url, reading=True):
            for document in cursor:
                if hides_id:
                    document.pop("_id", None)
                yield values.from_portable(document)

    def count(self, collection: str, filter: Filter) -> int:
        """How many documents match."""
        source = self._database[filters.check_collection(collection)]
        where = filters.prepare(filter)
        with translated(self.url, reading=True):
            return source.count_documents(where)

    def aggregate(self, collection: str, pipeline: Sequence[Mapping[str, Any]]) -> Iterator[Record]:
        """Run a read-only pipeline in the server."""
        source = self._database[filters.check_collection(collection)]
        stages = filters.prepare(pipeline)
        with translated(self.url, reading=True):
            cursor = source.aggregate(stages, allowDiskUse=True)
        return self._streamed(cursor, hides_id=False)


class _Batch:
    """The bulk writes of one batch into one collection. Works through pymongo's own errors."""

    def __init__(self, collection: Collection[Record], received_at: int, refusals: list[Refusal]) -> None:
        self._collection = collection
        self._received_at = received_at
        self._refusals = refusals

    def write(self, batch: Sequence[Encoded]) -> tuple[int, int]:
        """Write all; returns how many were stored and how many changed nothing."""
        announcing = [one for one in batch if not one.message.was_announced and not one.message.is_final]
        alone = [one for one in batch if not one.message.was_announced and one.message.is_final]
        stored = unchanged = 0
        colliding = [one for one in batch if one.message.was_announced]
        for new in (*_slices(announcing, _INSERTS_AT_ONCE), *_slices(alone, _INSERTS_AT_ONCE)):
            inserted, duplicates = self._insert(new)
            stored += inserted
            colliding += duplicates
        for some in _slices(colliding, _MERGES_AT_ONCE):
            done = self._merge(some)
            stored, unchanged = stored + done[0], unchanged + done[1]
        return stored, unchanged

    def _insert(self, batch: Sequence[Encoded]) -> tuple[int, list[Encoded]]:
        try:
            raws: Sequence[Any] = [one.raw for one in batch]
            self._collection.insert_many(raws, ordered=False)
        except errors.BulkWriteError as error:
            duplicates, refused = self._sorted_out(batch, error)
            return len(batch) - len(duplicates) - refused, duplicates
        except errors.PyMongoError as error:
            done = [self._insert(half) for half in self._halves(batch, error)]
            return sum(inserted for inserted, _ in done), [one for _, again in done for one in again]
        return len(batch), []

    def _merge(self, batch: Sequence[Encoded]) -> tuple[int, int]:
        changed = unchanged = 0
        for _ in range(_RACES):
            if not batch:
                return changed, unchanged
            updates = [merge_update(one, self._received_at) for one in batch]
            try:
                result: Mapping[str, Any] = self._collection.bulk_write(
                    updates, ordered=False
                ).bulk_api_result
                batch = []
            except errors.BulkWriteError as error:
                result = error.details
                batch, _refused = self._sorted_out(batch, error)
            except errors.PyMongoError as error:
                done = [self._merge(half) for half in self._halves(batch, error)]
                return changed + sum(one for one, _ in done), unchanged + sum(one for _, one in done)
            changed += result["nUpserted"] + result["nModified"]
            unchanged += result["nMatched"] - result["nModified"]
        for one in batch:
            self._refusals.append(Refusal(one.message, "its id belongs to a record of another workflow"))
        return changed, unchanged

    def _sorted_out(
        self, batch: Sequence[Encoded], error: errors.BulkWriteError
    ) -> tuple[list[Encoded], int]:
        """Messages that met a document, and how many the server refused; raises if it is the server's own state."""
        if error.details.get("writeConcernErrors") or any(map(is_transient, error.details["writeErrors"])):
            raise error
        refused = _failures(error)
        for failure in refused:
            self._refusals.append(Refusal(batch[failure["index"]].message, str(failure.get("errmsg"))))
        met = [
            batch[failure["index"]]
            for failure in error.details["writeErrors"]
            if failure.get("code") == DUPLICATE_KEY
        ]
        return met, len(refused)

    def _halves(self, batch: Sequence[Encoded], error: errors.PyMongoError) -> list[Sequence[Encoded]]:
        """What to try again after the server refused a batch as a whole; raises if it is the server's own state."""
        if isinstance(error, errors.OperationFailure):
            if isinstance(error, errors.WriteConcernError) or is_transient({"code": error.code}):
                raise error
        elif not isinstance(error, errors.DocumentTooLarge):
            raise error
        if len(batch) == 1:
            self._refusals.append(Refusal(batch[0].message, str(error).partition(", full error:")[0]))
            return []
        middle = len(batch) // 2
        return [batch[:middle], batch[middle:]]


def _slices(batch: Sequence[Encoded], size: int) -> Iterator[Sequence[Encoded]]:
    return (batch[start : start + size] for start in range(0, len(batch), size))


def _failures(error: errors.BulkWriteError) -> list[dict[str, Any]]:
    """What is wrong with a bulk write beyond documents that exist already."""
    details = error.details
    found = [failure for failure in details["writeErrors"] if failure.get("code") != DUPLICATE_KEY]
    return [*found, *details.get("writeConcernErrors", ())]


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
