"""What programs count of their own (`provd.count`), summed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

Counts: TypeAlias = Mapping[str, int | float]


def sum_counts(parts: Iterable[Any]) -> dict[str, int | float]:
    """The sums by name, in the order of the names; whole where all parts are. What is no number counts nothing."""
    amounts: dict[str, list[int | float]] = {}
    for part in parts:
        for name, amount in part.items() if isinstance(part, Mapping) else ():
            if type(amount) in (int, float):
                amounts.setdefault(str(name), []).append(amount)
    return {name: _sum(amounts[name]) for name in sorted(amounts)}


def _sum(amounts: list[int | float]) -> int | float:
    """Exact, so that the order of the parts does not show."""
    if all(type(amount) is int for amount in amounts):
        return sum(amounts)
    try:
        return math.fsum(amounts)
    except (OverflowError, ValueError):
        return math.inf  # or infinities of both signs: no program of ours counts so far
