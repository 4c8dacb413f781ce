"""Whole documents into MongoDB: inserted, or merged with what is there.

A document that is there is read, merged by `provd.common.record.merge`, and replaced on condition that nobody has
changed it meanwhile; else it is read again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pymongo import ReadPreference, errors
from pymongo.collection import Collection

from provd.common import values
from provd.common.errors import StoreError
from provd.common.record import Record, from_document, merge
from provd.store.interface import Refusal
from provd.store.mongo_encode import encode_whole
from provd.store.mongo_errors import DUPLICATE_KEY, is_transient
from provd.store.whole import Whole, same

#: Documents of one insertion.
_AT_ONCE = 500

#: Times that others may change a document while it is merged.
_RACES = 20


def put_whole(
    collection: Collection[Record], batch: Sequence[Whole], received_at: int, refusals: list[Refusal]
) -> tuple[int, int]:
    """Bring documents in; returns how many made or changed one, and how many changed nothing."""
    collection = collection.with_options(
        read_preference=ReadPreference.PRIMARY
    )  # what is merged with is not of before
    stored = unchanged = 0
    for start in range(0, len(batch), _AT_ONCE):
        inserted, met = _insert(collection, batch[start : start + _AT_ONCE], refusals)
        stored += inserted
        known = _read(collection, [one.record_id for one in met])
        for one in met:
            changed = _merge(collection, one, known.get(one.record_id), received_at, refusals)
            stored, unchanged = stored + (changed is True), unchanged + (changed is False)
    return stored, unchanged


def _insert(
    collection: Collection[Record], batch: Sequence[Whole], refusals: list[Refusal]
) -> tuple[int, list[Whole]]:
    """Insert what is not there; returns how many, and those that are."""
    fitting: list[Whole] = []
    raws: list[Any] = []
    for one in batch:
        try:
            raw = encode_whole(one.record_id, one.record)
        except ValueError as error:
            refusals.append(Refusal(one.message, str(error)))
            continue
        fitting.append(one)
        raws.append(raw)
    if not raws:
        return 0, []
    try:
        collection.insert_many(raws, ordered=False)
    except errors.BulkWriteError as error:
        failures = error.details["writeErrors"]
        if error.details.get("writeConcernErrors") or any(map(is_transient, failures)):
            raise
        refusals += [
            Refusal(fitting[failure["index"]].message, str(failure.get("errmsg")))
            for failure in failures
            if failure.get("code") != DUPLICATE_KEY
        ]
        met = [fitting[failure["index"]] for failure in failures if failure.get("code") == DUPLICATE_KEY]
        return len(fitting) - len(failures), met
    return len(fitting), []


def _read(collection: Collection[Record], ids: Sequence[str]) -> dict[str, Record]:
    if not ids:
        return {}
    return {document["_id"]: document for document in collection.find({"_id": {"$in": list(ids)}})}


def _merge(
    collection: Collection[Record],
    one: Whole,
    found: Record | None,
    received_at: int,
    refusals: list[Refusal],
) -> bool | None:
    """Merge with the document that is there; says whether that changed it, None where it is refused."""
    for _ in range(_RACES):
        if found is None:  # removed meanwhile
            inserted, met = _insert(collection, [one], refusals)
            if not met:
                return True if inserted else None
            found = collection.find_one({"_id": one.record_id})
            continue
        if found.get("workflow_id") != one.message.workflow_id:
            refusals.append(Refusal(one.message, "its id belongs to a record of another workflow"))
            return None
        old = from_document(values.from_portable(found))
        new = merge(old, one.record)
        if same(old, new):
            return False
        unchanged = {
            name: found.get(name, {"$exists": False}) for name in ("producer_id", "seq", "status", "filled")
        }
        replacement: Any = encode_whole(one.record_id, {**new, "received_at": received_at})
        result = collection.replace_one({"_id": one.record_id, **unchanged}, replacement)
        if result.matched_count:
            return True
        found = collection.find_one({"_id": one.record_id})
    raise StoreError(f"{one.record_id} is written by too many at once")
