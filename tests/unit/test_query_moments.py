"""Times and spans as people write them."""

from __future__ import annotations

import sys
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provd.common.errors import MissingExtra, UsageError
from provd.query import where
from provd.query.moments import parse_moment, parse_span

_NOW = datetime(2026, 11, 21, 12, 0, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("1.5s", 1.5),
        ("300ms", 0.3),
        ("50us", 5e-5),
        ("2.5µs", 2.5e-6),
        ("1ms500μs", 0.0015),
        ("2h", 7200),
        ("1h30m", 5400),
        ("3d", 259200),
        ("1W", 604800),
    ],
)
def test_a_span_is_seconds(text: str, seconds: float) -> None:
    assert parse_span(text, "--span") == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "h", "5x", "-5s", "1h 30", "nan", "9" * 400])
def test_what_is_no_span_is_refused_by_name(text: str) -> None:
    with pytest.raises(UsageError, match="--span"):
        parse_span(text, "--span")


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2h", _NOW - timedelta(hours=2)),
        ("2h ago", _NOW - timedelta(hours=2)),
        ("now", _NOW),
        ("2026-11-20T14:00Z", datetime(2026, 11, 20, 14, tzinfo=timezone.utc)),
        ("2026-11-20T14:00:00.25+02:00", datetime(2026, 11, 20, 12, 0, 0, 250_000, tzinfo=timezone.utc)),
        ("2026-11-20 14:00", datetime(2026, 11, 20, 14).astimezone(timezone.utc)),
        ("2026-11-20", datetime(2026, 11, 20).astimezone(timezone.utc)),
    ],
)
def test_a_moment_is_a_time_or_how_long_ago_it_was(text: str, moment: datetime) -> None:
    assert parse_moment(text, "--since", _NOW) == moment


@pytest.mark.parametrize("text", ["", "2026-02-30", "20h old", "2026", "99999999d", "2026-11-20T25:00"])
def test_what_is_no_moment_is_refused_by_name(text: str) -> None:
    with pytest.raises(UsageError, match="--since"):
        parse_moment(text, "--since", _NOW)


@given(text=st.text(max_size=30))
def test_any_text_is_a_moment_and_a_span_or_refused(text: str) -> None:
    for read in (lambda: parse_moment(text, "--since", _NOW), lambda: parse_span(text, "--span")):
        try:
            read()
        except UsageError:
            pass


def test_conditions_say_which_extra_they_need(monkeypatch: pytest.MonkeyPatch) -> None:
    where._parser.cache_clear()
    monkeypatch.setitem(sys.modules, "lark", None)

    with pytest.raises(MissingExtra, match=r'pip install "provd\[query\]"'):
        where.parse_where("a = 1")
