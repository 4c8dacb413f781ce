"""Durations of many tasks in little memory: eight bytes each, exact quantiles."""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DurationStats:
    """Seconds."""

    mean: float
    median: float
    p95: float
    max: float


def summarise_durations(durations: array[float]) -> DurationStats | None:
    """The figures of a set of durations, None for none."""
    if not durations:
        return None
    ordered = array("d", sorted(durations))
    return DurationStats(
        mean=math.fsum(ordered) / len(ordered),
        median=quantile(ordered, 0.5),
        p95=quantile(ordered, 0.95),
        max=ordered[-1],
    )


def quantile(ordered: array[float], share: float) -> float:
    """The value below which this share lies, by linear interpolation between the two nearest."""
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)
