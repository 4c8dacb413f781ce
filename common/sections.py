"""The sections of a frame's body: each message with its length and checksum before it, between two equal tables.

- A section is length (u32), CRC32 of length and payload (u32), payload; no payload is empty.
- Behind a damaged section the next sound one is searched for, and its number follows from the end, so a flipped bit
  costs no more than the section it hits.
- The search is bounded: garbage costs a fixed effort beyond the bytes at hand.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable

_HEAD = struct.Struct("<II")
_LENGTH = struct.Struct("<I")

#: Bytes that are checksummed, for all damage of a body together, in search of its next sound section.
_SEARCH_BYTES = 64 << 20

#: The index under which `decode` returns the table.
TABLE = -1


def encode(payload: bytes) -> bytes:
    """A payload as a section."""
    size = len(payload)
    return _HEAD.pack(size, zlib.crc32(payload, size)) + payload


def encode_all(payloads: Iterable[bytes]) -> bytes:
    """Payloads as sections, one behind the other."""
    head, crc32 = _HEAD.pack, zlib.crc32
    return b"".join([head(len(payload), crc32(payload, len(payload))) + payload for payload in payloads])


def _end_of_section(body: bytes, start: int) -> int:
    """The end of the sound section that starts here, or 0."""
    if start + _HEAD.size > len(body):
        return 0
    size, crc = _HEAD.unpack_from(body, start)
    end = start + _HEAD.size + size
    # No payload is empty; eight zero bytes, which numbers have inside them, would pass for one.
    if not size or end > len(body) or zlib.crc32(memoryview(body)[start + _HEAD.size : end], size) != crc:
        return 0
    return int(end)


def decode(body: bytes, count: int) -> tuple[dict[int, bytes], list[tuple[int, int, bytes]]]:
    """Payloads by index (-1 is the table), and the (first, last, raw) index ranges of messages that are lost.

    Behind a damaged section the next sound one is searched for byte by byte. Its number follows from the end: the
    messages between it and the closing table are known, because sections chain.
    """
    sound = _all_sound(body)
    if sound is not None and len(sound) == count + 2:
        return {TABLE: sound[0]} | dict(enumerate(sound[1:-1])), []
    found: list[tuple[int, int]] = []  # (start, end) of sound sections
    gaps: list[tuple[int, int, int]] = []  # (position in `found`, start, end) of what lies between
    start, effort = 0, _SEARCH_BYTES
    while start < len(body):
        end = _end_of_section(body, start)
        if end:
            found.append((start, end))
            start = end
            continue
        behind, effort = _next_sound(body, start + 1, effort)
        gaps.append((len(found), start, behind))
        start = behind
    return _number_sections(body, count, found, gaps)


def _all_sound(body: bytes) -> list[bytes] | None:
    """The payloads of a body without damage, or None: nearly every body, in half the time of the search."""
    head, crc32, size = _HEAD.unpack_from, zlib.crc32, len(body)
    payloads: list[bytes] = []
    end = 0
    while end < size:
        start = end + _HEAD.size
        if start > size:
            return None
        length, crc = head(body, end)
        end = start + length
        payload = body[start:end]
        if not length or end > size or crc32(payload, length) != crc:
            return None
        payloads.append(payload)
    return payloads


def _next_sound(body: bytes, start: int, effort: int) -> tuple[int, int]:
    """Where the next sound section begins, or the end of the body; and what is left of the effort.

    Garbage may be full of lengths that fit: without a bound, a frame made of them would cost its size squared.
    """
    for place in range(start, len(body) - _HEAD.size + 1):
        (size,) = _LENGTH.unpack_from(body, place)
        if place + _HEAD.size + size > len(body):
            continue
        effort -= size
        if effort < 0:
            break
        if _end_of_section(body, place):
            return place, effort
    return len(body), effort


def _number_sections(
    body: bytes, count: int, found: list[tuple[int, int]], gaps: list[tuple[int, int, int]]
) -> tuple[dict[int, bytes], list[tuple[int, int, bytes]]]:
    payloads = [body[start + _HEAD.size : end] for start, end in found]
    if len(gaps) != 1:
        return _give_up(body, count, payloads, found, gaps)
    before, start, end = gaps[0]
    after = len(payloads) - before
    if before == 0:  # the opening table is hit: all messages and the closing table are sound
        if after == count + 1:
            return {-1: payloads[-1]} | dict(enumerate(payloads[:-1])), []
    elif after == 0:  # the tail is hit or cut off
        messages = payloads[1 : count + 1]
        lost = [(len(messages), count - 1, body[start:end])] if len(messages) < count else []
        return {-1: payloads[0]} | dict(enumerate(messages)), lost
    else:
        first, last = before - 1, count - after
        # Counted from the end, which is certain only where the closing table is the end: the tail may be cut off, too.
        if first <= last and payloads[-1] == payloads[0]:
            head = dict(enumerate(payloads[1:before]))
            tail = {last + 1 + index: payload for index, payload in enumerate(payloads[before:-1])}
            return {-1: payloads[0]} | head | tail, [(first, last, body[start:end])]
    return _give_up(body, count, payloads, found, gaps)


def _give_up(
    body: bytes,
    count: int,
    payloads: list[bytes],
    found: list[tuple[int, int]],
    gaps: list[tuple[int, int, int]],
) -> tuple[dict[int, bytes], list[tuple[int, int, bytes]]]:
    """More than one place is damaged: keep what stands before the first, whose numbers are certain."""
    if not payloads or (gaps and gaps[0][0] == 0):
        return {}, []
    sound = gaps[0][0] if gaps else len(payloads)
    messages = payloads[1 : min(sound, count + 1)]
    rest = body[found[len(messages)][1] :]
    lost = [(len(messages), count - 1, rest)] if len(messages) < count else []
    return {-1: payloads[0]} | dict(enumerate(messages)), lost
