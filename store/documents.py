"""What both stores keep of a message, a range, a beat and a quarantined piece, and what they give back.

Invariants:

- A record that is no record (an id that is not text, a time outside the years 1-9999, a field name that could be
  taken for an operator) is refused here, by both stores alike, with the reason.
- The fields that stores index hold text, numbers or times, or nothing.
- `announced` is the producer's remark to the consumer and is never stored.
- A quarantined piece of any size is kept whole: in several documents where one would be too large.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from provd.common import clock, names
from provd.common.record import LENT_FIELDS, RANKS, TIME_FIELDS, Kind, Message, Record
from provd.store.interface import Beat, ConsumerMark, Quarantined, Sort, Stored

#: How the ledger is read: a part's document comes before that of any range around it, whatever is compacted meanwhile.
LEDGER_ORDER: Sort = (("workflow_id", 1), ("producer_id", 1), ("last_seq", 1), ("first_seq", -1))

#: The fields that name a document, which a projection always keeps. Elsewhere `_id` alone does.
ID_FIELDS: dict[str, tuple[str, ...]] = {
    names.TASKS: ("task_id",),
    names.LINKS: ("task_id", "direction", "key"),
    names.WORKFLOWS: ("workflow_id",),
    names.PRODUCERS: ("producer_id", "workflow_id"),
    names.SAMPLES: ("producer_id", "seq"),
    names.LEDGER: ("producer_id", "workflow_id", "first_seq", "last_seq"),
    names.BEATS: ("producer_id", "workflow_id"),
    names.CONSUMERS: ("name",),
    names.TOMBSTONES: ("workflow_id",),
}

#: Fields of a message that the store keeps for itself.
_NOT_STATED = ("_id", "announced", "filled", "received_at")

_TEXT_FIELDS = ("activity_id", "campaign_id", "name", "parent_task_id", "status", "hostname", "task_id")
_STATED_TIMES = tuple(field for field in TIME_FIELDS if field != "received_at")
_NUMBERS = ("duration",)
_MIN_MS = -62_135_596_800_000
_MAX_MS = 253_402_300_799_999
_MAX_SEQ = (1 << 63) - 1

#: Characters of a quarantined piece's id; the documents of one kept in parts have `-0`, `-1`, … behind it.
PIECE_ID_CHARS = 32

#: Milliseconds after which a consumer that was never seen again is forgotten.
FORGET_CONSUMER_MS = 7 * 24 * 3600 * 1000

#: Characters of a reason: some errors quote what they could not read.
_REASON_CHARS = 2000

#: Bytes of a quarantined piece that one document holds; MongoDB's documents end at 16 MiB.
QUARANTINE_PART_BYTES = 8 << 20


def hides_id(collection: str) -> bool:
    """Whether a collection's `_id` only repeats other fields, so that readers do not see it."""
    return collection in ID_FIELDS


def stated(message: Message) -> tuple[Record, Sequence[str]]:
    """The record of a message as it is merged, with its `_id` and without what is not its to say; and which of its
    fields are times. Raises `ValueError` if it is no record.
    """
    identity = record_id(message)
    record = {"_id": identity, **message.record}
    layout = _layout(tuple(message.record))
    if layout.unstated:
        for name in layout.unstated:
            del record[name]
        record["_id"] = identity
    _check(record, layout)
    if message.kind is Kind.TASK and record.get("status") not in RANKS:
        raise ValueError(f"{record['status']!r} is no status of a task")
    if not 0 <= message.seq <= _MAX_SEQ:
        raise ValueError("seq is outside 64 bits")
    record["producer_id"] = message.producer_id
    record["workflow_id"] = message.workflow_id
    record["seq"] = message.seq
    return record, layout.times


def record_id(message: Message) -> str:
    """The `_id` of the message's document. Raises `ValueError` if it has none."""
    identity = message.record.get("task_id") if message.kind is Kind.TASK else message.record_id
    if not isinstance(identity, str):
        raise ValueError("the task has no task_id")
    if not identity or not identity.isprintable():
        raise ValueError("the id is not printable text")
    return identity


@dataclass(frozen=True, slots=True)
class _Layout:
    """What the names of a record's fields alone say of it."""

    unstated: tuple[str, ...]
    texts: tuple[str, ...]
    times: tuple[str, ...]
    numbers: tuple[str, ...]


#: Layouts seen: a function's records all have the same few. Bounded in number and in size.
_layouts: dict[tuple[Any, ...], _Layout] = {}
_LAYOUTS_MAX = 1024
_LAYOUT_CHARS_MAX = 1024


