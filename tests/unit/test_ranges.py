"""Sets of sequence numbers: they agree with Python's own sets in every operation."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from provd.common.ranges import Ranges

numbers = st.sets(st.integers(1, 60))
spans = st.lists(st.tuples(st.integers(1, 60), st.integers(0, 60)), max_size=12)


def members(ranges: Ranges) -> set[int]:
    return {number for first, last in ranges for number in range(first, last + 1)}


@given(spans)
def test_ranges_are_sorted_disjoint_and_never_touch(pairs: list[tuple[int, int]]) -> None:
    """Ranges are sorted, disjoint, and never touch."""
    ranges = Ranges.of(pairs)

    assert all(first <= last for first, last in ranges)
    assert all(one[1] + 1 < other[0] for one, other in zip(ranges.spans, ranges.spans[1:]))
    assert members(ranges) == {number for first, last in pairs for number in range(first, last + 1)}


@given(spans)
def test_equal_sets_have_equal_forms(pairs: list[tuple[int, int]]) -> None:
    """Equal sets have equal forms."""
    one = Ranges.of(pairs)

    other = Ranges.of_numbers(members(one))

    assert one == other
    assert hash(one) == hash(other)
    assert Ranges.of(reversed(pairs)) == one


@given(numbers, numbers)
def test_union_is_that_of_sets(one: set[int], other: set[int]) -> None:
    assert Ranges.of_numbers(one).union(Ranges.of_numbers(other)) == Ranges.of_numbers(one | other)


@given(numbers, numbers)
def test_minus_is_that_of_sets(one: set[int], other: set[int]) -> None:
    assert Ranges.of_numbers(one).minus(Ranges.of_numbers(other)) == Ranges.of_numbers(one - other)


@given(numbers)
def test_length_last_and_membership_are_those_of_the_set(given_numbers: set[int]) -> None:
    ranges = Ranges.of_numbers(given_numbers)

    assert len(ranges) == len(given_numbers)
    assert ranges.last == max(given_numbers, default=0)
    assert {number for number in range(62) if number in ranges} == given_numbers
    assert "1" not in ranges


def test_a_million_consecutive_messages_are_one_pair_of_numbers() -> None:
    ranges = Ranges.of_numbers(range(1, 1_000_001))

    assert ranges.spans == ((1, 1_000_000),)
    assert len(ranges) == 1_000_000


def test_text_shows_ranges_as_people_write_them() -> None:
    assert str(Ranges.of([(5, 5), (1, 3)])) == "1-3, 5"
    assert str(Ranges()) == ""


def test_the_text_form_is_read_back_whatever_its_order() -> None:
    assert Ranges.parse("1-500,701-900,501-600") == Ranges.of([(1, 600), (701, 900)])


def test_an_empty_or_senseless_text_is_an_empty_set() -> None:
    assert Ranges.parse("") == Ranges.parse("-,x-1,\ufffd") == Ranges()
