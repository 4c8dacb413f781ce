"""SVG: the little of it that charts and graphs need. All text is escaped, whatever is in it."""

from __future__ import annotations

from collections.abc import Iterable
from xml.sax.saxutils import escape, quoteattr

#: Colours that are told apart also by people who see few (Okabe and Ito), and grey for the rest.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442")
GREY = "#999999"

STATUS_COLOURS = {
    "FINISHED": "#009e73", "RUNNING": "#56b4e9", "SUBMITTED": "#0072b2", "SKIPPED": "#bbbbbb",
    "CANCELLED": "#e69f00", "ERROR": "#d55e00", "LOST": "#cc79a7",
}  # fmt: skip

#: About the width of a letter of the size that is used.
LETTER = 6.6

#: Characters of what is shown when somebody points at a box or a line.
_TIP_CHARS = 200


def plain(text: str) -> str:
    """Text without control characters and lone surrogates, which no XML may hold."""
    shown = "".join(char if char.isprintable() else "\ufffd" for char in text)
    return shown.encode("utf-8", "replace").decode()


def shortened(text: str, chars: int) -> str:
    """Text of so many characters at most."""
    return text if len(text) <= chars else text[: chars - 1] + "…"


def width_of(text: str) -> float:
    """About how wide text is: capitals are wider."""
    return LETTER * sum(1.4 if char.isupper() else 1.0 for char in text)


def rect(
    x: float, y: float, width: float, height: float, fill: str, *, opacity: float = 1.0,
    title: str | None = None, stroke: str | None = None, round_by: float = 0.0,
) -> str:  # fmt: skip
    """A box."""
    faint = f' fill-opacity="{opacity:.2f}"' if opacity < 1 else ""
    line = f' stroke="{stroke}"' if stroke else ""
    corner = f' rx="{round_by:g}"' if round_by else ""
    inner = "" if title is None else f"<title>{_tip(title)}</title>"
    place = f'x="{x:.2f}" y="{y:.2f}" width="{max(width, 0.0):.2f}" height="{height:.2f}"'
    return f'<rect {place} fill="{fill}"{faint}{line}{corner}>{inner}</rect>'


def text(x: float, y: float, words: str, *, anchor: str = "start", bold: bool = False) -> str:
    """A line of text."""
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:.2f}" y="{y:.2f}" text-anchor="{anchor}"{weight}>{escape(plain(words))}</text>'


def path(points: str, *, dashed: bool = False, width: float = 1.2, title: str | None = None) -> str:
    """A line that ends in an arrow."""
    dashes = ' stroke-dasharray="5 3"' if dashed else ""
    inner = "" if title is None else f"<title>{_tip(title)}</title>"
    return (
        f'<path d={quoteattr(points)} fill="none" stroke="#555555" stroke-width="{width:g}"{dashes}'
        f' marker-end="url(#arrow)">{inner}</path>'
    )


def _tip(title: str) -> str:
    return escape(shortened(plain(title), _TIP_CHARS))


def document(width: float, height: float, parts: Iterable[str], title: str) -> str:
    """The file."""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}"'
        f' viewBox="0 0 {width:.0f} {height:.0f}" font-family="sans-serif" font-size="12">'
    )
    arrow = (
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7"'
        ' orient="auto"><path d="M0 0L8 4L0 8z" fill="#555555"/></marker></defs>'
    )
    back = '<rect width="100%" height="100%" fill="#ffffff"/>'
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        head,
        f"<title>{escape(plain(title))}</title>",
        arrow,
        back,
        *parts,
        "</svg>",
    ]
    return "\n".join(lines) + "\n"
