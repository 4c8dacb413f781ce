"""Functions of every kind with a capture around them, and nothing else about them changed.

- What the function returns or raises passes through untouched, the same object (G1).
- A coroutine is one task from first step to last.
- A generator is one task from first `next` to exhaustion, close or error; `items` counts what it yielded. While it is
  suspended the caller's task is the current one.
- The wrapper is of the function's own kind: `inspect` sees a coroutine function or generator function as before.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator
from functools import wraps
from typing import Any

from provd.producer.activity import Activity, after_task
from provd.producer.capture import freeze_map
from provd.producer.channel import Channel, TaskEntry
from provd.producer.context import current_task
from provd.producer.outcome import outcome_of

_COROUTINE = 0x80
_GENERATOR = 0x20
_ASYNC_GENERATOR = 0x200


def capture(fn: Callable[..., Any], activity: Activity, *, light: bool) -> Callable[..., Any]:
    """Wrap a function according to its kind."""
    flags = getattr(getattr(fn, "__code__", None), "co_flags", 0)
    if flags & _ASYNC_GENERATOR:
        return _async_generator(fn, activity)
    if flags & _GENERATOR:
        return _generator(fn, activity)
    if flags & _COROUTINE:
        return _coroutine(fn, activity)
    return _light(fn, activity) if light else _function(fn, activity)


def _function(fn: Callable[..., Any], activity: Activity) -> Callable[..., Any]:
    @wraps(fn)
    def captured(*args: Any, **kwargs: Any) -> Any:
        channel, extra = activity.place(kwargs)
        if channel is None:
            return fn(*args, **kwargs)
        entry = activity.begin(channel, args, kwargs, extra)
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
            after_task(channel)
        return result

    return captured


def _coroutine(fn: Callable[..., Any], activity: Activity) -> Callable[..., Any]:
    @wraps(fn)
    async def captured(*args: Any, **kwargs: Any) -> Any:
        channel, extra = activity.place(kwargs)
        if channel is None:
            return await fn(*args, **kwargs)
        entry = activity.begin(channel, args, kwargs, extra)
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
            after_task(channel)
        return result

    return captured


def _light(fn: Callable[..., Any], activity: Activity) -> Callable[..., Any]:
    return _function(fn, activity)


class _Items:
    """The task of one generator: its count, and its turn as the current task while the generator runs."""

    __slots__ = ("activity", "channel", "count", "entry", "previous")

    def __init__(self, activity: Activity, channel: Channel, entry: TaskEntry) -> None:
        self.activity = activity
        self.channel = channel
        self.entry = entry
        self.count = 0
        self.previous: TaskEntry | str | None = None

    def enter(self) -> None:
        """The generator is about to run."""
        self.previous = current_task.get()
        current_task.set(self.entry)

    def leave(self) -> None:
        """It has yielded or ended: set back, not reset, because it may end in another context than it began in."""
        current_task.set(self.previous)

    def end(self, returned: Any) -> None:
        """It has ended by itself, or was closed."""
        results = {"items": self.count} | ({} if returned is None else {"result": returned})
        self.channel.end(self.entry, freeze_map(results))
        after_task(self.channel)

    def fail(self, error: BaseException) -> None:
        """It has raised."""
        self.entry.generated = freeze_map({"items": self.count})
        self.channel.fail(self.entry, outcome_of(error))
        after_task(self.channel)


def _generator(fn: Callable[..., Any], activity: Activity) -> Callable[..., Any]:
    @wraps(fn)
    def captured(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        channel, extra = activity.place(kwargs)
        if channel is None:
            return (yield from fn(*args, **kwargs))
        items = _Items(activity, channel, activity.begin(channel, args, kwargs, extra))
        generator = fn(*args, **kwargs)
        step, value = generator.send, None
        while True:
            items.enter()
            try:
                item = step(value)
            except StopIteration as stop:
                items.end(stop.value)
                return stop.value
            except BaseException as error:
                items.fail(error)
                raise
            finally:
                items.leave()
            items.count += 1
            try:
                step, value = generator.send, (yield item)
            except GeneratorExit:
                _close(items, generator.close)
                raise
            except BaseException as error:  # noqa: BLE001 - thrown in: the generator's to handle
                step, value = generator.throw, error

    return captured


def _close(items: _Items, close: Callable[[], Any]) -> None:
    items.enter()
    try:
        close()
    except BaseException as error:
        items.fail(error)
        raise
    else:
        items.end(None)
    finally:
        items.leave()


def _async_generator(fn: Callable[..., Any], activity: Activity) -> Callable[..., Any]:
    @wraps(fn)
    async def captured(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        channel, extra = activity.place(kwargs)
        generator = fn(*args, **kwargs)
        items = (
            _Items(activity, channel, activity.begin(channel, args, kwargs, extra))
            if channel is not None
            else None
        )
        step, value = generator.asend, None
        while True:
            if items is not None:
                items.enter()
            try:
                item = await step(value)
            except StopAsyncIteration:
                if items is not None:
                    items.end(None)
                return
            except BaseException as error:
                if items is not None:
                    items.fail(error)
                raise
            finally:
                if items is not None:
                    items.leave()
            if items is not None:
                items.count += 1
            try:
                step, value = generator.asend, (yield item)
            except GeneratorExit:
                await generator.aclose()
                if items is not None:
                    items.end(None)
                raise
            except BaseException as error:  # noqa: BLE001 - thrown in: the generator's to handle
                step, value = generator.athrow, error

    return captured
