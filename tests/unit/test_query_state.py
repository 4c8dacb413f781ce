"""The state of a run, from what its owner and its producers said."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from provd.query.state import State, derive_state, producer_status

START = datetime(2026, 11, 20, 14, tzinfo=timezone.utc)
LATER = START + timedelta(seconds=12)
NOW = START + timedelta(seconds=40)


def producer(**fields: Any) -> dict[str, Any]:
    """A producer's record that has begun."""
    return {"status": "RUNNING", "started_at": START, **fields}


def ended(status: str = "FINISHED", **fields: Any) -> dict[str, Any]:
    """A producer's record that has ended."""
    return producer(status=status, closed_at=LATER, **fields)


def state_of(
    workflow: dict[str, Any],
    producers: list[dict[str, Any]],
    *,
    beats: dict[str, datetime] | None = None,
    failed: int = 0,
    now: datetime = NOW,
) -> State:
    """Derive with the default silence."""
    return derive_state(workflow, producers, beats or {}, failed_tasks=failed, now=now, lost_after_s=60.0)


@pytest.mark.parametrize("status", ["FINISHED", "ERROR", "CANCELLED"])
def test_a_run_has_the_state_that_its_owner_gave(status: str) -> None:
    """Whatever its producers say."""
    workflow = {"status": status, "started_at": START, "ended_at": LATER, "duration": 12.0004}

    state = state_of(workflow, [producer()])

    assert state == State(status, START, LATER, 12.0004)


def test_a_finished_run_with_failed_tasks_reads_as_degraded() -> None:
    """And an ERROR stays one."""
    finished = {"status": "FINISHED", "started_at": START, "ended_at": LATER}

    assert state_of(finished, [], failed=1).status == "DEGRADED"
    assert state_of({**finished, "status": "ERROR"}, [], failed=1).status == "ERROR"


def test_a_run_without_an_owner_runs_while_one_producer_has_not_closed() -> None:
    """Its times are those of its producers."""
    early = producer(started_at=START - timedelta(seconds=5))

    state = state_of({"status": "SUBMITTED"}, [early, ended()])

    assert state == State("RUNNING", early["started_at"], None, 45.0)


@pytest.mark.parametrize(
    ("endings", "expected"),
    [
        (["FINISHED", "FINISHED"], "FINISHED"),
        (["FINISHED", "CANCELLED"], "CANCELLED"),
        (["CANCELLED", "ERROR", "FINISHED"], "ERROR"),
    ],
)
def test_a_run_without_an_owner_ends_as_badly_as_its_worst_producer(
    endings: list[str], expected: str
) -> None:
    """One rank that was cancelled means that the run did not finish."""
    state = state_of({"status": "SUBMITTED"}, [ended(status) for status in endings])

    assert state == State(expected, START, LATER, 12.0)


def test_a_run_without_an_owner_waits_for_the_ranks_its_producers_expect() -> None:
    """Rank 0 may have ended before rank 1 began."""
    waiting = state_of({"status": "SUBMITTED"}, [ended(rank=0, world_size=2)])
    whole = state_of({"status": "SUBMITTED"}, [ended(rank=0, world_size=2), ended(rank=1, world_size=2)])

    assert waiting.status == "RUNNING"
    assert whole.status == "FINISHED"


def test_a_run_of_which_no_producer_has_been_heard_is_submitted() -> None:
    """Nobody has begun it."""
    assert state_of({"status": "SUBMITTED"}, []) == State("SUBMITTED", None, None, None)


def test_a_running_run_is_lost_when_all_its_producers_have_been_silent_too_long() -> None:
    """Its duration ends with the last sign of life."""
    running = {"status": "RUNNING", "started_at": START}
    silent = {"p": START + timedelta(seconds=10)}
    now = START + timedelta(seconds=71)

    lost = state_of(running, [producer()], beats=silent, now=now)
    alive = state_of(running, [producer()], beats={**silent, "q": START + timedelta(seconds=30)}, now=now)

    assert lost == State("LOST", START, None, 10.0)
    assert alive.status == "RUNNING"


def test_a_run_is_not_lost_exactly_at_the_limit() -> None:
    """Only beyond it."""
    now = START + timedelta(seconds=60)

    assert state_of({"status": "RUNNING", "started_at": START}, [producer()], now=now).status == "RUNNING"


def test_an_ended_run_is_never_lost() -> None:
    """Silence after the end is what ending means."""
    finished = {"status": "FINISHED", "started_at": START, "ended_at": LATER}

    assert state_of(finished, [producer()], now=START + timedelta(days=9)).status == "FINISHED"


def test_a_producer_is_running_until_it_closes_or_falls_silent() -> None:
    """One by one, for the table of producers."""
    late = START + timedelta(seconds=100)

    assert producer_status(producer(), None, now=NOW, lost_after_s=60) == "RUNNING"
    assert producer_status(producer(), NOW, now=late, lost_after_s=60) == "RUNNING"
    assert producer_status(producer(), None, now=late, lost_after_s=60) == "LOST"
    assert producer_status(ended("ERROR"), None, now=late, lost_after_s=60) == "ERROR"
