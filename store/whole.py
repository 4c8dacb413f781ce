"""Documents brought in whole, as a store of ours gave them: from an export or a backup.

- What a message may not say is kept: when it was received, and who lent it a time (`filled`). So the copy equals the
  original, and later messages merge into it as they would have there.
- What is foreign in them is refused, as in a message.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from provd.common import clock, names
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
    return dict(document)


def beat_of(document: Mapping[str, Any]) -> Beat:
    """A beat from its document. Raises `ValueError`."""
    try:
        return Beat(
            producer_id=_typed(document["producer_id"], str),
            workflow_id=_typed(document["workflow_id"], str),
            beat_at=clock.from_datetime(_typed(document["beat_at"], datetime)),
            sent=_typed(document["sent"], int),
            tasks_started=_typed(document["tasks_started"], int),
            tasks_ended=_typed(document["tasks_ended"], int),
            spooled=_ranges(document["spooled"]),
            dropped=_ranges(document["dropped"]),
            held=_ranges(document.get("held", [])),
            dropped_reasons={
                _typed(reason, str): _typed(count, int)
                for reason, count in document.get("dropped_reasons", {}).items()
            },
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"no beat: {error}") from error


def range_of(document: Mapping[str, Any]) -> Stored:
    """A range of the ledger from its document. Raises `ValueError`."""
    try:
        stored = Stored(
            _typed(document["producer_id"], str),
            _typed(document["workflow_id"], str),
            _typed(document["first_seq"], int),
            _typed(document["last_seq"], int),
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"no range of the ledger: {error}") from error
    if not 0 < stored.first_seq <= stored.last_seq:
        raise ValueError("a range of the ledger that holds nothing")
    return stored


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


def _ranges(spans: Any) -> Ranges:
    return Ranges.of((_typed(first, int), _typed(last, int)) for first, last in spans)
