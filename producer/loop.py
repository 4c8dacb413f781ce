"""Loops: a task per iteration, said as it ends.

- The iterator that a `for` statement runs over is apart from the `Loop`, so that a variable which holds the loop does
  not keep it: the moment it is dropped is the moment the statement was left (see `leaving`).
- What the program's own iterable raises, and the items themselves, pass through untouched; items are never gathered.
- Between two iterations, while the next item is made, the task outside is the current one.
- An iteration that began before a fork is the parent's to end.
- Without a workflow the iterator is the iterable's own.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Generator, Iterable, Iterator
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from provd.common import clock
from provd.producer import forks
from provd.producer.context import current_task
from provd.producer.outcome import tell
from provd.producer.process import producer
from provd.producer.workflow import current_workflow

if TYPE_CHECKING:
    from provd.producer.iteration import Run
    from provd.producer.task import Task

T = TypeVar("T")

#: Light iterations, and seconds, between two looks at the buffer and at whether the sender sleeps: less than a flush
#: interval, so that none waits longer than it would otherwise.
_TEND_EVERY = 64
_TEND_S = 0.05


class _Recorder:
    """What loops of both kinds have in common."""

    def __init__(
        self,
        items: Any,
        *,
        name: str,
        item: str,
        parent: Task | str | None,
        length: int | None,
        light: bool,
    ) -> None:
        self._items = items
        self.name = str(name)
        self.item = str(item)
        self.light = light
        self.parent: str | None = parent if parent is None or isinstance(parent, str) else parent.task_id
        self._length = length
        self._run: Run | None = None

    def record(self, **values: Any) -> None:
        """Add to what the current iteration has generated, by name; outside of an iteration, nothing."""
        run = self._run
        if run is not None and run.inside:
            run.record(values)

    def __len__(self) -> int:
        """How many iterations there will be; raises `TypeError` where that is not known."""
        return len(self._items) if self._length is None else self._length

    def __bool__(self) -> bool:
        return True

    def _start(self, frame: FrameType) -> Run | None:
        workflow = current_workflow()
        if workflow is None or workflow.channel is None:
            return None
        with forks.loading:  # nothing of it is needed before the first loop of a workflow
            from provd.producer.iteration import Run
            from provd.producer.leaving import settle

        if workflow.channel.withheld:
            settle(workflow.channel)
        return Run(self.name, self.item, self.parent, workflow.channel, frame)

    def _leave(self, error: BaseException | None) -> None:
        run = self._run
        if error is not None:
            tell(error)
            if run is not None:
                run.fail(error)
        elif run is not None and run.channel.withheld:
            from provd.producer.leaving import settle

            settle(run.channel)


class Loop(_Recorder, Generic[T]):
    """A loop over an iterable; see `loop`."""

    def __iter__(self) -> Iterator[T]:
        run = self._start(sys._getframe(1))  # noqa: SLF001 - the only way to know the statement
        items: Iterator[T] = iter(self._items)
        if run is None:
            return items
        return self._light_iterations(run, items) if self.light else self._iterations(run, items)

    def __enter__(self) -> Loop[T]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._leave(error)

    def _iterations(self, run: Run, items: Iterator[T]) -> Generator[T, None, None]:
        before, self._run = self._run, run
        outside, set_task = current_task.get(), current_task.set
        begin, end = run.begin, run.end
        at_close = producer().at_close
        at_close.append(run.abandon)
        index = 0
        entry: Any = None
        try:
            for item in items:
                entry = begin(index, item)
                index += 1
                set_task(entry)
                yield (item, item := None)[0]  # type: ignore[assignment] # holds no item meanwhile
                set_task(outside)
                end(entry)
        except GeneratorExit:
            run.leave(sys._getframe().f_back)  # noqa: SLF001
            raise
        except BaseException as error:
            run.fail(error)
            raise
        finally:
            self._run = before
            if current_task.get() is entry:
                set_task(outside)
            _forget(at_close, run)

    def _light_iterations(self, run: Run, items: Iterator[T]) -> Generator[T, None, None]:
        from provd.producer.activity import after_task  # loaded by now, with the run

        before, self._run = self._run, run
        channel, shape, parent, freeze = run.channel, run.shape, run.parent, run.freeze
        at_close = producer().at_close
        at_close.append(run.abandon)
        wall, monotonic = time.time, clock.monotonic
        index, tend_at = 0, 0.0
        try:
            for item in items:
                used = run.used = freeze((index, item))
                mine = run.producer_id = channel.producer_id
                run.inside = True
                started_at = run.started_at = wall()
                started = run.started = monotonic()
                yield (item, item := None)[0]  # type: ignore[assignment] # holds no item meanwhile
                duration = monotonic() - started
                made, values = shape, None
                if run.recorded is not None:
                    made, values, run.recorded = run.made, run.values, None
                run.inside = False
                if channel.producer_id is mine:
                    channel.note(made, used, values, started_at, duration, parent)
                    if started > tend_at or not index % _TEND_EVERY or type(used) is bytes:
                        after_task(channel)
                        tend_at = started + _TEND_S
                index += 1
        except GeneratorExit:
            run.leave(sys._getframe().f_back)  # noqa: SLF001
            raise
        except BaseException as error:
            run.fail(error)
            raise
        finally:
            self._run = before
            if channel.light:
                after_task(channel)
            _forget(at_close, run)


def _forget(at_close: list[Any], run: Run) -> None:
    try:
        at_close.remove(run.abandon)
    except ValueError:
        pass  # the list of another process, after a fork


@overload
def loop(
    items: int,
    name: str = "loop",
    item: str = "item",
    parent: Task | str | None = None,
    length: int | None = None,
    *,
    light: bool = False,
) -> Loop[int]: ...
@overload
def loop(
    items: Iterable[T],
    name: str = "loop",
    item: str = "item",
    parent: Task | str | None = None,
    length: int | None = None,
    *,
    light: bool = False,
) -> Loop[T]: ...
def loop(
    items: Any,
    name: str = "loop",
    item: str = "item",
    parent: Task | str | None = None,
    length: int | None = None,
    *,
    light: bool = False,
) -> Any:
    """Record every iteration of a `for` statement as a task.

    ```python
    loop = provd.loop(range(3), name="epoch", item="epoch")
    for epoch in loop:
        loop.record(loss=train(epoch))
    ```

    `items` is any iterable, or a number like `range`'s. `parent` is a task or the id of one; by default the current
    task. `length` is for `len` where the iterable does not know. `light` halves the cost: tasks called inside do not
    have the iteration as their parent, and it is said only when it ends. `with provd.loop(...) as loop:` around the
    statement tells which exception ended an iteration even if the program handles it right there.
    """
    return Loop(
        range(items) if isinstance(items, int) else items,
        name=name,
        item=item,
        parent=parent,
        length=length,
        light=light,
    )
