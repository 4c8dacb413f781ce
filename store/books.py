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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from provd.common import names
from provd.common.ranges import Ranges
from provd.common.record import ENDED, Record
from provd.store.documents import LEDGER_ORDER
from provd.store.interface import Store

_NONE = Ranges()

#: Ranks that a job may have: a larger number is not believed, nor are so many counted.
_WORLD_MAX = 1 << 20

_PIECE_FIELDS = ("workflow_id", "producer_id", "first_seq", "last_seq")

#: What the books need of a producer's record.
_RECORD_FIELDS = (
    "workflow_id", "producer_id", "hostname", "rank", "world_size", "closed_at", "sent", "dropped", "dropped_reasons",
    "tasks_ended",
)  # fmt: skip


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
    def all_stored(self) -> bool:
        """Whether this producer has closed and every message of its is stored."""
        return self.closed and len(self.stored) == self.produced

    @property
    def complete(self) -> bool:
        """Whether also its tasks are as many as it says."""
        return self.all_stored and (self.tasks_ended is None or self.tasks_ended == self.tasks_stored)


@dataclass(frozen=True, slots=True)
class WorkflowBooks:
    """The books of one workflow."""

    workflow_id: str
    producers: tuple[ProducerBooks, ...]
    missing_ranks: tuple[int, ...]
    #: Quarantined pieces so ruined that nobody knows which messages they held.
    unattributed: int

    @property
    def all_stored(self) -> bool:
        """Whether every message of the workflow's producers is stored, and all of them have spoken and closed."""
        return (
            bool(self.producers)
            and not self.missing_ranks
            and not self.unattributed
            and all(producer.all_stored for producer in self.producers)
        )

    @property
    def complete(self) -> bool:
        """Whether also the tasks of each producer are as many as it says."""
        return self.all_stored and all(producer.complete for producer in self.producers)

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
    pieces = store.find(names.QUARANTINE, of_workflow, fields=_PIECE_FIELDS)
    tasks = _tasks_stored(store, workflow_id) if count_tasks else {}
    return _books(workflow_id, stored, records, beats, pieces, tasks)


def read_several_books(store: Store, workflow_ids: Sequence[str]) -> dict[str, WorkflowBooks]:
    """The books of these workflows in four questions, whatever their number; without their tasks (see `read_books`)."""
    of_these = {"workflow_id": {"$in": list(workflow_ids)}}
    ledgers: dict[str, dict[str, list[tuple[int, int]]]] = {}
    for entry in store.find(names.LEDGER, of_these, sort=LEDGER_ORDER):
        ledger = ledgers.setdefault(entry["workflow_id"], {})
        ledger.setdefault(entry["producer_id"], []).append((entry["first_seq"], entry["last_seq"]))
    records = _by_workflow(store.find(names.PRODUCERS, of_these, fields=_RECORD_FIELDS))
    beats = _by_workflow(store.find(names.BEATS, of_these))
    pieces = _by_workflow(store.find(names.QUARANTINE, of_these, fields=_PIECE_FIELDS))
    return {
        workflow_id: _books(
            workflow_id,
            {name: Ranges.of(spans) for name, spans in ledgers.get(workflow_id, {}).items()},
            {record["producer_id"]: record for record in records.get(workflow_id, ())},
            {beat["producer_id"]: beat for beat in beats.get(workflow_id, ())},
            pieces.get(workflow_id, ()),
            {},
        )
        for workflow_id in workflow_ids
    }


def _by_workflow(found: Iterable[Record]) -> dict[str, list[Record]]:
    grouped: dict[str, list[Record]] = {}
    for document in found:
        grouped.setdefault(document["workflow_id"], []).append(document)
    return grouped


def _books(
    workflow_id: str,
    stored: Mapping[str, Ranges],
    records: Mapping[str, Record],
    beats: Mapping[str, Record],
    pieces: Iterable[Record],
    tasks: Mapping[str, int],
) -> WorkflowBooks:
    quarantined, unattributed = _quarantined(pieces)
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


def _quarantined(pieces: Iterable[Record]) -> tuple[dict[str, Ranges], int]:
    ranges: dict[str, Ranges] = {}
    unattributed = 0
    for item in pieces:
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
        rank, size = record.get("rank"), record.get("world_size")
        if type(rank) is int:
            seen.add(rank)
        if type(size) is int and size <= _WORLD_MAX:
            expected = max(expected, size)
    return tuple(rank for rank in range(expected) if rank not in seen)
