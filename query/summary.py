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
from provd.query.durations import DurationStats, measured, summarise_durations
from provd.query.present import Silence, read_present
from provd.query.runs import LOST_AFTER_S, Run, in_rising_rank, read_run, tell_lost
from provd.query.state import producer_status
from provd.query.verify import hints, verdict
from provd.store.books import WorkflowBooks, read_books
from provd.store.interface import Store

#: Groups of errors that get an example.
EXAMPLES = 20

NO_MESSAGE = "(no message)"

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
    """Tasks of one activity that failed alike: `message` is the last line of what they said."""

    activity_id: str
    message: str
    count: int
    task_id: str
    traceback: str | None


@dataclass(frozen=True, slots=True)
class RunSummary:
    """One run in detail; `workflow` is its record, empty while that has not arrived."""

    run: Run
    workflow: Record
    producers: tuple[ProducerSummary, ...]
    activities: tuple[ActivitySummary, ...]
    errors: tuple[ErrorGroup, ...]
    complete: bool
    verdict: str
    hints: tuple[str, ...] = ()


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
    return RunSummary(
        run=run,
        workflow=workflow,
        producers=_producers(store, books, lost_after_s),
        activities=activities,
        errors=_errors(store, workflow_id),
        complete=books.complete,
        verdict=verdict(books),
        hints=tuple(hints(books)),
    )


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


def _errors(store: Store, workflow_id: str) -> tuple[ErrorGroup, ...]:
    """Failed tasks by activity and message, the most frequent first; tracebacks are read only for the examples."""
    failed = {"workflow_id": workflow_id, "status": Status.ERROR.value}
    counts: Counter[tuple[str, str]] = Counter()
    examples: dict[tuple[str, str], str] = {}
    for task in store.find(names.TASKS, failed, fields=("task_id", "activity_id", "stderr")):
        group = (task.get("activity_id", ""), _last_line(task.get("stderr")))
        counts[group] += 1
        examples.setdefault(group, task["task_id"])
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    tracebacks = _tracebacks(store, [examples[group] for group, _ in ordered[:EXAMPLES]])
    return tuple(
        ErrorGroup(*group, count=count, task_id=examples[group], traceback=tracebacks.get(examples[group]))
        for group, count in ordered
    )


def _last_line(text: object) -> str:
    lines = text.strip().splitlines() if isinstance(text, str) else []
    return lines[-1].strip() if lines else NO_MESSAGE


def _tracebacks(store: Store, task_ids: Sequence[str]) -> dict[str, str]:
    these = {"_id": {"$in": list(task_ids)}}
    found = store.find(names.TASKS, these, fields=("task_id", "traceback")) if task_ids else ()
    return {task["task_id"]: task["traceback"] for task in found if "traceback" in task}
