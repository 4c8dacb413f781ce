"""Generators as tasks: one from first `next` to exhaustion, close or error.

- What is sent, thrown and returned passes through as without the capture.
- `generated` has the count of `items`, and what the generator returned as `result`.
- While a generator is suspended its caller's task is the current one.
- The task begins with the first step: wrong arguments are refused there, as the body of any generator function is run
  there.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator
from functools import wraps
from typing import TYPE_CHECKING, Any

from provd.producer.activity import Activity, after_task
from provd.producer.border import swallow
from provd.producer.capture import freeze_map
from provd.producer.context import current_task
from provd.producer.outcome import outcome_of

if TYPE_CHECKING:
    from provd.producer.channel import Channel
    from provd.producer.entry import TaskEntry


class _Items:
    """The task of one generator: its count, and its turn as the current task while the generator runs."""

    __slots__ = ("_begun", "_count", "_previous")

    def __init__(self, begun: tuple[Channel, TaskEntry] | None) -> None:
        """`begun` is None where nothing is captured: then this does nothing."""
        self._begun = begun
        self._count = 0
        self._previous: TaskEntry | str | None = None

    def enter(self) -> None:
        """The generator is about to run."""
        if self._begun is not None:
            self._previous = current_task.get()
            current_task.set(self._begun[1])

    def leave(self) -> None:
        """It has yielded or ended: set back, not reset, because it may end in another context than it began in."""
        if self._begun is not None:
            current_task.set(self._previous)

    def count(self) -> None:
        """It has yielded an item."""
        self._count += 1

    def end(self, returned: Any = None) -> None:
        """It has ended by itself, or was closed."""
        if self._begun is None:
            return
        channel, entry = self._begun
        try:
            results = {"items": self._count} | ({} if returned is None else {"result": returned})
            channel.end(entry, freeze_map(results, made=True))
            after_task(channel)
        except Exception as error:  # noqa: BLE001 - the border of the traced program
            swallow(error)

    def fail(self, raised: BaseException) -> None:
        """It has raised."""
        if self._begun is None:
            return
        channel, entry = self._begun
        try:
            entry.generated = freeze_map({"items": self._count})
            channel.fail(entry, outcome_of(raised))
            after_task(channel)
        except Exception as error:  # noqa: BLE001 - the border of the traced program
            swallow(error)


def capture_generator(fn: Callable[..., Any], activity: Activity) -> Callable[..., Any]:
    """Wrap a generator function; the wrapper is one too."""

    @wraps(fn)
    def captured(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        begun = activity.begin(args, kwargs)
        if begun is None:
            return (yield from fn(*args, **kwargs))
        items = _Items(begun)
        try:
            generator = fn(*args, **kwargs)
        except BaseException as error:  # Python refuses the arguments
            items.fail(error)
            raise
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
            items.count()
            try:
                step, value = generator.send, (yield item)
            except GeneratorExit:
                _close(items, generator)
                raise
            except BaseException as error:  # noqa: BLE001 - thrown in: the generator's to handle
                step, value = generator.throw, error

    return captured


def _close(items: _Items, generator: Generator[Any, Any, Any]) -> None:
    items.enter()
    try:
        generator.close()
    except BaseException as error:
        items.fail(error)
        raise
    else:
        items.end()
    finally:
        items.leave()


def capture_async_generator(fn: Callable[..., Any], activity: Activity) -> Callable[..., Any]:
    """Wrap an asynchronous generator function; the wrapper is one too."""

    @wraps(fn)
    async def captured(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        items = _Items(activity.begin(args, kwargs))
        try:
            generator = fn(*args, **kwargs)
        except BaseException as error:  # Python refuses the arguments
            items.fail(error)
            raise
        step, value = generator.asend, None
        while True:
            items.enter()
            try:
                item = await step(value)
            except StopAsyncIteration:
                items.end()
                return
            except BaseException as error:
                items.fail(error)
                raise
            finally:
                items.leave()
            items.count()
            try:
                step, value = generator.asend, (yield item)
            except GeneratorExit:
                await _aclose(items, generator)
                raise
            except BaseException as error:  # noqa: BLE001 - thrown in: the generator's to handle
                step, value = generator.athrow, error

    return captured


async def _aclose(items: _Items, generator: AsyncGenerator[Any, Any]) -> None:
    items.enter()
    try:
        await generator.aclose()
    except BaseException as error:
        items.fail(error)
        raise
    else:
        items.end()
    finally:
        items.leave()
