"""Records of any kind as a table of the fields asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from provd.cli import human, output
from provd.cli.output import STATUS_STYLES, Column
from provd.common.record import Record


def print_records(records: Sequence[Record], fields: Sequence[str]) -> None:
    """The table; that times are local is said once, on stderr."""
    columns = [
        Column(field, right=_is_number(records, field), firm=field == "status" or field.endswith("_at"),
               folds=field.endswith("_id"),
               styles=STATUS_STYLES if field == "status" else None)
        for field in fields
    ]  # fmt: skip
    rows = []
    for record in records:
        values = (value_at(record, field) for field in fields)
        rows.append(
            [human.pairs(value) if isinstance(value, dict) else human.cell(value) for value in values]
        )
    if any(field.endswith("_at") for field in fields):
        output.say(f"times are in {human.zone()}")
    output.print_table(columns, rows)


def say_absent(records: Sequence[Record], fields: Sequence[str]) -> None:
    """Say on stderr which of the fields asked for no record has: a name may be mistyped."""
    absent = [field for field in fields if all(value_at(record, field) is None for record in records)]
    if records and absent:
        output.say(f"none of these has a value of {', '.join(absent)}")


def value_at(record: Record, path: str) -> Any:
    """The value at a dotted path, None where there is none; a key that holds the dots itself is found too."""
    if path in record:
        return record[path]
    head, dot, rest = path.partition(".")
    inner = record.get(head)
    return value_at(inner, rest) if dot and isinstance(inner, dict) else None


def fields_of(records: Sequence[Record]) -> list[str]:
    """The fields that any of the records has, the id first, in the order in which they come."""
    found = dict.fromkeys(field for record in records for field in record)
    return [*(["_id"] if "_id" in found else []), *(field for field in found if field != "_id")]


def _is_number(records: Sequence[Record], field: str) -> bool:
    values = [value_at(record, field) for record in records]
    return all(isinstance(value, (int, float)) or value is None for value in values)
