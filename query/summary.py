"""Everything `provd runs show` shows of one run."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from provd.common import names
from provd.common.record import ENDED, Record, Status
from provd.query import notebook
from provd.query.durations import DurationStats, measured, summarise_durations
from provd.query.failure import read_failure
from provd.query.failure_groups import FailureGroups
from provd.query.present import Silence, read_present
from provd.query.runs import LOST_AFTER_S, Run, in_rising_rank, read_children, read_run, tell_lost
from provd.query.state import producer_status
from provd.query.verify import hints, verdict
from provd.store.books import WorkflowBooks, read_books
from provd.store.interface import Store

#: Groups of errors that get an example.
EXAMPLES = 20

#: Runs that a run started that are described: the tasks of each are counted.
CHILDREN = 100

#: Columns in a notebook.
_FIGURES = ("mean", "median", "p95", "max")
_ERROR_COLUMNS = ("activity_id", "message", "count", "task_id")

#: Told how many tasks have been looked at, and of about how many.
Progress: TypeAlias = Callable[[int, int], None]


def _silently(done: int, total: int) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True)
class ProducerSummary:
    """One producer's part; `messages` is how many it is known to have made, `tasks` how many are stored."""

    producer_id: str
    hostname: str | None
    pid: int | None
    rank: int | None
    status: str
    messages: int
    tasks: int
    started_at: datetime | None
    closed_at: datetime | None


@dataclass(frozen=True, slots=True)
class ActivitySummary:
    """One activity: tasks by status, and how long the ended ones took."""

    activity_id: str
    tasks: Mapping[str, int]
    durations: DurationStats | None


@dataclass(frozen=True, slots=True)
class ErrorGroup:
    """Tasks of one activity that failed alike, with the first of them as the example.

    `message` is its exception on one line. Where they are known: `exception` is the type, `frame` where it was raised,
    and `traceback` is there for the most frequent groups.
    """

    activity_id: str
    message: str
    count: int
    task_id: str
    traceback: str | None
    exception: str | None = None
    frame: str | None = None


@dataclass(frozen=True, slots=True, repr=False)
class RunSummary:
    """One run in detail; `workflow` is its record, empty while that has not arrived.

    `other_errors` counts the failed tasks that are in none of `errors`, which has a ceiling.
    """

    run: Run
    workflow: Record
    producers: tuple[ProducerSummary, ...]
    activities: tuple[ActivitySummary, ...]
    errors: tuple[ErrorGroup, ...]
    complete: bool
    verdict: str
    hints: tuple[str, ...] = ()
    other_errors: int = 0
    #: The runs that it started, the latest, and how many more there are.
    children: tuple[Run, ...] = ()
    more_children: int = 0

    def __repr__(self) -> str:
        run = f"{notebook.short(self.run.workflow_id)}: {self.run.status}"
        errors = notebook.many(self.errors, "kind") + " of error"
        return f"<Summary of {run}; {errors}; {notebook.short(self.verdict)}>"

    def _repr_html_(self) -> str:
        facts = {**self.run.to_document(), "books": self.verdict}
        activities = [
            {"activity_id": one.activity_id, "tasks": one.tasks,
             **{name: getattr(one.durations, name, None) for name in _FIGURES}}
            for one in self.activities
        ]  # fmt: skip
        errors = [{name: getattr(one, name) for name in _ERROR_COLUMNS} for one in self.errors]
        tables = [notebook.facts(facts.items(), f"Run {self.run.workflow_id}")]
        tables += [notebook.first_rows(("activity_id", "tasks", *_FIGURES), activities, "Activities")]
        tables += [notebook.first_rows(_ERROR_COLUMNS, errors, "Errors")] if errors else []
        return "".join(tables)


def summarise_run(
    store: Store,
    workflow_id: str,
    *,
    lost_after_s: float = LOST_AFTER_S,
    progress: Progress = _silently,
) -> RunSummary:
    """Read everything about one run, by its whole id."""
    books = read_books(store, workflow_id)
    activities = _activities(store, books, Silence(store, lost_after_s), progress)
    tasks: Counter[str] = Counter()
    for activity in activities:
        tasks.update(activity.tasks)
    run = read_run(store, workflow_id, lost_after_s=lost_after_s, tasks=tasks)
    workflow = next(iter(store.find(names.WORKFLOWS, {"_id": workflow_id}, limit=1)), {})
    errors, other_errors = _errors(store, workflow_id)
    children = read_children(store, workflow_id, limit=CHILDREN, lost_after_s=lost_after_s)
    return RunSummary(
        run=run,
        workflow=workflow,
        producers=_producers(store, books, lost_after_s),
        activities=activities,
        errors=errors,
        complete=books.complete,
        verdict=verdict(books),
        hints=tuple(hints(books)),
        other_errors=other_errors,
        children=tuple(children),
        more_children=_more_children(store, workflow_id, len(children)),
    )


