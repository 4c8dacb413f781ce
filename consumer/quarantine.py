"""Quarantine tried again: what this version can read goes into the store, what it cannot stays, with the new reason.

- A piece is removed only after the store has confirmed every message of it and the ledger has them. Whoever is
  interrupted in between may repeat it: writing a message twice changes nothing.
- Of a piece that can be read in part, the rest becomes pieces of its own before the whole one is removed.
- A piece whose every number has reached the store by another way (its producer sent the good copy) is removed too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from provd.common.errors import FrameError
from provd.common.ranges import Ranges
from provd.common.record import Record
from provd.consumer.batch import ledger, refused_items
from provd.consumer.pieces import flawed_pieces, read_piece
from provd.store.interface import Quarantined, Store


class Fate(str, Enum):
    """What became of a piece."""

    STORED = "stored"
    #: It is in the store already, by another way.
    ARRIVED = "arrived"
    PARTLY = "partly"
    STAYS = "stays"
    #: Its run has been deleted, and it with it.
    GONE = "deleted"


@dataclass(frozen=True, slots=True)
class Retried:
    """One piece, tried again: `messages` are in the store now, `reason` says why the rest is not."""

    piece_id: str
    fate: Fate
    messages: int = 0
    reason: str = ""

    def to_document(self) -> Record:
        """As JSON has it."""
        document: Record = {"piece_id": self.piece_id, "fate": self.fate.value, "messages": self.messages}
        return document | ({"reason": self.reason} if self.reason else {})


def retry_piece(
    store: Store, piece_id: str, document: Record, raw: bytes, *, now: Callable[[], int]
) -> Retried:
    """Try one piece, given its document and all its bytes. Raises `StoreUnavailable`."""
    if _has_arrived(store, document):
        store.drop_quarantined([piece_id])
        return Retried(piece_id, Fate.ARRIVED)
    try:
        frame, body = read_piece(document, raw)
    except FrameError as error:
        return _stays(store, piece_id, document, str(error))
    rest = flawed_pieces(frame, body, stream=document.get("stream"), entry_id=document.get("entry_id"))
    written = store.write(frame.messages, received_at=now())
    if written.gone:
        store.drop_quarantined([piece_id])
        return Retried(piece_id, Fate.GONE)
    rest += refused_items(written.refused)
    stored = len(frame.messages) - len(written.refused)
    if not stored:
        return _stays(store, piece_id, document, rest[0].reason if rest else "it holds no message")
    store.add_stored(ledger(frame.messages, written.refused))
    return _replace(store, piece_id, stored, rest)


def _replace(store: Store, piece_id: str, stored: int, rest: list[Quarantined]) -> Retried:
    if rest:
        store.add_quarantined(rest)
    store.drop_quarantined([piece_id])
    if rest:
        return Retried(piece_id, Fate.PARTLY, stored, rest[0].reason)
    return Retried(piece_id, Fate.STORED, stored)


def _stays(store: Store, piece_id: str, document: Record, reason: str) -> Retried:
    if reason != document.get("reason"):
        store.note_quarantined(piece_id, reason)
    return Retried(piece_id, Fate.STAYS, reason=reason)


def _has_arrived(store: Store, document: Record) -> bool:
    producer_id, workflow_id = document.get("producer_id"), document.get("workflow_id")
    first, last = document.get("first_seq"), document.get("last_seq")
    if producer_id is None or workflow_id is None or first is None or last is None:
        return False
    stored = store.stored_ranges(workflow_id).get(producer_id, Ranges())
    return not Ranges.of([(first, last)]).minus(stored)
