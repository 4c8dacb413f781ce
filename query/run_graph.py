"""The activity graph of a run: activities, and how many times one led to another.

- Arrows are of three kinds, as in lineage: who called, what was said to build on what, who used what another made.
- Tasks are streamed, and each is asked once what led to it; memory holds a batch of them, and the activities.
- What came from tasks of other runs is counted, and drawn nowhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from provd.common import names
from provd.common.record import Record
from provd.query import notebook
from provd.query.neighbours import AT_ONCE, CALL, FIELDS, KINDS, Reader, batches, callers
from provd.query.runs import in_rising_rank
from provd.store.interface import Store

#: Pairs of tasks that are counted: a value that thousands made and thousands used has millions.
PAIRS_MAX = 2_000_000

#: Columns in a notebook.
_ARROW_COLUMNS = ("source", "kind", "target", "count")


@dataclass(frozen=True, slots=True)
class Activity:
    """A node: an activity, and its tasks by status."""

    activity_id: str
    tasks: Mapping[str, int]

    @property
    def total(self) -> int:
        """All its tasks."""
        return sum(self.tasks.values())


@dataclass(frozen=True, slots=True)
class Arrow:
    """Tasks of `source` led to tasks of `target` so many times."""

    source: str
    target: str
    kind: str
    count: int


@dataclass(frozen=True, slots=True, repr=False)
class RunGraph:
    """`from_outside` counts what tasks of other runs led to; `complete` is false where counting stopped before the end."""

    workflow_id: str
    activities: tuple[Activity, ...]
    arrows: tuple[Arrow, ...]
    from_outside: int
    complete: bool

    def to_document(self) -> Record:
        """The graph as JSON has it."""
        return {
            "workflow_id": self.workflow_id,
            "activities": [{"activity_id": one.activity_id, "tasks": dict(one.tasks)} for one in self.activities],
            "arrows": [
                {"source": one.source, "target": one.target, "kind": one.kind, "count": one.count}
                for one in self.arrows
            ],
            "from_outside": self.from_outside,
            "complete": self.complete,
        }  # fmt: skip

    def __repr__(self) -> str:
        return f"<{self._described()}>"

    def _repr_html_(self) -> str:
        document = self.to_document()
        tables = notebook.first_rows(("activity_id", "tasks"), document["activities"], self._described())
        arrows = document["arrows"]
        return tables + notebook.first_rows(_ARROW_COLUMNS, arrows, "Arrows") if arrows else tables

    def _described(self) -> str:
        number = len(self.activities)
        activities = f"{number:,} activit{'y' if number == 1 else 'ies'}"
        counts = f"{activities}, {notebook.many(self.arrows, 'arrow')}"
        more = "" if self.complete else "; not all of it was counted"
        return f"Graph of {notebook.short(self.workflow_id)}: {counts}{more}"


def read_graph(
    store: Store,
    workflow_id: str,
    *,
    pairs_max: int = PAIRS_MAX,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> RunGraph:
    """The graph of a run, by its whole id."""
    activities = _activities(store, workflow_id)
    total = sum(activity.total for activity in activities)
    found: Counter[tuple[str, str, str]] = Counter()
    outside = pairs = read = 0
    reader, kinds = Reader(store), _kinds(store, workflow_id)
    tasks = store.find(names.TASKS, {"workflow_id": workflow_id}, fields=FIELDS)
    for some in batches(tasks, AT_ONCE):
        named = {task["task_id"]: str(task.get("activity_id") or "") for task in some}
        for edge, source in callers(reader, some, kinds):
            if source.get("workflow_id") == workflow_id:
                found[str(source.get("activity_id") or ""), named[edge.target], edge.kind] += 1
            else:
                # A task that the workflow itself called names no task as its caller.
                outside += bool(source)
            pairs += 1
            if pairs >= pairs_max:
                return _graph(workflow_id, activities, found, outside, complete=False)
        read += len(some)
        progress(read, max(read, total))
    return _graph(workflow_id, activities, found, outside, complete=True)


def _graph(
    workflow_id: str,
    activities: tuple[Activity, ...],
    found: Mapping[tuple[str, str, str], int],
    outside: int,
    *,
    complete: bool,
) -> RunGraph:
    arrows = tuple(
        Arrow(source, target, kind, count) for (source, target, kind), count in sorted(found.items())
    )
    return RunGraph(workflow_id, activities, arrows, outside, complete)


def _activities(store: Store, workflow_id: str) -> tuple[Activity, ...]:
    counts: dict[str, Counter[str]] = {}
    found = store.count_by(names.TASKS, {"workflow_id": workflow_id}, ("activity_id", "status"))
    for (activity, status), count in found.items():
        counts.setdefault(str(activity or ""), Counter())[str(status or "SUBMITTED")] += count
    return tuple(Activity(name, in_rising_rank(counts[name])) for name in sorted(counts))


def _kinds(store: Store, workflow_id: str) -> Collection[str]:
    """What there is to follow: most runs have no links, and need not be asked for them task by task."""
    links = store.find(names.LINKS, {"workflow_id": workflow_id}, fields=("key",), limit=1)
    return KINDS if next(iter(links), None) is not None else (CALL,)
