"""Quarantined pieces: which there are, and one of them with its bytes.

- A piece kept in several documents is one piece, under the id that they begin with.
- The list reads no bytes: pieces may be large, and many.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from provd.common import names
from provd.common.errors import Ambiguous, NotFound
from provd.common.record import Record
from provd.store.documents import PIECE_ID_CHARS
from provd.store.interface import Store

#: What the list knows of a piece.
_FIELDS = (
    "reason", "workflow_id", "producer_id", "first_seq", "last_seq", "stream", "entry_id", "received_at", "size",
    "part", "parts",
)  # fmt: skip

#: Pieces that an ambiguous id lists.
_LISTED = 10


@dataclass(frozen=True, slots=True)
class Piece:
    """One piece: its document (of several, the first, without `_id` and `raw`) and, where they were read, its bytes."""

    piece_id: str
    document: Record
    raw: bytes | None = None

    @property
    def messages(self) -> int | None:
        """How many messages it holds, where that is known."""
        first, last = self.document.get("first_seq"), self.document.get("last_seq")
        return None if first is None or last is None else int(last) - int(first) + 1

    @property
    def seqs(self) -> str:
        """Their numbers, `7` or `7-9`, empty where nobody knows."""
        first, last = self.document.get("first_seq"), self.document.get("last_seq")
        if first is None or last is None:
            return ""
        return str(first) if first == last else f"{first}-{last}"

    def to_document(self) -> Record:
        """As JSON has it."""
        left_out = ("part", "parts", "table", "header")
        known = {name: value for name, value in self.document.items() if name not in left_out}
        return {"piece_id": self.piece_id, **known, **({"raw": self.raw} if self.raw is not None else {})}


def find_pieces(
    store: Store, *, workflow_id: str | None = None, reason: str | None = None, limit: int = 0
) -> Iterator[Piece]:
    """Pieces without their bytes, the newest first; `reason` is a part of the reason, in any case."""
    match: dict[str, Any] = {"part": {"$in": [None, 0]}}
    if workflow_id is not None:
        match["workflow_id"] = workflow_id
    pipeline: list[dict[str, Any]] = [
        {"$match": match},
        {"$project": dict.fromkeys(_FIELDS, 1)},
        {"$sort": {"received_at": -1, "_id": 1}},
    ]
    found = 0
    for document in store.aggregate(names.QUARANTINE, pipeline):
        if reason is not None and reason.casefold() not in str(document.get("reason", "")).casefold():
            continue
        yield _piece(document)
        found += 1
        if found == limit:
            return


def count_reasons(
    store: Store, *, workflow_id: str | None = None, reason: str | None = None
) -> dict[str, int]:
    """How many of these pieces there are of each reason, the most frequent first."""
    pieces = find_pieces(store, workflow_id=workflow_id, reason=reason)
    return dict(Counter(str(piece.document.get("reason", "")) for piece in pieces).most_common())


def read_piece(store: Store, text: str) -> Piece:
    """The one piece whose id begins with `text`, with its bytes. Raises `NotFound` and `Ambiguous`."""
    return load_piece(store, resolve_piece(store, text))


def resolve_piece(store: Store, text: str) -> str:
    """The whole id of the one piece whose id begins with `text`. Raises `NotFound` and `Ambiguous`."""
    prefix = text.strip().lower()
    beyond = prefix[:-1] + chr(ord(prefix[-1]) + 1) if prefix else ""
    found: list[Record] = []
    if prefix:
        where = {"_id": {"$gte": prefix, "$lt": beyond}}
        found = list(store.find(names.QUARANTINE, where, fields=["part"], sort=[("_id", 1)]))
    ids = sorted({_piece_id(document) for document in found})
    if not ids:
        raise NotFound(
            f"no quarantined piece has an id that begins with {text!r}; `provd quarantine list` lists them"
        )
    if len(ids) > 1:
        more = f" and {len(ids) - _LISTED} more" if len(ids) > _LISTED else ""
        raise Ambiguous(f"{text!r} fits {len(ids)} pieces: {', '.join(ids[:_LISTED])}{more}")
    return ids[0]


def load_piece(store: Store, piece_id: str) -> Piece:
    """A piece by its whole id, with its bytes. Raises `NotFound`: somebody may have removed it, or be writing it."""
    beyond = f"{piece_id}."
    documents = list(store.find(names.QUARANTINE, {"_id": {"$gte": piece_id, "$lt": beyond}}))
    if not documents:
        raise NotFound(f"the quarantined piece {piece_id} is not there any more")
    documents.sort(key=lambda document: document.get("part", 0))
    raw = b"".join(bytes(document.get("raw", b"")) for document in documents)
    if len(raw) != documents[0].get("size", len(raw)):
        raise NotFound(f"not all parts of the quarantined piece {piece_id} are there")
    first = {name: value for name, value in documents[0].items() if name != "raw"}
    return _piece({**first, "size": len(raw)}, raw)


def _piece(document: Record, raw: bytes | None = None) -> Piece:
    known = {name: value for name, value in document.items() if name != "_id"}
    return Piece(_piece_id(document), known, raw)


def _piece_id(document: Record) -> str:
    return str(document["_id"])[:PIECE_ID_CHARS]
