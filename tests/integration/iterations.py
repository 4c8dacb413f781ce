"""What loops leave behind: shared by the tests of loops."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

import provd
from provd.common.record import Record
from provd.testing import captured

both = pytest.mark.parametrize("light", [False, True], ids=["plain", "light"])


def ends(tasks: list[Record]) -> list[tuple[int, str]]:
    """The iterations in order, and how each ended."""
    return sorted((task["used"]["i"], task["status"]) for task in tasks)


def iterations_of(body: Callable[[], Any]) -> list[Record]:
    """The iterations that a function leaves behind, in order; what it raises is caught outside of its workflow."""
    with captured() as capture:
        try:
            with provd.workflow("w"):
                body()
        except (ValueError, KeyError, SystemExit, KeyboardInterrupt, asyncio.CancelledError):
            pass
    return sorted(capture.tasks("loop"), key=lambda task: task["used"]["i"])


def fail() -> None:
    """Raise as a user's code does."""
    raise ValueError("no such model")
