"""Filters, sort orders and field lists, as they are typed."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from provd.common.errors import UsageError
from provd.query.filters import check_collection, parse_fields, parse_filter, parse_sort
from provd.query.tasks import TaskQuestion, parse_status


def test_a_filter_may_hold_operators_and_tagged_values() -> None:
    """A date is a date by the time a store sees it."""
    text = '{"status": "ERROR", "started_at": {"$gt": {"$date": "2026-11-20T14:00:00Z"}}}'

    assert parse_filter(text) == {
        "status": "ERROR",
        "started_at": {"$gt": datetime(2026, 11, 20, 14, tzinfo=timezone.utc)},
    }


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('{"a": }', "column 7"),
        ("{'a': 1}", "column 2"),
        ('{"a": 1', "column 8"),
        ('{"a": 1,\n "b" 2}', "line 2, column 6"),
        ("", "column 1"),
    ],
)
def test_a_broken_filter_names_the_position(text: str, place: str) -> None:
    """So that the mistake is found without counting quotes."""
    with pytest.raises(UsageError, match=place):
        parse_filter(text)


def test_a_broken_filter_is_shown_with_a_pointer_below_the_mistake() -> None:
    """The caret stands under the column that the message names."""
    with pytest.raises(UsageError) as caught:
        parse_filter('{"a": }')

    _, shown, pointer = str(caught.value).splitlines()
    assert shown[pointer.index("^")] == "}"


@pytest.mark.parametrize("text", ["[1]", '"a"', "3", '{"a": {"$date": "soon"}}', '{"a": NaN}'])
def test_what_is_no_filter_is_refused_with_its_text(text: str) -> None:
    """JSON that is no object, and tags without sense."""
    with pytest.raises(UsageError, match="the filter"):
        parse_filter(text)


def test_a_minus_sorts_falling() -> None:
    """Several fields with commas between."""
    assert parse_sort("-generated.acc, started_at,+seq") == [
        ("generated.acc", -1),
        ("started_at", 1),
        ("seq", 1),
    ]


@pytest.mark.parametrize("text", ["", "a,,b", "--a", "-"])
def test_a_sort_order_without_sense_is_refused(text: str) -> None:
    """With the text in the message."""
    with pytest.raises(UsageError, match="sort order"):
        parse_sort(text)


def test_fields_are_names_with_commas_between() -> None:
    """Dots reach inside."""
    assert parse_fields("a, b.c") == ["a", "b.c"]
    with pytest.raises(UsageError):
        parse_fields("a,,b")


def test_an_unknown_collection_or_status_names_the_nearest() -> None:
    """A typing error is the most likely cause."""
    with pytest.raises(UsageError, match="'workflows'"):
        check_collection("workflow")
    with pytest.raises(UsageError, match="FINISHED"):
        parse_status("finishd")

    assert parse_status("error") == "ERROR"


def test_a_question_about_tasks_becomes_one_filter() -> None:
    """Conditions that are not given do not restrict."""
    assert TaskQuestion().to_filter() == {}
    assert TaskQuestion("w", "c", "train", ("ERROR",)).to_filter() == {
        "workflow_id": "w",
        "campaign_id": "c",
        "activity_id": "train",
        "status": "ERROR",
    }
    assert TaskQuestion(statuses=("ERROR", "RUNNING")).to_filter() == {
        "status": {"$in": ["ERROR", "RUNNING"]}
    }
