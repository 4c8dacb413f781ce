"""The tables of `provd tasks`: a list, and lines that come one after the other."""

from __future__ import annotations

from collections.abc import Sequence

from provd.cli import human, output
from provd.cli.lines import Lines
from provd.cli.output import STATUS_STYLES, Column
from provd.common.record import Record
from provd.query.failure import read_failure

#: What is told below a narrow list, of tasks with which status.
_SECTIONS = {
    "What failed": ("ERROR",),
    "What was cancelled": ("CANCELLED",),
    "What was skipped": ("SKIPPED",),
}

_ENDED_BADLY = ("ERROR", "CANCELLED")


def print_tasks(tasks: Sequence[Record]) -> None:
    """The list; a narrow one leaves out values, and says below how tasks failed."""
    wide = output.width() >= output.WIDE
    columns = [
        Column("task", folds=True),
        Column("activity"),
        Column("status", firm=True, styles=STATUS_STYLES),
        Column(f"started ({human.zone()})" if wide else human.zone(), firm=True),
        Column("took", right=True, firm=True),
        *([Column("used"), Column("generated")] if wide else []),
    ]
    rows = []
    for task, started in zip(tasks, human.moments(task.get("started_at") for task in tasks)):
        row = [
            task["task_id"],
            task.get("activity_id", ""),
            task.get("status", ""),
            started,
            human.duration(task.get("duration")),
        ]
        rows.append(row + ([human.pairs(task.get("used")), _outcome(task)] if wide else []))
    output.print_table(columns, rows)
    if not wide:
        for title, statuses in _SECTIONS.items():
            _print_messages(title, [task for task in tasks if task.get("status") in statuses])


def _print_messages(title: str, tasks: Sequence[Record]) -> None:
    """How tasks failed, a line or two each; those that say the same stand together."""
    alike: dict[str, list[str]] = {}
    for task in tasks:
        failure = read_failure(task)
        if failure is not None:
            alike.setdefault(failure.headline, []).append(task["task_id"])
    if not alike:
        return
    tasks_shown = [task_ids[0] for task_ids in alike.values()]
    room = output.width() - max(len(output.one_line(task_id)) for task_id in tasks_shown) - 2
    messages = [
        output.within(f"{len(task_ids):,} times {message}" if len(task_ids) > 1 else message, room)
        for message, task_ids in alike.items()
    ]
    columns = [Column("task", firm=True), Column("message", folds=True)]
    output.print_table(columns, zip(tasks_shown, messages), title=title)
    if any(shown.endswith("…") for shown in messages):
        output.print_line("cut off here: --json has the whole message")


class TaskLines:
    """One line a task, as they come: when the store got it, and what became of it."""

    def __init__(self) -> None:
        self._lines = Lines()

    def show(self, tasks: Sequence[Record]) -> None:
        """Print some more."""
        self._lines.show([_line(task) for task in tasks])


def _line(task: Record) -> list[str]:
    return [
        human.time_of_day(task.get("received_at")),
        str(task.get("status", "")),
        str(task.get("activity_id", "")),
        str(task["task_id"]),
        human.duration(task.get("duration")),
        _outcome(task),
    ]


def _outcome(task: Record) -> str:
    """What the task made, or how it failed."""
    failure = read_failure(task) if task.get("status") in _ENDED_BADLY or not task.get("generated") else None
    return human.pairs(task.get("generated")) if failure is None else human.cell(failure.headline)
