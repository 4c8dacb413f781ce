"""Lines that come one after the other, in columns that only ever grow."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from provd.cli import output


class Lines:
    """On a terminal a line is cut at its width; elsewhere it is whole."""

    def __init__(self) -> None:
        self._widths: list[int] = []

    def show(self, rows: Sequence[Sequence[str]]) -> None:
        """Print some more."""
        cells = [[" ".join(output.one_line(cell).split()) for cell in row] for row in rows]
        for row in cells:
            self._widths += [0] * (len(row) - len(self._widths))
            self._widths = [max(width, len(cell)) for width, cell in zip(self._widths, row)]
        cut = output.width() if sys.stdout.isatty() else None
        for row in cells:
            line = "  ".join(cell.ljust(width) for cell, width in zip(row, self._widths)).rstrip()
            sys.stdout.write(line[:cut] + "\n")
        sys.stdout.flush()
