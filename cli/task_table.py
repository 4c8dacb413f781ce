"""The tables of `provd tasks`: a list, and lines that come one after the other."""

from __future__ import annotations

from collections.abc import Sequence

from provd.cli import human, output
from provd.cli.lines import Lines
from provd.cli.output import STATUS_STYLES, Column
from provd.common.record import Record


def print_tasks(tasks: Sequence[Record]) -> None:
    """The list; a narrow one leaves out values, and names the messages of failed tasks below."""
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
    failed = [task for task in tasks if task.get("stderr")]
    if failed and not wide:
        messages = [[task["task_id"], _outcome(task)] for task in failed]
        output.print_table(
            [Column("task", firm=True), Column("message", folds=True)], messages, title="What failed"
        )


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
    if task.get("stderr") and not task.get("generated"):
        return str(task["stderr"]).strip().splitlines()[-1]
    return human.pairs(task.get("generated"))
