"""The activity graph as Mermaid, as DOT, and as a picture. Names come from programs, and are escaped everywhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from provd.query.lineage_text import LABEL_CHARS, dot_text, mermaid_text
from provd.query.neighbours import CALL, DEPENDENCY, VALUE
from provd.query.pictures import LETTER, document, path, plain, rect, shortened, text
from provd.query.run_graph import Activity, Arrow, RunGraph

_MERMAID_ARROWS = {VALUE: "-->", DEPENDENCY: "==>", CALL: "-.->"}
_DOT_STYLES = {VALUE: "solid", DEPENDENCY: "bold", CALL: "dashed"}
#: What there is one of, and what there are several of.
_WORDS = {VALUE: ("value", "values"), DEPENDENCY: ("dependency", "dependencies"), CALL: ("call", "calls")}

#: Characters of a name in a picture.
_NAME_CHARS = 36

_LAYER, _GAP, _HEIGHT, _MARGIN, _TOP = 96.0, 36.0, 44.0, 24.0, 44.0

#: Statuses that colour a node, the first that it has.
_FILLS = (("ERROR", "#fbe3d6"), ("LOST", "#f6e3ef"), ("RUNNING", "#e3f1fa"))
_PLAIN_FILL = "#e6f4ef"


def mermaid(graph: RunGraph) -> Iterator[str]:
    """The lines of a Mermaid flowchart."""
    yield "flowchart TD"
    names = {one.activity_id: f"a{number}" for number, one in enumerate(graph.activities)}
    for one in graph.activities:
        label = "<br/>".join(map(mermaid_text, (_label(one), _counted(one))))
        yield f'  {names[one.activity_id]}["{label}"]'
    for arrow in graph.arrows:
        label = mermaid_text(_led(arrow))
        yield f'  {names[arrow.source]} {_MERMAID_ARROWS[arrow.kind]}|"{label}"| {names[arrow.target]}'


def dot(graph: RunGraph) -> Iterator[str]:
    """The lines of a DOT graph."""
    yield "digraph run {"
    yield "  node [shape=box];"
    names = {one.activity_id: f"a{number}" for number, one in enumerate(graph.activities)}
    for one in graph.activities:
        label = r"\n".join(map(dot_text, (_label(one), _counted(one))))
        yield f'  {names[one.activity_id]} [label="{label}"];'
    for arrow in graph.arrows:
        label = dot_text(_led(arrow))
        ends = f"{names[arrow.source]} -> {names[arrow.target]}"
        yield f'  {ends} [label="{label}", style={_DOT_STYLES[arrow.kind]}];'
    yield "}"


def svg(graph: RunGraph) -> str:
    """The SVG file: activities in layers, each below what led to it."""
    layers = _layers(graph)
    rows: dict[int, list[Activity]] = {}
    for one in graph.activities:
        rows.setdefault(layers[one.activity_id], []).append(one)
    widths = {one.activity_id: _width(one) for one in graph.activities}
    total = max([sum(widths[one.activity_id] + _GAP for one in row) for row in rows.values()] or [200.0])
    title = f"activities of run {graph.workflow_id}"
    total = max(total, LETTER * max(len(title), len(_legend(graph)))) + 2 * _MARGIN
    places = _places(rows, widths, total)
    height = _TOP + _LAYER * (max(rows, default=0) + 1) + 40
    return document(total + 60, height, _parts(graph, places, widths, title), title)


def _name(one: Activity) -> str:
    return one.activity_id or "(no activity)"


def _label(one: Activity) -> str:
    return shortened(_name(one), LABEL_CHARS)


def _counted(one: Activity) -> str:
    return ", ".join(f"{count:,} {status}" for status, count in one.tasks.items())


def _led(arrow: Arrow) -> str:
    one, several = _WORDS[arrow.kind]
    return f"{arrow.count:,} {one if arrow.count == 1 else several}"


def _width(one: Activity) -> float:
    chars = max(len(shortened(plain(_name(one)), _NAME_CHARS)), len(_counted(one)))
    return 24 + LETTER * chars


def _layers(graph: RunGraph) -> Mapping[str, int]:
    """The length of the longest way to each node; an arrow that closes a circle does not count."""
    after: dict[str, list[str]] = {one.activity_id: [] for one in graph.activities}
    for arrow in graph.arrows:
        if arrow.source != arrow.target and arrow.target not in after[arrow.source]:
            after[arrow.source].append(arrow.target)
    order = _in_order(after)
    place = {name: number for number, name in enumerate(order)}
    layers = dict.fromkeys(after, 0)
    for name in order:
        for follower in after[name]:
            if place[follower] > place[name]:
                layers[follower] = max(layers[follower], layers[name] + 1)
    return layers


def _in_order(after: Mapping[str, Sequence[str]]) -> list[str]:
    """Every node behind those that lead to it, as far as there are no circles; without recursion."""
    led_to = {follower for followers in after.values() for follower in followers}
    order: list[str] = []
    seen: set[str] = set()
    for root in sorted(after, key=lambda name: (name in led_to, name)):
        stack = [(root, iter(after[root]))] if root not in seen else []
        seen.add(root)
        while stack:
            name, left = stack[-1]
            follower = next((one for one in left if one not in seen), None)
            if follower is None:
                order.append(name)
                stack.pop()
            else:
                seen.add(follower)
                stack.append((follower, iter(after[follower])))
    return order[::-1]


def _places(
    rows: Mapping[int, Sequence[Activity]], widths: Mapping[str, float], total: float
) -> dict[str, tuple[float, float]]:
    """The upper left corner of each node."""
    places = {}
    for layer, row in rows.items():
        x = (total - sum(widths[one.activity_id] + _GAP for one in row) + _GAP) / 2
        for one in row:
            places[one.activity_id] = (x, _TOP + _LAYER * layer)
            x += widths[one.activity_id] + _GAP
    return places


def _parts(
    graph: RunGraph, places: Mapping[str, tuple[float, float]], widths: Mapping[str, float], title: str
) -> Iterator[str]:
    yield text(_MARGIN, 20, title, bold=True)
    for number, arrow in enumerate(graph.arrows):
        x1, y1 = places[arrow.source]
        x2, y2 = places[arrow.target]
        words = _led(arrow)
        if y2 > y1:
            # Arrows of several kinds between two nodes lie beside each other.
            shift = 14.0 * (list(_WORDS).index(arrow.kind) - 1)
            x1, x2, y1 = (
                x1 + widths[arrow.source] / 2 + shift,
                x2 + widths[arrow.target] / 2 + shift,
                y1 + _HEIGHT,
            )
            points = f"M{x1:.1f} {y1:.1f}C{x1:.1f} {y1 + 30:.1f} {x2:.1f} {y2 - 30:.1f} {x2:.1f} {y2:.1f}"
            label = (x1 + x2) / 2 + 6, (y1 + y2) / 2 + 10 * (list(_WORDS).index(arrow.kind) - 1)
            side = _beside(places, widths, (x1, y1), (x2, y2))
            if side is not None:
                # A curve of this kind goes three quarters of the way to where it is pulled.
                side -= 4 * (number % 4)
                pulled = (x1 + x2) / 2 + (side - (x1 + x2) / 2) / 0.75
                points = f"M{x1:.1f} {y1:.1f}C{pulled:.1f} {y1 + 30:.1f} {pulled:.1f} {y2 - 30:.1f} {x2:.1f} {y2:.1f}"
                label = side + 4, (y1 + y2) / 2 + 12 * (number % 4 - 1.5)
        else:
            # To itself, or back up: around on the right.
            x1, x2 = x1 + widths[arrow.source], x2 + widths[arrow.target]
            out = max(x1, x2) + 24 + 3 * (number % 5)
            points = f"M{x1:.1f} {y1 + 30:.1f}C{out:.1f} {y1 + 34:.1f} {out:.1f} {y2 + 10:.1f} {x2:.1f} {y2 + 14:.1f}"
            label = out - 4, (y1 + y2) / 2 + 22
        width = 2.4 if arrow.kind == DEPENDENCY else 1.2
        yield path(points, dashed=arrow.kind == CALL, width=width, title=words)
        yield text(*label, f"{arrow.count:,}")
    for one in graph.activities:
        yield from _node(one, places[one.activity_id], widths[one.activity_id])
    yield text(_MARGIN, _TOP + _LAYER * (1 + max(_rows(places), default=0)) + 8, _legend(graph))


def _beside(
    places: Mapping[str, tuple[float, float]],
    widths: Mapping[str, float],
    start: tuple[float, float],
    end: tuple[float, float],
) -> float | None:
    """Where an arrow down passes on the left of the nodes between its ends; None where none is in its way."""
    edges = []
    for name, (x, y) in places.items():
        if start[1] < y and y + _HEIGHT < end[1]:
            share = (y + _HEIGHT / 2 - start[1]) / (end[1] - start[1])
            at = start[0] + share * (end[0] - start[0])
            edges.append((x - 12 < at < x + widths[name] + 12, x))
    return min(edge for _, edge in edges) - 20 if any(met for met, _ in edges) else None


def _rows(places: Mapping[str, tuple[float, float]]) -> list[int]:
    return [round((y - _TOP) / _LAYER) for _, y in places.values()]


def _node(one: Activity, place: tuple[float, float], width: float) -> Iterator[str]:
    x, y = place
    fill = next((colour for status, colour in _FILLS if status in one.tasks), _PLAIN_FILL)
    yield rect(
        x, y, width, _HEIGHT, fill, stroke="#555555", round_by=5, title=f"{_name(one)}: {_counted(one)}"
    )
    yield text(x + width / 2, y + 18, shortened(plain(_name(one)), _NAME_CHARS), anchor="middle", bold=True)
    yield text(x + width / 2, y + 35, _counted(one), anchor="middle")


def _legend(graph: RunGraph) -> str:
    words = "whole: values; thick: dependencies; dashed: calls"
    if graph.from_outside:
        words += f"; {graph.from_outside:,} from other runs"
    return words if graph.complete else f"{words}; not all of it was counted"
