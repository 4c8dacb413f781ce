"""What a task says of other tasks that it builds on, where no value shows it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeAlias

from provd.common.ids import task_id
from provd.producer.border import guarded
from provd.producer.context import current_task

if TYPE_CHECKING:
    from provd.producer.entry import TaskEntry
    from provd.producer.task import Task

#: A task, or its id; None is what both are outside of a workflow.
Named: TypeAlias = "Task | str | None"


def depends_on(*tasks: Named | Iterable[Named]) -> None:
    """Say that the current task builds on these: tasks of `provd.Task`, or ids. Outside of a task it does nothing.

    ```python
    @provd.task
    def merge():
        provd.depends_on(*ids_of_the_parts)
    ```

    A task with `light=True` is not known while it runs: what is said inside of it is its caller's.
    """
    with guarded:
        entry = current_task.get()
        if entry is not None and not isinstance(entry, str):
            note_dependencies(entry, ids_of(tasks))


def current_task_id() -> str | None:
    """The id of the task that this is called in, for `depends_on` elsewhere; None outside of tasks."""
    entry = current_task.get()
    return entry if entry is None or isinstance(entry, str) else task_id(entry.producer_id, entry.counter)


def note_dependencies(entry: TaskEntry, ids: list[str]) -> None:
    """Add to what an open task depends on."""
    if ids:
        extra = entry.extra or {}
        entry.extra = {**extra, "depends_on": list(dict.fromkeys([*extra.get("depends_on", ()), *ids]))}


def ids_of(tasks: Named | Iterable[Named] | Iterable[Named | Iterable[Named]]) -> list[str]:
    """The ids of tasks, however they are given; what is no task of a workflow has none."""
    if isinstance(tasks, str):
        return [tasks]
    named = getattr(tasks, "task_id", None)
    if isinstance(named, str):
        return [named]
    if not isinstance(tasks, Iterable):
        return []
    return [found for one in tasks for found in ids_of(one)]
