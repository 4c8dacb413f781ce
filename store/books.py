"""The open books (G7): for each producer of a workflow, where every message it made has gone.

Invariants:

- Each number from 1 to the highest known is in exactly one bucket, the first that applies: stored, quarantined,
  spooled, dropped, missing.
- Books are computed from the store alone and hold ranges, never counters that could drift.
- `complete` is true only when all is stored, every producer has closed, every rank has appeared, and the producers'
  own counts of ended tasks agree with the collection.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from provd.common import names
from provd.common.ranges import Ranges
from provd.common.record import ENDED, Record
from provd.store.interface import Store

_NONE = Ranges()


@dataclass(frozen=True, slots=True)
class ProducerBooks:
    """One producer's part of a workflow. `tasks_ended` is its own count, absent until it has closed."""

    producer_id: str
    hostname: str | None
    rank: int | None
    closed: bool
    produced: int
    stored: Ranges
    quarantined: Ranges
    spooled: Ranges
    dropped: Ranges
    missing: Ranges
    tasks_ended: int | None
    tasks_stored: int
    #: The part of `spooled` that is in a consumer's spool; the rest is in the producer's own.
    held: Ranges = _NONE
    #: How many messages the producer says it dropped, by reason.
    dropped_reasons: Mapping[str, int] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether this producer has closed and all it said is stored."""
        return (
            self.closed
            and len(self.stored) == self.produced
            and (self.tasks_ended is None or self.tasks_ended == self.tasks_stored)
        )


@dataclass(frozen=True, slots=True)
class WorkflowBooks:
    """The books of one workflow."""

    workflow_id: str
    producers: tuple[ProducerBooks, ...]
    missing_ranks: tuple[int, ...]
    #: Quarantined pieces so ruined that nobody knows which messages they held.
    unattributed: int

    @property
    def complete(self) -> bool:
        """Whether everything the workflow's producers said is stored, and all of them have spoken and closed."""
        return (
            bool(self.producers)
            and not self.missing_ranks
            and not self.unattributed
            and all(producer.complete for producer in self.producers)
        )

    @property
    def unclosed(self) -> tuple[str, ...]:
        """Producers that have not said goodbye."""
        return tuple(producer.producer_id for producer in self.producers if not producer.closed)

    @property
    def dropped_reasons(self) -> dict[str, int]:
        """Why messages were dropped, and how many, over all producers."""
        counts: Counter[str] = Counter()
        for producer in self.producers:
            counts.update(producer.dropped_reasons)
        return dict(counts.most_common())

    def total(self, bucket: str) -> int:
        """Messages in one bucket (`produced`, `stored`, `quarantined`, …), over all producers."""
        sizes = (getattr(producer, bucket) for producer in self.producers)
        return sum(size if isinstance(size, int) else len(size) for size in sizes)


def read_books(store: Store, workflow_id: str, *, count_tasks: bool = True) -> WorkflowBooks:
    """Compute the books of a workflow. The ledger is read first: what it claims is in the collections by then.

    Without `count_tasks` the buckets are all there and `complete` means nothing: it is what watching can afford.
    """
    of_workflow = {"workflow_id": workflow_id}
    stored = store.stored_ranges(workflow_id)
    records = {record["producer_id"]: record for record in store.find(names.PRODUCERS, of_workflow)}
    beats = {beat["producer_id"]: beat for beat in store.find(names.BEATS, of_workflow)}
    quarantined, unattributed = _quarantined(store, workflow_id)
    tasks = _tasks_stored(store, workflow_id) if count_tasks else {}
    known = sorted(stored.keys() | records.keys() | beats.keys() | quarantined.keys())
    producers = tuple(
        _producer_books(
            producer_id,
            records.get(producer_id, {}),
            beats.get(producer_id, {}),
            stored.get(producer_id, Ranges()),
            quarantined.get(producer_id, Ranges()),
            tasks.get(producer_id, 0),
        )
        for producer_id in known
    )
    return WorkflowBooks(workflow_id, producers, _missing_ranks(records.values()), unattributed)


def _producer_books(
    producer_id: str, record: Record, beat: Record, stored: Ranges, quarantined: Ranges, tasks_stored: int
) -> ProducerBooks:
    spooled = Ranges.of(_spans(beat, "spooled"))
    dropped = Ranges.of([*_spans(beat, "dropped"), *_spans(record, "dropped")])
    produced = max(
        record.get("sent", 0), beat.get("sent", 0), stored.last, quarantined.last, spooled.last, dropped.last
    )
    buckets = {}
    left = Ranges.of([(1, produced)])
    for name, bucket in (
        ("stored", stored),
        ("quarantined", quarantined),
        ("spooled", spooled),
        ("dropped", dropped),
    ):
        rest = left.minus(bucket)
        buckets[name] = left.minus(rest)
        left = rest
    closed = "closed_at" in record
    held = Ranges.of(_spans(beat, "held"))
    return ProducerBooks(
        producer_id=producer_id,
        hostname=record.get("hostname"),
        rank=record.get("rank"),
        closed=closed,
        produced=produced,
        **buckets,
        missing=left,
        tasks_ended=record.get("tasks_ended") if closed else None,
        tasks_stored=tasks_stored,
        held=buckets["spooled"].common(held),
        dropped_reasons=_reasons(record, beat) if buckets["dropped"] else {},
    )


def _reasons(record: Record, beat: Record) -> dict[str, int]:
    """The later word of the two: a closing record's, else the last beat's."""
    said = record.get("dropped_reasons") or beat.get("dropped_reasons") or {}
    return {str(reason): int(count) for reason, count in said.items()}


def _spans(record: Record, field: str) -> Iterator[tuple[int, int]]:
    yield from record.get(field, ())


def _quarantined(store: Store, workflow_id: str) -> tuple[dict[str, Ranges], int]:
    ranges: dict[str, Ranges] = {}
    unattributed = 0
    fields = ["producer_id", "first_seq", "last_seq"]
    for item in store.find(names.QUARANTINE, {"workflow_id": workflow_id}, fields=fields):
        if "producer_id" not in item or "first_seq" not in item:
            unattributed += 1
            continue
        span = Ranges.of([(item["first_seq"], item["last_seq"])])
        ranges[item["producer_id"]] = ranges.get(item["producer_id"], Ranges()).union(span)
    return ranges, unattributed


def _tasks_stored(store: Store, workflow_id: str) -> dict[str, int]:
    """Tasks that have ended, by producer, counted in the index `by_producer`."""
    counts: Counter[str] = Counter()
    found = store.count_by(names.TASKS, {"workflow_id": workflow_id}, ("producer_id", "status"))
    for (producer_id, status), count in found.items():
        if status in ENDED:
            counts[producer_id] += count
    return counts


def _missing_ranks(records: Iterable[Record]) -> tuple[int, ...]:
    seen: set[int] = set()
    expected = 0
    for record in records:
        if "rank" in record:
            seen.add(record["rank"])
        expected = max(expected, record.get("world_size", 0))
    return tuple(rank for rank in range(expected) if rank not in seen)
