"""How long a question may take. In the embedded store it is looked at for each document, and inside SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

from provd.common import clock
from provd.common.errors import QueryTimeout

#: Steps of SQLite's machine between two looks at the clock: about a millisecond.
_STEPS = 20_000


class TimeLimit:
    """Begins when it is made."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._until = clock.monotonic() + seconds

    def is_over(self) -> bool:
        """Whether the time is up."""
        return clock.monotonic() > self._until

    def check(self) -> None:
        """Raise `QueryTimeout` when the time is up."""
        if self.is_over():
            raise QueryTimeout(self.seconds)


def rows_within(
    connection: sqlite3.Connection, query: str, parameters: Sequence[Any], limit: TimeLimit | None
) -> Iterator[Any]:
    """The rows of a query, for as long as there is time."""
    return _watched(connection, query, parameters, limit) if limit else connection.execute(query, parameters)


def _watched(
    connection: sqlite3.Connection, query: str, parameters: Sequence[Any], limit: TimeLimit
) -> Iterator[Any]:
    connection.set_progress_handler(limit.is_over, _STEPS)
    try:
        for row in connection.execute(query, parameters):
            limit.check()
            yield row
    except sqlite3.OperationalError:
        limit.check()
        raise
