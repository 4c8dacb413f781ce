"""The merge rule (`provd.common.record.merge`) as one conditional update on the server.

- The new record stands only inside `$literal`: its values are data, never evaluated.
- Where it changes nothing the document is left as it is, `received_at` included.
- It is an upsert: on a document that is not there yet, which the server presents as its two id fields, the new
  record wins.
- Nearly always the document is an earlier status of the same task and has no time to lend: then the new record takes its
  place, which costs half of the conditional update. Where it is anything else, the replacement collides.
"""

from __future__ import annotations

from typing import Any

from bson.datetime_ms import DatetimeMS
from bson.raw_bson import RawBSONDocument
from pymongo import ReplaceOne, UpdateOne

from provd.common.record import LENT_FIELDS, RANKS, STATUSES, Record, merge_key
from provd.store.documents import lent_fields, stated
from provd.store.mongo_encode import Encoded

_REMOVE = "$$REMOVE"

#: The merge key of the stored document. Every stored one has a producer; the stub of an upsert has none.
_STORED_KEY: list[Any] = [
    {
        "$cond": [
            {"$eq": [{"$type": "$producer_id"}, "missing"]},
            -1,
            {"$max": [0, {"$indexOfArray": [list(STATUSES), "$status"]}]},
        ]
    },
    "$producer_id",
    "$seq",
]


def merge_update(encoded: Encoded, received_at: int) -> UpdateOne:
    """The update that merges one message into its document."""
    record, _ = stated(encoded.message)
    branches = [
        {"case": {"$gt": ["$$new", "$$stored"]}, "then": _new_over_stored(record, encoded.raw)},
        {"case": {"$lt": ["$$new", "$$stored"]}, "then": _stored_over_new(record, received_at)},
    ]
    merged = {
        "$let": {
            "vars": {"new": {"$literal": list(merge_key(record))}, "stored": _STORED_KEY},
            "in": {"$switch": {"branches": branches, "default": "$$ROOT"}},
        }
    }
    where = {"_id": encoded.record_id, "workflow_id": encoded.message.workflow_id}
    return UpdateOne(where, [{"$replaceWith": merged}], upsert=True)


def replacement(encoded: Encoded) -> ReplaceOne[Record]:
    """The update that puts the end of a task in the place of what went before it, if the rule says so without looking
    closer: the document is of a lower status, and has no time that the end lacks. Else it collides (`DUPLICATE_KEY`).
    """
    record = encoded.message.record
    lacking = {field: {"$exists": False} for field in LENT_FIELDS if field not in record}
    where = {
        "_id": encoded.record_id,
        "workflow_id": encoded.message.workflow_id,
        "status": {"$in": list(STATUSES[: RANKS[record.get("status")]])},
        **lacking,
    }
    raw: Any = encoded.raw
    return ReplaceOne(where, raw, upsert=True)


def _is_missing(path: str) -> dict[str, Any]:
    return {"$eq": [{"$type": path}, "missing"]}


def _new_over_stored(record: Record, raw: RawBSONDocument) -> dict[str, Any]:
    """The new record, with the times it lacks lent by the stored document and `filled` saying whose they are."""
    new = {"$literal": raw}
    lacking = [field for field in LENT_FIELDS if field not in record]
    if not lacking:
        return new
    lenders = {
        field: {
            "$cond": [_is_missing(f"${field}"), _REMOVE, {"$ifNull": [f"$filled.{field}", "$$stored"]}],
        }
        for field in lacking
    }
    nothing_lent = {"$and": [_is_missing(f"${field}") for field in lacking]}
    lent: dict[str, Any] = {field: f"${field}" for field in lacking}
    return {"$mergeObjects": [new, {**lent, "filled": {"$cond": [nothing_lent, _REMOVE, lenders]}}]}


def _stored_over_new(record: Record, received_at: int) -> str | dict[str, Any]:
    """The stored document, with the times it lacks, or has from a lower lender, lent by the new record."""
    lent = lent_fields(record)
    if not lent:
        return "$$ROOT"
    wanted = {
        field: {
            "$or": [
                _is_missing(f"${field}"),
                {"$lt": [{"$ifNull": [f"$filled.{field}", [len(STATUSES)]]}, "$$new"]},
            ]
        }
        for field in lent
    }
    times = {
        field: {"$cond": [wanted[field], {"$literal": _time(record[field])}, f"${field}"]} for field in lent
    }
    lenders = {field: {"$cond": [wanted[field], "$$new", f"$filled.{field}"]} for field in lent}
    changed = {
        "$mergeObjects": [
            "$$ROOT",
            {
                **times,
                "filled": {"$mergeObjects": ["$filled", lenders]},
                "received_at": {"$literal": DatetimeMS(received_at)},
            },
        ]
    }
    return {"$cond": [{"$or": list(wanted.values())}, changed, "$$ROOT"]}


def _time(value: int | None) -> DatetimeMS | None:
    return None if value is None else DatetimeMS(value)
