"""Commands that are run in the process of the test."""

from __future__ import annotations

from typing import Protocol

from typer.testing import Result


class Provd(Protocol):
    """Run a `provd` command on the store of the test."""

    def __call__(self, *args: str) -> Result:
        """What it printed, and how it ended."""
