"""The table of figures, for people and for programs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.figure import Figure
from benchmarks.machine import Machine

_HEAD = ("figure", "provd", "against", "theirs", "ratio", "target", "met")


def to_text(machine: Machine, figures: Sequence[Figure]) -> str:
    """The table in columns, the notes numbered below it."""
    notes = list(dict.fromkeys(figure.note for figure in figures if figure.note))
    rows = [_row(figure, notes.index(figure.note) + 1 if figure.note else None) for figure in figures]
    widths = [max(map(len, column)) for column in zip(_HEAD, *rows)]
    rule = "  ".join("-" * width for width in widths)
    lines = [_line(_HEAD, widths), rule, *(_line(row, widths) for row in rows), "", str(machine)]
    lines += [f"[{number}] {note}" for number, note in enumerate(notes, 1)]
    return "\n".join(lines)


def to_markdown(machine: Machine, figures: Sequence[Figure]) -> str:
    """The table as docs/performance.md has it."""
    notes = list(dict.fromkeys(figure.note for figure in figures if figure.note))
    rows = [_row(figure, notes.index(figure.note) + 1 if figure.note else None) for figure in figures]
    lines = [f"| {' | '.join(_HEAD)} |", "|" + "---|" * len(_HEAD)]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    lines += ["", f"{machine}.", ""]
    lines += [f"{number}. {note}" for number, note in enumerate(notes, 1)]
    return "\n".join(lines)


def to_documents(figures: Iterable[Figure]) -> list[dict[str, Any]]:
    """The figures as JSON has them, with every sample."""
    return [
        {
            "figure": figure.what,
            "unit": figure.unit,
            "provd": figure.value,
            "samples": list(figure.ours),
            "against": figure.against or None,
            "theirs": figure.peer,
            "their_samples": list(figure.theirs),
            "ratio": figure.ratio,
            "target": str(figure.target) if figure.target else None,
            "met": figure.is_met,
            "note": figure.note or None,
        }
        for figure in figures
    ]


def _row(figure: Figure, note: int | None) -> tuple[str, ...]:
    return (
        figure.what + (f" [{note}]" if note else ""),
        f"{_number(figure.value)} {figure.unit}".strip(),
        figure.against or "-",
        "-" if figure.peer is None else f"{_number(figure.peer)} {figure.unit}".strip(),
        "-" if figure.ratio is None else f"{figure.ratio:.3f}",
        str(figure.target) if figure.target else "-",
        {True: "yes", False: "NO", None: "-"}[figure.is_met],
    )


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths)).rstrip()


def _number(value: float) -> str:
    """Three digits that mean something, thousands apart."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"
