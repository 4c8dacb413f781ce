"""Point at the place in a line of text where it stops making sense."""

from __future__ import annotations

#: Characters shown on either side of a mistake.
_AROUND = 30


def pointed(what: str, text: str, offset: int, complaint: str) -> str:
    """`what` at its line and column: the complaint, the text around the place, and a caret below it."""
    offset = max(0, min(offset, len(text)))
    line_start = text.rfind("\n", 0, offset) + 1
    line_end = text.find("\n", line_start)
    line = text[line_start : line_end if line_end >= 0 else len(text)]
    column = offset - line_start
    place = f"column {column + 1}"
    if "\n" in text:
        place = f"line {text.count(chr(10), 0, offset) + 1}, {place}"
    message = f"{what} at {place}: {complaint}"
    start = max(0, column - _AROUND)
    excerpt = line[start : column + _AROUND].replace("\t", " ")
    return f"{message}\n  {excerpt}\n  {' ' * (column - start)}^" if excerpt.strip() else message
