"""Records into a file, or onto stdout, in the format asked for."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import PurePath

from provd.cli import output
from provd.common.record import Record

_SUFFIXES = {".json": "json", ".jsonl": "json", ".csv": "csv", ".parquet": "parquet"}


def suffix_format(path: str | None, formats: Sequence[str]) -> str | None:
    """The format that a file's name ends with."""
    form = _SUFFIXES.get(PurePath(path).suffix.lower()) if path is not None else None
    return form if form in formats else None


def write_records(records: Iterable[Record], form: str, path: str | None, columns: Sequence[str]) -> None:
    """Write them as `json`, `csv` or `parquet`; a file appears whole or not at all. `columns` stand first."""
    from provd.query import tabular
    from provd.query.output_file import check_output, replaced

    if path is None:
        if form == "csv":
            tabular.write_csv(records, sys.stdout, columns=columns)
            return
        for record in records:
            output.print_json(record)
        return
    check_output(path)
    if form == "parquet":
        tabular.write_parquet(records, path, columns=columns)
        return
    with replaced(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        if form == "csv":
            tabular.write_csv(records, stream, columns=columns, scratch=temporary.parent)
        else:
            stream.writelines(output.json_line(record) + "\n" for record in records)
