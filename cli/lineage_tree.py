"""Lineage as a tree in the terminal: a line for each task, with what leads there.

A task that several ways lead to is told in full where it first stands; elsewhere it is marked.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from provd.cli import human, output
from provd.query.lineage import DOWN, UP, Lineage, Node
from provd.query.lineage_text import value_name
from provd.query.neighbours import CALL, DEPENDENCY, KINDS, VALUE, Edge

if TYPE_CHECKING:
    from rich.text import Text

_TITLES = {UP: "what led to it", DOWN: "what came of it"}
_WORDS = {
    (UP, VALUE): "made",
    (DOWN, VALUE): "used",
    (UP, DEPENDENCY): "it depends on this",
    (DOWN, DEPENDENCY): "depends on it",
    (UP, CALL): "called it",
    (DOWN, CALL): "called by it",
}

#: Characters of what leads to a task that are shown however narrow the terminal is.
_WHY_CHARS = 12

#: Lines that are laid out together.
_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Line:
    """One task in the tree: what stands before it, and why it is there."""

    lead: str
    node: Node
    why: str
    again: bool


def print_tree(lineage: Lineage, directions: Sequence[str]) -> None:
    """Print the task asked about, and a tree for each direction."""
    width = output.width()
    _show([_text(Line("", lineage.nodes[0], "", again=False), width)])
    for direction in directions:
        output.print_line(f"{_TITLES[direction]}:", style="bold")
        lines = tree_lines(lineage, direction)
        nothing = True
        while some := [_text(line, width) for line in islice(lines, _AT_ONCE)]:
            nothing = False
            _show(some)
        if nothing:
            output.print_line("nothing that is known", indent=2)


def tree_lines(lineage: Lineage, direction: str) -> Iterator[Line]:
    """The lines of a tree, the nearest tasks outermost."""
    nodes = {node.task_id: node for node in lineage.nodes}
    ways = _ways(lineage.edges, direction, nodes)
    told = {lineage.task_id}
    #: Tasks to tell, the next one last: what stands before it, its id, and the edges that lead there.
    waiting = list(reversed(_branches("", lineage.task_id, ways)))
    while waiting:
        lead, below, task_id, edges = waiting.pop()
        again = task_id in told
        told.add(task_id)
        yield Line(lead, nodes[task_id], _why(edges, direction), again and bool(ways.get(task_id)))
        if not again:
            waiting += reversed(_branches(below, task_id, ways))


def _ways(
    edges: Iterable[Edge], direction: str, nodes: Mapping[str, Node]
) -> dict[str, dict[str, list[Edge]]]:
    """By task, the tasks that lie next in this direction, in the order they are told in, with the edges there."""
    found: dict[str, dict[str, list[Edge]]] = {}
    for edge in edges:
        near, far = (edge.target, edge.source) if direction == UP else (edge.source, edge.target)
        if near in nodes and far in nodes:
            found.setdefault(near, {}).setdefault(far, []).append(edge)
    for near, nexts in found.items():
        for ways in nexts.values():
            ways.sort(key=_rank)
        found[near] = dict(
            sorted(
                nexts.items(), key=lambda item: (_rank(item[1][0])[0], nodes[item[0]].activity_id, item[0])
            )
        )
    return found


def _rank(edge: Edge) -> tuple[int, str]:
    """Values first, then dependencies, then calls."""
    return -KINDS.index(edge.kind), edge.key or ""


def _branches(
    lead: str, task_id: str, ways: Mapping[str, Mapping[str, list[Edge]]]
) -> list[tuple[str, str, str, list[Edge]]]:
    """The tasks next to one: what stands before each, and before those below it."""
    nexts = list(ways.get(task_id, {}).items())
    return [
        (lead + "├─ ", lead + "│  ", far, edges)
        if place < len(nexts) - 1
        else (lead + "└─ ", lead + "   ", far, edges)
        for place, (far, edges) in enumerate(nexts)
    ]


def _why(edges: Sequence[Edge], direction: str) -> str:
    """What leads from one task to the other, such as `made /data/a.csv (one of 3), called it`."""
    names = []
    for edge in edges:
        if edge.key is not None:
            name = value_name(edge.key)
            names.append(f"{name} (one of {edge.candidates})" if edge.candidates > 1 else name)
    words = [f"{_WORDS[direction, VALUE]} {', '.join(names)}"] if names else []
    words += [_WORDS[direction, kind] for kind in dict.fromkeys(edge.kind for edge in edges) if kind != VALUE]
    return "; ".join(words)


def _text(line: Line, width: int) -> Text:
    """A line, whose last part gives way where there is no room."""
    from rich.cells import cell_len, set_cell_size
    from rich.text import Text

    node = line.node
    status = node.status if node.record else "not stored"
    text = Text(line.lead, style="dim")
    if node.activity_id:
        text.append(f"{output.one_line(human.cell(node.activity_id))} ", style="bold not dim")
    text.append(f"{output.one_line(node.task_id)} ", style="not dim")
    text.append(status, style=f"not dim {output.STATUS_STYLES.get(status, '')}".strip())
    if line.why:
        why = f"  {output.one_line(line.why)}{' (above)' if line.again else ''}"
        room = max(_WHY_CHARS, width - text.cell_len)
        if cell_len(why) > room:
            why = set_cell_size(why, room - 1) + "…"
        text.append(why, style="not dim")
    return text


def _show(lines: Sequence[Text]) -> None:
    from rich.text import Text

    widest = max(line.cell_len for line in lines)
    output.show(Text("\n").join(lines), on=output.console(at_least=widest))
