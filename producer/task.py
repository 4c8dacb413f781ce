"""Tasks: one execution of an activity, captured by a decorator or stated by hand.

- The arguments are captured as they were when the call began (G6).
- What the function returns or raises passes through untouched, the same object (G1).
- A call costs one branch when there is no workflow.
- A coroutine function is one task from first step to last. Generator functions run unchanged and are not captured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from types import TracebackType
from typing import Any, ParamSpec, TypeVar, overload

from provd.common.record import Kind, Record
from provd.common.wire import Shape
from provd.producer.capture import Frozen, convert, freeze, freeze_map
from provd.producer.channel import Channel, TaskEntry
from provd.producer.context import current_task
from provd.producer.outcome import Outcome, outcome_of
from provd.producer.process import producer
from provd.producer.signature import Signature
from provd.producer.warning import warn_once
from provd.producer.workflow import current_workflow

P = ParamSpec("P")
R = TypeVar("R")

_COROUTINE = 0x80
_GENERATORS = 0x20 | 0x200

#: Result shapes kept per function; a function whose dicts have ever other keys names them in each row.
_SHAPES_MAX = 16


class _Activity:
    """What is recorded of every call of one function."""

    def __init__(self, fn: Callable[..., Any], outputs: str | Sequence[str] | None, fixed: Record) -> None:
        self.signature = Signature(fn)
        self._fixed = tuple(fixed.items())
        self._outputs = (outputs,) if isinstance(outputs, str) else tuple(outputs) if outputs else None
        self._one_output = isinstance(outputs, str)
        self._shapes: dict[tuple[tuple[str, ...] | None, tuple[str, ...] | None], Shape] = {}

    def begin(self, channel: Channel, args: tuple[Any, ...], kwargs: dict[str, Any]) -> TaskEntry:
        used, in_order = self.signature.freeze(args, kwargs)
        return channel.begin(
            self._shape(self.signature.names if in_order else None, None), used, current_task.get()
        )

    def end(self, channel: Channel, entry: TaskEntry, result: Any) -> None:
        names, generated = self._generated(result)
        if names is not None:
            entry.shape = self._shape(entry.shape.used_names, names)
        channel.end(entry, generated)

    def _generated(self, result: Any) -> tuple[tuple[str, ...] | None, Frozen | None]:
        if result is None:
            return None, None
        if self._outputs is not None:
            if self._one_output:
                return self._outputs, freeze((result,))
            if type(result) is tuple and len(result) == len(self._outputs):
                return self._outputs, freeze(result)
        if type(result) is dict:
            names = tuple(result)
            if len(self._shapes) < _SHAPES_MAX and all(type(name) is str for name in names):
                return names, freeze(tuple(result.values()))
            return None, freeze_map(result)
        return ("result",), freeze((result,))

    def _shape(self, used_names: tuple[str, ...] | None, generated_names: tuple[str, ...] | None) -> Shape:
        key = (used_names, generated_names)
        shape = self._shapes.get(key)
        if shape is None:
            shape = self._shapes[key] = Shape(Kind.TASK, self._fixed, used_names, generated_names)
        return shape


@overload
def task(fn: Callable[P, R], /) -> Callable[P, R]: ...
@overload
def task(
    *,
    outputs: str | Sequence[str] | None = None,
    tags: Sequence[str] = (),
    metadata: Mapping[str, Any] | None = None,
    subtype: str | None = None,
) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
def task(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    outputs: str | Sequence[str] | None = None,
    tags: Sequence[str] = (),
    metadata: Mapping[str, Any] | None = None,
    subtype: str | None = None,
) -> Any:
    """Record every call of a function as a task of the current workflow.

    `outputs` names the result, or the parts of a tuple; a dict result names itself; anything else is `result`, and
    `None` is absent. `tags`, `metadata` and `subtype` go into every record.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        fixed = {
            "activity_id": getattr(function, "__name__", None) or type(function).__name__,
            "subtype": subtype,
            "tags": [str(tag) for tag in tags] or None,
            "custom_metadata": convert(dict(metadata)) if metadata else None,
        }
        activity = _Activity(
            function, outputs, {key: value for key, value in fixed.items() if value is not None}
        )
        flags = getattr(getattr(function, "__code__", None), "co_flags", 0)
        if flags & _GENERATORS:
            warn_once(
                "generators", f"{fixed['activity_id']} is a generator function: it runs, and is not captured"
            )
            return function
        return _capture_coroutine(function, activity) if flags & _COROUTINE else _capture(function, activity)

    return decorate if fn is None else decorate(fn)


