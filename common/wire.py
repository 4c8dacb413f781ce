"""The frame: a batch of messages of one producer and one workflow, one stream entry.

Invariants:

- The header stands alone: version, producer, workflow, first seq and count, with a CRC32 before it, so that a ruined
  body still counts in the books. The version is its first element for ever.
- The body is sections: length (u32), CRC32 of length and payload (u32), payload. First and last section are the same
  table of names, so that no single flipped bit costs more than the message it hits; between them stands one section
  a message.
- A table lists shapes. A task's row names its shape and carries values in the shape's order of names, so a function's
  names stand once per frame. (Measured on 400 tasks of four arguments and two results: 0.58 µs and 69 bytes a row
  against 2.0 µs and 187 bytes for whole messages; see `docs/decisions/`.)
- Decoding allocates no more than a small multiple of the bytes at hand, and never raises for a ruined message: it
  returns a `Flaw` with the raw bytes.

Entry fields: `h` = crc32 (u32, little-endian) + msgpack [version, producer_id, workflow_id, campaign_id, hostname,
pid, rank, first_seq, count, extra{receipt, tenant_id}]; `b` = the sections.

Shape: [kind, fixed{}, used names or nil, generated names or nil].
Row of a task: [shape, counter or task id, parent counter or task id or nil, started_at or nil, duration or nil,
status rank, used, generated or nil, extra{} (may be left out)].
`used` and `generated` are arrays in the order of the shape's names, or maps where the shape has none.
`ended_at` is `started_at` plus `duration` unless `extra` has it.
Row of any other kind: [shape, fields{}].

Extension types: 1 = int outside 64 bits (hexadecimal text), 2 = map with keys that are containers (array of pairs),
-1 = timestamp.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgpack

from provd.common import ids, sections
from provd.common.errors import FrameError, InvalidId, NewerSchema
from provd.common.packing import UNPACK_ERRORS, new_packer, pack, pack_foreign, pack_odd_map, unpack
from provd.common.record import RANKS, SCHEMA_VERSION, SEQ_MAX, STATUSES, Kind, Message, Record

#: The names of `packing` among them: who reads and writes frames has values to pack.
__all__ = [
    "UNPACK_ERRORS",
    "Flaw",
    "Frame",
    "Header",
    "Shape",
    "decode",
    "decode_header",
    "decode_row",
    "encode_body",
    "encode_header",
    "encode_messages",
    "from_header",
    "new_packer",
    "pack",
    "pack_foreign",
    "pack_odd_map",
    "unpack",
]

_CRC = struct.Struct("<I")

#: Bytes that the rows of one frame may repeat of its table: more is a small frame that becomes a large one. A frame of
#: ours has a few MiB of them.
_SHARED_MAX = 256 << 20


@dataclass(frozen=True, slots=True)
class Header:
    """What a frame says about itself."""

    producer_id: str
    workflow_id: str
    campaign_id: str | None
    hostname: str
    pid: int
    rank: int | None
    first_seq: int
    count: int
    #: Whether the producer waits for the store's receipt before it lets go of its own copy (`durability: disk`).
    receipt: bool = False
    #: Whose the messages are, where several tenants share the services.
    tenant_id: str | None = None

    @property
    def last_seq(self) -> int:
        """The seq of the frame's last message."""
        return self.first_seq + self.count - 1


@dataclass(frozen=True, slots=True)
class Flaw:
    """Messages of a frame that cannot be read."""

    first_seq: int
    last_seq: int
    raw: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class Frame:
    """A decoded frame; every seq of the header is in exactly one message or flaw."""

    header: Header
    messages: tuple[Message, ...]
    flaws: tuple[Flaw, ...] = ()


@dataclass(frozen=True, slots=True)
class Shape:
    """The part of a message that many of its kind share; hashable, so that a frame lists each one once."""

    kind: Kind
    fixed: tuple[tuple[str, Any], ...] = ()
    used_names: tuple[str, ...] | None = None
    generated_names: tuple[str, ...] | None = None
    #: The packed form, computed once.
    packed: bytes = field(init=False, compare=False, repr=False, default=b"")

    def __post_init__(self) -> None:
        packed = pack([self.kind.value, dict(self.fixed), self.used_names, self.generated_names])
        object.__setattr__(self, "packed", packed)


