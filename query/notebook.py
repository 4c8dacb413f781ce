"""How values of ours look in a notebook: HTML tables. Values are data: each is escaped, none is read as HTML."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence, Sized
from typing import Any

from provd.query.columns import cell_text

#: Characters of a value that are shown, and rows of a table.
SHOWN_CHARS = 80
SHOWN_ROWS = 20


def table(columns: Sequence[str], rows: Iterable[Mapping[str, Any]], caption: str) -> str:
    """Rows as a table, values by column."""
    head = "".join(f"<th>{escaped(name)}</th>" for name in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{escaped(row.get(name))}</td>" for name in columns) + "</tr>" for row in rows
    )
    caption = f"<caption>{escaped(caption)}</caption>"
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def first_rows(columns: Sequence[str], rows: Sequence[Mapping[str, Any]], caption: str) -> str:
    """As many rows as are shown of a table that may be long; it says so where there are more."""
    more = f", the first {SHOWN_ROWS} of {len(rows):,}" if len(rows) > SHOWN_ROWS else ""
    return table(columns, rows[:SHOWN_ROWS], caption + more)


def facts(items: Iterable[tuple[str, Any]], caption: str) -> str:
    """Names and values, those without a value left out."""
    body = "".join(
        f"<tr><th>{escaped(name)}</th><td>{escaped(value)}</td></tr>"
        for name, value in items
        if value is not None and value != {}
    )
    return f"<table><caption>{escaped(caption)}</caption><tbody>{body}</tbody></table>"


def many(items: Sized, noun: str) -> str:
    """`1 task`, `2 tasks`."""
    return f"{len(items):,} {noun}{'' if len(items) == 1 else 's'}"


def escaped(value: Any) -> str:
    """A value as short text that no browser takes for anything else."""
    text = short(value)
    return html.escape(text, quote=True)


def short(value: Any) -> str:
    """A value as one short line without control characters."""
    if isinstance(value, Mapping):
        text = ", ".join(f"{short(key)}={short(item)}" for key, item in list(value.items())[:20])
    elif isinstance(value, float):
        text = f"{value:.6g}"
    else:
        text = cell_text(value)
    text = "".join(char if char.isprintable() else "\ufffd" for char in text[: SHOWN_CHARS + 1])
    return text if len(text) <= SHOWN_CHARS else text[: SHOWN_CHARS - 1] + "…"
