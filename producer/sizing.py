"""Messages over their cap of bytes: the largest values are summarised until the rest fits; nothing is dropped.

Works on packed values, piece by piece, from the outside in, so that what is not too large is not touched: of a large
dict with one large value, that value. A summarised value reads
`{"type": "list", "length": 90000, "bytes": 2097152, "too_large": true}`.
"""

from __future__ import annotations

from typing import Any

import msgpack

from provd.common import packing

#: Fields of a record that stay text, with this much of them kept; of a traceback the end says most.
_TEXT_KEPT = 2048
_KEPT_FROM_THE_END = frozenset({"traceback"})

#: A container that is made this much smaller by summarising its largest parts keeps the others, as long as all fits.
_MOST = 0.25

#: A summary takes about this much: smaller pieces are not worth one.
_WORTHWHILE = 128

#: Bytes that a message takes beside its parts, at most: the heads of the row and of its arrays, ids and times.
OVERHEAD = 512

_NIL = b"\xc0"
_CUT = b"\xa3cut"
_ODD_MAP = 2


class _Part:
    """One of the maps or arrays that a message is made of, in pieces."""

    def __init__(self, packed: bytes, *, is_record: bool = False) -> None:
        #: Whether the pieces are fields of a record, which keep their types.
        self.is_record = is_record
        self.keys: list[bytes] | None = None
        self.pieces: list[bytes] = []
        self._whole = b""
        unpacker = _unpacker(packed)
        kind = _kind(packed)
        if kind not in ("dict", "list"):
            self._whole = packed  # None, or a map with odd keys
            return
        count = unpacker.read_map_header() if kind == "dict" else unpacker.read_array_header()
        start = unpacker.tell()
        flat: list[bytes] = []
        for _ in range(count * (2 if kind == "dict" else 1)):
            unpacker.skip()
            end = unpacker.tell()
            flat.append(packed[start:end])
            start = end
        self.pieces = flat[1::2] if kind == "dict" else flat
        self.keys = flat[::2] if kind == "dict" else None

    @property
    def size(self) -> int:
        """Bytes, without the head."""
        return len(self._whole) + sum(map(len, self.pieces)) + sum(map(len, self.keys or ()))

    def shrink(self, excess: int) -> int:
        """Summarise the largest pieces until `excess` bytes are saved, or no piece is worth it; returns the bytes saved."""
        saved = 0
        for index in sorted(range(len(self.pieces)), key=lambda index: len(self.pieces[index]), reverse=True):
            if saved >= excess or len(self.pieces[index]) < _WORTHWHILE:
                break
            saved += self.shrink_piece(index, excess - saved, _MOST)
        return saved

    def shrink_piece(self, index: int, excess: int, keep: float) -> int:
        """Put something shorter in the place of a piece; returns the bytes this saved.

        A container loses its largest parts if that saves enough, or leaves no more than `keep` of it; else all.
        """
        before = self.pieces[index]
        key = packing.unpack(self.keys[index]) if self.is_record and self.keys is not None else None
        after = _shrunk(before, excess, keep) if key is None else _short_field(key, before, excess, keep)
        if len(after) >= len(before):
            return 0
        self.pieces[index] = after
        return len(before) - len(after)

    def leave_out(self, excess: int) -> None:
        """The last resort: of very many values keep the first names, or nothing but the places."""
        if self._whole:
            self._whole = packing.pack({"…": packing.unpack(_summary(self._whole))})
        elif self.keys is None:
            self.pieces = [_NIL] * len(self.pieces)
        elif not self.is_record:
            count = len(self.pieces)
            excess += 64
            while excess > 0 and self.pieces:
                excess -= len(self.pieces.pop()) + len(self.keys.pop())
            self.keys.append(packing.pack("…"))
            self.pieces.append(packing.pack({"type": "dict", "length": count, "too_large": True}))

    def packed(self) -> bytes:
        """The part as it is now."""
        if self._whole:
            return self._whole
        packer = msgpack.Packer()
        if self.keys is None:
            return b"".join((packer.pack_array_header(len(self.pieces)), *self.pieces))
        pairs = (half for pair in zip(self.keys, self.pieces) for half in pair)
        return b"".join((packer.pack_map_header(len(self.pieces)), *pairs))