def _capture(fn: Callable[P, R], activity: _Activity) -> Callable[P, R]:
    @wraps(fn)
    def captured(*args: P.args, **kwargs: P.kwargs) -> R:
        workflow = current_workflow()
        if workflow is None or workflow.channel is None:
            return fn(*args, **kwargs)
        channel = workflow.channel
        entry = activity.begin(channel, args, kwargs)
        token = current_task.set(entry)
        try:
            result = fn(*args, **kwargs)
        except BaseException as error:
            channel.fail(entry, outcome_of(error))
            raise
        else:
            activity.end(channel, entry, result)
        finally:
            current_task.reset(token)
            _after_task(channel)
        return result

    return captured


def _capture_coroutine(fn: Callable[..., Any], activity: _Activity) -> Any:
    @wraps(fn)
    async def captured(*args: Any, **kwargs: Any) -> Any:
        workflow = current_workflow()
        if workflow is None or workflow.channel is None:
            return await fn(*args, **kwargs)
        channel = workflow.channel
        entry = activity.begin(channel, args, kwargs)
        token = current_task.set(entry)
        try:
            result = await fn(*args, **kwargs)
        except BaseException as error:
            channel.fail(entry, outcome_of(error))
            raise
        else:
            activity.end(channel, entry, result)
        finally:
            current_task.reset(token)
            _after_task(channel)
        return result

    return captured


def _after_task(channel: Channel) -> None:
    """Wake a sleeping sender, and help one that cannot keep up."""
    sender = producer().sender
    if sender.asleep:
        sender.wake()
    sender.relieve(channel)


class Task:
    """A task stated by hand: a context manager, or `end` (with or without results), or `send` for a mere event.

    ```python
    with provd.Task("download", used={"url": url}) as t:
        t.generated(bytes=len(data))
    ```
    """

    def __init__(
        self,
        activity_id: str,
        *,
        used: Mapping[str, Any] | None = None,
        subtype: str | None = None,
        tags: Sequence[str] = (),
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        fixed: Record = {"activity_id": str(activity_id)}
        if subtype is not None:
            fixed["subtype"] = str(subtype)
        if tags:
            fixed["tags"] = [str(tag) for tag in tags]
        if metadata:
            fixed["custom_metadata"] = convert(dict(metadata))
        self._generated: dict[str, Any] = {}
        self._token: Any = None
        self._entry: TaskEntry | None = None
        workflow = current_workflow()
        self._channel = workflow.channel if workflow is not None else None
        if self._channel is not None:
            shape = Shape(Kind.TASK, tuple(fixed.items()))
            self._entry = self._channel.begin(shape, freeze_map(used or {}), current_task.get())
            _after_task(self._channel)

    def generated(self, **values: Any) -> None:
        """Add results, by name."""
        self._generated.update(values)

    def end(self, error: BaseException | None = None, **generated: Any) -> None:
        """End the task, with more results or because of `error`. The second time, nothing."""
        self._generated.update(generated)
        self._close(outcome_of(error) if error is not None else None)

    def send(self) -> None:
        """State that this happened, at the moment it was made."""
        if self._entry is not None:
            self._close(None)

    def __enter__(self) -> Task:
        if self._entry is not None:
            self._token = current_task.set(self._entry)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._token is not None:
            current_task.reset(self._token)
            self._token = None
        self.end(error)

    def _close(self, outcome: Outcome | None) -> None:
        entry, self._entry = self._entry, None
        if entry is None or self._channel is None:
            return
        results = freeze_map(self._generated) if self._generated else None
        if outcome is None:
            self._channel.end(entry, results)
        else:
            entry.generated = results
            self._channel.fail(entry, outcome)
        _after_task(self._channel)
