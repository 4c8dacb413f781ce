"""What `provd runs verify` says: the open books of a run as one document, and as one line."""

from __future__ import annotations

from typing import Any

from provd.common.ranges import Ranges
from provd.common.record import Record
from provd.store.books import ProducerBooks, WorkflowBooks

#: The buckets that a sequence number can be in, in the order in which the first that applies counts.
BUCKETS = ("stored", "quarantined", "spooled", "dropped", "missing")

#: The buckets whose messages are not in the store.
GAPS = BUCKETS[1:]


def books_document(books: WorkflowBooks) -> Record:
    """The books as JSON has them: totals over all producers, then each producer with its ranges."""
    return {
        "workflow_id": books.workflow_id,
        "complete": books.complete,
        "produced": books.total("produced"),
        **{bucket: books.total(bucket) for bucket in BUCKETS},
        "held": books.total("held"),
        "dropped_reasons": books.dropped_reasons,
        "unclosed": list(books.unclosed),
        "missing_ranks": list(books.missing_ranks),
        "unattributed": books.unattributed,
        "producers": [_producer_document(producer) for producer in books.producers],
    }


def verdict(books: WorkflowBooks) -> str:
    """The books in one line."""
    stored, produced = books.total("stored"), books.total("produced")
    if not books.producers:
        return "incomplete: nothing is known of any producer"
    if books.complete:
        return f"complete: all {_count(produced, 'message')} of {_count(len(books.producers), 'producer')} stored"
    reasons = [
        f"{books.total(bucket):,} {bucket}{_detail(books, bucket)}" for bucket in GAPS if books.total(bucket)
    ]
    if books.unclosed:
        reasons.append(f"{_count(len(books.unclosed), 'producer')} not closed")
    if books.missing_ranks:
        reasons.append(f"ranks never seen: {Ranges.of_numbers(books.missing_ranks)}")
    if books.unattributed:
        reasons.append(f"{_count(books.unattributed, 'quarantined piece')} of unknown origin")
    differing = sum(1 for producer in books.producers if not counts_agree(producer))
    if differing:
        reasons.append(f"task counts differ for {_count(differing, 'producer')}")
    return f"incomplete: {stored:,} of {_count(produced, 'message')} stored; {'; '.join(reasons)}"


def hints(books: WorkflowBooks) -> list[str]:
    """What can be done about each kind of gap."""
    lines = []
    if books.total("quarantined") or books.unattributed:
        lines.append(
            f"quarantined: `provd quarantine list -w {books.workflow_id}` says why,"
            " `provd quarantine retry` tries again"
        )
    if books.total("spooled") > books.total("held"):
        lines.append(
            "in producers' spools: running ones ship it by themselves; what ended ones left,"
            " `provd replay --recover DIR` brings in"
        )
    if books.total("held"):
        lines.append("in consumers' spools: they store it by themselves when the store is back")
    if books.total("missing"):
        lines.append(
            "missing: it may still wait in Redis (`provd status`); what a producer kept on its disk,"
            " `provd replay --recover DIR` brings in"
        )
    return lines


def spooled_where(producer: ProducerBooks) -> dict[str, Ranges]:
    """A producer's spooled numbers by the place they are in."""
    places = {
        "in its own spool": producer.spooled.minus(producer.held),
        "in a consumer's spool": producer.held,
    }
    return {place: ranges for place, ranges in places.items() if ranges}


def _detail(books: WorkflowBooks, bucket: str) -> str:
    """Where what is spooled is, and why what is dropped was."""
    if bucket == "spooled" and books.total("held"):
        held = books.total("held")
        own = books.total("spooled") - held
        return f" ({own:,} by producers, {held:,} by consumers)" if own else " (by consumers)"
    if bucket == "dropped" and books.dropped_reasons:
        return f" ({', '.join(f'{count:,} {reason}' for reason, count in books.dropped_reasons.items())})"
    return ""


def counts_agree(producer: ProducerBooks) -> bool:
    """Whether the producer's own count of ended tasks is what the collection holds; unknown until it has closed."""
    return producer.tasks_ended is None or producer.tasks_ended == producer.tasks_stored


def _producer_document(producer: ProducerBooks) -> Record:
    document: dict[str, Any] = {
        "producer_id": producer.producer_id,
        "hostname": producer.hostname,
        "rank": producer.rank,
        "closed": producer.closed,
        "complete": producer.complete,
        "produced": producer.produced,
        **{bucket: [list(span) for span in getattr(producer, bucket)] for bucket in BUCKETS},
        "held": [list(span) for span in producer.held],
        "dropped_reasons": dict(producer.dropped_reasons),
        "tasks_ended": producer.tasks_ended,
        "tasks_stored": producer.tasks_stored,
    }
    for name in ("held", "dropped_reasons"):  # rare, and absent beats empty
        document[name] = document[name] or None
    return {key: value for key, value in document.items() if value is not None}


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
