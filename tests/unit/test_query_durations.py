"""Figures of durations, against Python's own statistics."""

from __future__ import annotations

import random
import statistics
from array import array

import pytest

from provd.query.durations import summarise_durations


def test_the_figures_are_those_that_statistics_gives() -> None:
    """Quantiles by linear interpolation, as `statistics` calls inclusive."""
    chance = random.Random(7)
    durations = array("d", (chance.expovariate(1.0) for _ in range(1001)))

    stats = summarise_durations(durations)

    assert stats is not None
    assert stats.mean == pytest.approx(statistics.fmean(durations))
    assert stats.median == pytest.approx(statistics.median(durations))
    assert stats.p95 == pytest.approx(statistics.quantiles(durations, n=20, method="inclusive")[-1])
    assert stats.max == max(durations)


def test_one_duration_is_all_its_figures_and_none_has_none() -> None:
    """No division by zero, no index beyond the end."""
    one = summarise_durations(array("d", [0.5]))

    assert one is not None
    assert (one.mean, one.median, one.p95, one.max) == (0.5, 0.5, 0.5, 0.5)
    assert summarise_durations(array("d")) is None