# --- encoding --------------------------------------------------------------------------------------------------


def encode_header(header: Header) -> bytes:
    """The `h` field."""
    packed = pack(
        [
            SCHEMA_VERSION,
            header.producer_id,
            header.workflow_id,
            header.campaign_id,
            header.hostname,
            header.pid,
            header.rank,
            header.first_seq,
            header.count,
            ({"receipt": True} if header.receipt else {})
            | ({"tenant_id": header.tenant_id} if header.tenant_id is not None else {}),
        ]
    )
    return _CRC.pack(zlib.crc32(packed)) + packed


def encode_body(shapes: Iterable[Shape], rows: Iterable[bytes]) -> bytes:
    """The `b` field, from the shapes that the rows name by position and the packed rows."""
    shapes = list(shapes)
    table = sections.encode(
        msgpack.Packer().pack_array_header(len(shapes)) + b"".join(shape.packed for shape in shapes)
    )
    return b"".join([table, sections.encode_all(rows), table])


def encode_messages(
    messages: Sequence[Message],
    *,
    campaign_id: str | None,
    hostname: str,
    pid: int,
    rank: int | None,
    receipt: bool = False,
) -> tuple[bytes, bytes]:
    """Frame messages of one producer and workflow whose seqs are consecutive: the way back from a spool."""
    first = messages[0]
    header = Header(
        first.producer_id,
        first.workflow_id,
        campaign_id,
        hostname,
        pid,
        rank,
        first.seq,
        len(messages),
        receipt,
        _tenant_of(messages),
    )
    shapes: dict[tuple[Any, ...], tuple[int, Shape]] = {}
    rows = [_message_row(message, header, shapes) for message in messages]
    return encode_header(header), encode_body((shape for _, shape in shapes.values()), rows)


def _tenant_of(messages: Sequence[Message]) -> str | None:
    """Whose they all are; None where a header cannot say it, and the rows do."""
    tenant_id: Any = messages[0].record.get("tenant_id")
    try:
        ids.check_id(tenant_id, "tenant id")
    except InvalidId:
        return None
    known: str = tenant_id
    return known if all(message.record.get("tenant_id") == known for message in messages) else None


def _message_row(message: Message, header: Header, shapes: dict[tuple[Any, ...], tuple[int, Shape]]) -> bytes:
    key = (message.kind, message.record.get("activity_id"))
    if key not in shapes:
        fixed = (("activity_id", key[1]),) if key[1] is not None else ()
        shapes[key] = (len(shapes), Shape(message.kind, fixed))
    number, shape = shapes[key]
    known = from_header(header, message.seq).items()
    stated = {
        name: value
        for name, value in message.record.items()
        if name not in dict(shape.fixed) and (name, value) not in known
    }
    if message.kind is not Kind.TASK:
        return pack([number, _wire_map(stated)])
    task, parent = stated.pop("task_id"), stated.pop("parent_task_id", None)
    return pack(
        [
            number,
            _short_task(header.producer_id, task),
            None if parent is None else _short_task(header.producer_id, parent),
            stated.pop("started_at", None),
            stated.pop("duration", None),
            RANKS[stated.pop("status", None)],
            _wire_value(stated.pop("used", {})),
            _wire_value(stated.pop("generated", None)),
            _wire_map(stated),
        ]
    )


def _short_task(producer_id: str, task: str) -> int | str:
    counter = ids.task_counter(producer_id, task)
    return task if counter is None else counter


def _wire_map(items: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _wire_value(value) for key, value in items.items()}


def _wire_value(value: Any) -> Any:
    if isinstance(value, dict):
        inner = {key: _wire_value(item) for key, item in value.items()}
        return pack_odd_map(inner) if any(isinstance(key, tuple) for key in inner) else inner
    if isinstance(value, (list, tuple)):
        return [_wire_value(item) for item in value]
    return value


