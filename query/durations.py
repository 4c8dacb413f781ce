"""Durations of many tasks in little memory: eight bytes each, exact quantiles."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast


def measured(seconds: Sequence[float | None]) -> array[float]:
    """What of these is a length of time."""
    try:
        stated = array("d", cast("Sequence[float]", seconds))
    except TypeError:  # one of them has nothing to say
        pass
    else:
        if math.isfinite(sum(stated)):
            return stated
    return array("d", (one for one in seconds if one is not None and math.isfinite(one)))


@dataclass(frozen=True, slots=True)
class DurationStats:
    """Seconds."""

    mean: float
    median: float
    p95: float
    max: float


def summarise_durations(durations: Sequence[float]) -> DurationStats | None:
    """The figures of a set of durations, None for none."""
    if not durations:
        return None
    ordered = sorted(durations)
    return DurationStats(
        mean=math.fsum(ordered) / len(ordered),
        median=quantile(ordered, 0.5),
        p95=quantile(ordered, 0.95),
        max=ordered[-1],
    )


def quantile(ordered: Sequence[float], share: float) -> float:
    """The value below which this share lies, by linear interpolation between the two nearest."""
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)
