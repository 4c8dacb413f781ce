"""Documents brought in whole, as a store of ours gave them: from an export or a backup.

- What a message may not say is kept: when it was received, and who lent it a time (`filled`). So the copy equals the
  original, and later messages merge into it as they would have there.
- What is foreign in them is refused, as in a message.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from provd.common import clock, ids, names, values
from provd.common.errors import StoreError
from provd.common.ranges import Ranges
from provd.common.record import LENT_FIELDS, Kind, Message, Record, from_document, merge_key
from provd.store import documents
from provd.store.interface import Beat, Stored

#: The kind of record in each collection that holds merged records.
KINDS = {kind.collection: kind for kind in Kind}

#: Fields of a quarantined piece's document, and their types.
_PIECE = {
    "_id": str, "reason": str, "raw": bytes, "size": int, "received_at": datetime, "stream": str, "entry_id": str,
    "producer_id": str, "workflow_id": str, "first_seq": int, "last_seq": int, "header_bytes": int, "header": bytes,
    "table": bytes, "part": int, "parts": int,
}  # fmt: skip
#: What readers take for granted in a consumer's mark and in a tombstone.
_MARK = {"name": str, "hostname": str, "pid": int, "version": str, "state": str, "since": datetime,
         "broker_at": datetime, "store_at": datetime, "figures": dict}  # fmt: skip
_TOMBSTONE = {"workflow_id": str, "deleted_at": datetime, "by": str, "counts": dict, "refused": int}
_PIECE_NEEDS = ("_id", "reason", "raw", "size", "received_at")


class Whole(NamedTuple):
    """A document to be brought in: `record` has its times in milliseconds, `filled` and `received_at` included."""

    record_id: str
    message: Message
    record: Record


def whole(collection: str, document: Mapping[str, Any]) -> Whole:
    """Check a document of a collection of records. Raises `ValueError` that says what is wrong."""
    kind = KINDS.get(collection)
    if kind is None:
        raise StoreError(f"documents of {collection} are not brought in whole")
    record = from_document({name: value for name, value in document.items() if name != "_id"})
    missing = [name for name in ("producer_id", "workflow_id", "seq", "received_at") if name not in record]
    if missing:
        raise ValueError(f"the field {missing[0]} is missing")
    for name, type_ in (("producer_id", str), ("workflow_id", str), ("seq", int), ("received_at", int)):
        if type(record[name]) is not type_:
            raise ValueError(f"{name} is of the wrong type")
    _check_ids(record["producer_id"], record["workflow_id"])
    clock.to_datetime(record["received_at"])
    filled = record.pop("filled", None)
    message = Message(kind, record["producer_id"], record["workflow_id"], record["seq"], record)
    stated, _ = documents.stated(message)
    if filled is not None:
        _check_filled(filled, stated)
        stated["filled"] = filled
    stated["received_at"] = record["received_at"]
    return Whole(documents.record_id(message), message, stated)


def _check_filled(filled: Any, record: Record) -> None:
    if not isinstance(filled, dict) or not set(filled) <= set(LENT_FIELDS) & set(record):
        raise ValueError("filled is not of lent times")
    for lender in filled.values():
        if not isinstance(lender, list) or [type(part) for part in lender] != [int, str, int]:
            raise ValueError("filled names no message")


def piece_document(document: Mapping[str, Any]) -> Record:
    """Check a quarantined piece's document. Raises `ValueError`."""
    for name in _PIECE_NEEDS:
        if name not in document:
            raise ValueError(f"the field {name} is missing")
    for name, value in document.items():
        if type(value) is not _PIECE.get(name):
            raise ValueError(f"{name} is no field of a quarantined piece, or of the wrong type")
    if not document["_id"] or not document["_id"].isprintable():
        raise ValueError("the id is not printable text")
    return dict(document)


