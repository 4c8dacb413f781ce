"""Frames on their way into the store: decoded, with what could not be read set aside.

- A frame costs only what is wrong in it: its sound messages are stored, its flaws are quarantined.
- A frame of a later schema is not in a batch at all: it stays pending until a newer consumer comes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from provd.common import names, wire
from provd.common.errors import FrameError, NewerSchema
from provd.common.ranges import Ranges
from provd.common.record import Message
from provd.consumer.streams import Entry
from provd.store.interface import Quarantined, Refusal, Stored


@dataclass(slots=True)
class Batch:
    """What one write to the store is about; grows by `add`."""

    entries: list[Entry] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    quarantined: list[Quarantined] = field(default_factory=list)
    newer: list[Entry] = field(default_factory=list)
    size: int = 0

    def add(self, entry: Entry) -> None:
        """Decode an entry into the batch."""
        try:
            messages, flawed = _decode(entry)
        except NewerSchema:
            self.newer.append(entry)
            return
        self.entries.append(entry)
        self.messages += messages
        self.quarantined += flawed
        self.size += entry.size


def ledger(messages: Iterable[Message], refused: Iterable[Refusal] = ()) -> list[Stored]:
    """The ledger's ranges for messages that the store has taken."""
    without = {_place(refusal.message) for refusal in refused}
    numbers: dict[tuple[str, str], list[int]] = {}
    for message in messages:
        if not without or _place(message) not in without:
            numbers.setdefault((message.producer_id, message.workflow_id), []).append(message.seq)
    return [
        Stored(producer_id, workflow_id, first, last)
        for (producer_id, workflow_id), seqs in numbers.items()
        for first, last in Ranges.of_numbers(seqs)
    ]


def refused_items(refusals: Iterable[Refusal]) -> list[Quarantined]:
    """Messages that the store will never take, as a frame of one message each, which any version can read again."""
    return [_refused_item(refusal) for refusal in refusals]


def affected(item: Quarantined) -> int:
    """Messages in a quarantined piece; a piece whose number nobody knows counts as one."""
    if item.first_seq is None or item.last_seq is None:
        return 1
    return item.last_seq - item.first_seq + 1


def _decode(entry: Entry) -> tuple[tuple[Message, ...], list[Quarantined]]:
    if not entry.fields:
        return (), []
    header, body = entry.fields.get(names.HEADER_FIELD), entry.fields.get(names.BODY_FIELD)
    if header is None or body is None:
        raw = b" ".join(name + b"=" + value for name, value in entry.fields.items())
        return (), [_unreadable(entry, raw, "not a frame: the fields h and b are missing")]
    try:
        frame = wire.decode(header, body)
    except NewerSchema:
        raise
    except FrameError as error:
        return (), [_unreadable(entry, header + body, str(error))]
    flawed = [
        Quarantined(
            reason=flaw.reason,
            raw=flaw.raw,
            stream=entry.stream,
            entry_id=entry.entry_id,
            producer_id=frame.header.producer_id,
            workflow_id=frame.header.workflow_id,
            first_seq=flaw.first_seq,
            last_seq=flaw.last_seq,
        )
        for flaw in frame.flaws
    ]
    return frame.messages, flawed


def _place(message: Message) -> tuple[str, str, int]:
    return message.producer_id, message.workflow_id, message.seq


def _unreadable(entry: Entry, raw: bytes, reason: str) -> Quarantined:
    # The stream says which workflow's books this is missing from, though not whose.
    workflow_id = names.workflow_of_stream(entry.stream)
    return Quarantined(reason, raw, entry.stream, entry.entry_id, workflow_id=workflow_id)


def _refused_item(refusal: Refusal) -> Quarantined:
    message = refusal.message
    return Quarantined(
        reason=refusal.reason,
        raw=_raw(message),
        producer_id=message.producer_id,
        workflow_id=message.workflow_id,
        first_seq=message.seq,
        last_seq=message.seq,
    )


def _raw(message: Message) -> bytes:
    record = message.record
    try:
        header, body = wire.encode_messages(
            [message],
            campaign_id=record.get("campaign_id"),
            hostname=str(record.get("hostname", "")),
            pid=int(record.get("pid", 0)),
            rank=record.get("rank"),
        )
    except (TypeError, ValueError, KeyError, OverflowError):
        return repr(record).encode("utf-8", "surrogatepass")
    return header + body
