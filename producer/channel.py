"""The channel: what one process says about one workflow.

- `begin` and `end` are the call path: they take an id, keep the task among the open ones and append it to a deque.
  No lock, no I/O.
- `cut` turns what has been said into frames. Only it gives out seq numbers, under its lock.
- What has been said is in the deques, in the framer or with the sender at every moment: an exception that a signal
  handler raises in the middle of a cut (Ctrl-C, a time limit) leaves the rest to the next one.
- A process says hello (its `producer` record) before its first message, so that a fork which never captures anything
  leaves no trace.
- That record is said again when there is something to add (see `account`).
- Once the channel is closed, goodbye (the producer's closing record, with its last seq and its count of tasks) is
  the last message; whatever is said after it is followed by a new one.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeAlias

from provd.common import clock
from provd.common.ranges import Ranges
from provd.common.record import RANKS, Kind, Record, Status
from provd.common.wire import Shape
from provd.producer import tracing
from provd.producer.account import Account
from provd.producer.border import swallow
from provd.producer.capture import Frozen
from provd.producer.entry import TaskEntry
from provd.producer.framing import CutFrame, Framer, Limits, Origin
from provd.producer.identity import Identity
from provd.producer.outcome import Outcome
from provd.producer.totals import Counts

if TYPE_CHECKING:
    from provd.producer.leaving import Pending

#: Seconds after which a task that still runs is announced by a message of its own.
ANNOUNCE_AFTER_S = 1.0

#: Bytes a task takes in the buffer, beside values that are packed already.
ENTRY_BYTES = 400

#: Bytes that a task's telemetry takes in the buffer, as objects, roughly; some of them are shared.
_READING_BYTES = 4000

_RUNNING = RANKS[Status.RUNNING.value]
_FINISHED = RANKS[Status.FINISHED.value]

_WORKFLOW_SHAPE = Shape(Kind.WORKFLOW)
_PRODUCER_SHAPE = Shape(Kind.PRODUCER)
_SAMPLE_SHAPE = Shape(Kind.SAMPLE)


#: A task that is said once, at its end: shape, parent, started_at (seconds since 1970), duration, rank, used,
#: generated, extra. It has no counter before it is cut, so nothing can have it as a parent.
LightRow: TypeAlias = tuple[
    Shape, "TaskEntry | str | None", float, float, int, Frozen, "Frozen | None", "Record | None"
]


class Channel:
    """The messages of this process about one workflow."""

    #: Whether what is said is on disk when it has been said.
    is_durable = False

    #: Seconds between two statements of totals.
    restate_s = 1.0

    def __init__(
        self,
        workflow_id: str,
        campaign_id: str | None,
        producer_id: str,
        identity: Identity,
        limits: Limits,
        counter: Iterator[int],
        tenant_id: str | None = None,
    ) -> None:
        """`counter` numbers the tasks of a producer, over all its channels: their ids must never meet."""
        self.workflow_id = workflow_id
        self.campaign_id = campaign_id
        self.tenant_id = tenant_id
        #: Groups of readings that tasks take unless they say otherwise.
        self.telemetry: tuple[str, ...] = ()
        #: Whether the sender has let go of it: the next statement has to bring it back.
        self.rests = False
        #: Whether a task may be ended by adding it to `entries`: what is durable has more to do.
        self.is_plain = not self.is_durable
        #: Whether a task may be within a trace.
        self.is_traced = False
        #: Whether nothing but its values, and its trace, is recorded of a task, unless it asks for more.
        self.is_quick = self.is_plain
        self._identity = identity
        self._limits = limits
        self.reset(producer_id, counter)

    def look_around(self) -> None:
        """Find out what is to be recorded of every task."""
        self.is_traced = tracing.is_loaded()
        self.is_quick = self.is_plain and not self.telemetry

    def reset(self, producer_id: str, counter: Iterator[int]) -> None:
        """Start afresh as another producer: at birth, and in the child after a fork."""
        self.producer_id = producer_id
        self.entries: deque[TaskEntry] = deque()
        self.light: deque[LightRow] = deque()
        self.open: dict[int, TaskEntry] = {}
        #: Loop iterations that an exception has left, until it is known which.
        self.withheld: list[Pending] = []
        self.packed_bytes = 0
        #: Numbers that are on disk and not in Redis.
        self.owed = Ranges()
        #: Numbers that the disk has refused, of a channel that is durable: they are in memory, and then in Redis.
        self.unwritten = Ranges()
        #: Numbers that neither Redis nor the disk took.
        self.dropped = Ranges()
        #: Why, and how many.
        self.dropped_reasons: dict[str, int] = {}
        #: Numbers that the store has confirmed, as far as this process asks.
        self.receipts = Ranges()
        #: Milliseconds that Redis' clock is ahead of ours, once known.
        self.clock_offset: int | None = None
        #: Numbers the tasks.
        self.counter = counter
        self._statements: deque[tuple[Shape, Record]] = deque()
        # Re-entrant: a signal handler of the program may interrupt its own thread between any two steps of a cut.
        self._lock = threading.RLock()
        self._cutting = False
        self._origin = Origin(
            producer_id,
            self.workflow_id,
            self.campaign_id,
            self._identity.hostname,
            os.getpid(),
            self._identity.rank,
            self.tenant_id,
        )
        #: What a cut has in hand; an exception in the middle leaves it to the next.
        self._unfinished: Framer | None = None
        #: The number of the first of `light`, if it has one: a row that is packed again keeps it.
        self.numbered: int | None = None
        self._next_seq = 1
        #: Tasks ended and cut.
        self.tasks_ended = 0
        self._greeted = False
        self._goodbye: Outcome | None = None
        #: What it says of itself.
        self.account = Account(self._identity, self.restate_s)
        #: How often this process is in the workflow.
        self._joined = 0
        self._owes_goodbye = False

    # --- the call path ---

    def begin(self, shape: Shape, used: Frozen, parent: TaskEntry | str | None) -> TaskEntry:
        """Open a task."""
        entry = TaskEntry()
        entry.shape = shape
        entry.producer_id = self.producer_id
        entry.counter = counter = next(self.counter)
        entry.parent = parent
        entry.used = used
        entry.duration = None
        entry.rank = _RUNNING
        entry.generated = None
        entry.extra = tracing.trace_fields() if self.is_traced else None
        entry.reading = None
        entry.announced = False
        if type(used) is bytes:
            self.packed_bytes += len(used)
        entry.started_at = time.time()
        entry.started = clock.monotonic()
        self.open[counter] = entry
        return entry

    def end(self, entry: TaskEntry, generated: Frozen | None, ended: float | None = None) -> None:
        """Close a task that went well, now or when the monotonic clock said `ended`."""
        entry.duration = (clock.monotonic() if ended is None else ended) - entry.started
        entry.rank = _FINISHED
        entry.generated = generated
        if type(generated) is bytes:
            self.packed_bytes += len(generated)
        self._finish(entry)

    def fail(self, entry: TaskEntry, outcome: Outcome) -> None:
        """Close a task that did not."""
        entry.duration = clock.monotonic() - entry.started
        fields = outcome.fields()
        entry.rank = RANKS[fields.pop("status")]
        entry.extra = {**(entry.extra or {}), **fields}
        self.packed_bytes += sum(len(text) for text in fields.values())
        self._finish(entry)

    def state(
        self, entry: TaskEntry, extra: Record, generated: Frozen | None, duration: float | None
    ) -> None:
        """Close a task as it is said to have ended: `extra` has its status, `duration` is in seconds if known."""
        entry.duration = clock.monotonic() - entry.started if duration is None else max(0.0, duration)
        if duration is not None:
            entry.reading = None  # it was another time that was read
        entry.rank = RANKS[extra.pop("status")]
        entry.extra = {**(entry.extra or {}), **extra} or None
        entry.generated = generated
        self.packed_bytes += ENTRY_BYTES + (len(generated) if isinstance(generated, bytes) else 0)
        self._finish(entry)

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
        """State a task that has ended; it was never open. Times are seconds since 1970, and seconds."""
        if type(used) is bytes:
            self.packed_bytes += len(used)
        if type(generated) is bytes:
            self.packed_bytes += len(generated)
        if self.is_traced:
            extra = {**(tracing.trace_fields() or {}), **(extra or {})} or None
        self.light.append((shape, parent, started_at, duration, rank, used, generated, extra))

    def withhold(self, entry: TaskEntry) -> None:
        """Stop the clocks of a task whose outcome is said later, by `settle`."""
        entry.duration = clock.monotonic() - entry.started
        if entry.reading is not None:
            entry.extra = {**(entry.extra or {}), **entry.reading.close()}
            entry.reading = None

    def settle(self, entry: TaskEntry, outcome: Outcome) -> None:
        """Close a task that was withheld."""
        fields = outcome.fields()
        entry.rank = RANKS[fields.pop("status")]
        entry.extra = {**(entry.extra or {}), **fields} or None
        self._finish(entry)

    def _finish(self, entry: TaskEntry) -> None:
        # A task begun before a fork is its parent's to end: it is not among ours.
        if self.open.get(entry.counter) is entry:
            if entry.reading is not None:
                entry.extra = {**(entry.extra or {}), **entry.reading.close()}
                self.packed_bytes += _READING_BYTES
            self.entries.append(entry)
            del self.open[entry.counter]

    @property
    def waiting_bytes(self) -> int:
        """Bytes that wait to be cut, roughly: a race between threads may miss some until the next cut."""
        return (len(self.entries) + len(self.light)) * ENTRY_BYTES + self.packed_bytes

    # --- statements about the workflow and the producer ---

    def state_workflow(self, record: Record) -> None:
        """Say something about the workflow itself."""
        self._statements.append((_WORKFLOW_SHAPE, record))

    def state_sample(self, record: Record) -> None:
        """Say what the node does."""
        self._statements.append((_SAMPLE_SHAPE, record))

    def count(self, amounts: Counts) -> bool:
        """Add to the totals; whether all of them had been said before. Raises `ValueError`."""
        return self.account.totals.add(amounts)

    def close(self, outcome: Outcome) -> None:
        """Say goodbye after what has been said so far."""
        self._goodbye = self.account.grave(outcome)
        self._owes_goodbye = True
        self._joined = max(0, self._joined - 1)

    def reopen(self) -> None:
        """Take the goodbye back: this process joins the workflow, once more."""
        self._joined += 1
        self._goodbye = None
        self._owes_goodbye = False

    @property
    def is_closed(self) -> bool:
        """Whether goodbye has been asked for."""
        return self._goodbye is not None

    # --- what the sender asks ---

    def drop(self, lost: Ranges, reason: str) -> None:
        """Count messages as dropped."""
        fresh = len(lost.minus(self.dropped))
        if fresh:
            self.dropped = self.dropped.union(lost)
            self.dropped_reasons[reason] = self.dropped_reasons.get(reason, 0) + fresh

    @property
    def has_news(self) -> bool:
        """Whether there is something to cut."""
        return self.has_statements or self._unfinished is not None

    @property
    def has_statements(self) -> bool:
        """Whether something has been said that has no number yet."""
        return bool(
            self.entries
            or self.light
            or self._statements
            or self.withheld
            or (self._owes_goodbye and self._greeted)
            or self.account.is_due
        )

    @property
    def is_settled(self) -> bool:
        """Whether all has been said, as far as can be known, and nothing waits: not here, and not on disk."""
        return self.is_closed and not (
            self._joined
            or self.has_news
            or self.account.has_news
            or self.open
            or self.withheld
            or self.owed
            or self.awaits_receipts
        )

    @property
    def awaits_announcement(self) -> bool:
        """Whether a task is open that has not been announced."""
        return bool(self.open) and any(not entry.announced for entry in list(self.open.values()))

    @property
    def sent(self) -> int:
        """The last seq given out."""
        return self._next_seq - 1

    @property
    def spooled(self) -> Ranges:
        """The numbers that the books show as spooled."""
        return self.owed

    @property
    def awaits_receipts(self) -> bool:
        """Whether the store is still to confirm something that is on disk."""
        return False

    def needs(self, numbers: Ranges) -> bool:
        """Whether any of these must stay on disk."""
        return bool(numbers.common(self.owed))

    @property
    def tasks_started(self) -> int:
        """Tasks begun, as far as cut."""
        return self.tasks_ended + len(self.open)

    def cut(self, accept: Callable[[CutFrame], None]) -> None:
        """Give everything said so far to `accept`, as frames; nothing where a signal handler or finalizer has
        interrupted this thread's own cut, which goes on when it returns.
        """
        with self._lock:
            if self._cutting:
                return
            self._cutting = True
            try:
                self._cut(accept)
            finally:
                self._cutting = False

    def _cut(self, accept: Callable[[CutFrame], None]) -> None:
        overdue = self._overdue()
        if not overdue and not self.has_news:
            return
        framer = self._unfinished
        if framer is None:
            framer = self._unfinished = Framer(self._origin, self._limits, self._next_seq)
        self._fill(framer, overdue)
        framer.give(accept)
        self._next_seq = framer.next_seq
        self._unfinished = None

    def _fill(self, framer: Framer, overdue: list[TaskEntry]) -> None:
        """Number all that has been said. What is taken from us is in the frame before."""
        if not self._greeted:
            self._introduce(framer, None)
            self._greeted = True
        elif self._goodbye is None and self.account.is_due:
            self._introduce(framer, self.account.outcome)
        while self._statements:
            try:
                framer.add_statement(*self._statements[0])
            except Exception as error:  # noqa: BLE001 - a row that cannot be packed must not keep the others
                swallow(error)
            self._statements.popleft()
        for entry in overdue:
            entry.announced = True
            try:
                framer.add_announcement(entry)
            except Exception as error:  # noqa: BLE001 - as above
                swallow(error)
        self._release(everything=self._goodbye is not None)
        self._cut_entries(framer)
        if self._goodbye is not None:
            self._introduce(framer, self._goodbye)
            self._owes_goodbye = False

    def _introduce(self, framer: Framer, outcome: Outcome | None) -> None:
        """State the producer's own record: that it is there, or how it has said goodbye."""
        additions = self.account.additions
        record = self.account.record(additions, outcome)
        if outcome is not None:
            record |= self._closing_facts(framer.next_seq)
        framer.add_statement(_PRODUCER_SHAPE, record)
        self.account.note_told(additions)

    def _cut_entries(self, framer: Framer) -> None:
        # First the frame, then the deque: an exception of a signal handler in between repeats a message, which does
        # no harm, and loses none. Between `del` and the count no handler runs: neither is a call.
        self.packed_bytes = 0
        entries, light = self.entries, self.light
        left = len(entries)
        while left:
            left -= framer.take_plain(self, left)
            if left:
                try:
                    framer.add_task(entries[0])
                except Exception as error:  # noqa: BLE001 - a row that cannot be packed must not keep the others
                    swallow(error)
                del entries[0]
                self.tasks_ended += 1
                left -= 1
        left = len(light)
        while left:
            left -= framer.take_light(self, left)
            if left:
                self._cut_light(framer)
                left -= 1

    def _cut_light(self, framer: Framer) -> None:
        row, numbered = self.light[0], self.numbered
        if numbered is None:
            numbered = self.numbered = next(self.counter)
        try:
            framer.add_light(numbered, row)
        except Exception as error:  # noqa: BLE001 - as above
            swallow(error)
        del self.light[0]
        self.numbered = None
        self.tasks_ended += 1

    def _release(self, *, everything: bool) -> None:
        now = clock.monotonic()
        for pending in list(self.withheld):
            if everything or pending.due_at <= now:
                pending.give_up()

    def _overdue(self) -> list[TaskEntry]:
        # One that a signal handler interrupted between its end and its leaving the open ones runs no more.
        latest = clock.monotonic() - ANNOUNCE_AFTER_S
        return [
            entry
            for entry in list(self.open.values())
            if not entry.announced and entry.rank == _RUNNING and entry.started <= latest
        ]

    def _closing_facts(self, seq: int) -> Record:
        """What a goodbye with this number tells of the messages before."""
        facts: Record = {
            "closed_at": clock.now_ms(),
            "sent": seq,
            "tasks_ended": self.tasks_ended,
            "tasks_started": self.tasks_started,
        }
        if self.dropped:
            facts["dropped"] = [list(span) for span in self.dropped]
            facts["dropped_reasons"] = dict(self.dropped_reasons)
        if self.clock_offset is not None:
            facts["clock_offset"] = self.clock_offset
        return facts
