"""Identifiers: unique without asking anyone, sortable by birth, safe inside keys and file names."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provd.common import ids
from provd.common.errors import InvalidId, ProvdError

counters = st.integers(0, 2**40)
fine_ids = st.text("abcXYZ019._-", min_size=1, max_size=128)


def test_a_producer_id_begins_with_its_time_of_birth_and_ends_in_60_random_bits() -> None:
    """A producer id is fresh for every process. It begins with its time of birth, and ends in 60 random bits."""
    made = [ids.new_producer_id() for _ in range(1000)]

    assert len(set(made)) == 1000
    assert all(re.fullmatch(r"[0-9a-hjkmnp-tv-z]{22}", one) for one in made)
    births = [one[:10] for one in made]
    assert births == sorted(births)
    assert [ids.born_ms(one) for one in made] == sorted(ids.born_ms(one) or 0 for one in made)
    assert 0 <= time.time_ns() // 1_000_000 - (ids.born_ms(made[0]) or 0) < 60_000
    assert ids.born_ms("p1") is None
    assert len({one[10:] for one in made}) == 1000


def test_a_later_producer_id_sorts_behind_an_earlier_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inserts stay near one end of the index, also over the years."""
    now = 1_700_000_000_000_000_000
    made = []
    for step_ms in (0, 1, 31, 32, 10**6, 10**12):
        monkeypatch.setattr("time.time_ns", lambda step_ms=step_ms: now + step_ms * 1_000_000)
        made.append(ids.new_producer_id())

    assert made == sorted(made)


def test_a_workflow_id_is_random_from_the_first_character() -> None:
    """A generated workflow id is random from the first character, so that a short prefix names one run."""
    made = [ids.new_workflow_id() for _ in range(2000)]

    assert len(set(made)) == 2000
    assert {len(one) for one in made} == {16}
    assert len({one[0] for one in made}) == 32


@given(counters)
def test_a_task_id_gives_back_its_counter(counter: int) -> None:
    """A task id is its producer's id, a dash and a counter of fixed width."""
    producer_id = "01kxt7-with-dashes"

    task_id = ids.task_id(producer_id, counter)

    assert re.fullmatch(r"01kxt7-with-dashes-[0-9a-f]{8,}", task_id)
    assert ids.task_counter(producer_id, task_id) == counter


@given(st.lists(st.integers(0, 2**32 - 1), min_size=2))
def test_task_ids_sort_as_their_counters_do(numbers: list[int]) -> None:
    assert sorted(ids.task_id("p", n) for n in numbers) == [ids.task_id("p", n) for n in sorted(numbers)]


@pytest.mark.parametrize(
    "task",
    ["other-00000001", "p-1", "p-0000000g", "p-+0000001", "p-0x000001", "p-0000000A", "p-0_000001", "p-000000001", "p", ""],
)  # fmt: skip
def test_a_task_id_of_another_form_has_no_counter(task: str) -> None:
    """Shortening must be exact: a name that came close would come back as another."""
    assert ids.task_counter("p", task) is None


@given(fine_ids)
def test_an_id_of_the_allowed_letters_passes_unchanged(given_id: str) -> None:
    """Ids given by people are 1-128 ASCII letters, digits and `._-`: they become part of keys and file names."""
    assert ids.check_id(given_id, "workflow id") == given_id


@pytest.mark.parametrize(
    "bad", ["", "a" * 129, "a b", "a:b", "a/b", "a{b}", "a*", "é", "a\n", "\x00", "a\u0661"], ids=ascii
)
def test_any_other_id_is_refused_with_its_name_and_the_rule(bad: str) -> None:
    with pytest.raises(InvalidId, match=r"campaign id .*use 1-128 ASCII letters, digits") as caught:
        ids.check_id(bad, "campaign id")

    assert isinstance(caught.value, (ProvdError, ValueError))
    assert len(str(caught.value)) < 150


@given(st.text())
def test_an_id_that_passes_is_one_part_of_a_path_and_of_a_key(text: str) -> None:
    try:
        passed = ids.check_id(text, "workflow id")
    except InvalidId:
        return

    assert Path("folder", "x" + passed).name == "x" + passed
    assert not set(passed) & set(":{}*?[]/\\ ")
