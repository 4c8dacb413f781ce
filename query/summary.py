"""Everything `provd runs show` shows of one run."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from provd.common import names
from provd.common.record import ENDED, Record, Status
from provd.query.durations import DurationStats, summarise_durations
from provd.query.present import Silence, read_present
from provd.query.runs import LOST_AFTER_S, Run, in_rising_rank, read_run
from provd.query.state import producer_status
from provd.query.verify import hints, verdict
from provd.store.books import WorkflowBooks, read_books
from provd.store.interface import Store

#: Groups of errors that get an example.
EXAMPLES = 20

NO_MESSAGE = "(no message)"


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


def summarise_run(store: Store, workflow_id: str, *, lost_after_s: float = LOST_AFTER_S) -> RunSummary:
    """Read everything about one run, by its whole id."""
    run = read_run(store, workflow_id, lost_after_s=lost_after_s)
    workflow = next(iter(store.find(names.WORKFLOWS, {"workflow_id": workflow_id}, limit=1)), {})
    books = read_books(store, workflow_id)
    return RunSummary(
        run=run,
        workflow=workflow,
        producers=_producers(store, books, lost_after_s),
        activities=_activities(store, workflow_id, Silence(store, lost_after_s)),
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


def _activities(store: Store, workflow_id: str, silence: Silence) -> tuple[ActivitySummary, ...]:
    """One pass over three fields: quantiles are asked of no store, as the two would not answer alike."""
    counts: dict[str, Counter[str]] = {}
    durations: dict[str, array[float]] = {}
    fields = ("workflow_id", "producer_id", "activity_id", "status", "duration")
    for task in store.find(names.TASKS, {"workflow_id": workflow_id}, fields=fields):
        activity = task.get("activity_id", "")
        status = silence.status(task) or Status.SUBMITTED.value
        counts.setdefault(activity, Counter())[status] += 1
        duration = task.get("duration")
        if status in ENDED and isinstance(duration, (int, float)):
            durations.setdefault(activity, array("d")).append(duration)
    return tuple(
        ActivitySummary(
            activity,
            in_rising_rank(counts[activity]),
            summarise_durations(durations.get(activity, array("d"))),
        )
        for activity in sorted(counts)
    )


def _errors(store: Store, workflow_id: str) -> tuple[ErrorGroup, ...]:
    """Failed tasks by activity and message, the most frequent first; tracebacks are read only for the examples."""
    failed = {"workflow_id": workflow_id, "status": Status.ERROR.value}
    counts: Counter[tuple[str, str]] = Counter()
    examples: dict[tuple[str, str], str] = {}
    for task in store.find(names.TASKS, failed, fields=("task_id", "activity_id", "stderr")):
        group = (task.get("activity_id", ""), _last_line(task.get("stderr")))
        counts[group] += 1
        examples.setdefault(group, task["task_id"])
    groups = []
    for place, (group, count) in enumerate(sorted(counts.items(), key=lambda item: (-item[1], item[0]))):
        task_id = examples[group]
        traceback = _traceback(store, workflow_id, task_id) if place < EXAMPLES else None
        groups.append(ErrorGroup(*group, count=count, task_id=task_id, traceback=traceback))
    return tuple(groups)


def _last_line(text: object) -> str:
    lines = text.strip().splitlines() if isinstance(text, str) else []
    return lines[-1].strip() if lines else NO_MESSAGE


def _traceback(store: Store, workflow_id: str, task_id: str) -> str | None:
    this = {"workflow_id": workflow_id, "task_id": task_id}
    task = next(iter(store.find(names.TASKS, this, fields=("traceback",), limit=1)), {})
    return task.get("traceback")