def _layout(fields: tuple[Any, ...]) -> _Layout:
    """The layout of a record with these fields. Raises `ValueError` if one of them cannot be."""
    known = _layouts.get(fields)
    if known is not None:
        return known
    for name in fields:
        if type(name) is not str or not name or name[0] in "$~" or "." in name or "\0" in name:
            raise ValueError(f"{name!r} cannot name a field of a record")
    layout = _Layout(
        *(
            tuple(name for name in fields if name in some)
            for some in (_NOT_STATED, _TEXT_FIELDS, _STATED_TIMES, _NUMBERS)
        )
    )
    if len(_layouts) < _LAYOUTS_MAX and sum(map(len, fields)) <= _LAYOUT_CHARS_MAX:
        _layouts[fields] = layout
    return layout


def _check(record: Record, layout: _Layout) -> None:
    for field in layout.texts:
        value = record[field]
        if value is not None and not isinstance(value, str):
            raise ValueError(f"{field} is {type(value).__name__}, not text")
    for field in layout.times:
        value = record[field]
        if value is not None and (type(value) is not int or not _MIN_MS <= value <= _MAX_MS):
            raise ValueError(f"{field} is not a time in UTC milliseconds between the years 1 and 9999")
    for field in layout.numbers:
        value = record[field]
        if type(value) is not float and value is not None and not _is_whole(value):
            raise ValueError(f"{field} is not a number of at most 64 bits")


def _is_whole(value: Any) -> bool:
    return type(value) is int and -_MAX_SEQ <= value <= _MAX_SEQ


def lent_fields(record: Record) -> tuple[str, ...]:
    """The times that this record could lend to a higher one."""
    return tuple(field for field in LENT_FIELDS if field in record)


def range_document(stored: Stored) -> Record:
    """The ledger's document about a range; equal ranges are one document."""
    identity = f"{stored.producer_id}/{stored.workflow_id}/{stored.first_seq}-{stored.last_seq}"
    return {
        "_id": identity,
        "producer_id": stored.producer_id,
        "workflow_id": stored.workflow_id,
        "first_seq": stored.first_seq,
        "last_seq": stored.last_seq,
    }


def beat_document(beat: Beat) -> Record:
    """The beats' document about a producer in a workflow."""
    document = {
        "_id": f"{beat.producer_id}/{beat.workflow_id}",
        "producer_id": beat.producer_id,
        "workflow_id": beat.workflow_id,
        "beat_at": clock.to_datetime(beat.beat_at),
        "sent": beat.sent,
        "tasks_started": beat.tasks_started,
        "tasks_ended": beat.tasks_ended,
        "spooled": [list(span) for span in beat.spooled],
        "dropped": [list(span) for span in beat.dropped],
    }
    if beat.held:
        document["held"] = [list(span) for span in beat.held]
    if beat.dropped_reasons:
        document["dropped_reasons"] = dict(beat.dropped_reasons)
    return document


def consumer_document(mark: ConsumerMark) -> Record:
    """The consumers' document about a consumer, but for `store_at`, which the store adds."""
    document: Record = {
        "_id": mark.name,
        "name": mark.name,
        "hostname": mark.hostname,
        "pid": mark.pid,
        "version": mark.version,
        "state": mark.state,
        "since": clock.to_datetime(mark.since),
        "broker_at": clock.to_datetime(mark.broker_at),
        "figures": dict(mark.figures),
    }
    if mark.workflow_ids:
        document["workflow_ids"] = list(mark.workflow_ids)
    return document


def quarantine_documents(item: Quarantined) -> Iterator[Record]:
    """The quarantine's documents about a piece: one, or as many as its bytes need, with `part` and `parts`."""
    where: dict[str, Any] = {
        "stream": item.stream,
        "entry_id": item.entry_id,
        "producer_id": item.producer_id,
        "workflow_id": item.workflow_id,
        "first_seq": item.first_seq,
        "last_seq": item.last_seq,
    }
    context = {"header_bytes": item.header_bytes, "header": item.header, "table": item.table}
    digest = hashlib.sha256(repr(tuple(where.values())).encode("utf-8", "surrogatepass"))
    digest.update(item.raw)
    parts = max(1, -(-len(item.raw) // QUARANTINE_PART_BYTES))
    for part in range(parts):
        start = part * QUARANTINE_PART_BYTES
        document: Record = {name: value for name, value in where.items() if value is not None}
        piece_id = digest.hexdigest()[:PIECE_ID_CHARS]
        document["_id"] = piece_id if parts == 1 else f"{piece_id}-{part}"
        document |= {name: value for name, value in context.items() if value is not None}
        document["reason"] = item.reason[:_REASON_CHARS]
        document["raw"] = item.raw[start : start + QUARANTINE_PART_BYTES]
        document["size"] = len(item.raw)
        document["received_at"] = clock.to_datetime(clock.now_ms())
        if parts > 1:
            document |= {"part": part, "parts": parts}
        yield document


def piece_filter(piece_id: str) -> Record:
    """The filter for all documents of a quarantined piece."""
    return {"$or": [{"_id": piece_id}, {"_id": {"$gte": f"{piece_id}-", "$lt": f"{piece_id}."}}]}
