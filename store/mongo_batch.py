"""The bulk writes of one batch of messages into one collection.

- Nothing is written singly: messages never announced go by bulk insert, `RUNNING` announcements by another, and what has
  or meets a document goes by bulk conditional update (`mongo_merge`). The end of an announced task replaces what went
  before it in bulk, and is merged only where that collides.
- A batch that the server refuses as a whole is halved until the message that spoils it stands alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from pymongo import errors
from pymongo.collection import Collection

from provd.common.record import Kind, Record
from provd.store.interface import Refusal
from provd.store.mongo_encode import Encoded
from provd.store.mongo_errors import DUPLICATE_KEY, is_transient
from provd.store.mongo_merge import merge_update, replacement

#: An upsert loses the race to another writer's at most a few times, and then finds that writer's document.
RACES = 5

#: Messages in one bulk write. A batch that comes a second time is refused one by one, with 3 KiB of words for each, and
#: then all merges, each 12 KiB of expressions on its way: that would set the mark that a process' memory stays at. But
#: each write is a wait for the majority and its journal: where nothing was refused, the next one is larger.
INSERTS_AT_ONCE = 500
_INSERTS_AT_MOST = 1500
_MERGES_AT_ONCE = 200

_T = TypeVar("_T")


class Batch:
    """The bulk writes of one batch into one collection. Works through pymongo's own errors."""

    def __init__(self, collection: Collection[Record], received_at: int, refusals: list[Refusal]) -> None:
        self._collection = collection
        self._received_at = received_at
        self._refusals = refusals

    def write(self, batch: Sequence[Encoded]) -> tuple[int, int]:
        """Write all; returns how many were stored and how many changed nothing."""
        announcing: list[Encoded] = []
        alone: list[Encoded] = []
        ending: list[Encoded] = []
        colliding: list[Encoded] = []
        for one in batch:
            message = one.message
            if message.was_announced:
                (ending if message.kind is Kind.TASK and message.is_final else colliding).append(one)
            else:
                (alone if message.is_final else announcing).append(one)
        stored = unchanged = 0
        for new in (announcing, alone):
            inserted, duplicates = self._insert_all(new)
            stored += inserted
            colliding += duplicates
        for some in slices(ending, INSERTS_AT_ONCE):
            replaced, collided = self._replace(some)
            stored += replaced
            colliding += collided
        for some in slices(colliding, _MERGES_AT_ONCE):
            done = self._merge(some)
            stored, unchanged = stored + done[0], unchanged + done[1]
        return stored, unchanged

    def _insert_all(self, batch: Sequence[Encoded]) -> tuple[int, list[Encoded]]:
        """Insert in slices; returns how many were stored, and those that met a document."""
        stored, colliding = 0, list[Encoded]()
        start, size = 0, INSERTS_AT_ONCE
        while start < len(batch):
            some = batch[start : start + size]
            inserted, duplicates = self._insert(some)
            stored += inserted
            colliding += duplicates
            start, size = start + len(some), INSERTS_AT_ONCE if duplicates else _INSERTS_AT_MOST
        return stored, colliding

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

    def _replace(self, batch: Sequence[Encoded]) -> tuple[int, list[Encoded]]:
        """Replace what the ends of tasks can replace; returns how many were stored, and the others."""
        try:
            self._collection.bulk_write(list(map(replacement, batch)), ordered=False)
        except errors.BulkWriteError as error:
            collided, refused = self._sorted_out(batch, error)
            return len(batch) - len(collided) - refused, collided
        except errors.PyMongoError as error:
            done = [self._replace(half) for half in self._halves(batch, error)]
            return sum(replaced for replaced, _ in done), [one for _, again in done for one in again]
        return len(batch), []

    def _merge(self, batch: Sequence[Encoded]) -> tuple[int, int]:
        changed = unchanged = 0
        for _ in range(RACES):
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
        refused = failures(error)
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


def slices(batch: Sequence[_T], size: int) -> Iterator[Sequence[_T]]:
    """A batch in parts of at most so many."""
    return (batch[start : start + size] for start in range(0, len(batch), size))


def failures(error: errors.BulkWriteError) -> list[dict[str, Any]]:
    """What is wrong with a bulk write beyond documents that exist already."""
    details = error.details
    found = [failure for failure in details["writeErrors"] if failure.get("code") != DUPLICATE_KEY]
    return [*found, *details.get("writeConcernErrors", ())]
