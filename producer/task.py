"""Tasks: one execution of an activity, captured by a decorator or stated by hand.

- The arguments are captured as they were when the call began (G6).
- A call costs one branch when there is no workflow.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from provd.common import clock
from provd.common.ids import task_id
from provd.common.record import STATUSES, Kind, Record, Status
from provd.producer import forks
from provd.producer.border import guarded
from provd.producer.context import current_task, leave_task
from provd.producer.outcome import STDERR_MAX, Outcome, outcome_of, tail_of
from provd.producer.warning import warn_once
from provd.producer.workflow import current_workflow

if TYPE_CHECKING:
    from provd.producer.activity import Capture, Outputs, Telemetry
    from provd.producer.channel import Channel
    from provd.producer.entry import TaskEntry

#: Bytes of a task's `data` that are kept.
DATA_MAX = 1 << 20

P = ParamSpec("P")
R = TypeVar("R")


@overload
def task(fn: Callable[P, R], /) -> Callable[P, R]: ...
@overload
def task(
    *,
    outputs: Outputs | None = None,
    tags: str | Sequence[str] = (),
    metadata: Mapping[str, Any] | None = None,
    subtype: str | None = None,
    capture: Capture | None = None,
    skip: Collection[str] = (),
    agent_id: str | None = None,
    light: bool = False,
    telemetry: Telemetry | None = None,
) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
def task(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    outputs: Outputs | None = None,
    tags: str | Sequence[str] = (),
    metadata: Mapping[str, Any] | None = None,
    subtype: str | None = None,
    capture: Capture | None = None,
    skip: Collection[str] = (),
    agent_id: str | None = None,
    light: bool = False,
    telemetry: Telemetry | None = None,
) -> Any:
    """Record every call of a function as a task of the current workflow.

    Functions, methods, coroutine functions, generator functions and asynchronous ones alike. A call may say where it
    is recorded: `train(0.1, workflow_id="w", campaign_id="c")`, unless the function takes such an argument itself.

    Args:
        fn: The function, when the decorator is used without options.
        outputs: Names the result, or the parts of a tuple, or is a function from the result to what is recorded. A
            dict result names itself; anything else is `result`, and `None` is absent.
        tags: Labels of every record.
        metadata: Goes into every record as `custom_metadata`.
        subtype: What kind of activity it is, such as `training`.
        capture: A function from the bound arguments to what is recorded of them.
        skip: Names of arguments that are not recorded.
        agent_id: The agent that acts, for calls of tools.
        light: The cheapest form: the same facts but for the parent, and no place by call.
        telemetry: What its process uses, at start and end: True, or groups of `cpu`, `memory`, `disk`, `network`,
            `process` and `gpu`. By default as the setting `telemetry` says.
    """
    with forks.loading:
        from provd.producer.activity import Options
        from provd.producer.calls import Calls
        from provd.producer.wrapping import capture as capture_calls

    options = Options(outputs, tags, metadata, subtype, capture, skip, agent_id, light, telemetry)

    def decorate(function: Any) -> Any:
        if isinstance(function, (staticmethod, classmethod)):
            return type(function)(decorate(function.__func__))
        if isinstance(function, type) or not callable(function):
            warn_once("decorated", f"{function!r:.200} is no function: it is as it was, and is not captured")
            return function
        return capture_calls(function, Calls(function, options), light=light)

    return decorate if fn is None else decorate(fn)


class Task:
    """A task stated by hand: a context manager, or `end` (with or without results), or `send` for a mere event.

    ```python
    with provd.Task("download", used={"url": url}) as t:
        t.generated(bytes=len(data))
    ```

    Outside of a workflow it does nothing.
    """

    def __init__(
        self,
        activity_id: str,
        *,
        used: Mapping[str, Any] | None = None,
        subtype: str | None = None,
        tags: str | Sequence[str] = (),
        metadata: Mapping[str, Any] | None = None,
        agent_id: str | None = None,
        group_id: str | None = None,
        parent: Task | str | None = None,
        depends_on: Task | str | Iterable[Task | str | None] | None = (),
        submitted_at: int | None = None,
        started_at: int | None = None,
        telemetry: Telemetry | None = None,
    ) -> None:
        """Begin a task.

        `submitted_at` and `started_at` are UTC milliseconds, for what began earlier or elsewhere; `parent` is a task
        or its id, instead of the current one; `depends_on` are tasks that this one builds on. `telemetry` is that of `provd.task`; of what began earlier there is
        none.
        """
        self._generated: dict[str, Any] = {}
        self._extra: Record = {}
        self._token: Any = None
        self._entry: TaskEntry | None = None
        self._channel: Channel | None = None
        #: The task's id; None outside of a workflow.
        self.task_id: str | None = None
        with guarded:
            activity, values, _ = _machinery()
            fixed = {
                "activity_id": activity_id,
                "subtype": subtype,
                "agent_id": agent_id,
                "group_id": group_id,
            }
            stated: Record = {key: activity.text_or_none(value) for key, value in fixed.items()}
            stated["tags"] = activity.tags_of(tags)
            stated["custom_metadata"] = values.convert(dict(metadata)) if metadata else None
            if submitted_at is not None:
                submitted_at = _instant("submitted_at", submitted_at)
            if submitted_at is not None:
                self._extra["submitted_at"] = submitted_at
            if started_at is not None:
                started_at = _instant("started_at", started_at)
            # Of what began earlier there are no readings.
            groups = activity.groups_asked(telemetry) if started_at is None else ()
            self._begin(stated, used or {}, parent, groups, started_at)
            if depends_on:
                self._note_dependencies(depends_on)

    def _note_dependencies(self, tasks: Task | str | Iterable[Task | str | None]) -> None:
        if self._entry is not None:
            from provd.producer.dependencies import ids_of, note_dependencies

            note_dependencies(self._entry, ids_of(tasks))

    def _begin(
        self,
        stated: Record,
        used: Mapping[str, Any],
        parent: Task | str | None,
        groups: tuple[str, ...] | None,
        started_at: int | None,
    ) -> None:
        workflow = current_workflow()
        channel = workflow.channel if workflow is not None else None
        if channel is None:
            return
        activity, values, wire = _machinery()
        shape = wire.Shape(
            Kind.TASK, tuple((key, value) for key, value in stated.items() if value is not None)
        )
        above = parent.task_id if isinstance(parent, Task) else parent or current_task.get()
        asked = channel.telemetry if groups is None else groups
        reading = activity.start_reading(asked) if asked else None
        entry = channel.begin(shape, values.freeze_map(used), above)
        entry.reading = reading
        if started_at is not None:
            entry.started_at = started_at / 1000
        self._channel, self._entry = channel, entry
        self.task_id = task_id(entry.producer_id, entry.counter)
        activity.after_task(channel)

    def generated(self, **values: Any) -> None:
        """Add results, by name."""
        self._generated.update(values)

    def end(
        self,
        error: BaseException | None = None,
        *,
        status: Status | str | None = None,
        ended_at: int | None = None,
        stdout: str | None = None,
        stderr: str | None = None,
        data: bytes | None = None,
        **generated: Any,
    ) -> None:
        """End the task, with more results or because of `error`. The second time, nothing.

        `status` is by default what `error` or `stderr` say; `ended_at` is in UTC milliseconds. `data` is kept as
        bytes with its SHA-256, up to a megabyte; of more, size and checksum are kept.
        """
        entry, self._entry = self._entry, None
        if entry is None or self._channel is None:
            return
        with guarded:
            activity, values, _ = _machinery()
            self._generated.update(generated)
            extra = self._extra | _outcome(error, status, stderr).fields()
            if stdout is not None:
                extra["stdout"] = tail_of(str(stdout), STDERR_MAX)
            if data is not None:
                extra["data"] = _data(data)
            duration = None if ended_at is None else (ended_at - round(entry.started_at * 1000)) / 1000
            results = values.freeze_map(self._generated, made=True) if self._generated else None
            self._channel.state(entry, extra, results, duration)
            activity.after_task(self._channel)

    def send(self) -> None:
        """State that this happened, at the moment it was made."""
        if self._entry is not None:
            self.end(ended_at=round(self._entry.started_at * 1000))

    def __enter__(self) -> Task:
        if self._entry is not None:
            self._token = current_task.set(self._entry)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._token is not None:
            leave_task(self._token)
            self._token = None
        self.end(error)


#: What tasks by hand are made with: `activity`, `capture` and `wire`. Kept, because a finalizer that ends a task may run
#: when nothing can be imported any more.
_loaded: tuple[ModuleType, ModuleType, ModuleType] | None = None


def _machinery() -> tuple[ModuleType, ModuleType, ModuleType]:
    global _loaded
    if _loaded is None:
        with forks.loading:
            from provd.common import wire
            from provd.producer import activity, capture

        _loaded = activity, capture, wire
    return _loaded


def _instant(name: str, value: float) -> int | None:
    """UTC milliseconds that were given; None, and told, where they are no time that a record can hold."""
    try:
        clock.to_datetime(int(value))
    except (ValueError, TypeError, OverflowError):
        warn_once(f"task {name}", f"{name} is {str(value)[:40]}, not UTC milliseconds: it is left out")
        return None
    return int(value)


def _outcome(error: BaseException | None, status: Status | str | None, stderr: str | None) -> Outcome:
    found = outcome_of(error)
    text = found.stderr if stderr is None else tail_of(str(stderr), STDERR_MAX)
    wanted = found.status if stderr is None or error is not None else Status.ERROR
    if status is not None:
        try:
            wanted = Status(status)
        except ValueError:
            warn_once("status", f"{status!r} is no status: use one of {', '.join(STATUSES)}")
    return Outcome(wanted, text, found.traceback)


def _data(data: bytes) -> Record:
    """Binary data as a record has it."""
    import hashlib

    facts: Record = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    return facts | ({"bytes": bytes(data)} if len(data) <= DATA_MAX else {})
