"""Records as rows of a table: which columns there are, what they are called, and in which order they stand.

- A nested field is a column named by its path as a `--where` expression writes it: `used.lr`. A key that is no plain
  word (ASCII letters, digits and `_`, not beginning with a digit) stands quoted in brackets, as in `used["model.pt"]`;
  one that is no text stands there as tagged JSON (`provd.common.values`), as in `used[3]`. So no two paths share a name.
- A mapping gives a column for each of its values, an empty one none; a list is one value, and so is a mapping that lies
  deeper than `DEPTH` names.
- None and absent are the same in a table.
- Names and order depend on which columns there are, never on the order of the rows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from provd.common import clock, values
from provd.common.errors import UsageError
from provd.common.record import PRODUCER_FIELDS, TASK_FIELDS, WORKFLOW_FIELDS

#: Names in a path; a mapping below is text in JSON.
DEPTH = 16

#: Columns of one table: keys that differ from task to task would make one for each task.
COLUMNS_MAX = 10_000

_DECODER = json.JSONDecoder()

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)

_INT64_MIN = -(1 << 63)
_INT64_MAX = (1 << 63) - 1

#: The order in which fields of records stand, where nobody says otherwise.
_ORDER = tuple(dict.fromkeys((*TASK_FIELDS, *WORKFLOW_FIELDS, *PRODUCER_FIELDS)))

#: Paths by the path above and the key, so that those of every record are looked up. Bounded: keys are data.
_names: dict[tuple[str, str], str] = {}
_NAMES_MAX = 16_384


def flatten(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record's values by column; lists, and what lies too deep, as they are."""
    cells: dict[str, Any] = {}
    _flatten(record, "", 1, cells)
    return cells


def _flatten(mapping: Mapping[Any, Any], above: str, depth: int, cells: dict[str, Any]) -> None:
    for key, value in mapping.items():
        known = _names.get((above, key)) if type(key) is str else None
        name = column_name(above, key) if known is None else known
        if type(value) is dict and depth < DEPTH:
            _flatten(value, name, depth + 1, cells)
        elif value is not None:
            cells[name] = value


def column_name(above: str, key: Any) -> str:
    """The name of the column of a key below another column's path, or of a field of the record."""
    if type(key) is not str or not _PLAIN.fullmatch(key):
        return f"{above}[{values.to_json(_as_value(key))}]"
    name = f"{above}.{key}" if above else key
    if len(_names) < _NAMES_MAX:
        _names[above, key] = name
    return name


def _as_value(key: Any) -> Any:
    return list(key) if isinstance(key, tuple) else key


def ordered(found: Iterable[str], first: Sequence[str] = ()) -> list[str]:
    """The columns as they stand in a table: those asked for with what lies below them, then in the order of a record.

    What was asked for and has no value anywhere has an empty column.
    """
    names = list(found)
    rank = {name: place for place, name in enumerate(dict.fromkeys((*first, *_ORDER)))}
    placed = {name: _place(name, rank) for name in names}
    have = {place for place, _ in placed.values()}
    names += [name for name in dict.fromkeys(first) if rank[name] not in have]
    return sorted(names, key=lambda name: placed.get(name) or (rank[name], name))


def _place(name: str, rank: Mapping[str, int]) -> tuple[int, str]:
    """The place of the longest path that this is, or lies below."""
    return next((rank[path] for path in paths_to(name) if path in rank), len(rank)), name


def paths_to(name: str) -> list[str]:
    """A column's path and those above it, the longest first."""
    ends = []
    at = 0
    while at < len(name):
        if name[at] == "[":
            _, at = _DECODER.raw_decode(name, at + 1)
            at += 1
        else:
            word = _PLAIN.match(name, at + (name[at] == "."))
            assert word is not None
            at = word.end()
        ends.append(at)
    return [name[:end] for end in reversed(ends)]


def check_count(columns: Mapping[str, Any]) -> None:
    """Raise `UsageError` for more columns than a table can sensibly have."""
    if len(columns) <= COLUMNS_MAX:
        return
    groups: dict[str, int] = {}
    for name in columns:
        above = paths_to(name)[1:]
        group = above[0] if above else ""
        groups[group] = groups.get(group, 0) + 1
    widest = max(groups, key=lambda group: groups[group])
    where = f"the keys below {widest!r} differ from record to record" if widest else "fields differ"
    raise UsageError(
        f"more than {COLUMNS_MAX:,} columns: {where}; choose fields, or export as jsonl, which has no columns"
    )


# --- cells as text -----------------------------------------------------------------------------------------------


def cell_text(value: Any) -> str:
    """A value as a cell of text: numbers and text as they are, times in ISO 8601 UTC, the rest in tagged JSON."""
    return _TEXT.get(type(value), values.to_json)(value)


def _text(value: str) -> str:
    return value if values.is_unicode(value) else values.to_json(value)


def _float(value: float) -> str:
    text = repr(value)
    return _NOT_FINITE.get(text, text)


_NOT_FINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}

_TEXT: dict[type, Callable[[Any], str]] = {
    type(None): lambda _: "",
    bool: lambda value: "true" if value else "false",
    int: lambda value: str(value) if _INT64_MIN <= value <= _INT64_MAX else values.to_json(value),
    float: _float,
    str: _text,
    datetime: lambda value: clock.to_iso(clock.from_datetime(value)),
}
