"""Lineage as text for other programs: JSON lines, Mermaid and DOT.

- Names and keys come from programs: nothing in them ends a label or begins a line.
- Arrows lead from what came first: whole ones with the flow of values, thick ones to what builds on a task, dashed ones
  from caller to called.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from provd.common.record import Record
from provd.query.lineage import Found, Lineage, Node, Stop
from provd.query.neighbours import CALL, DEPENDENCY, VALUE, Edge
from provd.query.pictures import plain, shortened
from provd.store.links import FILE, KEY, OBJECT

#: Characters of a label, and values that one arrow names.
LABEL_CHARS = 60
_LABELS_MAX = 3

_MERMAID_ARROWS = {VALUE: "-->", DEPENDENCY: "==>", CALL: "-.->"}
_DOT_STYLES = {VALUE: "solid", DEPENDENCY: "bold", CALL: "dashed"}
_WORDS = {DEPENDENCY: "depends on", CALL: "called"}


def documents(found: Iterable[Found]) -> Iterator[Record]:
    """A document for each task and each edge as they come, and one at the end: how many, and where it stopped."""
    tasks = edges = 0
    stops: list[Record] = []
    for item in found:
        if isinstance(item, Node):
            tasks += 1
            yield {"task": {"task_id": item.task_id, "hop": item.hop, **item.record}}
        elif isinstance(item, Stop):
            stops.append({"direction": item.direction, "hop": item.hop, "reason": item.reason})
        else:
            edges += 1
            yield {"edge": _edge_document(item)}
    yield {"tasks": tasks, "edges": edges, "stopped_at": stops}


def items(lineage: Lineage) -> list[Found]:
    """A whole answer as what it was found as."""
    return [*lineage.nodes, *lineage.edges, *lineage.stopped_at]


def value_name(key: str) -> str:
    """A value by the name people know it by: the path, the declared key, or the object's number."""
    if key.startswith((FILE, KEY)):
        return key.split(":", 2)[2]
    return f"object #{key.partition('#')[2].replace('@', ' v')}" if key.startswith(OBJECT) else key


def mermaid(lineage: Lineage) -> Iterator[str]:
    """The lines of a Mermaid flowchart."""
    yield "flowchart TD"
    names = {node.task_id: f"t{number}" for number, node in enumerate(lineage.nodes)}
    for node in lineage.nodes:
        text = "<br/>".join(mermaid_text(part) for part in _parts(node))
        shape = f'(["{text}"])' if node.task_id == lineage.task_id else f'["{text}"]'
        yield f"  {names[node.task_id]}{shape}"
    for edge, labels in _arrows(lineage):
        text = "<br/>".join(map(mermaid_text, labels))
        yield f'  {names[edge.source]} {_MERMAID_ARROWS[edge.kind]}|"{text}"| {names[edge.target]}'


def dot(lineage: Lineage) -> Iterator[str]:
    """The lines of a DOT graph."""
    yield "digraph lineage {"
    yield "  node [shape=box];"
    for node in lineage.nodes:
        label = r"\n".join(dot_text(part) for part in _parts(node))
        more = ", peripheries=2" if node.task_id == lineage.task_id else ""
        yield f'  "{dot_text(node.task_id)}" [label="{label}"{more}];'
    for edge, labels in _arrows(lineage):
        ends = f'"{dot_text(edge.source)}" -> "{dot_text(edge.target)}"'
        label = r"\n".join(map(dot_text, labels))
        yield f'  {ends} [label="{label}", style={_DOT_STYLES[edge.kind]}];'
    yield "}"


def _edge_document(edge: Edge) -> Record:
    document: Record = {"source": edge.source, "target": edge.target, "kind": edge.kind}
    if edge.key is not None:
        document["key"] = edge.key
    if edge.candidates > 1:
        document["candidates"] = edge.candidates
    return document


def _parts(node: Node) -> tuple[str, ...]:
    if not node.record:
        return node.task_id, "not stored"
    return shortened(node.activity_id or "?", LABEL_CHARS), node.task_id, node.status


def _arrows(lineage: Lineage) -> Iterator[tuple[Edge, Sequence[str]]]:
    """One edge for each two tasks and kind, with the names of its values."""
    known = {node.task_id for node in lineage.nodes}
    groups: dict[tuple[str, str, str], list[Edge]] = {}
    for edge in lineage.edges:
        if edge.source in known and edge.target in known:
            groups.setdefault((edge.source, edge.target, edge.kind), []).append(edge)
    for edges in groups.values():
        labels = [_label(edge) for edge in edges[:_LABELS_MAX]]
        if len(edges) > _LABELS_MAX:
            labels.append(f"and {len(edges) - _LABELS_MAX} more")
        yield edges[0], labels


def _label(edge: Edge) -> str:
    if edge.key is None:
        return _WORDS[edge.kind]
    name = value_name(edge.key)
    name = name if len(name) <= LABEL_CHARS else f"…{name[1 - LABEL_CHARS :]}"
    return f"{name} (one of {edge.candidates})" if edge.candidates > 1 else name


def mermaid_text(text: str) -> str:
    """Text inside the quotes of a Mermaid label."""
    return "".join(
        char if char.isalnum() or char in " ./_-,:()…\ufffd" else f"#{ord(char)};" for char in plain(text)
    )


def dot_text(text: str) -> str:
    """Text inside the quotes of a DOT string."""
    return plain(text).replace("\\", "\\\\").replace('"', '\\"')
