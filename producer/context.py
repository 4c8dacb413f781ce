"""Where the program stands: the current workflow and the current task.

- The workflow is known to the whole process; a workflow started inside another one is known to the context it was
  started in (`contextvars`), and ends there.
- The task is known to its context: asyncio nests by itself, and `wrap` carries it into threads and executors.
- Other processes learn of both by environment: `PROVD_WORKFLOW_ID`, `PROVD_CAMPAIGN_ID`, `PROVD_PARENT_TASK_ID`.
"""

from __future__ import annotations

import contextvars
import os
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from provd.producer.entry import TaskEntry
    from provd.producer.workflow import Workflow

P = ParamSpec("P")
R = TypeVar("R")

PARENT_TASK_VARIABLE = "PROVD_PARENT_TASK_ID"


class Here:
    """Where the whole process stands."""

    __slots__ = ("is_known", "workflow")

    def __init__(self) -> None:
        #: The workflow that every thread works in, unless its context has one of its own.
        self.workflow: Workflow | None = None
        #: Whether the environment has been asked for a workflow to join; once per process is enough.
        self.is_known = False


here = Here()

#: The innermost workflow of this context; that of `here` where there is none.
context_workflow: contextvars.ContextVar[Workflow | None] = contextvars.ContextVar(
    "provd_workflow", default=None
)

#: The task this context runs in: one of this process, or the id of one elsewhere.
current_task: contextvars.ContextVar[TaskEntry | str | None] = contextvars.ContextVar(
    "provd_task", default=os.environ.get(PARENT_TASK_VARIABLE) or None
)


def leave_task(token: contextvars.Token[TaskEntry | str | None]) -> None:
    """Make the task from before `token` the current one again."""
    try:
        current_task.reset(token)
    except ValueError:
        pass  # a coroutine that is closed in another context than it ran in; that one has no task of ours to leave


def wrap(fn: Callable[P, R]) -> Callable[P, R]:
    """Carry the current workflow and task into `fn`, wherever it is called.

    ```python
    executor.submit(provd.wrap(train), 0.1)     # tasks inside have the submitting task as parent
    ```
    """
    workflow, task = context_workflow.get(), current_task.get()

    @wraps(fn)
    def carried(*args: P.args, **kwargs: P.kwargs) -> R:
        workflow_token = context_workflow.set(workflow)
        task_token = current_task.set(task)
        try:
            return fn(*args, **kwargs)
        finally:
            current_task.reset(task_token)
            context_workflow.reset(workflow_token)

    return carried