def _more_children(store: Store, workflow_id: str, described: int) -> int:
    if described < CHILDREN:
        return 0
    return store.count(names.WORKFLOWS, {"parent_workflow_id": workflow_id}) - described


def _producers(store: Store, books: WorkflowBooks, lost_after_s: float) -> tuple[ProducerSummary, ...]:
    of_this = {"workflow_id": books.workflow_id}
    records = {record["producer_id"]: record for record in store.find(names.PRODUCERS, of_this)}
    beats = {beat["producer_id"]: beat["beat_at"] for beat in store.find(names.BEATS, of_this)}
    watch = read_present(store).watch(books.workflow_id)
    summaries = []
    for part in books.producers:
        record = records.get(part.producer_id, {})
        beat_at = beats.get(part.producer_id)
        summaries.append(
            ProducerSummary(
                producer_id=part.producer_id,
                hostname=record.get("hostname"),
                pid=record.get("pid"),
                rank=record.get("rank"),
                status=producer_status(
                    record, beat_at, now=watch.now, lost_after_s=lost_after_s, watch=watch
                ),
                messages=part.produced,
                tasks=part.tasks_stored,
                started_at=record.get("started_at"),
                closed_at=record.get("closed_at"),
            )
        )
    return tuple(summaries)


def _activities(
    store: Store, books: WorkflowBooks, silence: Silence, progress: Progress
) -> tuple[ActivitySummary, ...]:
    """Counts and exact quantiles from one pass over an index; what was never stored is not waited for."""
    counts: dict[str, Counter[str]] = {}
    durations: dict[str, array[float]] = {}
    expected, read = books.total("stored"), 0
    for piece in store.task_times(books.workflow_id, expected=expected):
        activity = piece.activity_id or ""
        status = piece.status or Status.SUBMITTED.value
        counts.setdefault(activity, Counter())[status] += piece.tasks
        if status in ENDED:
            durations.setdefault(activity, array("d")).extend(measured(piece.seconds))
        read += piece.tasks
        progress(read, max(read, expected))
    _tell_lost(store, books.workflow_id, counts, silence)
    return tuple(
        ActivitySummary(
            activity,
            in_rising_rank(counts[activity]),
            summarise_durations(durations.pop(activity, array("d"))),
        )
        for activity in sorted(counts)
    )


def _tell_lost(store: Store, workflow_id: str, counts: Mapping[str, Counter[str]], silence: Silence) -> None:
    """Count running tasks of lost producers as LOST; one question, and none where nobody is lost."""
    if not any(Status.RUNNING.value in found for found in counts.values()) or not silence.lost(workflow_id):
        return
    running = {"workflow_id": workflow_id, "status": Status.RUNNING.value}
    found = store.count_by(names.TASKS, running, ("activity_id", "producer_id"))
    for (activity, producer_id), count in found.items():
        of_activity = counts.get(activity or "", Counter())
        if producer_id in silence.lost(workflow_id):  # some may have ended between the two questions
            tell_lost(of_activity, min(count, of_activity[Status.RUNNING.value]))


def _errors(store: Store, workflow_id: str) -> tuple[tuple[ErrorGroup, ...], int]:
    """Failed tasks in groups, the most frequent first, and how many are in none; tracebacks are kept of few."""
    failed = {"workflow_id": workflow_id, "status": Status.ERROR.value}
    groups = FailureGroups()
    for task in store.find(names.TASKS, failed, fields=("task_id", "activity_id", "stderr", "traceback")):
        groups.add(task.get("activity_id", ""), task["task_id"], read_failure(task))
    found = list(groups)
    tracebacks = _tracebacks(store, [group.task_id for group in found[:EXAMPLES]])
    errors = tuple(
        ErrorGroup(
            activity_id=group.activity_id,
            message=group.failure.headline,
            count=group.count,
            task_id=group.task_id,
            traceback=tracebacks.get(group.task_id),
            exception=group.failure.exception,
            frame=group.failure.frame,
        )
        for group in found
    )
    return errors, groups.others


def _tracebacks(store: Store, task_ids: Sequence[str]) -> dict[str, str]:
    these = {"_id": {"$in": list(task_ids)}}
    found = store.find(names.TASKS, these, fields=("task_id", "traceback")) if task_ids else ()
    return {task["task_id"]: task["traceback"] for task in found if "traceback" in task}
