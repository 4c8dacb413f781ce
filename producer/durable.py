"""The channel of `durability: disk`: what is said is in the journal before the call that says it returns.

- Every statement (a task's end, something about the workflow, a sample, a count, goodbye) is numbered and written at once. The
  frame it belongs to grows on until the sender takes it, so that Redis gets as few entries as otherwise.
- Only what is written, or what the disk refused, counts as sent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from provd.common.ranges import Ranges
from provd.common.record import RANKS, Record, Status
from provd.common.wire import Shape
from provd.producer.capture import Frozen
from provd.producer.channel import Channel
from provd.producer.entry import TaskEntry
from provd.producer.framing import CutFrame, Framer, Limits, Origin
from provd.producer.identity import Identity
from provd.producer.journal import Journal
from provd.producer.lines import Lines
from provd.producer.outcome import Outcome
from provd.producer.totals import Counts

_FINISHED = RANKS[Status.FINISHED.value]


class _LinedFramer(Framer):
    """A framer that also writes down the line of every message, by number, until it is in the journal."""

    def __init__(self, origin: Origin, limits: Limits, journal: Journal) -> None:
        super().__init__(origin, limits, 1, receipt=True, pack=journal.pack)
        #: A row that an exception has kept from being added has left its number here, for the next one to overwrite.
        self.fresh: dict[int, bytes | None] = {}
        self._lines = Lines(origin)
        self._closed_bytes = 0

    @property
    def waiting_bytes(self) -> int:
        """Bytes of what has not been taken."""
        return self._closed_bytes + self._frame.size

    def give(self, accept: Callable[[CutFrame], None]) -> None:
        """Close the last frame and give them all away; each is kept until `accept` has returned."""
        super().give(accept)
        self._closed_bytes = 0

    def _close(self) -> None:
        super()._close()
        self._closed_bytes += self.frames[-1].size

    def take_plain(self, channel: Channel, most: int) -> int:  # noqa: ARG002
        """None: every row has its line."""
        return 0

    def take_light(self, channel: Channel, most: int) -> int:  # noqa: ARG002
        """None, too."""
        return 0

    def _add_plain(self, row: bytes, values: tuple[Any, ...], shape: Shape) -> None:
        seq = self.next_seq
        try:
            line = self._lines.plain(seq, values, shape)
        except OverflowError:
            line = None
        if line is None:
            self._add(row)
        else:
            self.fresh[seq] = line
            super()._add(row)

    def _add(self, row: bytes) -> None:
        seq = self.next_seq
        self.fresh[seq] = self._lines.of(row, self._shapes(), seq)
        super()._add(row)

    def _shapes(self) -> Sequence[Shape]:
        return [shape for _, shape in self._frame.shapes.values()]


class DurableChannel(Channel):
    """A channel whose statements are on disk when they have been made."""

    def __init__(
        self,
        workflow_id: str,
        campaign_id: str | None,
        producer_id: str,
        identity: Identity,
        limits: Limits,
        counter: Iterator[int],
        tenant_id: str | None = None,
        *,
        journal: Callable[[], Journal],
    ) -> None:
        """`journal` gives that of the process: after a fork it is another."""
        self._find_journal = journal
        super().__init__(workflow_id, campaign_id, producer_id, identity, limits, counter, tenant_id)

    is_durable = True
    restate_s = 0.0

    def reset(self, producer_id: str, counter: Iterator[int]) -> None:
        """Start afresh as another producer: at birth, and in the child after a fork."""
        super().reset(producer_id, counter)
        self._journal = self._find_journal()
        self._framer = _LinedFramer(self._origin, self._limits, self._journal)
        self._written = 0

    # --- statements, each written before it returns ---

    def _finish(self, entry: TaskEntry) -> None:
        super()._finish(entry)
        self._journal.commit(self)

    def note(
        self,
        shape: Shape,
        used: Frozen,
        generated: Frozen | None,
        started_at: float,
        duration: float,
        parent: TaskEntry | str | None = None,
        rank: int = _FINISHED,
        extra: Record | None = None,
    ) -> None:
        """State a task that has ended."""
        super().note(shape, used, generated, started_at, duration, parent, rank, extra)
        self._journal.commit(self)

    def state_workflow(self, record: Record) -> None:
        """Say something about the workflow itself."""
        super().state_workflow(record)
        self._journal.commit(self)

    def state_sample(self, record: Record) -> None:
        """Say what the node does."""
        super().state_sample(record)
        self._journal.commit(self)

    def count(self, amounts: Counts) -> bool:
        """Add to the totals; whether all of them had been said before. Raises `ValueError`."""
        was_told = super().count(amounts)
        self._journal.commit(self)
        return was_told

    def close(self, outcome: Outcome) -> None:
        """Say goodbye after what has been said so far."""
        super().close(outcome)
        self._journal.commit(self)

    # --- what the journal asks, with the right to write ---

    def number(self, *, announce: bool) -> dict[int, bytes | None]:
        """Number what has been said; the lines that are not written yet, in the order of their numbers.

        `announce` looks for tasks that have been open for long, too.
        """
        framer = self._framer
        overdue = self._overdue() if announce else []
        if overdue or self.has_statements:
            self._fill(framer, overdue)
        fresh = framer.fresh
        if fresh and next(reversed(fresh)) >= framer.next_seq:
            del fresh[framer.next_seq]
        return fresh

    def note_written(self, last: int) -> None:
        """The lines have been written, or refused."""
        self._framer.fresh.clear()
        self._written = last

    def note_unwritten(self, numbers: Iterable[int]) -> None:
        """The disk has refused these."""
        self.unwritten = self.unwritten.union(Ranges.of_numbers(numbers))

    # --- what the sender asks ---

    def cut(self, accept: Callable[[CutFrame], None]) -> None:
        """Give everything said so far, written, to `accept`, as frames that it has not been given."""
        journal = self._journal
        journal.commit(self, announce=True)
        with journal.lock:
            if not journal.begin():
                return
            try:
                # Between the two a signal handler may have left something to be written.
                if not self._framer.fresh:
                    self._framer.give(accept)
            finally:
                journal.end()

    @property
    def sent(self) -> int:
        """The last seq that is written, or that the disk refused."""
        return self._written

    @property
    def has_news(self) -> bool:
        """Whether there is something to send."""
        return self.has_statements or self._framer.waiting_bytes > 0

    @property
    def waiting_bytes(self) -> int:
        """Bytes that wait in memory to be sent."""
        return self._framer.waiting_bytes

    @property
    def written(self) -> Ranges:
        """The numbers that are, or were, on disk."""
        return Ranges.of([(1, self._written)]).minus(self.unwritten)

    @property
    def spooled(self) -> Ranges:
        """The numbers that are on disk and that the store has not confirmed."""
        return self.written.minus(self.receipts)

    @property
    def awaits_receipts(self) -> bool:
        """Whether the store is still to confirm something that is on disk."""
        return self.receipts.spans != ((1, self._written),) and bool(self.spooled)

    def needs(self, numbers: Ranges) -> bool:
        """Whether any of these must stay on disk."""
        return bool(numbers.minus(self.unwritten).minus(self.receipts))
