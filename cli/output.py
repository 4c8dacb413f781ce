"""What goes to stdout (tables and JSON) and what goes to stderr (everything else).

- A table has no lines drawn around it and fits the width it is given; away from a terminal it has no colours.
- A JSON document is one line. Times are ISO 8601 text with milliseconds and a Z; values that JSON cannot hold are in
  the tagged form of `provd.common.values`.
- Text from records is shown as it is: it is never read as markup. Control characters, and what turns the direction of
  writing around, never reach a terminal; what stands in a table or beside a name is one line. `printable` and `one_line`
  are the one place for that.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from provd.common import clock, values

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

#: Below this many columns a table leaves out what `--json` has.
WIDE = 100

#: Characters that a column keeps when it gives way: by cutting, and by folding (a generated workflow id fits).
_NARROWEST_CUT = 8
_NARROWEST_FOLD = 16

#: Control characters but for line feeds and tabs; marks that turn the direction of what follows (U+202E makes
#: `cod.exe` of `exe.doc`), and separators that some terminals break a line at.
_UNFIT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")

#: Ends of lines and tabs, with the blanks around them. It begins at the first blank alone: a long row is read once.
_BREAKS = re.compile("(?<! ) *[\t\n\v\f\r\x1c-\x1e\x85\u2028\u2029][ \t\n\v\f\r\x1c-\x1e\x85\u2028\u2029]*")

STATUS_STYLES = {
    "FINISHED": "green",
    "RUNNING": "cyan",
    "SUBMITTED": "blue",
    "SKIPPED": "dim",
    "CANCELLED": "yellow",
    "DEGRADED": "yellow",
    "ERROR": "bold red",
    "LOST": "bold magenta",
}


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: `firm` ones are never narrowed; of the others, `folds` breaks lines where the rest cut."""

    header: str
    right: bool = False
    firm: bool = False
    folds: bool = False
    styles: dict[str, str] | None = None


def print_json(document: Any) -> None:
    """Print one JSON document on one line."""
    sys.stdout.write(json_line(document) + "\n")


def json_line(document: Any) -> str:
    """One document as this command line's JSON."""
    return values.to_json(_with_iso(document))


def print_table(
    columns: Sequence[Column], rows: Iterable[Sequence[str]], *, title: str | None = None
) -> None:
    """Print a table, with its title above when it has one."""
    from rich.table import Table
    from rich.text import Text

    cells = [[one_line(text) for text in row] for row in rows]
    gap, widths = _fit(columns, cells, width())
    # What cannot be narrowed is rather wrapped by the terminal than lost.
    screen = console(at_least=sum(widths) + gap * len(widths))
    table = Table(
        box=None,
        pad_edge=False,
        padding=(0, gap, 0, 0),
        header_style="bold",
    )
    for column, size in zip(columns, widths):
        justify: Literal["left", "right"] = "right" if column.right else "left"
        table.add_column(
            Text(column.header, overflow="ellipsis", no_wrap=True),
            justify=justify,
            overflow="fold" if column.folds else "ellipsis",
            no_wrap=not column.folds,
            width=size,
        )
    for row in cells:
        table.add_row(
            *(Text(text, style=(column.styles or {}).get(text, "")) for column, text in zip(columns, row))
        )
    if title:
        show(Text(f"\n{title}", style="bold"), on=screen)
    show(table, on=screen)


def _fit(columns: Sequence[Column], cells: Sequence[Sequence[str]], available: int) -> tuple[int, list[int]]:
    """The gap between columns and each column's width: as wide as its text where there is room."""
    from rich.cells import cell_len

    widths = [
        max([cell_len(column.header), *(cell_len(row[place]) for row in cells)])
        for place, column in enumerate(columns)
    ]
    gap = 2 if sum(widths) + 2 * (len(widths) - 1) <= available else 1
    excess = sum(widths) + gap * (len(widths) - 1) - available
    floors = [_floor(column, size) for column, size in zip(columns, widths)]
    while excess > 0:
        place = max(range(len(widths)), key=lambda index: widths[index] - floors[index])
        spare = widths[place] - floors[place]
        if spare == 0:
            break
        widths[place] -= 1
        excess -= 1
    return gap, widths


def _floor(column: Column, size: int) -> int:
    if column.firm:
        return size
    return min(size, _NARROWEST_FOLD if column.folds else _NARROWEST_CUT)


def print_fields(fields: Iterable[tuple[str, str]], *, styles: dict[str, str] | None = None) -> None:
    """Print names and values one below the other; empty values are left out."""
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold")
    grid.add_column(overflow="fold")
    for name, text in fields:
        if text:
            grid.add_row(name, Text(one_line(text), style=(styles or {}).get(text, "")))
    show(grid)


def print_line(text: str, *, style: str = "", indent: int = 0) -> None:
    """Print text on stdout, wrapped at the width."""
    from rich.padding import Padding
    from rich.text import Text

    show(Padding(Text(printable(text), style=style), (0, 0, 0, indent)))


def show(renderable: RenderableType, *, on: Console | None = None) -> None:
    """Print anything rich can render; away from a terminal without trailing blanks."""
    screen = on or console()
    if screen.is_terminal:
        screen.print(renderable)
        return
    with screen.capture() as captured:
        screen.print(renderable)
    sys.stdout.write("".join(line.rstrip() + "\n" for line in captured.get().splitlines()))


def console(*, at_least: int = 0) -> Console:
    """Stdout, as wide as the terminal or `COLUMNS` says, or wider where nothing narrower would do."""
    from rich.console import Console

    screen = Console(file=sys.stdout, markup=False, highlight=False, emoji=False)
    screen.width = max(screen.width, at_least)
    return screen


def width() -> int:
    """The columns that a table may use."""
    return console().width


def say(text: str) -> None:
    """Tell the person something on stderr."""
    sys.stderr.write(printable(text) + "\n")


def say_error(text: str) -> None:
    """Tell what went wrong on stderr, in one clear line."""
    sys.stderr.write(f"provd: {printable(text)}\n")


def printable(text: str) -> str:
    """The text without control characters (a record may hold a terminal's escape sequences) and lone surrogates; its
    lines stay.
    """
    return _UNFIT.sub("\ufffd", text).encode("utf-8", "replace").decode("utf-8")


def one_line(text: str) -> str:
    """The same on one line: a name must not begin a row of its own."""
    return printable(_BREAKS.sub(" ", text))


def within(text: str, columns: int, *, lines: int = 2) -> str:
    """The text on one line, cut so that it fills at most so many lines of so many columns."""
    from rich.text import Text

    screen = console()
    columns = max(columns, _NARROWEST_FOLD)

    def fits(shown: str) -> bool:
        return len(Text(shown).wrap(screen, columns)) <= lines

    whole = one_line(text)
    room = lines * columns
    if len(whole) <= 2 * room and fits(whole):  # of very many characters none would fit
        return whole
    line = whole[:room]
    low, high = 0, len(line) + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(line[:middle] + "…") else (low, middle)
    return line[:low].rstrip() + "…"


def _with_iso(value: Any) -> Any:
    if isinstance(value, datetime):
        return clock.to_iso(clock.from_datetime(value))
    if isinstance(value, dict):
        return {key: _with_iso(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_with_iso(item) for item in value]
    return value
