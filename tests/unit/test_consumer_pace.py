"""What a consumer does now and then takes a small share of its time, whatever it costs."""

from __future__ import annotations

import pytest

from provd.consumer import chores, overview
from provd.consumer.pace import Pace


class HandMovedClock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def hand() -> HandMovedClock:
    return HandMovedClock()


def do(pace: Pace, hand: HandMovedClock, seconds: float) -> None:
    with pace.doing():
        hand.now += seconds


def wait_for(pace: Pace, hand: HandMovedClock) -> float:
    """Seconds until it is due, to a tenth."""
    steps = 0
    while not pace.is_due:
        steps += 1
        hand.now += 0.1
    return steps / 10


def test_what_takes_little_is_due_after_its_pause(hand: HandMovedClock) -> None:
    pace = Pace(3.0, now=hand)
    assert pace.is_due

    do(pace, hand, 0.01)

    assert wait_for(pace, hand) == pytest.approx(3.0, abs=0.2)


def test_what_takes_long_each_time_takes_a_thirtieth_of_the_time(hand: HandMovedClock) -> None:
    """Its share of the time stays small with tens of thousands of streams."""
    pace = Pace(3.0, now=hand)
    do(pace, hand, 0.5)

    do(pace, hand, 0.5)

    assert wait_for(pace, hand) == pytest.approx(15.0, abs=0.2)


def test_the_pause_has_an_end_whatever_it_takes(hand: HandMovedClock) -> None:
    pace = Pace(0.5, longest_s=2.0, now=hand)
    do(pace, hand, 60.0)

    do(pace, hand, 60.0)

    assert wait_for(pace, hand) == pytest.approx(2.0, abs=0.2)


def test_one_slow_answer_puts_nothing_off(hand: HandMovedClock) -> None:
    """One slow answer puts nothing off: what counts is the shorter of the last two times."""
    pace = Pace(3.0, now=hand)
    do(pace, hand, 0.01)

    do(pace, hand, 10.0)

    assert wait_for(pace, hand) == pytest.approx(3.0, abs=0.2)


def test_what_fails_stays_due(hand: HandMovedClock) -> None:
    pace = Pace(3.0, now=hand)

    with pytest.raises(OSError, match="away"), pace.doing():
        raise OSError("away")

    assert pace.is_due


def test_it_can_be_hastened_but_not_put_off(hand: HandMovedClock) -> None:
    pace = Pace(3.0, now=hand)
    do(pace, hand, 0.01)

    pace.hasten(5.0)
    pace.hasten(1.0)

    assert wait_for(pace, hand) == pytest.approx(1.0, abs=0.2)


def test_a_consumer_with_very_many_streams_marks_itself_before_it_reads_as_silent() -> None:
    assert chores._BEATS_LONGEST_S < 0.7 * overview.SILENT_S
