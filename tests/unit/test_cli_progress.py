"""The bar over long work: on a terminal only, and only after a moment."""

from __future__ import annotations

import io
import sys

import pytest

from provd.cli import progress
from provd.cli.progress import progress_bar
from tests.services.waiting import wait_until


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_away_from_a_terminal_there_is_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)

    with progress_bar("reading tasks") as tell:
        tell(1, 2)

    assert stream.getvalue() == ""


def test_short_work_shows_no_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = _Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(progress, "_PATIENCE_S", 3600)  # a busy machine may take a second over nothing

    with progress_bar("reading tasks") as tell:
        tell(1, 2)

    assert stream.getvalue() == ""


def test_long_work_shows_how_far_it_has_come_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = _Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")

    with progress_bar("reading tasks") as tell:
        tell(200_000, 1_000_000)
        wait_until(lambda: "200000/1000000" in stream.getvalue(), 20, "the bar")

    assert "reading tasks" in stream.getvalue()