def beat_of(document: Mapping[str, Any]) -> Beat:
    """A beat from its document. Raises `ValueError`."""
    try:
        beat = Beat(
            producer_id=_typed(document["producer_id"], str),
            workflow_id=_typed(document["workflow_id"], str),
            beat_at=clock.from_datetime(_typed(document["beat_at"], datetime)),
            sent=_whole(document["sent"]),
            tasks_started=_whole(document["tasks_started"]),
            tasks_ended=_whole(document["tasks_ended"]),
            spooled=_ranges(document["spooled"]),
            dropped=_ranges(document["dropped"]),
            held=_ranges(document.get("held", [])),
            dropped_reasons={
                _plain(reason): _whole(count) for reason, count in document.get("dropped_reasons", {}).items()
            },
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"no beat: {error}") from error
    _check_ids(beat.producer_id, beat.workflow_id)
    return beat


def range_of(document: Mapping[str, Any]) -> Stored:
    """A range of the ledger from its document. Raises `ValueError`."""
    try:
        stored = Stored(
            _typed(document["producer_id"], str),
            _typed(document["workflow_id"], str),
            _whole(document["first_seq"]),
            _whole(document["last_seq"]),
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"no range of the ledger: {error}") from error
    if not 0 < stored.first_seq <= stored.last_seq:
        raise ValueError("a range of the ledger that holds nothing")
    _check_ids(stored.producer_id, stored.workflow_id)
    return stored


def mark_of(document: Mapping[str, Any]) -> Record:
    """Check a consumer's mark. Raises `ValueError`."""
    _check_fields(document, _MARK, "a consumer's mark")
    if not document["name"].isprintable():
        raise ValueError("the name of a consumer is not printable text")
    return dict(document)


def tombstone_of(document: Mapping[str, Any]) -> Record:
    """Check a tombstone's document. Raises `ValueError`."""
    _check_fields(document, _TOMBSTONE, "a tombstone")
    ids.check_id(document["workflow_id"], "workflow id")
    return dict(document)


def _check_fields(document: Mapping[str, Any], needed: Mapping[str, type], what: str) -> None:
    for name, wanted in needed.items():
        if type(document.get(name)) is not wanted:
            raise ValueError(f"{name} of {what} is missing, or of the wrong type")
    for name in document:
        if not values.is_plain_key(name) or not name or "." in name:
            raise ValueError(f"{name!r:.40} cannot name a field of {what}")


def same(old: Record, new: Record) -> bool:
    """Whether a merge changed nothing: the same message stands, and has been lent the same times."""
    return merge_key(old) == merge_key(new) and all(
        old.get(name) == new.get(name) for name in ("filled", *LENT_FIELDS)
    )


def check(collection: str, document: Mapping[str, Any]) -> str:
    """The workflow that a document of an export is about. Raises `ValueError` unless a store would take it."""
    if collection == names.QUARANTINE:
        return str(piece_document(document).get("workflow_id", ""))
    if collection == names.BEATS:
        return beat_of(document).workflow_id
    if collection == names.LEDGER:
        return range_of(document).workflow_id
    return whole(collection, document).message.workflow_id


def _typed(value: Any, wanted: type) -> Any:
    if type(value) is not wanted:
        raise TypeError(f"{value!r:.40} is no {wanted.__name__}")
    return value


def _check_ids(producer_id: str, workflow_id: str) -> None:
    """As of a message (`provd.common.wire`): they become part of keys and file names."""
    ids.check_id(workflow_id, "workflow id")
    if not producer_id or not producer_id.isprintable():
        raise ValueError("the producer id is not printable text")


def _whole(value: Any) -> int:
    """A number that every store can hold."""
    if not 0 <= _typed(value, int) < 1 << 63:
        raise ValueError(f"{value} is outside 64 bits")
    return int(value)


def _plain(key: Any) -> str:
    if not values.is_plain_key(key):
        raise ValueError(f"{key!r:.40} is no reason")
    return str(key)


def _ranges(spans: Any) -> Ranges:
    return Ranges.of((_whole(first), _whole(last)) for first, last in spans)
