"""From entries to frames: numbers, rows and the table of shapes.

- Numbers are given here, one after the other; the numbers of a frame are consecutive.
- A frame is closed when it holds `messages` rows or roughly `size` bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from provd.common import wire
from provd.common.ids import task_id
from provd.common.record import RANKS, Record, Status
from provd.common.wire import Header, Shape

if TYPE_CHECKING:
    from provd.producer.channel import TaskEntry


@dataclass(frozen=True, slots=True)
class Limits:
    """How large a frame may grow: messages, and roughly bytes."""

    messages: int
    size: int


@dataclass(frozen=True, slots=True)
class Origin:
    """What every frame of a channel says of its sender."""

    producer_id: str
    workflow_id: str
    campaign_id: str | None
    hostname: str
    pid: int
    rank: int | None


@dataclass(frozen=True, slots=True)
class CutFrame:
    """A frame, ready to send or to spool."""

    header: Header
    header_field: bytes
    body_field: bytes

    @property
    def size(self) -> int:
        """Bytes it takes in memory and on the wire, roughly."""
        return len(self.header_field) + len(self.body_field)


#: The heads of a row's array, without and with the map of extra fields.
_ROW_OF_8 = b"\x98"
_ROW_OF_9 = b"\x99"

_RUNNING = RANKS[Status.RUNNING.value]


class Framer:
    """Builds the frames of one cut. Lives under the channel's lock."""

    def __init__(self, origin: Origin, limits: Limits, first_seq: int) -> None:
        self.frames: list[CutFrame] = []
        self.next_seq = first_seq
        self._origin = origin
        self._limits = limits
        self._pack = wire.new_packer().pack
        self._start()

    def _start(self) -> None:
        self._first_seq = self.next_seq
        self._shapes: dict[int, tuple[int, Shape]] = {}
        self._rows: list[bytes] = []
        self._size = 0

    def add_statement(self, shape: Shape, record: Record) -> None:
        """Add a message about something other than a task."""
        self._add(self._pack([self._number(shape), record]))

    def add_task(self, entry: TaskEntry) -> None:
        """Add a task that has ended."""
        pack, used, generated = self._pack, entry.used, entry.generated
        extra = entry.extra
        if entry.announced:
            extra = {**(extra or {}), "announced": True}
        head = (
            self._number(entry.shape),
            entry.counter,
            self._parent(entry),
            _ms(entry),
            entry.duration,
            entry.rank,
        )
        if extra is None and type(used) is tuple and type(generated) is not bytes:
            self._add(pack((*head, used, generated)))
            return
        pieces = [_ROW_OF_8 if extra is None else _ROW_OF_9]
        pieces += [pack(item) for item in head]
        pieces.append(used if isinstance(used, bytes) else pack(used))
        pieces.append(generated if isinstance(generated, bytes) else pack(generated))
        if extra is not None:
            pieces.append(pack(extra))
        self._add(b"".join(pieces))

    def add_announcement(self, entry: TaskEntry) -> None:
        """Add a task that still runs; the user's thread may be ending it at this very moment."""
        row = [
            self._number(entry.shape),
            entry.counter,
            self._parent(entry),
            _ms(entry),
            None,
            _RUNNING,
            None,
            None,
        ]
        pieces = [_ROW_OF_8, *(self._pack(item) for item in row)]
        pieces[7] = entry.used if isinstance(entry.used, bytes) else self._pack(entry.used)
        self._add(b"".join(pieces))

    def finish(self) -> list[CutFrame]:
        """Close the last frame and return them all."""
        if self._rows:
            self._close()
        return self.frames

    def _parent(self, entry: TaskEntry) -> int | str | None:
        """The parent as a row has it: the counter of a task of this producer, else the whole id."""
        parent = entry.parent
        if parent is None or isinstance(parent, str):
            return parent
        if parent.producer_id == self._origin.producer_id:
            return parent.counter
        return task_id(parent.producer_id, parent.counter)

    def _number(self, shape: Shape) -> int:
        known = self._shapes.get(id(shape))
        if known is None:
            known = self._shapes[id(shape)] = (len(self._shapes), shape)
            self._size += len(shape.packed)
        return known[0]

    def _add(self, row: bytes) -> None:
        self._rows.append(row)
        self._size += len(row)
        self.next_seq += 1
        if len(self._rows) >= self._limits.messages or self._size >= self._limits.size:
            self._close()

    def _close(self) -> None:
        origin = self._origin
        header = Header(
            origin.producer_id,
            origin.workflow_id,
            origin.campaign_id,
            origin.hostname,
            origin.pid,
            origin.rank,
            self._first_seq,
            len(self._rows),
        )
        body = wire.encode_body((shape for _, shape in self._shapes.values()), self._rows)
        self.frames.append(CutFrame(header, wire.encode_header(header), body))
        self._start()


def _ms(entry: TaskEntry) -> int:
    return round(entry.started_at * 1000)
