"""A task on its way: what is kept of it from the moment it begins until it is packed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from provd.common.record import Record
    from provd.common.wire import Shape
    from provd.producer.capture import Frozen
    from provd.producer.telemetry import Reading


class TaskEntry:
    """A task on its way: begun, perhaps ended, not yet packed."""

    __slots__ = (
        "announced", "counter", "duration", "extra", "generated", "parent", "producer_id", "rank", "reading", "shape",
        "started", "started_at", "used",
    )  # fmt: skip

    shape: Shape
    producer_id: str
    counter: int
    #: A task of this process, or the id of one elsewhere.
    parent: TaskEntry | str | None
    used: Frozen
    #: Seconds since 1970.
    started_at: float
    #: Seconds of the monotonic clock.
    started: float
    duration: float | None
    rank: int
    generated: Frozen | None
    extra: Record | None
    #: Telemetry, when it was asked for; closed when the task has ended, outside of its duration.
    reading: Reading | None
    announced: bool
