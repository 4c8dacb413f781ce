"""`python -m benchmarks.flame RAW SVG`: a flame graph of the stacks that `py-spy record -F -f raw` has collected.

Waiting is left out, and so are paths: a frame is named by its function and its module.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from zlib import crc32

_WIDTH = 1200.0
_ROW = 17

#: Narrower boxes are left out, and narrower ones than the second have no text.
_LEAST = 1.0
_TEXT_LEAST = 30.0

#: Frames at whose tip a thread waits, and those of imports, which happen once.
_IDLE = ("_Bell.wait", "wait (threading", "importlib")

#: Frames that every thread has.
_OF_THREADS = ("Thread._bootstrap", "Thread._bootstrap_inner", "Thread.run")


@dataclass(slots=True)
class Node:
    """A function, in the place it was called from."""

    samples: int = 0
    called: dict[str, Node] = field(default_factory=dict)


def tree_of(lines: Iterable[str]) -> Node:
    """The stacks as a tree."""
    root = Node()
    for line in lines:
        stack, _, samples = line.rpartition(" ")
        frames = stack.split(";")
        if any(idle in frames[-1] or idle in stack for idle in _IDLE):
            continue
        node = root
        node.samples += int(samples)
        for frame in frames:
            if not frame.startswith(_OF_THREADS):
                node = node.called.setdefault(_name(frame), Node())
                node.samples += int(samples)
    return root


def _name(frame: str) -> str:
    function, _, place = frame.rpartition(" (")
    module = place.partition(":")[0].removesuffix(".py")
    for root in ("site-packages/", "src/"):
        module = module.rpartition(root)[2]
    return f"{function.replace('_function.<locals>.', '')} ({module})" if function else frame


def boxes(
    node: Node, total: int, left: float = 0.0, depth: int = 0
) -> Iterator[tuple[str, Node, float, int]]:
    """Name, node, left edge and depth of every box that is wide enough."""
    for name, called in sorted(node.called.items()):
        yield name, called, left, depth
        yield from boxes(called, total, left, depth + 1)
        left += called.samples / total * _WIDTH


def to_svg(root: Node, title: str) -> str:
    """The picture; the widths are shares of the time."""
    shown = [
        (name, node, left, depth, node.samples / root.samples)
        for name, node, left, depth in boxes(root, root.samples)
        if node.samples / root.samples * _WIDTH >= _LEAST
    ]
    height = (max(depth for _, _, _, depth, _ in shown) + 3) * _ROW
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH:g} {height}" font-family="monospace" font-size="11">',
        f'<rect width="{_WIDTH:g}" height="{height}" fill="#fff"/>',
        f'<text x="4" y="13">{escape(title)}</text>',
    ]
    for name, _, left, depth, share in shown:
        width, top = share * _WIDTH, (depth + 1) * _ROW
        hue = 20 + crc32(name.encode()) % 40
        text = name[: int(width / 6.7)] if width >= _TEXT_LEAST else ""
        parts.append(
            f'<g><title>{escape(name)}: {share:.1%}</title><rect x="{left:.1f}" y="{top}" width="{width:.1f}"'
            f' height="{_ROW - 1}" fill="hsl({hue} 85% 70%)"/><text x="{left + 2:.1f}" y="{top + 12}">{escape(text)}</text></g>'
        )
    return "\n".join([*parts, "</svg>"]) + "\n"


def main() -> None:
    """Read the stacks, write the picture."""
    raw, picture = map(Path, sys.argv[1:3])
    title = sys.argv[3] if len(sys.argv) > 3 else picture.stem
    picture.write_text(to_svg(tree_of(raw.read_text().splitlines()), title))


if __name__ == "__main__":
    main()