def fit(parts: list[bytes], limit: int, *, record: bytes | None = None) -> list[bytes]:
    """Packed maps or arrays of values, and last the fields of a record if there are any, within `limit` bytes."""
    found = [_Part(part) for part in parts]
    if record is not None:
        found.append(_Part(record, is_record=True))
    excess = sum(part.size for part in found) + OVERHEAD - limit
    for keep in (_MOST, 0.0):
        for size, part, index in _largest_first(found):
            if excess <= 0 or size < _WORTHWHILE:
                break
            excess -= part.shrink_piece(index, excess, keep)
    for part in sorted(found, key=lambda part: part.size, reverse=True):
        if excess <= 0:
            break
        before = part.size
        part.leave_out(excess)
        excess -= before - part.size
    return [part.packed() for part in found]


def _largest_first(parts: list[_Part]) -> list[tuple[int, _Part, int]]:
    pieces = [(len(piece), part, index) for part in parts for index, piece in enumerate(part.pieces)]
    return sorted(pieces, key=lambda item: item[0], reverse=True)


def fit_value(packed: bytes, limit: int) -> Any:
    """A packed map or array of values within `limit` bytes, as values that pack to the same again."""
    (fitted,) = fit([packed], limit)
    return _raw(fitted)


def _raw(packed: bytes) -> Any:
    """Unpacked, with extensions left as they are."""
    return msgpack.unpackb(packed, timestamp=3, strict_map_key=False, unicode_errors="surrogatepass")


def _unpacker(packed: bytes) -> Any:
    unpacker = msgpack.Unpacker(
        max_buffer_size=0, strict_map_key=False, unicode_errors="surrogatepass", timestamp=3
    )
    unpacker.feed(packed)
    return unpacker


def _kind(packed: bytes) -> str:
    """The type of a packed value, by its first byte."""
    head = packed[0]
    if 0x80 <= head <= 0x8F or head in (0xDE, 0xDF):
        return "dict"
    if 0x90 <= head <= 0x9F or head in (0xDC, 0xDD):
        return "list"
    if 0xA0 <= head <= 0xBF or head in (0xD9, 0xDA, 0xDB):
        return "str"
    if head in (0xC4, 0xC5, 0xC6):
        return "bytes"
    if 0xC7 <= head <= 0xC9:
        return "dict" if packed[{0xC7: 2, 0xC8: 3, 0xC9: 5}[head]] == _ODD_MAP else "int"
    return "None" if head == _NIL[0] else "number"


def _shrunk(packed: bytes, excess: int, keep: float) -> bytes:
    """A value without its largest parts if that saves enough, else its summary."""
    if _kind(packed) in ("dict", "list") and not 0xC7 <= packed[0] <= 0xC9:
        part = _Part(packed)
        if _CUT not in (part.keys or ()):
            saved = part.shrink(excess)
            if saved >= excess or saved >= (1 - keep) * len(packed):
                return part.packed()
    return _summary(packed)


def _summary(packed: bytes) -> bytes:
    kind = _kind(packed)
    said: dict[str, Any] = {"type": kind}
    if 0xC7 <= packed[0] <= 0xC9:
        pass  # an extension: its length is that of its bytes
    elif kind == "dict":
        count = _unpacker(packed).read_map_header()
        said = _of_cut(packed) if 1 < count <= 4 else said
        said.setdefault("length", count)
    elif kind == "list":
        said["length"] = _unpacker(packed).read_array_header()
    elif kind in ("str", "bytes"):
        said["length"] = len(_raw(packed))
    return packing.pack({**said, "bytes": len(packed), "too_large": True})


def _of_cut(packed: bytes) -> dict[str, Any]:
    """Of a value that was cut already: what it was cut from."""
    value = _raw(packed)
    if type(value) is dict and "cut" in value:
        name, length = value.get("type"), value.get("length")
        if type(name) is str and len(name) < 256 and type(length) is int:
            return {"type": name, "length": length}
    return {"type": "dict"}


def _short_field(key: str, packed: bytes, excess: int, keep: float) -> bytes:
    """A field of a record, in short, of the type it has."""
    kind = _kind(packed)
    if key == "data":
        return packed
    if kind == "str":
        text: str = _raw(packed)
        if len(text) <= _TEXT_KEPT:
            return packed
        if key in _KEPT_FROM_THE_END:
            return packing.pack(f"… {len(text) - _TEXT_KEPT} characters\n{text[-_TEXT_KEPT:]}")
        return packing.pack(f"{text[:_TEXT_KEPT]}\n… {len(text) - _TEXT_KEPT} characters")
    if kind == "list":
        return packing.pack([f"… {_unpacker(packed).read_array_header()} items, {len(packed)} bytes"])
    return _shrunk(packed, excess, keep)
