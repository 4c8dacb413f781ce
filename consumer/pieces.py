"""Pieces of frames as quarantine keeps them, so that a later version can read them again.

- A whole frame is kept as its header and its body one behind the other, with the header's length beside it.
- A part of a body is kept as it was, with a header for just its messages and the frame's table of names beside it:
  enough to make a frame of it that stands alone.
- What is no frame (an entry without our fields) has neither, and can only be looked at.
- Pieces written before lengths were kept are split where the header's own encoding ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import msgpack

from provd.common import sections, wire
from provd.common.errors import FrameError
from provd.common.record import Message
from provd.store.interface import Quarantined, Refusal

#: Bytes before a header's msgpack: its checksum.
_CRC_BYTES = 4


class NotAFrame(FrameError):
    """The piece holds no frame, whole or in part: no version will read it."""


def flawed_pieces(
    frame: wire.Frame, body: bytes, *, stream: str | None, entry_id: str | None
) -> list[Quarantined]:
    """What of a decoded frame cannot be read, each with what it takes to read it later."""
    if not frame.flaws:
        return []
    payloads, _ = sections.decode(body, frame.header.count)
    table = payloads.get(sections.TABLE)
    pieces = []
    for flaw in frame.flaws:
        count = flaw.last_seq - flaw.first_seq + 1
        is_row = count == 1 and payloads.get(flaw.first_seq - frame.header.first_seq) == flaw.raw
        is_body = flaw.raw == body
        pieces.append(
            Quarantined(
                reason=flaw.reason,
                raw=sections.encode(flaw.raw) if is_row else flaw.raw,
                stream=stream,
                entry_id=entry_id,
                producer_id=frame.header.producer_id,
                workflow_id=frame.header.workflow_id,
                first_seq=flaw.first_seq,
                last_seq=flaw.last_seq,
                header=wire.encode_header(replace(frame.header, first_seq=flaw.first_seq, count=count)),
                table=None if is_body else table,
            )
        )
    return pieces


def refused_piece(refusal: Refusal) -> Quarantined:
    """A message that the store will never take, as a frame of one message, which any version can read again."""
    message = refusal.message
    header, body = _frame_of(message)
    return Quarantined(
        reason=refusal.reason,
        raw=header + body,
        producer_id=message.producer_id,
        workflow_id=message.workflow_id,
        first_seq=message.seq,
        last_seq=message.seq,
        header_bytes=len(header) or None,
    )


def read_piece(document: Mapping[str, Any], raw: bytes) -> tuple[wire.Frame, bytes]:
    """A quarantined piece as a frame, decoded by this version, and that frame's body.

    Raises `NotAFrame`, `NewerSchema` and `FrameError`.
    """
    header = document.get("header")
    if isinstance(header, bytes):
        table = document.get("table")
        around = sections.encode(table) if isinstance(table, bytes) else b""
        body = around + raw + around
        return wire.decode(header, body), body
    split = document.get("header_bytes") or _header_bytes(raw)
    if not isinstance(split, int) or not 0 < split <= len(raw):
        raise NotAFrame("it holds no frame: no version will read it")
    return wire.decode(raw[:split], raw[split:]), raw[split:]


def _header_bytes(raw: bytes) -> int:
    """Where the header of a whole frame ends; 0 when it does not begin with one."""
    unpacker = msgpack.Unpacker(max_buffer_size=max(len(raw), 1))
    unpacker.feed(raw[_CRC_BYTES:])
    try:
        unpacker.skip()
    except (msgpack.UnpackException, ValueError):
        return 0
    end: int = _CRC_BYTES + unpacker.tell()
    try:
        wire.decode_header(raw[:end])
    except FrameError:
        return 0
    return end


def _frame_of(message: Message) -> tuple[bytes, bytes]:
    record = message.record
    try:
        return wire.encode_messages(
            [message],
            campaign_id=record.get("campaign_id"),
            hostname=str(record.get("hostname", "")),
            pid=int(record.get("pid", 0)),
            rank=record.get("rank"),
        )
    except Exception:  # noqa: BLE001 - what the store refuses may be anything, and harms nobody else (G4)
        return b"", "".join(_written_out(record)).encode("utf-8", "surrogatepass")


def _written_out(value: Any) -> Iterator[str]:
    """The pieces of what `repr` would say, of containers however deep."""
    left: list[tuple[Any, bool]] = [(value, False)]
    while left:
        one, is_said = left.pop()
        if is_said:
            yield one
        elif isinstance(one, dict):
            pairs = [
                part
                for key, item in one.items()
                for part in ((f"{key!r}: ", True), (item, False), (", ", True))
            ]
            left += [("}", True), *reversed(pairs[:-1]), ("{", True)]
        elif isinstance(one, (list, tuple)):
            items = [part for item in one for part in ((item, False), (", ", True))]
            left += [("]", True), *reversed(items[:-1]), ("[", True)]
        else:
            yield repr(one)
