"""What a store must do, whichever it is.

Invariants, kept by every implementation and proven by `tests/contract/test_store.py`:

- A document is the merge of the messages about it (`provd.common.record.merge`), whatever their order, repetition
  and batches.
- `write` returns only when every message it does not list as refused is durable (MongoDB: `w: majority, j: true`;
  embedded: `synchronous=FULL`).
- One message the store refuses harms no other.
- Values are data: nothing in a record is evaluated, and what was written reads back equal.
- The ledger is insert-only: the same range added twice, or a range and its parts, changes nothing.
- Of a run that has been deleted nothing is kept, whoever brings it, until somebody brings the run back on purpose.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from provd.common.ranges import Ranges
from provd.common.record import Message, Record

if TYPE_CHECKING:
    from provd.store.upkeep import Upkeep

#: A MongoDB filter document.
Filter: TypeAlias = Mapping[str, Any]

_NONE = Ranges()

#: Field and direction (1 or -1), first one first.
Sort: TypeAlias = Sequence[tuple[str, int]]


@dataclass(frozen=True, slots=True)
class Refusal:
    """A message the store will never take, and why."""

    message: Message
    reason: str


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a batch: `stored` messages made or changed a document, `duplicates` changed nothing."""

    stored: int
    duplicates: int
    refused: tuple[Refusal, ...] = ()
    #: Messages of deleted runs, which are counted and not kept, by run.
    gone: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stored:
    """A range of sequence numbers that the store holds."""

    producer_id: str
    workflow_id: str
    first_seq: int
    last_seq: int


@dataclass(frozen=True, slots=True)
class TaskTimes:
    """Tasks of one activity and status: how many, and the `seconds` of those that say how long they took.

    A task that has no duration may stand in `seconds` as None.
    """

    activity_id: str | None
    status: str | None
    tasks: int
    seconds: Sequence[float | None]


@dataclass(frozen=True, slots=True)
class Quarantined:
    """Bytes that could not become a record. The producer and seqs are absent where the header is ruined."""

    reason: str
    raw: bytes
    stream: str | None = None
    entry_id: str | None = None
    producer_id: str | None = None
    workflow_id: str | None = None
    first_seq: int | None = None
    last_seq: int | None = None
    #: Where `raw` is a whole frame: how many of its bytes are the header. The rest is the body.
    header_bytes: int | None = None
    #: Where `raw` is a part of a frame's body: a header for just these messages, and the frame's table of names.
    header: bytes | None = None
    table: bytes | None = None


@dataclass(frozen=True, slots=True)
class Beat:
    """A producer's last sign of life in one workflow, by the broker's clock, and what it said of its books.

    `spooled` is in any spool; `held` says which of it is in a consumer's. `dropped_reasons` counts by reason.
    """

    producer_id: str
    workflow_id: str
    beat_at: int
    sent: int
    tasks_started: int
    tasks_ended: int
    spooled: Ranges
    dropped: Ranges
    held: Ranges = _NONE
    dropped_reasons: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ConsumerMark:
    """What a consumer says of itself every few seconds; times are UTC milliseconds by the broker's clock.

    Everything that producers had told the broker by `broker_at` is in the store, and has been watched without a break
    since `since`. `workflow_ids` empty means all. `figures` are counts for people.
    """

    name: str
    hostname: str
    pid: int
    version: str
    state: str
    since: int
    broker_at: int
    workflow_ids: Sequence[str] = ()
    figures: Mapping[str, int | float] = field(default_factory=dict)