# --- decoding --------------------------------------------------------------------------------------------------


def decode(header_field: bytes, body_field: bytes) -> Frame:
    """Read a frame. Raises `NewerSchema` for a later version and `FrameError` for a header that cannot be trusted."""
    header = decode_header(header_field)
    payloads, lost = sections.decode(body_field, header.count)
    table = payloads.pop(sections.TABLE, None)
    if table is None:
        return Frame(
            header, (), (_flaw(header, 0, header.count - 1, body_field, "the table of names is lost"),)
        )
    if len(table) * len(payloads) > _SHARED_MAX:
        reason = f"{len(payloads)} messages share a table of {len(table)} bytes: too much"
        return Frame(header, (), (_flaw(header, 0, header.count - 1, body_field, reason),))
    shapes = _read_table(table)
    if shapes is None:
        return Frame(
            header, (), (_flaw(header, 0, header.count - 1, body_field, "the table of names is garbled"),)
        )
    messages: list[Message] = []
    flaws = [_flaw(header, first, last, raw, "damaged on the way") for first, last, raw in lost]
    read = _Rows(shapes, header).read
    for index, payload in payloads.items():
        try:
            messages.append(read(payload, header.first_seq + index))
        except UNPACK_ERRORS as error:
            flaws.append(_flaw(header, index, index, payload, f"not a message: {error}"))
    return Frame(header, tuple(messages), tuple(sorted(flaws, key=lambda flaw: flaw.first_seq)))


def decode_header(data: bytes) -> Header:
    """Read the `h` field; raises `NewerSchema` or `FrameError`."""
    if len(data) < _CRC.size or _CRC.unpack_from(data)[0] != zlib.crc32(data[_CRC.size :]):
        raise FrameError("the frame's header is damaged")
    try:
        version, *rest = unpack(data[_CRC.size :])
    except UNPACK_ERRORS as error:
        raise FrameError(f"the frame's header cannot be read: {error}") from error
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise NewerSchema(version)
    try:
        producer_id, workflow_id, campaign_id, hostname, pid, rank, first_seq, count = rest[:8]
        ids.check_id(workflow_id, "workflow id")
        if campaign_id is not None:
            ids.check_id(campaign_id, "campaign id")
        if not (isinstance(producer_id, str) and isinstance(first_seq, int) and isinstance(count, int)):
            raise ValueError("fields of the wrong type")
        ids.check_id(producer_id, "producer id")
        if first_seq < 1 or count < 1 or first_seq + count > SEQ_MAX:
            raise ValueError(f"{count} messages from seq {first_seq}")
        extra = rest[8] if len(rest) > 8 and isinstance(rest[8], dict) else {}
        tenant_id = extra.get("tenant_id")
        if tenant_id is not None:
            ids.check_id(tenant_id, "tenant id")
    except ValueError as error:
        raise FrameError(f"the frame's header makes no sense: {error}") from error
    receipt = extra.get("receipt") is True
    return Header(
        producer_id, workflow_id, campaign_id, hostname, pid, rank, first_seq, count, receipt, tenant_id
    )


def _flaw(header: Header, first: int, last: int, raw: bytes, reason: str) -> Flaw:
    return Flaw(header.first_seq + first, header.first_seq + last, raw, reason)


def _read_table(payload: bytes) -> list[Shape] | None:
    try:
        return [
            Shape(
                Kind(kind),
                tuple(fixed.items()),
                None if used is None else tuple(used),
                None if generated is None else tuple(generated),
            )
            for kind, fixed, used, generated in unpack(payload)
        ]
    except UNPACK_ERRORS:
        return None


