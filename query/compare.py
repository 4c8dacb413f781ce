"""Two runs beside each other: what differs between them, and nothing else.

- Tasks are matched by their activity and an equal `used`, whatever their order. Compared are what they generated, and
  how they ended; of several tasks with equal inputs those that came out alike are matched first.
- Memory is bounded: of each task its id and two digests are kept, for `TASKS_MAX` tasks of each run; with more, results
  are not compared, and the answer says so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from provd.common import names, values
from provd.common.record import Record
from provd.query import notebook
from provd.query.runs import LOST_AFTER_S
from provd.query.summary import ActivitySummary, RunSummary, summarise_run
from provd.store.interface import Store

#: Tasks of a run whose results are compared, and differing ones that are told one by one.
TASKS_MAX = 200_000
EXAMPLES = 20

#: Parts of a run's record that are compared, field by field.
_PARTS = ("args", "code", "environment")

#: Further fields that say how a run was started.
_FIELDS = ("name", "campaign_id", "argv", "cwd", "user", "hostname", "input_fingerprint", "code_ref", "config_hash")  # fmt: skip

#: What is read of a task.
_TASK_FIELDS = ("task_id", "activity_id", "used", "generated", "status")

#: Columns in a notebook.
_COLUMNS = ("part", "name", "A", "B")
_RESULT_COLUMNS = ("activity_id", "used", "status_a", "generated_a", "status_b", "generated_b")

_ABSENT = object()


@dataclass(frozen=True, slots=True)
class Difference:
    """One field, such as `lr` of `args`, and its value in each run; None where it is absent."""

    part: str
    name: str
    a: Any
    b: Any


@dataclass(frozen=True, slots=True)
class ActivityDifference:
    """An activity of which the runs have other counts, or which took other times; None where a run has none of it."""

    activity_id: str
    a: ActivitySummary | None
    b: ActivitySummary | None


@dataclass(frozen=True, slots=True)
class ResultDifference:
    """Two tasks with equal inputs that came out otherwise."""

    activity_id: str
    used: Any
    task_a: str
    task_b: str
    status_a: str
    status_b: str
    generated_a: Any
    generated_b: Any


@dataclass(frozen=True, slots=True)
class Results:
    """How the results of tasks compare; `compared` is false where there were too many tasks to match them."""

    compared: bool
    matched: int = 0
    differing: int = 0
    only_a: int = 0
    only_b: int = 0
    #: The first of the differing ones.
    examples: tuple[ResultDifference, ...] = ()


@dataclass(frozen=True, slots=True, repr=False)
class Comparison:
    """Two runs; every list holds what differs."""

    a: str
    b: str
    run: tuple[Difference, ...]
    args: tuple[Difference, ...]
    code: tuple[Difference, ...]
    environment: tuple[Difference, ...]
    #: What the programs counted (`provd.count`).
    counts: tuple[Difference, ...]
    activities: tuple[ActivityDifference, ...]
    results: Results

    @property
    def same(self) -> bool:
        """Whether nothing that was compared differs, but for times."""
        timeless = [one for one in self.run if one.name != "duration"]
        told = (*timeless, *self.args, *self.code, *self.environment, *self.counts)
        tasks = any(_counts(one.a) != _counts(one.b) for one in self.activities)
        found = self.results
        return not (told or tasks or found.differing or found.only_a or found.only_b) and found.compared

    def __repr__(self) -> str:
        return f"<{self._described()}>"

    def _repr_html_(self) -> str:
        fields = [{"part": one.part, "name": one.name, "A": one.a, "B": one.b} for one in self._differences()]
        activities = [
            {"part": "activity", "name": one.activity_id, "A": _figures(one.a), "B": _figures(one.b)}
            for one in self.activities
        ]
        tables = notebook.first_rows(_COLUMNS, [*fields, *activities], self._described())
        results = [{name: getattr(one, name) for name in _RESULT_COLUMNS} for one in self.results.examples]
        if not results:
            return tables
        differing = self.results.differing
        more = f", the first {len(results)} of {differing:,}" if differing > len(results) else ""
        return tables + notebook.table(_RESULT_COLUMNS, results, f"Results{more}")

    def _differences(self) -> tuple[Difference, ...]:
        return (*self.run, *self.args, *self.code, *self.environment, *self.counts)

    def _described(self) -> str:
        runs = f"Comparison of {notebook.short(self.a)} and {notebook.short(self.b)}"
        if self.same:
            return f"{runs}: nothing differs but times"
        found = self.results
        results = f"{found.differing:,} of {found.matched:,}" if found.compared else "not compared"
        counts = (
            f"fields {len(self._differences()):,}, activities {len(self.activities):,}, results {results}"
        )
        return f"{runs}: differing {counts}"


def compare_runs(
    store: Store,
    a: str,
    b: str,
    *,
    lost_after_s: float = LOST_AFTER_S,
    tasks_max: int = TASKS_MAX,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Comparison:
    """Compare two runs, by their whole ids."""
    first = summarise_run(store, a, lost_after_s=lost_after_s)
    second = summarise_run(store, b, lost_after_s=lost_after_s)
    parts = {part: _part(part, first.workflow, second.workflow) for part in _PARTS}
    total = sum(first.run.tasks.values()) + sum(second.run.tasks.values())
    return Comparison(
        a=a,
        b=b,
        run=_run_differences(first, second),
        args=parts["args"],
        code=parts["code"],
        environment=parts["environment"],
        counts=tuple(_differences("counts", first.run.counts, second.run.counts)),
        activities=_activities(first, second),
        results=_Matching(store, tasks_max, total, progress).results(a, b),
    )


def _run_differences(first: RunSummary, second: RunSummary) -> tuple[Difference, ...]:
    one = {name: first.workflow[name] for name in _FIELDS if name in first.workflow}
    other = {name: second.workflow[name] for name in _FIELDS if name in second.workflow}
    one |= {"status": first.run.status, "duration": first.run.duration, "producers": first.run.producers}
    other |= {"status": second.run.status, "duration": second.run.duration, "producers": second.run.producers}
    one["verdict"], other["verdict"] = first.complete, second.complete
    return tuple(_differences("run", one, other))


def _part(part: str, first: Record, second: Record) -> tuple[Difference, ...]:
    return tuple(_differences(part, _fields(first.get(part)), _fields(second.get(part))))


def _fields(value: Any) -> Mapping[Any, Any]:
    """A part of a record field by field; what has no fields stands for itself, without a name."""
    if isinstance(value, dict):
        return value
    return {} if value is None else {"": value}


def _differences(part: str, one: Mapping[Any, Any], other: Mapping[Any, Any]) -> Iterator[Difference]:
    for name in dict.fromkeys((*one, *other)):
        a, b = one.get(name, _ABSENT), other.get(name, _ABSENT)
        if _same(a, b):
            continue
        if isinstance(a, dict) and isinstance(b, dict):
            for inner in _differences(part, a, b):
                yield Difference(part, f"{name}.{inner.name}", inner.a, inner.b)
        else:
            yield Difference(part, str(name), None if a is _ABSENT else a, None if b is _ABSENT else b)


def _same(a: Any, b: Any) -> bool:
    """Equal as they are recorded: no number equals another type's, and NaN equals NaN."""
    if a is _ABSENT or b is _ABSENT:
        return a is b
    return _text(a) == _text(b)


