"""Records of any number as a table in a file: CSV and Parquet, in bounded memory.

- The columns are those of `provd.query.columns`; which there are is known only after the last record, so rows wait in
  a temporary file without a name. Memory holds one batch of rows and the columns' names.
- Values are data and are written as they are: a cell of a CSV file that begins with `=` is a formula to a spreadsheet.
  Parquet has types, and no formulas.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TextIO

from provd.common.errors import MissingExtra
from provd.common.record import Record
from provd.query.columns import cell_text, check_count, flatten, ordered

__all__ = ["TableWritten", "fill_parquet", "flatten", "write_csv", "write_parquet"]

_NEEDS_QUOTES = frozenset('",\r\n')


@dataclass(frozen=True, slots=True)
class TableWritten:
    """What went into a table."""

    rows: int
    columns: tuple[str, ...]


def write_csv(
    records: Iterable[Record],
    stream: TextIO,
    *,
    columns: Sequence[str] = (),
    scratch: str | os.PathLike[str] | None = None,
) -> TableWritten:
    """Write records as CSV (RFC 4180: lines end in CRLF), with a header of all columns.

    `stream` must not translate line ends (`newline=""`). `columns` stand first, also when no record has them.
    `scratch` is the folder of the temporary file. No value is an empty cell, empty text is `""`; lists, bytes and what
    has no plain text are tagged JSON.
    """
    places: dict[str, int] = {}
    with tempfile.TemporaryFile("w+", encoding="utf-8", dir=scratch, prefix="provd-") as waiting:
        rows = 0
        for record in records:
            row: list[int | str] = []
            for name, value in flatten(record).items():
                place = places.get(name)
                if place is None:
                    place = places[name] = len(places)
                    check_count(places)
                row += (place, cell_text(value))
            waiting.write(json.dumps(row) + "\n")
            rows += 1
        names = ordered(places, columns)
        stream.write(",".join(map(_quoted, names)) + "\r\n")
        _write_rows(_read_rows(waiting), stream, [places.get(name, -1) for name in names], len(places))
    return TableWritten(rows, tuple(names))


def _read_rows(waiting: IO[str]) -> Iterator[list[int | str]]:
    waiting.seek(0)
    return map(json.loads, waiting)


def _write_rows(rows: Iterable[list[int | str]], stream: TextIO, order: Sequence[int], columns: int) -> None:
    for row in rows:
        cells = [""] * (columns + 1)  # the last one stays empty, for columns that no record has
        for at in range(0, len(row), 2):
            cells[int(row[at])] = _quoted(str(row[at + 1]))
        line = ",".join([cells[place] for place in order])
        stream.write((line or '""' if not row and len(order) == 1 else line) + "\r\n")


def _quoted(text: str) -> str:
    if text and _NEEDS_QUOTES.isdisjoint(text) and text[0] != " " and text[-1] != " ":
        return text
    return '"' + text.replace('"', '""') + '"'


def write_parquet(
    records: Iterable[Record], path: str | os.PathLike[str], *, columns: Sequence[str] = ()
) -> TableWritten:
    """Write records as a Parquet file, whole or not at all; `columns` stand first. Types: `provd.query.arrow`.

    Raises `MissingExtra` without pyarrow, `UsageError` and `OutputError` as `provd.query.output_file`.
    """
    from provd.query.output_file import replaced

    with replaced(path) as temporary:
        return fill_parquet(records, temporary, columns=columns)


def fill_parquet(records: Iterable[Record], path: Path, *, columns: Sequence[str] = ()) -> TableWritten:
    """Write records as Parquet into a file that is a temporary one already. Raises `MissingExtra` without pyarrow."""
    try:
        import pyarrow as pa  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtra("Parquet", "parquet") from error
    from provd.query import arrow

    rows, names = arrow.write_parquet(records, path, columns)
    return TableWritten(rows, names)
