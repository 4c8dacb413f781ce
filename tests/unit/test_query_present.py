"""The present, and whether silence means lost: by Redis' clock, and only while somebody watched."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

from provd.query.present import Present, Watch, last_sign
from provd.query.state import derive_state, producer_status

START = datetime(2026, 11, 20, 14, tzinfo=timezone.utc)
RUNNING: dict[str, Any] = {"status": "RUNNING", "started_at": START, "received_at": START}


def at(seconds: float) -> datetime:
    """So long after the start, by Redis' clock."""
    return START + timedelta(seconds=seconds)


def watched(*spans: tuple[float, float], now: float) -> Watch:
    """Somebody watched in these spans."""
    return Watch(at(now), tuple((at(since), at(until)) for since, until in spans))


def status(watch: Watch, *, beat: float) -> str:
    """The status of a running run of one producer that was last heard at `beat`."""
    state = derive_state(
        RUNNING, [RUNNING], {"p": at(beat)}, failed_tasks=0, now=watch.now, lost_after_s=60, watch=watch
    )
    return state.status


def test_a_producer_that_was_watched_in_silence_for_too_long_is_lost() -> None:
    assert status(watched((0, 160), now=161), beat=100) == "RUNNING"
    assert status(watched((0, 161), now=161), beat=100) == "LOST"


def test_a_run_whose_consumer_is_away_is_not_lost_but_unknown() -> None:
    """Nothing new is known since: the reader's clock alone declares nobody lost."""
    watch = watched((0, 110), now=3600)

    state = derive_state(
        RUNNING, [RUNNING], {"p": at(105)}, failed_tasks=0, now=watch.now, lost_after_s=60, watch=watch
    )

    assert (state.status, state.unknown_since, state.duration) == ("RUNNING", at(110), 110.0)


def test_a_run_that_was_lost_before_its_consumer_went_away_stays_lost() -> None:
    watch = watched((0, 500), now=3600)

    state = derive_state(
        RUNNING, [RUNNING], {"p": at(100)}, failed_tasks=0, now=watch.now, lost_after_s=60, watch=watch
    )

    assert (state.status, state.unknown_since, state.duration) == ("LOST", None, 100.0)


def test_silence_while_nobody_watched_does_not_count() -> None:
    """A consumer started after an hour gives producers their time to speak; Redis back after an outage does, too."""
    assert status(watched((0, 110), (3600, 3650), now=3650), beat=105) == "RUNNING"
    assert status(watched((0, 110), (3600, 3661), now=3661), beat=105) == "LOST"


def test_what_another_consumer_hears_counts() -> None:
    """One stopped long ago; the other has heard the producer since."""
    assert status(watched((0, 100), (90, 400), now=401), beat=390) == "RUNNING"


def test_a_consumer_of_other_workflows_does_not_watch_this_one() -> None:
    mark = {"since": START, "broker_at": at(900), "workflow_ids": ["other"]}

    present = Present(at(900), [mark])

    assert status(present.watch("mine"), beat=10) == "RUNNING"
    assert status(present.watch("other"), beat=10) == "LOST"


def test_a_producers_own_clock_does_not_count_once_it_has_been_heard() -> None:
    """Five minutes ahead or behind: what counts is when its words arrived, by Redis' clock."""
    watch = watched((0, 61), now=61)
    for skew in (-300, 300):
        heard = {"started_at": at(skew), "received_at": at(0)}
        fresh = {"started_at": at(skew), "received_at": at(30)}

        assert producer_status(heard, None, now=watch.now, lost_after_s=60, watch=watch) == "LOST"
        assert producer_status(fresh, None, now=watch.now, lost_after_s=60, watch=watch) == "RUNNING"


def test_the_last_sign_is_the_later_of_beat_and_arrival() -> None:
    assert last_sign({"received_at": at(5), "started_at": at(99)}, at(9)) == at(9)
    assert last_sign({"received_at": at(15)}, at(9)) == at(15)
    assert last_sign({"started_at": at(3)}, None) == at(3)
    assert last_sign({}, None) is None


def test_a_run_that_nobody_has_ever_watched_is_unknown_since_its_start() -> None:
    """There is a consumer, and it serves other workflows only."""
    present = Present(at(900), [{"since": START, "broker_at": at(900), "workflow_ids": ["other"]}])
    watch = present.watch("mine")

    state = derive_state(RUNNING, [RUNNING], {}, failed_tasks=0, now=watch.now, lost_after_s=60, watch=watch)

    assert (state.status, state.unknown_since) == ("RUNNING", START)
