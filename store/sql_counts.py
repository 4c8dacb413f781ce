"""Counts and times of the embedded store, read from an index's columns without decoding a document."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

from provd.common import names, values
from provd.store.interface import TaskTimes
from provd.store.sql_filter import SqlFilter, column_value, from_column

#: Tasks whose times are read at once.
_AT_ONCE = 50_000


def count_columns(
    connection: sqlite3.Connection, collection: str, where: SqlFilter, columns: Sequence[str]
) -> dict[tuple[Any, ...], int]:
    """How many rows match for each combination of values of these columns."""
    listed = ", ".join(columns)
    query = f"SELECT {listed}, count(*) FROM {collection}{where.where} GROUP BY {listed}"  # noqa: S608
    return {
        tuple(_recorded(column, value) for column, value in zip(columns, row, strict=False)): row[-1]
        for row in connection.execute(query, where.parameters)
    }


def read_times(connection: sqlite3.Connection, workflow_id: str) -> Iterator[TaskTimes]:
    """The tasks of a workflow in pieces."""
    query = f"SELECT activity_id, status, duration FROM {names.TASKS} WHERE workflow_id = ?"  # noqa: S608
    rows = connection.execute(query, (column_value(values.to_portable(workflow_id)),))
    while some := rows.fetchmany(_AT_ONCE):
        for (activity_id, status), group in groupby(some, itemgetter(0, 1)):
            seconds = [row[2] for row in group]
            yield TaskTimes(
                _recorded("activity_id", activity_id), _recorded("status", status), len(seconds), seconds
            )


def first_rows(collection: str, where: str, ordering: str, limit: int) -> str:
    """A WHERE clause for the first rows: sorted by columns, in an index if there is one, before any document is read."""
    return f" WHERE rowid IN (SELECT rowid FROM {collection}{where}{ordering} LIMIT {limit})"  # noqa: S608


def _recorded(column: str, value: Any) -> Any:
    return None if value is None else values.from_portable(from_column(column, value))
