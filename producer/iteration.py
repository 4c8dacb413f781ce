"""The iterations of one execution of a loop, and how each of them ends.

A plain iteration is a task like any other while it is open. A light one is known to its run alone, and is stated when
it has ended.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeAlias

from provd.common import clock, wire
from provd.common.record import RANKS, Kind, Record, Status
from provd.common.wire import Shape
from provd.producer.activity import after_task, start_reading
from provd.producer.capture import Frozen, can_share, freeze_map, freezer
from provd.producer.channel import Channel
from provd.producer.context import current_task
from provd.producer.entry import TaskEntry
from provd.producer.leaving import How, Pending, Place, how_left, unseen
from provd.producer.outcome import FINISHED, Outcome, outcome_of

Freezer: TypeAlias = Callable[[tuple[Any, ...]], Frozen]

#: Sets of recorded names kept per run; iterations beyond that name theirs in each row.
_SHAPES_MAX = 16

#: Numbers the loops of a process; its producer's id before it makes a group's id unique.
_loops = itertools.count(1)

_ABANDONED = Outcome(Status.CANCELLED, "the process ended in the middle of this iteration")


class Run:
    """One execution of a loop: from the first item to the moment it is left."""

    __slots__ = (
        "_fixed", "_known", "channel", "entry", "freeze", "inside", "made", "names", "parent", "producer_id", "recorded",
        "shape", "start", "started", "started_at", "used", "values",
    )  # fmt: skip

    def __init__(self, name: str, item: str, parent: str | None, channel: Channel, frame: FrameType) -> None:
        self.start = Place(frame)
        self.channel = channel
        self.parent: TaskEntry | str | None = parent or current_task.get()
        self._fixed = (
            ("activity_id", name),
            ("subtype", "iteration"),
            ("group_id", f"{channel.producer_id}-loop-{next(_loops)}"),
        )
        self.names = ("index" if item == "i" else "i", item)
        self.shape = Shape(Kind.TASK, self._fixed, self.names)
        self.freeze = freezer(self.names)
        self._known: dict[tuple[str, ...], tuple[Shape, Freezer]] = {}
        self.made = self.shape
        self.recorded: tuple[str, ...] | None = None
        self.values: Frozen | None = None
        #: Whether an iteration is open; of a light one the rest says what it is, of any other `entry`.
        self.inside = False
        self.entry: TaskEntry | None = None
        self.used: Frozen = ()
        self.started_at = self.started = 0.0
        self.producer_id = channel.producer_id

    def record(self, values: dict[str, Any]) -> None:
        """Add to what the open iteration has generated, as the values are now."""
        if self.recorded is not None:
            values = self._merged(self.recorded, values)
        self.recorded = names = tuple(values)
        known = self._known.get(names) or self._learn(names)
        if known is None:
            self.made, self.values = self.shape, freeze_map(values, made=True)
        else:
            self.made, freeze = known
            self.values = freeze(tuple(values.values()))

    def _learn(self, names: tuple[str, ...]) -> tuple[Shape, Freezer] | None:
        """The shape of rows with these results, unless they are too many or too long to stand in one."""
        if len(self._known) == _SHAPES_MAX or not can_share(names):
            return None
        shape = Shape(Kind.TASK, self._fixed, self.names, names)
        self._known[names] = shape, freezer(names, made=True)
        return self._known[names]

    def _merged(self, names: tuple[str, ...], values: dict[str, Any]) -> dict[str, Any]:
        before = wire.unpack(self.values) if isinstance(self.values, bytes) else self.values
        return {**(before if isinstance(before, dict) else dict(zip(names, before or ()))), **values}

    def take(self) -> tuple[Shape, Frozen | None]:
        """What has been recorded in the iteration that ends, and the shape of its row."""
        self.inside = False
        if self.recorded is None:
            return self.shape, None
        self.recorded = None
        return self.made, self.values

    # --- plain iterations ---

    def begin(self, index: int, item: Any) -> TaskEntry:
        """Open the next iteration."""
        channel = self.channel
        entry = channel.begin(self.shape, self.freeze((index, item)), self.parent)
        if channel.telemetry:
            entry.reading = start_reading(channel.telemetry)
        self.entry = entry
        self.inside = True
        return entry

    def end(self, entry: TaskEntry) -> None:
        """Close it as one that went well."""
        channel = self.channel
        if self.recorded is None:
            self.inside = False
            channel.end(entry, None)
        else:
            entry.shape, values = self.take()
            channel.end(entry, values)
        after_task(channel)

    # --- iterations that do not end by themselves ---

    def leave(self, frame: FrameType | None) -> None:
        """The iterator has been dropped, by `frame`."""
        if not self.inside:
            return
        how, places = how_left(self.start, frame)
        self._defer(how, places)

    def _defer(self, how: How, places: list[Place]) -> None:
        if how is How.ON_PURPOSE:
            self.close(FINISHED)
        elif not places:
            self.close(unseen(how, self.start))
        else:
            Pending(self.channel, self._stop(), how, places, self.start)

    def fail(self, error: BaseException) -> None:
        """The iteration has raised `error`."""
        if self.inside:
            self.close(outcome_of(error))

    def abandon(self, error: BaseException | None = None) -> None:
        """The process ends."""
        if self.inside:
            self.close(_ABANDONED if error is None else outcome_of(error))

    def close(self, outcome: Outcome) -> None:
        """End the open iteration."""
        self._stop()(outcome)
        if not sys.is_finalizing():
            after_task(self.channel)

    def _stop(self) -> Any:
        """End the open iteration now; what is returned says, perhaps later, how."""
        channel, entry = self.channel, self.entry
        shape, values = self.take()
        if entry is not None:
            self.entry = None
            entry.shape, entry.generated = shape, values
            channel.withhold(entry)
            return lambda outcome: channel.settle(entry, outcome)
        used, started_at, parent = self.used, self.started_at, self.parent
        duration = clock.monotonic() - self.started
        mine = channel.producer_id == self.producer_id

        def note(outcome: Outcome) -> None:
            fields: Record = outcome.fields()
            rank = RANKS[fields.pop("status")]
            if mine:
                channel.note(shape, used, values, started_at, duration, parent, rank, fields or None)

        return note
