"""Sets of sequence numbers, kept as ranges.

The books of a producer (G7) are such sets: which numbers are stored, quarantined, spooled, dropped. A million
consecutive messages are one pair of numbers.

- Ranges are sorted, disjoint, and never touch: equal sets have equal forms.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Ranges:
    """An immutable set of whole numbers from 1 up; `spans` holds inclusive (first, last) pairs."""

    spans: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of(cls, spans: Iterable[tuple[int, int]]) -> Ranges:
        """Build from (first, last) pairs in any order, overlapping or not; empty pairs (last < first) vanish."""
        merged: list[tuple[int, int]] = []
        for first, last in sorted(span for span in spans if span[1] >= span[0]):
            if merged and first <= merged[-1][1] + 1:
                merged[-1] = (merged[-1][0], max(merged[-1][1], last))
            else:
                merged.append((first, last))
        return cls(tuple(merged))

    @classmethod
    def of_numbers(cls, numbers: Iterable[int]) -> Ranges:
        """Build from single numbers in any order."""
        return cls.of((number, number) for number in numbers)

    @classmethod
    def parse(cls, text: str) -> Ranges:
        """Read the text form, `1-500,701-900`, as Redis keeps it; a part that makes no sense is left out."""
        spans = []
        for part in text.split(","):
            first, _, last = part.partition("-")
            if first.isdecimal() and last.isdecimal():
                spans.append((int(first), int(last)))
        return cls.of(spans)

    @property
    def text(self) -> str:
        """The text form that `parse` reads, `1-500,701-900`."""
        return ",".join(f"{first}-{last}" for first, last in self.spans)

    def union(self, other: Ranges) -> Ranges:
        """Numbers in either set."""
        if not self.spans:
            return other
        if not other.spans:
            return self
        return Ranges.of(self.spans + other.spans)

    def minus(self, other: Ranges) -> Ranges:
        """Numbers in this set and not in the other."""
        left: list[tuple[int, int]] = []
        others = iter(other.spans)
        hole = next(others, None)
        for span in self.spans:
            first, last = span
            while hole is not None and hole[1] < first:
                hole = next(others, None)
            while hole is not None and hole[0] <= last:
                if hole[0] > first:
                    left.append((first, hole[0] - 1))
                first = hole[1] + 1
                if hole[1] > last:
                    break
                hole = next(others, None)
            if first <= last:
                left.append((first, last))
        return Ranges(tuple(left))

    def common(self, other: Ranges) -> Ranges:
        """Numbers in both sets."""
        return self.minus(self.minus(other))

    @property
    def last(self) -> int:
        """The highest number, 0 when empty."""
        return self.spans[-1][1] if self.spans else 0

    def __len__(self) -> int:
        return sum(last - first + 1 for first, last in self.spans)

    def __contains__(self, number: object) -> bool:
        return isinstance(number, int) and any(first <= number <= last for first, last in self.spans)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(self.spans)

    def __str__(self) -> str:
        return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in self.spans)
