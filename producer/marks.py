"""Marks of names that were seen, in a few kilobytes however many there are.

- A name that was added is always found. One that was not may be found too, rarely at first, more often later: who asks
  must be right either way.
"""

from __future__ import annotations

import zlib

_BITS = 1 << 20


class Marks:
    """A set of names that never forgets, and may remember too much."""

    def __init__(self) -> None:
        self._bits: bytearray | None = None

    def add(self, name: str) -> None:
        """Mark a name."""
        if self._bits is None:
            self._bits = bytearray(_BITS // 8)
        place = _place(name)
        self._bits[place >> 3] |= 1 << (place & 7)

    def __contains__(self, name: str) -> bool:
        place = _place(name)
        return self._bits is not None and bool(self._bits[place >> 3] >> (place & 7) & 1)


def _place(name: str) -> int:
    return zlib.crc32(name.encode()) % _BITS
