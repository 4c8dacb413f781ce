"""What a store must do, whichever it is.

Invariants, kept by every implementation and proven by `tests/contract/test_store.py`:

- A document is the merge of the messages about it (`provd.common.record.merge`), whatever their order, repetition
  and batches.
- `write` returns only when every message it does not list as refused is durable (MongoDB: `w: majority, j: true`;
  embedded: `synchronous=FULL`).
- One message the store refuses harms no other.
- Values are data: nothing in a record is evaluated, and what was written reads back equal.
- The ledger is insert-only: the same range added twice, or a range and its parts, changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from provd.common.ranges import Ranges
from provd.common.record import Message, Record

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


@dataclass(frozen=True, slots=True)
class Stored:
    """A range of sequence numbers that the store holds."""

    producer_id: str
    workflow_id: str
    first_seq: int
    last_seq: int


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

    def identity(self) -> str:
        """What tells this store from every other, kept in it since its first use; a copy of a store has the same."""

    def write(self, messages: Sequence[Message], *, received_at: int) -> Written:
        """Merge messages into their documents. `received_at` (UTC ms) marks documents that are new or changed."""

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
    ) -> Iterator[Record]:
        """Documents as they were recorded (times as aware UTC datetimes), without `_id` where it repeats a field.

        `fields` keeps only these (dotted paths allowed) and the id. `limit` 0 means all. Raises `UnsupportedQuery`.
        """

    def count(self, collection: str, filter: Filter) -> int:
        """How many documents match."""

    def aggregate(self, collection: str, pipeline: Sequence[Mapping[str, Any]]) -> Iterator[Record]:
        """Run a read-only pipeline. Raises `UnsupportedQuery`."""

    def close(self) -> None:
        """Release connections and files; calling it twice is harmless."""
