"""Running totals: what a program counts of its own, such as rows or tokens.

- A total is a whole number of 64 bits, or a finite float. What would make it anything else is not added.
- They are replaced as a whole: a reader sees all that one call has counted, or nothing of it.
- No lock: between the look at what was there and the replacement stands no call, so that neither a thread nor a signal
  handler comes in between.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypeAlias

Amount: TypeAlias = int | float
Counts: TypeAlias = Mapping[str, Amount]

#: Names that a process may count under in one workflow, and their characters: they stand in one record.
NAMES_MAX = 256
NAME_MAX = 128

_INT_MIN, _INT_MAX = -(1 << 63), (1 << 63) - 1

_NONE: Counts = {}


class Totals:
    """The totals of one process in one workflow."""

    __slots__ = ("counts", "told")

    def __init__(self) -> None:
        self.counts: Counts = _NONE
        #: What of them has been said: the same object, while nothing is new.
        self.told: Counts = _NONE

    @property
    def has_news(self) -> bool:
        """Whether they have changed since they were told."""
        return self.counts is not self.told

    def add(self, amounts: Counts) -> bool:
        """Add to several at once; whether there was no news before. Raises `ValueError`, and adds nothing, where a
        total would be none.
        """
        while True:
            before = self.counts
            after = dict(before)
            for name, amount in amounts.items():
                after[name] = total = after.get(name, 0) + amount
                if not is_sound(total):
                    raise ValueError(f"{name} would be {total}: totals have 64 bits")
            if len(after) > NAMES_MAX:
                raise ValueError(f"there are {NAMES_MAX} names, and no room for more")
            # No call from here on.
            if self.counts is before:
                was_told = before is self.told
                self.counts = after
                return was_told


def is_sound(value: Amount) -> bool:
    """Whether a store keeps it, and others can be added to it."""
    return math.isfinite(value) if isinstance(value, float) else _INT_MIN <= value <= _INT_MAX
