"""Running totals, whoever counts at the same time and whatever is given."""

from __future__ import annotations

import math
import os
import signal
import sys
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

import provd
from provd.producer.totals import NAMES_MAX, Totals
from provd.query.counts import sum_counts
from provd.testing import captured

_AMOUNTS = st.integers() | st.floats()
_NOT_NUMBERS = (
    st.none() | st.booleans() | st.text(max_size=5) | st.complex_numbers() | st.lists(st.integers())
)


@pytest.fixture
def often() -> Iterator[None]:
    """Threads take turns as often as can be."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("often")
def test_nothing_that_threads_count_at_the_same_time_is_lost() -> None:
    totals = Totals()

    def work() -> None:
        for _ in range(3000):
            totals.add({"rows": 1, "seconds": 0.5})

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert totals.counts == {"rows": 18_000, "seconds": 9_000.0}


def test_nothing_is_lost_that_a_signal_handler_counts_in_the_middle_of_a_count() -> None:
    totals, interrupted = Totals(), 0

    def handler(_number: int, _frame: object) -> None:
        nonlocal interrupted
        interrupted += 1
        totals.add({"rows": 1})

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
    counted = 0
    try:
        while interrupted < 200:
            totals.add({"rows": 1})
            counted += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

    assert totals.counts == {"rows": counted + interrupted}


@given(st.lists(st.dictionaries(st.sampled_from(["a", "b", "c.d", "$e"]), _AMOUNTS, max_size=3), max_size=8))
def test_a_total_is_the_sum_of_what_could_be_added_and_always_one_that_stores_keep(
    calls: list[dict[str, float]],
) -> None:
    totals, expected = Totals(), dict[str, float]()

    for amounts in calls:
        before = dict(totals.counts)
        try:
            totals.add(amounts)
        except (ValueError, OverflowError):
            assert totals.counts == before
        else:
            expected = {
                **expected,
                **{name: expected.get(name, 0) + amount for name, amount in amounts.items()},
            }

    assert totals.counts == expected
    for total in totals.counts.values():
        assert math.isfinite(total) if isinstance(total, float) else -(2**63) <= total < 2**63


@given(st.dictionaries(st.text(max_size=200), _NOT_NUMBERS | _AMOUNTS, max_size=4))
def test_whatever_is_counted_nothing_is_raised_into_the_program(amounts: dict[str, float]) -> None:
    with captured() as capture, provd.workflow("w"):
        provd.count(**amounts)
        provd.count(sound=1)

    assert capture.producers()[-1]["counts"]["sound"] == 1


def test_a_value_that_is_no_number_is_left_out_and_told_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("provd.producer.warning._said", set())
    numpy = pytest.importorskip("numpy")

    with captured() as capture, provd.workflow("w"):
        provd.count(rows=1, text="many")  # type: ignore[arg-type]
        provd.count(rows=numpy.int64(2), loss=numpy.float32(0.5), nan=float("nan"), done=True)
        provd.count(rows=2**63)
        provd.count(rows=2**63 - 1)

    assert capture.producers()[-1]["counts"] == {"rows": 3, "loss": 0.5}
    assert [record.getMessage() for record in caplog.records] == [
        "provd: provd.count: what is given for text (str) is no number that can be added; it is left out"
    ]


def test_a_process_counts_under_a_bounded_number_of_names() -> None:
    with captured() as capture, provd.workflow("w"):
        for number in range(NAMES_MAX + 10):
            provd.count(**{f"n{number}": 1})
        provd.count(n0=1)

    counts = capture.producers()[-1]["counts"]
    assert (len(counts), counts["n0"]) == (NAMES_MAX, 2)


def test_outside_of_a_workflow_nothing_is_counted() -> None:
    with captured() as capture:
        provd.count(rows=1)
        with provd.workflow("w"):
            provd.count(rows=2)
        provd.count(rows=4)

    assert [producer["counts"] for producer in capture.producers()] == [{"rows": 2}] * len(
        capture.producers()
    )


def test_totals_of_workflows_that_are_open_at_the_same_time_are_kept_apart() -> None:
    with captured() as capture, provd.workflow("outer", workflow_id="outer"):
        provd.count(rows=1)
        with provd.workflow("inner", workflow_id="inner"):
            provd.count(rows=10)
        provd.count(rows=1)

    assert {one["workflow_id"]: one["counts"] for one in capture.producers()} == {
        "outer": {"rows": 2},
        "inner": {"rows": 10},
    }


def test_a_workflow_that_failed_and_is_entered_again_keeps_its_status_and_goes_on_counting() -> None:
    with captured() as capture:
        with pytest.raises(ValueError, match="no"), provd.workflow("w", workflow_id="w"):
            provd.count(rows=1)
            raise ValueError("no")
        with provd.workflow("w", workflow_id="w"):
            provd.count(rows=2)

    last = capture.producers()[-1]
    assert (last["status"], last["stderr"], last["counts"]) == ("ERROR", "ValueError: no", {"rows": 3})


def test_a_forked_child_counts_from_nothing(tmp_path: object) -> None:
    with captured() as capture, provd.workflow("w"):
        provd.count(rows=1)
        pid = os.fork()
        if pid == 0:
            try:
                provd.count(rows=10)
                from provd.producer.process import current

                assert current is not None
                current.close()
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        provd.count(rows=1)

    last = {one["producer_id"]: one["counts"] for one in capture.producers() if "counts" in one}
    assert sorted(counts["rows"] for counts in last.values()) == [2, 10]


@given(
    st.lists(st.dictionaries(st.sampled_from("abc"), st.integers() | st.floats(allow_nan=False), max_size=3))
)
def test_sums_do_not_depend_on_the_order_of_the_parts(parts: list[dict[str, float]]) -> None:
    assert sum_counts(parts) == sum_counts(reversed(parts))


def test_parts_that_are_no_numbers_count_nothing() -> None:
    assert sum_counts([None, 3, {"a": 1, "b": "x", "c": True}, {"a": 2.5}]) == {"a": 3.5}
