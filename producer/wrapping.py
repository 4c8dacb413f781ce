"""Functions of every kind with a capture around them, and nothing else about them changed.

- What the function returns or raises passes through untouched, the same object (G1).
- A coroutine is one task from first step to last; generators are `generators`' business.
- The wrapper is of the function's own kind: `inspect` sees a coroutine function or generator function as before.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

from provd.common import clock
from provd.producer.activity import Activity
from provd.producer.context import current_task, leave_task
from provd.producer.generators import capture_async_generator, capture_generator

_COROUTINE = 0x80
_GENERATOR = 0x20
_ASYNC_GENERATOR = 0x200


def capture(fn: Callable[..., Any], activity: Activity, *, light: bool) -> Callable[..., Any]:
    """Wrap a function according to its kind."""
    flags = getattr(getattr(fn, "__code__", None), "co_flags", 0)
    if flags & _ASYNC_GENERATOR:
        return capture_async_generator(fn, activity)
    if flags & _GENERATOR:
        return capture_generator(fn, activity)
    if flags & _COROUTINE:
        return _coroutine(fn, activity)
    return _light(fn, activity) if light else _function(fn, activity)


def _function(fn: Callable[..., Any], activity: Activity) -> Callable[..., Any]:
    begin, end = activity.begin, activity.end
    enter, leave, is_finalizing = current_task.set, current_task.reset, sys.is_finalizing

    @wraps(fn)
    def captured(*args: Any, **kwargs: Any) -> Any:
        try:
            begun = begin(args, kwargs)
        except Exception:
            if not is_finalizing():
                raise
            begun = None  # called by a finalizer, when the modules have been emptied
        if begun is None:
            return fn(*args, **kwargs)
        channel, entry = begun
        token = enter(entry)
        try:
            result = fn(*args, **kwargs)
        except BaseException as error:
            activity.fail(channel, entry, error)
            raise
        else:
            end(channel, entry, result)
        finally:
            try:
                leave(token)
            except ValueError:
                pass  # whoever switches stacks by hand has ended it in another context than it began in
        return result

    return captured


def _coroutine(fn: Callable[..., Any], activity: Activity) -> Callable[..., Any]:
    @wraps(fn)
    async def captured(*args: Any, **kwargs: Any) -> Any:
        begun = activity.begin(args, kwargs)
        if begun is None:
            return await fn(*args, **kwargs)
        channel, entry = begun
        token = current_task.set(entry)
        try:
            result = await fn(*args, **kwargs)
        except BaseException as error:
            activity.fail(channel, entry, error)
            raise
        else:
            activity.end(channel, entry, result)
        finally:
            leave_task(token)
        return result

    return captured


def _light(fn: Callable[..., Any], activity: Activity) -> Callable[..., Any]:
    is_finalizing = sys.is_finalizing

    @wraps(fn)
    def captured(*args: Any, **kwargs: Any) -> Any:
        try:
            begun = activity.begin_light(args, kwargs)
        except Exception:
            if not is_finalizing():
                raise
            begun = None  # as above
        if begun is None:
            return fn(*args, **kwargs)
        started = clock.monotonic()
        try:
            result = fn(*args, **kwargs)
        except BaseException as error:
            activity.fail_light(begun, clock.monotonic() - started, error)
            raise
        activity.end_light(begun, clock.monotonic() - started, result)
        return result

    return captured
