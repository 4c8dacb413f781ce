"""Frames on their way into the store: decoded, with what could not be read set aside.

- A frame costs only what is wrong in it: its sound messages are stored, its flaws are quarantined.
- A frame of a later schema is not written or acknowledged: it stays pending until a newer consumer comes.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from provd.common import names, wire
from provd.common.errors import FrameError, NewerSchema
from provd.common.ranges import Ranges
from provd.common.record import Message
from provd.consumer.pieces import flawed_pieces, refused_piece
from provd.consumer.streams import Entry
from provd.store.interface import Quarantined, Refusal, Store, Stored, Written
from provd.store.tombstones import living


@dataclass(slots=True)
class Batch:
    """What one write to the store is about; grows by `add`."""

    entries: list[Entry] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    quarantined: list[Quarantined] = field(default_factory=list)
    #: Frames of a later schema, without their payload, and which.
    newer: list[tuple[Entry, int]] = field(default_factory=list)
    #: By stream and producer: what their producers wait to hear of once it is in the store.
    receipts: dict[str, dict[str, Ranges]] = field(default_factory=dict)
    size: int = 0

    def add(self, entry: Entry) -> None:
        """Decode an entry into the batch."""
        try:
            messages, flawed, receipt = _decode(entry)
        except NewerSchema as newer:
            self.newer.append((replace(entry, fields={}), newer.version))
            return
        if receipt is not None:
            of_stream = self.receipts.setdefault(entry.stream, {})
            of_stream[receipt[0]] = of_stream.get(receipt[0], Ranges()).union(receipt[1])
        self.entries.append(entry)
        self.messages += messages
        self.quarantined += flawed
        self.size += entry.size

    def condemn(self, entry: Entry, reason: str) -> None:
        """Have an entry quarantined as it is, unread."""
        self.entries.append(entry)
        self.quarantined.append(_unreadable(entry, b"".join(entry.fields.values()), reason))
        self.size += entry.size


def keep_books(
    store: Store, messages: Sequence[Message], pieces: Iterable[Quarantined], written: Written
) -> tuple[list[Quarantined], list[Stored]]:
    """Enter into the store's books what became of a batch that was written: first what is in quarantine, the pieces and
    what the store refused, then what it holds. Gives both. Raises `StoreUnavailable`.
    """
    kept = living(messages, written.gone) if written.gone else messages
    quarantined = [*pieces, *refused_items(written.refused)]
    if written.gone:
        quarantined = [piece for piece in quarantined if piece.workflow_id not in written.gone]
    if quarantined:
        store.add_quarantined(quarantined)
    entries = ledger(kept, written.refused)
    if entries:
        store.add_stored(entries)
    return quarantined, entries


def ledger(messages: Iterable[Message], refused: Iterable[Refusal] = ()) -> list[Stored]:
    """The ledger's ranges for messages that the store has taken."""
    without = {_place(refusal.message) for refusal in refused}
    spans: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for first, last in _runs(messages if not without else _kept(messages, without)):
        spans.setdefault((first.producer_id, first.workflow_id), []).append((first.seq, last.seq))
    return [
        Stored(producer_id, workflow_id, first, last)
        for (producer_id, workflow_id), found in spans.items()
        for first, last in Ranges.of(found)
    ]


def _kept(messages: Iterable[Message], without: Container[tuple[str, str, int]]) -> Iterator[Message]:
    return (message for message in messages if _place(message) not in without)


def _runs(messages: Iterable[Message]) -> Iterator[tuple[Message, Message]]:
    """The first and the last of messages that follow each other in one producer's numbering, as they do in frames."""
    first = last = None
    for message in messages:
        if (
            last is None
            or message.seq != last.seq + 1
            or message.producer_id != last.producer_id
            or message.workflow_id != last.workflow_id
        ):
            if first is not None and last is not None:
                yield first, last
            first = message
        last = message
    if first is not None and last is not None:
        yield first, last


def refused_items(refusals: Iterable[Refusal]) -> list[Quarantined]:
    """Messages that the store will never take, as a frame of one message each, which any version can read again."""
    return [refused_piece(refusal) for refusal in refusals]


def affected(item: Quarantined) -> int:
    """Messages in a quarantined piece; a piece whose number nobody knows counts as one."""
    if item.first_seq is None or item.last_seq is None:
        return 1
    return item.last_seq - item.first_seq + 1


def _decode(entry: Entry) -> tuple[tuple[Message, ...], list[Quarantined], tuple[str, Ranges] | None]:
    """Messages, flaws, and whom to give a receipt for which numbers."""
    if not entry.fields:
        return (), [], None
    header, body = entry.fields.get(names.HEADER_FIELD), entry.fields.get(names.BODY_FIELD)
    if header is None or body is None:
        raw = b" ".join(name + b"=" + value for name, value in entry.fields.items())
        return (), [_unreadable(entry, raw, "not a frame: the fields h and b are missing")], None
    try:
        frame = wire.decode(header, body)
    except NewerSchema:
        raise
    except FrameError as error:
        return (), [_unreadable(entry, header + body, str(error))], None
    except Exception as error:  # noqa: BLE001 - whatever it is that we cannot read, it is this frame's alone (G4)
        reason = f"cannot be read: {type(error).__name__}: {error}"
        return (), [_unreadable(entry, header + body, reason)], None
    flawed = flawed_pieces(frame, body, stream=entry.stream, entry_id=entry.entry_id)
    return frame.messages, flawed, _receipt(frame, entry.stream)


def _receipt(frame: wire.Frame, stream: str) -> tuple[str, Ranges] | None:
    """A frame's numbers without the damaged ones, of which the producer has the good copy. What the store refuses is
    among them: it is in quarantine as it was sent, and would be refused again.

    A producer numbers each workflow's messages anew: in another's stream its numbers are not what is waited for.
    """
    if not frame.header.receipt or frame.header.workflow_id != names.workflow_of_stream(stream):
        return None
    damaged = Ranges.of((flaw.first_seq, flaw.last_seq) for flaw in frame.flaws)
    return frame.header.producer_id, Ranges.of([(frame.header.first_seq, frame.header.last_seq)]).minus(
        damaged
    )


def _place(message: Message) -> tuple[str, str, int]:
    return message.producer_id, message.workflow_id, message.seq


def _unreadable(entry: Entry, raw: bytes, reason: str) -> Quarantined:
    # The stream says which workflow's books this is missing from, though not whose.
    workflow_id = names.workflow_of_stream(entry.stream)
    header, body = (entry.fields.get(name, b"") for name in (names.HEADER_FIELD, names.BODY_FIELD))
    is_frame = bool(header and body) and raw == header + body
    return Quarantined(
        reason,
        raw,
        entry.stream,
        entry.entry_id,
        workflow_id=workflow_id,
        header_bytes=len(header) if is_frame else None,
    )