def from_header(header: Header, seq: int) -> Record:
    """What every message of a frame has from its header."""
    common: Record = {
        "workflow_id": header.workflow_id,
        "producer_id": header.producer_id,
        "seq": seq,
        "hostname": header.hostname,
        "pid": header.pid,
        "schema_version": SCHEMA_VERSION,
    }
    if header.campaign_id is not None:
        common["campaign_id"] = header.campaign_id
    if header.rank is not None:
        common["rank"] = header.rank
    if header.tenant_id is not None:
        common["tenant_id"] = header.tenant_id
    return common


def decode_row(payload: bytes, shapes: Sequence[Shape], header: Header, seq: int) -> Message:
    """Read one message of a frame. Raises one of `UNPACK_ERRORS` for what is none."""
    return _Rows(shapes, header).read(payload, seq)


class _Rows:
    """Reads the rows of a frame; what they share by header and table is prepared once, and copied in C."""

    __slots__ = ("_known", "_producer_id", "_shapes", "_workflow_id")

    def __init__(self, shapes: Sequence[Shape], header: Header) -> None:
        self._producer_id = header.producer_id
        self._workflow_id = header.workflow_id
        self._known = from_header(header, header.first_seq)
        self._shapes = [(shape, dict(shape.fixed), self._plain(shape)) for shape in shapes]

    def _plain(self, shape: Shape) -> Record | None:
        """The record of a task that began, ended and returned, and has nothing unusual: nearly every one."""
        if shape.kind is not Kind.TASK:
            return None
        names = ("task_id", "status", "started_at", "ended_at", "duration", "used", "generated")
        record = dict(shape.fixed) | dict.fromkeys(names)
        self._sign(record, 0)
        return record

    def _sign(self, record: Record, seq: int) -> None:
        """Say what the header says."""
        campaign_id = record.get("campaign_id")  # a call may be recorded under a campaign of its own
        record.update(self._known)
        record["seq"] = seq
        if campaign_id is not None:
            record["campaign_id"] = campaign_id

    def read(self, payload: bytes, seq: int) -> Message:
        """One message. Raises one of `UNPACK_ERRORS`."""
        row = unpack(payload)
        shape, fixed, plain = self._shapes[row[0]]
        if plain is not None and len(row) == 8 and row[2] is None and None not in row[3:]:
            record = plain.copy()
            _, task, _, started_at, duration, rank, used, generated = row
            record["task_id"] = self._task_id(task)
            record["status"] = STATUSES[rank]
            record["started_at"] = started_at
            record["ended_at"] = started_at + round(duration * 1000)
            record["duration"] = duration
            record["used"] = _named(shape.used_names, used)
            record["generated"] = _named(shape.generated_names, generated)
            record["seq"] = seq
            return Message(shape.kind, self._producer_id, self._workflow_id, seq, record)
        record = fixed.copy()
        if shape.kind is Kind.TASK:
            self._read_task(row, shape, record)
        else:
            record.update(row[1])
        self._sign(record, seq)
        return Message(shape.kind, self._producer_id, self._workflow_id, seq, record)

    def _read_task(self, row: list[Any], shape: Shape, record: Record) -> None:
        _, task, parent, started_at, duration, rank, used, generated = row[:8]
        record["task_id"] = self._task_id(task)
        if parent is not None:
            record["parent_task_id"] = self._task_id(parent)
        record["status"] = STATUSES[rank]
        if started_at is not None:
            record["started_at"] = started_at
            if duration is not None:
                record["ended_at"] = started_at + round(duration * 1000)
        if duration is not None:
            record["duration"] = duration
        record["used"] = _named(shape.used_names, used)
        if generated is not None:
            record["generated"] = _named(shape.generated_names, generated)
        if len(row) > 8:
            record.update(row[8])

    def _task_id(self, task: int | str) -> str:
        return ids.task_id(self._producer_id, task) if isinstance(task, int) else str(task)


def _named(names: tuple[str, ...] | None, values: Any) -> Record:
    if names is None:
        if not isinstance(values, dict):
            raise ValueError("values without names")
        return values
    if len(values) != len(names):
        raise ValueError(f"{len(values)} values for {len(names)} names")
    return dict(zip(names, values))
