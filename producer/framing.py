"""From entries to frames: numbers, rows and the table of shapes.

- Numbers are given here, one after the other; the numbers of a frame are consecutive.
- A frame is closed when it holds `messages` rows or roughly `size` bytes.
- No message leaves larger than its cap, and none with a password in what the program wrote.
- An exception that a signal handler raises here, between any two steps, loses no row that was added before, and no
  frame: at most a frame is given away twice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from provd.common import wire
from provd.common.ids import task_id
from provd.common.ranges import Ranges
from provd.common.record import RANKS, Record, Status
from provd.common.wire import Header, Shape
from provd.producer import sizing
from provd.producer.capture import Frozen, repack
from provd.producer.interrupts import pass_on
from provd.producer.rules import current_rules

if TYPE_CHECKING:
    from provd.producer.channel import Channel, LightRow
    from provd.producer.entry import TaskEntry


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
    tenant_id: str | None = None

    def header(self, first_seq: int, count: int, *, receipt: bool = False) -> Header:
        """The header of a frame."""
        return Header(
            self.producer_id,
            self.workflow_id,
            self.campaign_id,
            self.hostname,
            self.pid,
            self.rank,
            first_seq,
            count,
            receipt,
            self.tenant_id,
        )


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

    @property
    def span(self) -> Ranges:
        """The numbers of its messages."""
        return Ranges.of([(self.header.first_seq, self.header.last_seq)])


#: The head of any other row.
_ROW_OF_2 = b"\x92"
#: The heads of a task's row, without and with the map of extra fields.
_ROW_OF_8 = b"\x98"
_ROW_OF_9 = b"\x99"

_RUNNING = RANKS[Status.RUNNING.value]

#: Fields of a task beside those of every row that say where it belongs.
_PLACE = ("campaign_id", "trace_id")


class _OpenFrame:
    """A frame that still grows. One object, so that the next one takes its place in a single step."""

    __slots__ = ("first_seq", "rows", "shapes", "size")

    def __init__(self, first_seq: int) -> None:
        self.first_seq = first_seq
        self.rows: list[bytes] = []
        self.shapes: dict[int, tuple[int, Shape]] = {}
        self.size = 0


class Framer:
    """Builds frames. Lives under its channel's lock, or under that of the journal."""

    def __init__(
        self,
        origin: Origin,
        limits: Limits,
        first_seq: int,
        *,
        receipt: bool = False,
        pack: Callable[[Any], bytes] | None = None,
    ) -> None:
        """`receipt`: the frames ask the store to confirm them. `pack` is a packer's, by default one of its own."""
        self.frames: list[CutFrame] = []
        self._origin = origin
        self._limits = limits
        self._receipt = receipt
        self._rules = current_rules()
        self._pack = pack or wire.new_packer().pack
        self._frame = _OpenFrame(first_seq)

    @property
    def next_seq(self) -> int:
        """The number that the next message gets."""
        return self._frame.first_seq + len(self._frame.rows)

    def add_statement(self, shape: Shape, record: Record) -> None:
        """Add a message about something other than a task."""
        fields = self._pack(self._rules.secrets.fields(record))
        room = self._rules.message_max - len(shape.packed)
        if len(fields) + sizing.OVERHEAD > room:
            (fields,) = sizing.fit([], room, record=fields)
        self._add(b"".join((_ROW_OF_2, self._pack(self._number(shape)), fields)))

    def take_plain(self, channel: Channel, most: int) -> int:
        """Take ended tasks of plain values off a channel, up to the first that is not; how many.

        What `add_task` does, a row of it at a time, takes three times as long.
        """
        entries, pack, limits = channel.entries, self._pack, self._limits
        frame = self._frame
        rows, shape, number, room = frame.rows, None, 0, 0
        for taken in range(most):
            entry = entries[0]
            used, generated, parent = entry.used, entry.generated, entry.parent
            if (
                type(used) is not tuple
                or entry.extra is not None
                or entry.announced
                or type(generated) is bytes
            ):
                return taken
            if entry.shape is not shape:
                shape = entry.shape
                number, room = self._number(shape), self._rules.text_max - len(shape.packed)
            above = None if parent is None else self._parent(parent)
            started_at = round(entry.started_at * 1000)
            try:
                row = pack(
                    (number, entry.counter, above, started_at, entry.duration, entry.rank, used, generated)
                )
            except Exception as error:  # noqa: BLE001 - `add_task` will say what it is
                pass_on(error)
                return taken
            size = len(row)
            if size > room:
                return taken
            # No call in these three: neither a signal handler nor a thread comes in between.
            rows += (row,)
            del entries[0]
            channel.tasks_ended += 1
            frame.size += size
            if len(rows) >= limits.messages or frame.size >= limits.size:
                self._close()
                frame = self._frame
                rows, shape = frame.rows, None
        return most

    def take_light(self, channel: Channel, most: int) -> int:
        """The same with tasks that were never open."""
        if channel.numbered is not None:
            return 0  # its row may be in the frame already
        light, pack, limits, counter = channel.light, self._pack, self._limits, channel.counter
        frame = self._frame
        rows, shape, number, room = frame.rows, None, 0, 0
        for taken in range(most):
            its, parent, started_at, duration, rank, used, generated, extra = light[0]
            if type(used) is not tuple or extra is not None or type(generated) is bytes:
                return taken
            if its is not shape:
                shape = its
                number, room = self._number(shape), self._rules.text_max - len(shape.packed)
            above = None if parent is None else self._parent(parent)
            try:
                row = pack(
                    (number, next(counter), above, int(started_at * 1000), duration, rank, used, generated)
                )
            except Exception as error:  # noqa: BLE001 - `add_light` will say what it is
                pass_on(error)
                return taken
            size = len(row)
            if size > room:
                return taken
            # No call in these three, as above.
            rows += (row,)
            del light[0]
            channel.tasks_ended += 1
            frame.size += size
            if len(rows) >= limits.messages or frame.size >= limits.size:
                self._close()
                frame = self._frame
                rows, shape = frame.rows, None
        return most

    def add_task(self, entry: TaskEntry) -> None:
        """Add a task that has ended."""
        extra = entry.extra
        if entry.announced:
            extra = {**(extra or {}), "announced": True}
        head = (
            self._number(entry.shape),
            entry.counter,
            self._parent(entry.parent),
            _ms(entry),
            entry.duration,
            entry.rank,
        )
        self._add_row(head, entry.shape, entry.used, entry.generated, extra)

    def add_light(self, counter: int, row: LightRow) -> None:
        """Add a task that was never open."""
        shape, parent, started_at, duration, rank, used, generated, extra = row
        head = (
            self._number(shape),
            counter,
            parent if parent is None else self._parent(parent),
            int(started_at * 1000),
            duration,
            rank,
        )
        self._add_row(head, shape, used, generated, extra)

    def _add_row(
        self,
        head: tuple[Any, ...],
        shape: Shape,
        used: Frozen,
        generated: Frozen | None,
        extra: Record | None,
    ) -> None:
        """Add a task's row; one that may be over a cap is looked at piece by piece."""
        pack, rules = self._pack, self._rules
        if extra is None and type(used) is tuple and type(generated) is not bytes:
            values = (*head, used, generated)
            row = pack(values)
            if len(row) + len(shape.packed) <= rules.text_max:
                self._add_plain(row, values, shape)
                return
        parts = [self._packed(used)] + ([] if generated is None else [self._packed(generated)])
        fields = None if extra is None else pack(rules.secrets.fields(extra))
        room = rules.message_max - len(shape.packed)
        if extra is not None and "data" in extra:
            room += len(extra["data"].get("bytes", b""))  # has a cap of its own
        if sum(map(len, parts)) + len(fields or b"") + sizing.OVERHEAD > room:
            parts = sizing.fit(parts, room, record=fields)
            fields = None if fields is None else parts.pop()
        pieces = [_ROW_OF_8 if fields is None else _ROW_OF_9, *map(pack, head), *parts]
        if generated is None:
            pieces.append(pack(None))
        if fields is not None:
            pieces.append(fields)
        self._add(b"".join(pieces))

    def _add_plain(self, row: bytes, values: tuple[Any, ...], shape: Shape) -> None:  # noqa: ARG002
        """Add a task's row of plain values, given also as what it was packed from."""
        self._add(row)

    def _packed(self, values: Frozen) -> bytes:
        if isinstance(values, bytes):
            return values
        packed: bytes = self._pack(values)
        # Kept by reference, so the only large thing in it is an int.
        return packed if len(packed) <= self._rules.text_max else repack(values)

    def add_announcement(self, entry: TaskEntry) -> None:
        """Add a task that still runs; the user's thread may be ending it at this very moment."""
        head = (
            self._number(entry.shape),
            entry.counter,
            self._parent(entry.parent),
            _ms(entry),
            None,
            _RUNNING,
        )
        self._add_row(head, entry.shape, entry.used, None, _place(entry.extra))

    def finish(self) -> list[CutFrame]:
        """Close the last frame and return them all."""
        if self._frame.rows:
            self._close()
        return self.frames

    def give(self, accept: Callable[[CutFrame], None]) -> None:
        """Close the last frame and give them all away; each is kept until `accept` has returned."""
        frames = self.finish()
        while frames:
            accept(frames[0])
            del frames[0]

    def _parent(self, parent: TaskEntry | str | None) -> int | str | None:
        """The parent as a row has it: the counter of a task of this producer, else the whole id."""
        if parent is None or isinstance(parent, str):
            return parent
        if parent.producer_id == self._origin.producer_id:
            return parent.counter
        return task_id(parent.producer_id, parent.counter)

    def _number(self, shape: Shape) -> int:
        frame = self._frame
        known = frame.shapes.get(id(shape))
        if known is None:
            known = frame.shapes[id(shape)] = (len(frame.shapes), shape)
            frame.size += len(shape.packed)
        return known[0]

    def _add(self, row: bytes) -> None:
        frame = self._frame
        frame.rows.append(row)
        frame.size += len(row)
        if len(frame.rows) >= self._limits.messages or frame.size >= self._limits.size:
            self._close()

    def _close(self) -> None:
        frame = self._frame
        header = self._origin.header(frame.first_seq, len(frame.rows), receipt=self._receipt)
        body = wire.encode_body([shape for _, shape in frame.shapes.values()], frame.rows)
        self.frames.append(CutFrame(header, wire.encode_header(header), body))
        self._frame = _OpenFrame(self.next_seq)


def _place(extra: Record | None) -> Record | None:
    """What of a task's further fields says where it belongs: known, and asked for, while it runs."""
    if extra is None:
        return None
    return {name: extra[name] for name in _PLACE if name in extra} or None


def _ms(entry: TaskEntry) -> int:
    return round(entry.started_at * 1000)