class Store(Protocol):
    """A store, open. Every method raises `StoreUnavailable` when the service does not answer."""

    #: The URL with its password masked.
    url: str

    def ping(self) -> None:
        """Raise `StoreUnavailable` unless the store answers now."""

    def migrate(self) -> list[str]:
        """Bring the schema up to date; safe to call from several processes at once. Returns the names applied."""

    def upkeep(self) -> Upkeep:
        """What a keeper does with the store as a whole."""

    def identity(self) -> str:
        """What tells this store from every other, kept in it since its first use; a copy of a store has the same."""

    def write(self, messages: Sequence[Message], *, received_at: int) -> Written:
        """Merge messages into their documents. `received_at` (UTC ms) marks documents that are new or changed."""

    def put_documents(
        self, collection: str, items: Iterable[Mapping[str, Any]], *, received_at: int
    ) -> Written:
        """Bring in whole documents of tasks, workflows, producers or samples, as `find` gave them in another store.

        One that is not there becomes what it was, `received_at` included; one that is, merges, and `received_at` marks
        those that changed. Raises `ValueError` for what is no document of ours.
        """

    def put_pieces(self, pieces: Iterable[Mapping[str, Any]]) -> None:
        """Bring in documents of the quarantine, as `find` gave them; those that are there stay. Raises `ValueError`."""

    def add_stored(self, ranges: Iterable[Stored]) -> None:
        """Enter ranges into the ledger."""

    def add_quarantined(self, items: Iterable[Quarantined]) -> None:
        """Keep what could not be stored; the same bytes of the same place twice are one document."""

    def put_beats(self, beats: Iterable[Beat]) -> None:
        """Keep the latest beat of each producer and workflow."""

    def put_consumer(self, mark: ConsumerMark) -> None:
        """Keep a consumer's latest mark, with the store's own clock beside it as `store_at`."""

    def consumers(self) -> list[Record]:
        """All marks, the newest first, each with `now`: the store's clock at this moment."""

    def note_quarantined(self, piece_id: str, reason: str) -> None:
        """Give a quarantined piece, with all its parts, a new reason: it has been tried again."""

    def drop_quarantined(self, piece_ids: Iterable[str]) -> None:
        """Remove quarantined pieces, with all their parts."""

    def compact_ledger(self, *workflow_ids: str) -> int:
        """Replace the ranges of workflows by the fewest that say the same; returns how many are left.

        A reader never sees less than was there, and several consumers may do it at once.
        """

    def deleted_among(self, workflow_ids: Iterable[str]) -> frozenset[str]:
        """Those of these runs that have been deleted, or whose deletion has begun."""

    def begin_deletion(self, workflow_id: str, *, by: str, archive: str | None = None) -> None:
        """Write the run's tombstone, unless it stands: from now on nothing of the run is kept that comes."""

    def delete_run(self, workflow_id: str, *, on_progress: Callable[[int, int], None] | None = None) -> None:
        """Delete everything of a run whose tombstone stands; safe to repeat, and to be cut off at any moment."""

    def undelete_run(self, workflow_id: str) -> bool:
        """Remove the tombstone of a run whose deletion is over, or has neither deleted nor refused anything yet: it may
        come again. Says whether there was one.
        """

    def stored_ranges(self, workflow_id: str) -> dict[str, Ranges]:
        """The ledger of a workflow: the stored numbers of each producer."""

    def find(
        self,
        collection: str,
        filter: Filter,
        *,
        fields: Sequence[str] | None = None,
        sort: Sort = (),
        limit: int = 0,
        timeout_s: float | None = None,
    ) -> Iterator[Record]:
        """Documents as they were recorded (times as aware UTC datetimes), without `_id` where it repeats a field.

        `fields` keeps only these (dotted paths allowed) and the id. `limit` 0 means all. Raises `UnsupportedQuery`, and
        `QueryTimeout` when the store has worked on it for longer than `timeout_s`.
        """

    def count(self, collection: str, filter: Filter) -> int:
        """How many documents match."""

    def count_by(self, collection: str, filter: Filter, fields: Sequence[str]) -> dict[tuple[Any, ...], int]:
        """How many documents match for each combination of values of these top-level fields, None where absent."""

    def task_times(self, workflow_id: str, *, expected: int = 0) -> Iterator[TaskTimes]:
        """All tasks of a workflow by activity and status, in pieces: a group may come several times.

        `expected` is about how many tasks there are: of very many it takes several questions, each soon answered.
        """

    def aggregate(
        self, collection: str, pipeline: Sequence[Mapping[str, Any]], *, timeout_s: float | None = None
    ) -> Iterator[Record]:
        """Run a read-only pipeline. Raises `UnsupportedQuery` and `QueryTimeout`."""

    def close(self) -> None:
        """Release connections and files; calling it twice is harmless."""
