"""New and changed tasks as they come into the store: what `provd tasks --follow` shows.

- Every document that is new, or changed since it was last told, is told; the same state is told once. Two changes
  between two looks are told as one, as the store keeps only the last.
- `received_at` says when a document was written, and is stamped before the write: what carries an older stamp may
  appear after what carries a newer one. So each look reaches back, by as long as a write may take, and what was told
  is remembered for as long.
- A look that fails has told nothing, and the next one makes up for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

from provd.common import clock, names
from provd.common.errors import UsageError
from provd.common.record import LOST, Record
from provd.query.present import Silence
from provd.query.tasks import TaskQuestion, derived, derived_filter, find_tasks
from provd.store.interface import Store

#: A write that takes longer is given up, and stamped anew (`provd.store.mongo`: an answer may take a minute).
REACH = timedelta(seconds=90)

#: Documents fetched by one question.
_AT_ONCE = 500

#: What changes whenever a document does.
_STATE = ("received_at", "producer_id", "seq", "submitted_at", "started_at")


class TaskFollower:
    """Tells tasks as they come. The first look tells the latest."""

    def __init__(self, store: Store, question: TaskQuestion, *, lost_after_s: float) -> None:
        if LOST in question.statuses:
            raise UsageError("nobody writes LOST tasks any more: list them without --follow")
        self._store = store
        self._question = question
        self._lost_after_s = lost_after_s
        #: The newest stamp told, and the states told by task id, for as long as a look reaches back.
        self._newest: datetime | None = None
        self._told: dict[str, tuple[Any, ...]] = {}

    def begin(self, limit: int) -> list[Record]:
        """The latest tasks (`limit` 0: all), the one that started last at the end; the others there are now are not told."""
        newest = self._store.find(
            names.TASKS,
            self._question.to_filter(),
            fields=["received_at"],
            sort=[("received_at", -1)],
            limit=1,
        )
        self._newest = next((task["received_at"] for task in newest), None)
        told = {task["task_id"]: _state(task) for task in self._look()} if self._newest else {}
        latest = find_tasks(self._store, self._question, limit=limit, lost_after_s=self._lost_after_s)
        tasks = list(latest)[::-1]
        # A task that came between the two questions has been told only if it is among these.
        self._told = told | {task["task_id"]: _state(task) for task in tasks}
        return tasks

    def look(self) -> list[Record]:
        """What is new or has changed, in the order in which it was written."""
        known = self._told
        news = [task["task_id"] for task in self._look() if known.get(task["task_id"]) != _state(task)]
        tasks = sorted(self._fetch(news), key=lambda task: (task["received_at"], task["task_id"]))
        self._remember(tasks)
        return list(derived(tasks, Silence(self._store, self._lost_after_s)))

    def _look(self) -> Iterator[Record]:
        wanted = self._wanted()
        floor = self._floor()
        if floor is not None:
            wanted = {"$and": [wanted, {"received_at": {"$gte": floor}}]}
        return self._store.find(names.TASKS, wanted, fields=_STATE)

    def _fetch(self, task_ids: Sequence[str]) -> Iterator[Record]:
        for start in range(0, len(task_ids), _AT_ONCE):
            some = {"$and": [self._wanted(), {"task_id": {"$in": list(task_ids[start : start + _AT_ONCE])}}]}
            yield from self._store.find(names.TASKS, some)

    def _wanted(self) -> dict[str, Any]:
        return dict(derived_filter(self._store, self._question, Silence(self._store, self._lost_after_s)))

    def _floor(self) -> datetime | None:
        """How far back to look. A stamp of the future, by a clock that runs ahead, hides nothing that comes after it."""
        if self._newest is None:
            return None
        return min(self._newest, clock.to_datetime(clock.now_ms())) - REACH

    def _remember(self, tasks: Sequence[Record]) -> None:
        for task in tasks:
            self._told[task["task_id"]] = _state(task)
            self._newest = max(self._newest or task["received_at"], task["received_at"])
        floor = self._floor()
        if floor is not None:
            self._told = {
                task_id: state
                for task_id, state in self._told.items()
                if state[0] is None or state[0] >= floor
            }


def _state(task: Record) -> tuple[Any, ...]:
    return tuple(task.get(field) for field in _STATE)
