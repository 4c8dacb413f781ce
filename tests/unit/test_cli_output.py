"""What people read: durations, times, tables of any width; and what programs read."""

from __future__ import annotations

import json
import math
import time
import uuid
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone, tzinfo
from typing import Any

import pytest

from provd.cli import human, output
from provd.cli.lines import Lines
from provd.cli.output import Column


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A local time zone that is not UTC."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (None, ""),
        (0.0, "0s"),
        (4.2e-6, "4.2µs"),
        (63e-6, "63µs"),
        (0.0042, "4.2ms"),
        (0.35, "350ms"),
        (0.9999, "1.0s"),
        (12.34, "12.3s"),
        (59.96, "1m 00s"),
        (185, "3m 05s"),
        (7440, "2h 04m"),
        (273_600, "3d 04h"),
    ],
)
def test_durations_read_as_people_say_them(seconds: float | None, expected: str) -> None:
    """Two or three digits that matter, and the unit."""
    assert human.duration(seconds) == expected


class _AfterMidnight(datetime):
    """A clock that stands still, on 20 November in Berlin and on the 19th in UTC."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> _AfterMidnight:
        return cls.fromtimestamp(datetime(2026, 11, 19, 23, 30, tzinfo=timezone.utc).timestamp(), tz)


def test_times_are_local_and_leave_out_the_date_when_all_are_of_today(
    berlin: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The column's form is one for all its rows."""
    monkeypatch.setattr(human, "datetime", _AfterMidnight)
    noon = datetime(2026, 11, 20, 11, 30, 15, tzinfo=timezone.utc)

    assert human.moments([noon, None]) == ["12:30:15", ""]
    assert human.moments([noon, noon - timedelta(days=1)]) == ["11-20 12:30", "11-19 12:30"]
    assert human.moments([noon, noon - timedelta(days=800)])[0] == "2026-11-20 12:30"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (2**70, "v=1180591620717411303424"),
        ({"a.b": 1, 3: [math.inf, None, True]}, 'v={"a.b":1,"3":["inf",null,true]}'),
        ({"$lr": b"abc", None: b"x"}, 'v={"$lr":"<3 bytes>","null":"<1 byte>"}'),
        (b"", "v=<0 bytes>"),
        (16**4000, f"v=0x1{'0' * 194}…"),
        ({16**4000: [-(16**4000)]}, None),
        ([uuid.UUID(int=0)], 'v=["00000000-0000-0000-0000-000000000000"]'),
        ([datetime(2026, 11, 21, 12, tzinfo=timezone.utc)], None),
        (math.nan, "v=nan"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_cell_shows_a_value_and_not_how_it_is_kept(value: Any, shown: str | None) -> None:
    text = human.pairs({"v": value})

    assert not any(tag in text for tag in ("~", "$number", "$date", "$binary"))
    assert shown in (None, text)


def test_a_table_fits_the_width_and_keeps_what_must_not_be_cut(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names give way; counts and statuses never do."""
    monkeypatch.setenv("COLUMNS", "40")
    columns = [Column("run", folds=True), Column("status", firm=True), Column("name")]

    output.print_table(columns, [["r" * 30, "FINISHED", "n" * 50]])

    printed = capsys.readouterr().out
    assert max(len(line) for line in printed.splitlines()) <= 40
    assert "FINISHED" in printed
    assert "…" in printed
    assert printed.count("r") - printed.splitlines()[0].count("r") == 30


def test_a_table_that_cannot_fit_is_wider_rather_than_wrong(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A terminal wraps it; nothing is lost."""
    monkeypatch.setenv("COLUMNS", "10")

    output.print_table([Column("a", firm=True), Column("b", firm=True)], [["x" * 12, "y" * 12]])

    assert f"{'x' * 12} {'y' * 12}" in capsys.readouterr().out


def test_a_table_away_from_a_terminal_has_no_colours_and_no_trailing_blanks(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """So that it can be piped, compared and mailed."""
    output.print_table(
        [Column("a"), Column("status", styles=output.STATUS_STYLES)], [["x", "ERROR"]], title="t"
    )

    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert all(line == line.rstrip() for line in printed.splitlines())


def test_text_of_records_is_neither_markup_nor_a_terminals_command(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A record is data (G4), also on the screen."""
    output.print_table([Column("a")], [["[bold]x[/bold] \x1b[31m\x9b31m\udc80 :smile:"]])

    printed = capsys.readouterr().out
    assert "[bold]x[/bold]" in printed
    assert ":smile:" in printed
    assert "\x1b" not in printed
    assert "\x9b" not in printed


@pytest.mark.parametrize("break_", ["\n", "\r\n", "\t", "\v", "\f", "\x85", "\u2028", "\u2029"])
def test_a_name_begins_no_row_of_its_own(capsys: pytest.CaptureFixture[str], break_: str) -> None:
    name = f"first{break_}second"

    output.print_table([Column("a"), Column("b", folds=True)], [[name, name]])
    output.print_fields([("name", name)])
    Lines().show([[name]])

    printed = capsys.readouterr().out.splitlines()
    assert printed[1:] == ["first second  first second", "name  first second", "first second"]


@pytest.mark.parametrize(
    "mark", [*"\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"]
)
def test_no_text_turns_the_direction_of_writing(capsys: pytest.CaptureFixture[str], mark: str) -> None:
    """`exe.doc` would be read as `cod.exe`; letters that are written from right to left stay."""
    output.print_line(f"{mark}exe.doc שלום\nline")

    assert capsys.readouterr().out == "\ufffdexe.doc שלום\nline\n"


def test_json_has_iso_dates_and_tagged_values_on_one_line() -> None:
    """What JSON cannot hold has the form that the spool and the export have."""
    moment = datetime(2026, 11, 20, 14, 0, 0, 250_000, tzinfo=timezone.utc)

    line = output.json_line({"at": moment, "deep": [{"at": (moment,)}], "raw": b"\x00", "nan": float("nan")})

    assert "\n" not in line
    assert json.loads(line) == {
        "at": "2026-11-20T14:00:00.250Z",
        "deep": [{"at": ["2026-11-20T14:00:00.250Z"]}],
        "raw": {"$binary": {"base64": "AA==", "subType": "00"}},
        "nan": {"$numberDouble": "NaN"},
    }