def _activities(first: RunSummary, second: RunSummary) -> tuple[ActivityDifference, ...]:
    one = {activity.activity_id: activity for activity in first.activities}
    other = {activity.activity_id: activity for activity in second.activities}
    found = (ActivityDifference(name, one.get(name), other.get(name)) for name in sorted({*one, *other}))
    return tuple(
        pair for pair in found
        if _counts(pair.a) != _counts(pair.b) or _durations(pair.a) != _durations(pair.b)
    )  # fmt: skip


def _counts(activity: ActivitySummary | None) -> dict[str, int]:
    return dict(activity.tasks) if activity is not None else {}


def _figures(activity: ActivitySummary | None) -> Record | None:
    """An activity in a notebook's cell."""
    if activity is None:
        return None
    stats = activity.durations
    return {**activity.tasks, **({} if stats is None else {"median": stats.median, "max": stats.max})}


def _durations(activity: ActivitySummary | None) -> tuple[float, float] | None:
    found = activity.durations if activity is not None else None
    return None if found is None else (found.median, found.p95)


class _Matching:
    """Matches the tasks of two runs."""

    def __init__(
        self, store: Store, tasks_max: int, total: int, progress: Callable[[int, int], None]
    ) -> None:
        self._store = store
        self._tasks_max = tasks_max
        self._total = total
        self._progress = progress
        self._read = 0

    def results(self, a: str, b: str) -> Results:
        if any(self._store.count(names.TASKS, {"workflow_id": one}) > self._tasks_max for one in (a, b)):
            return Results(compared=False)
        known: dict[bytes, dict[bytes, list[str]]] = {}
        for inputs, outcome, task_id in self._tasks(a):
            known.setdefault(inputs, {}).setdefault(outcome, []).append(task_id)
        matched = 0
        left: dict[bytes, list[str]] = {}
        for inputs, outcome, task_id in self._tasks(b):
            equal = known.get(inputs, {}).get(outcome)
            if equal:
                equal.pop()
                matched += 1
            else:
                left.setdefault(inputs, []).append(task_id)
        differing = only_b = 0
        only_a = sum(len(ids) for outcomes in known.values() for ids in outcomes.values())
        pairs: list[tuple[str, str]] = []
        for inputs, ids in left.items():
            others = [task_id for some in known.get(inputs, {}).values() for task_id in some]
            paired = min(len(ids), len(others))
            differing += paired
            only_a -= paired
            only_b += len(ids) - paired
            pairs += zip(others[: EXAMPLES - len(pairs)], ids)
        examples = tuple(self._examples(pairs[:EXAMPLES]))
        return Results(True, matched + differing, differing, only_a, only_b, examples)

    def _tasks(self, workflow_id: str) -> Iterator[tuple[bytes, bytes, str]]:
        """Of each task digests of inputs and outcome, and its id."""
        for task in self._store.find(names.TASKS, {"workflow_id": workflow_id}, fields=_TASK_FIELDS):
            self._read += 1
            self._progress(self._read, self._total)
            inputs = _digest([task.get("activity_id"), task.get("used")])
            yield inputs, _digest([task.get("status"), task.get("generated")]), task["task_id"]

    def _examples(self, pairs: list[tuple[str, str]]) -> Iterator[ResultDifference]:
        ids = [task_id for pair in pairs for task_id in pair]
        found = self._store.find(names.TASKS, {"_id": {"$in": ids}}, fields=_TASK_FIELDS) if ids else ()
        tasks = {task["task_id"]: task for task in found}
        for one, other in pairs:
            if one in tasks and other in tasks:
                a, b = tasks[one], tasks[other]
                yield ResultDifference(
                    str(a.get("activity_id", "")), a.get("used"), one, other,
                    str(a.get("status", "")), str(b.get("status", "")), a.get("generated"), b.get("generated"),
                )  # fmt: skip


def _digest(value: Any) -> bytes:
    return hashlib.blake2b(_text(value).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _text(value: Any) -> str:
    return values.to_json(_sorted(value))


def _sorted(value: Any) -> Any:
    """The value with its keys in one order: in which order arguments were given is not a difference."""
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value, key=lambda key: (str(type(key)), str(key)))}
    if isinstance(value, (list, tuple)):
        return [_sorted(item) for item in value]
    return value
