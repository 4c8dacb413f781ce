"""Lineage: which tasks led to a task (up), and what came of it (down).

- Three kinds of edges are kept apart: `value` (one task used what another generated), `dependency` (a program said
  so), `call` (one task called the other). Calls are no flow of data.
- No clock is asked: who made a value is known by the value's key alone. Where several tasks made an equal one, all are
  given, and the edge says how many they are.
- It is a search by hops: each task is asked about once, however many ways lead to it, so cycles end.
- An answer is complete, or says where it stopped.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import count, islice
from typing import TypeAlias

from provd.common import names
from provd.common.errors import Ambiguous, NotFound
from provd.common.record import Record
from provd.query import notebook
from provd.query.makers import find_maker, looks_like_file
from provd.query.neighbours import (
    AT_ONCE,
    KINDS,
    Edge,
    Reader,
    batches,
    callees,
    callers,
    linked,
)
from provd.query.present import Silence
from provd.query.runs import LOST_AFTER_S
from provd.store.interface import Store
from provd.store.links import GENERATED

UP, DOWN = "up", "down"

#: Why an answer stopped.
BY_LIMIT, BY_DEPTH = "limit", "depth"

#: Hops and tasks, unless told otherwise.
DEPTH = 10
LIMIT = 1000

#: Links of one question that are read to say how many tasks made equal values.
_CANDIDATES_MAX = 10_000

#: Columns in a notebook.
_NODE_COLUMNS = ("hop", "task_id", "activity_id", "status")
_EDGE_COLUMNS = ("source", "kind", "key", "candidates", "target")

#: Ids that an error lists.
_LISTED = 10


@dataclass(frozen=True, slots=True)
class Node:
    """A task of the answer: `hop` is 0 for the one asked about, negative for what led to it, positive for what came
    of it. `record` has its main fields, with LOST derived; it is empty where the store does not hold the task.
    """

    task_id: str
    hop: int
    record: Record

    @property
    def activity_id(self) -> str:
        """The activity, empty where it is not known."""
        return str(self.record.get("activity_id", ""))

    @property
    def status(self) -> str:
        """The status, empty where it is not known."""
        return str(self.record.get("status", ""))


@dataclass(frozen=True, slots=True)
class Stop:
    """That there is more: after `limit` tasks or at `depth` (`reason`), in this direction, at this hop."""

    direction: str
    hop: int
    reason: str


@dataclass(frozen=True, slots=True, repr=False)
class Lineage:
    """An answer; `stopped_at` is empty where it is complete."""

    task_id: str
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    stopped_at: tuple[Stop, ...]

    def __repr__(self) -> str:
        return f"<{self._described()}>"

    def _repr_html_(self) -> str:
        nodes = [{name: getattr(node, name) for name in _NODE_COLUMNS} for node in self.nodes]
        edges = [{name: getattr(edge, name) for name in _EDGE_COLUMNS} for edge in self.edges]
        tables = notebook.first_rows(_NODE_COLUMNS, nodes, self._described())
        return tables + notebook.first_rows(_EDGE_COLUMNS, edges, "Edges") if edges else tables

    def _described(self) -> str:
        more = ", ".join(f"{stop.direction} stopped by {stop.reason}" for stop in self.stopped_at)
        counts = f"{notebook.many(self.nodes, 'task')}, {notebook.many(self.edges, 'edge')}"
        return f"Lineage of {notebook.short(self.task_id)}: {counts}{f'; {more}' if more else ''}"


Found: TypeAlias = Node | Edge | Stop


def trace(
    store: Store,
    task_id: str,
    *,
    up: bool = True,
    down: bool = False,
    depth: int = DEPTH,
    limit: int = LIMIT,
    kinds: Collection[str] = KINDS,
    lost_after_s: float = LOST_AFTER_S,
) -> Lineage:
    """What led to a task and what came of it, up to `depth` hops and `limit` tasks in each direction; 0 means all.

    Raises `NotFound`.
    """
    found = list(
        follow(
            store, task_id, up=up, down=down, depth=depth, limit=limit, kinds=kinds, lost_after_s=lost_after_s
        )
    )
    edges = [item for item in found if isinstance(item, Edge)]
    stops = tuple(item for item in found if isinstance(item, Stop))
    if down or any(stop.reason == BY_LIMIT for stop in stops):
        makers = _ask_makers(store, edges)
    else:  # on the way up all of them were found
        makers = _collect((edge.key, edge.source) for edge in edges)
    return Lineage(
        task_id,
        tuple(item for item in found if isinstance(item, Node)),
        tuple(_with_candidates(edge, makers) for edge in edges),
        stops,
    )


def follow(
    store: Store,
    task_id: str,
    *,
    up: bool = True,
    down: bool = False,
    depth: int = DEPTH,
    limit: int = LIMIT,
    kinds: Collection[str] = KINDS,
    lost_after_s: float = LOST_AFTER_S,
) -> Iterator[Found]:
    """The same as it is found, hop by hop: a task before its edges, and where it stopped at the end of each direction.

    What is kept meanwhile is ids, and the tasks of two hops. How many made an equal value is not known here.
    """
    reader = Reader(store)
    start = reader.by_id([task_id]).get(task_id)
    if start is None:
        raise NotFound(f"there is no task {task_id!r}")
    search = _Search(reader, start, kinds, Silence(store, lost_after_s))
    yield search.node(start, 0)
    for direction, wanted in ((UP, up), (DOWN, down)):
        if wanted:
            yield from search.run(direction, depth, limit)


class _Search:
    """One answer on its way."""

    def __init__(self, reader: Reader, start: Record, kinds: Collection[str], silence: Silence) -> None:
        self._reader = reader
        self._start = start
        self._kinds = kinds
        self._silence = silence
        self._given = {str(start["task_id"])}
        #: Tasks that were asked what led to them: their edges have been given.
        self._asked: set[str] = set()

    def node(self, record: Record, hop: int) -> Node:
        """A task as it is given."""
        status = self._silence.status(record)
        return Node(record["task_id"], hop, {**record, "status": status} if status else record)

    def run(self, direction: str, depth: int, limit: int) -> Iterator[Found]:
        """Everything in one direction."""
        neighbours = callers if direction == UP else callees
        frontier = [self._start]
        seen = {str(self._start["task_id"])}
        for hop in count(1):
            last = bool(depth) and hop > depth
            following: list[Record] = []
            for tasks in batches(frontier, AT_ONCE):
                if direction == UP and not last:
                    self._asked.update(task["task_id"] for task in tasks)
                for edge, record in neighbours(self._reader, tasks, self._kinds):
                    far = edge.source if direction == UP else edge.target
                    if far not in seen:
                        if last:
                            yield Stop(direction, hop - 1, BY_DEPTH)
                            return
                        if limit and len(seen) > limit:
                            yield Stop(direction, hop, BY_LIMIT)
                            return
                        seen.add(far)
                        if record:
                            following.append(record)
                        yield from self._give(far, record, hop if direction == DOWN else -hop)
                    if not last:
                        yield from self._edge(edge, direction)
            if not following:
                return
            frontier = following

    def _give(self, task_id: str, record: Record, hop: int) -> Iterator[Node]:
        if task_id not in self._given:
            self._given.add(task_id)
            yield self.node(record, hop) if record else Node(task_id, hop, {})

    def _edge(self, edge: Edge, direction: str) -> Iterator[Edge]:
        """An edge, unless it leads from a task to itself, or was given on the way up."""
        if edge.source != edge.target and (direction == UP or edge.target not in self._asked):
            yield edge


def _with_candidates(edge: Edge, makers: dict[str, set[str]]) -> Edge:
    """An edge with how many tasks made an equal value."""
    if edge.key is None or len(makers.get(edge.key, ())) < 2:
        return edge
    return replace(edge, candidates=len(makers[edge.key] - {edge.target}))


def _ask_makers(store: Store, edges: list[Edge]) -> dict[str, set[str]]:
    """Who made the values of these edges, by key."""
    reader = Reader(store)
    keys = dict.fromkeys(edge.key for edge in edges if edge.key is not None)
    found: list[tuple[str | None, str]] = []
    for some in batches(keys, AT_ONCE):
        made = islice(linked(reader, some, GENERATED), _CANDIDATES_MAX)
        found += [(key, task["task_id"]) for key, task in made]
    return _collect(found)


def _collect(pairs: Iterable[tuple[str | None, str]]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for key, task_id in pairs:
        if key is not None:
            found.setdefault(key, set()).add(task_id)
    return found


def find_task(store: Store, text: str) -> str:
    """The id of the task that `text` means: its id, a prefix that fits no other, or a file that it generated.

    Raises `Ambiguous` that lists some candidates, and `NotFound` that names the nearest.
    """
    if Reader(store).by_id([text]):
        return text
    if looks_like_file(text):
        return find_maker(store, text)
    found = _from(store, {"$gte": text, "$lt": f"{text}\U0010ffff"}, 1) if text else []
    if len(found) == 1:
        return found[0]
    if found:
        listed = "\n".join(f"  {task_id}" for task_id in found[:_LISTED])
        more = "\n  and more" if len(found) > _LISTED else ""
        raise Ambiguous(f"{text!r} fits several tasks; give more of the id of one:\n{listed}{more}")
    near = [*_from(store, {"$lt": text}, -1)[:1], *_from(store, {"$gt": text}, 1)[:1]]
    if not near:
        raise NotFound(f"no task {text!r}: there are no tasks yet")
    nearest = max(near, key=lambda task_id: len(_common(text, task_id)))
    raise NotFound(f"no task has the id or prefix {text!r}; the nearest is {nearest!r}")


def _from(store: Store, condition: dict[str, str], order: int) -> list[str]:
    found = store.find(
        names.TASKS, {"_id": condition}, fields=("task_id",), sort=[("_id", order)], limit=_LISTED + 1
    )
    return [str(task["task_id"]) for task in found]


def _common(one: str, other: str) -> str:
    """What both begin with."""
    length = next(
        (place for place, pair in enumerate(zip(one, other)) if pair[0] != pair[1]), min(len(one), len(other))
    )
    return one[:length]
