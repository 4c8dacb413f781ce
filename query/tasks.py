"""Tasks by the questions people ask most.

- A running task whose producer has fallen silent is LOST (`provd.query.present`): so it reads, so it is found and
  counted by every condition on the status, and so it is sorted.
- A condition on a value holds only where there is one: a task that has not started was not started since.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from provd.common import names
from provd.common.errors import UsageError
from provd.common.record import LOST, STATUSES, Record, Status
from provd.query.latest import LATEST_FIRST, latest_first
from provd.query.lost_tasks import lost_tasks, tells_lost_apart, with_lost
from provd.query.present import Silence
from provd.query.runs import LOST_AFTER_S
from provd.store.documents import ID_FIELDS
from provd.store.interface import Filter, Sort, Store
from provd.store.ordering import sort_documents
from provd.store.projection import project

_RUNNING = Status.RUNNING.value

#: What tells whether a task is LOST.
_DERIVED_FROM = ("status", "workflow_id", "producer_id")


@dataclass(frozen=True, slots=True)
class TaskQuestion:
    """Which tasks: every condition given must hold; several statuses mean any of them.

    Times are of the start, durations are seconds; `since` belongs to the span, `until` does not.
    """

    workflow_id: str | None = None
    campaign_id: str | None = None
    activity_id: str | None = None
    statuses: tuple[str, ...] = ()
    hostname: str | None = None
    rank: int | None = None
    tags: tuple[str, ...] = ()
    since: datetime | None = None
    until: datetime | None = None
    min_duration: float | None = None
    max_duration: float | None = None
    where: Filter | None = None

    @property
    def stored_statuses(self) -> tuple[str, ...]:
        """The statuses asked for as the store has them: LOST is RUNNING there."""
        return tuple(dict.fromkeys(_RUNNING if status == LOST else status for status in self.statuses))

    @property
    def place(self) -> dict[str, Any]:
        """The conditions that stores have indexes for."""
        fields = ("workflow_id", "campaign_id", "activity_id")
        return {field: getattr(self, field) for field in fields if getattr(self, field) is not None}

    def to_filter(self) -> dict[str, Any]:
        """The filter that a store takes; LOST tasks are among those that run."""
        wanted = self.place
        for field in ("hostname", "rank"):
            if getattr(self, field) is not None:
                wanted[field] = getattr(self, field)
        statuses = self.stored_statuses
        if statuses:
            wanted["status"] = statuses[0] if len(statuses) == 1 else {"$in": list(statuses)}
        if self.tags:
            wanted["tags"] = self.tags[0] if len(self.tags) == 1 else {"$all": list(self.tags)}
        for field, low, high in (
            ("started_at", {"$gte": self.since}, {"$lt": self.until}),
            ("duration", {"$gte": self.min_duration}, {"$lte": self.max_duration}),
        ):
            bounds = {name: bound for name, bound in {**low, **high}.items() if bound is not None}
            if bounds:
                wanted[field] = bounds
        if self.where:
            wanted["$and"] = [dict(self.where)]
        return wanted


def find_tasks(
    store: Store,
    question: TaskQuestion,
    *,
    sort: Sort = LATEST_FIRST,
    fields: Sequence[str] | None = None,
    limit: int = 0,
    lost_after_s: float = LOST_AFTER_S,
) -> Iterator[Record]:
    """The tasks asked for, in order; `limit` 0 means all, `fields` keeps only these and the id."""
    silence = Silence(store, lost_after_s)
    order = [*sort, *([] if any(field == "task_id" for field, _ in sort) else [("task_id", 1)])]
    sorts_here = any(field == "status" for field, _ in sort)
    derives = sorts_here or fields is None or "status" in fields
    wanted = derived_filter(store, question, silence)
    kept = None
    if fields is not None:
        kept = [*fields, *(_DERIVED_FROM if derives else ()), *(field for field, _ in order if sorts_here)]
    if tuple(order) == LATEST_FIRST:
        found = latest_first(store, wanted, fields=kept, limit=limit)
    else:
        found = store.find(
            names.TASKS,
            wanted,
            fields=kept,
            sort=() if sorts_here else order,
            limit=0 if sorts_here else limit,
        )
    tasks = derived(found, silence) if derives else found
    if sorts_here:
        tasks = _sorted(tasks, order, limit)
    if fields is None:
        return tasks
    kept = [*fields, *ID_FIELDS[names.TASKS]]
    return (project(task, kept) for task in tasks)


def share_of(
    store: Store, question: TaskQuestion, percent: float, *, lost_after_s: float = LOST_AFTER_S
) -> int:
    """How many so many of a hundred of these tasks are: at least one."""
    total = store.count(names.TASKS, derived_filter(store, question, Silence(store, lost_after_s)))
    return max(1, math.ceil(total * percent / 100))


def derived_filter(store: Store, question: TaskQuestion, silence: Silence) -> Filter:
    """The filter of stored fields; asks who is lost only where that makes a difference."""
    wanted = question.to_filter()
    some = LOST in question.statuses or _RUNNING in question.statuses
    splits = some and not {LOST, _RUNNING} <= set(question.statuses)
    if not splits and not (question.where and tells_lost_apart(question.where)):
        return wanted
    lost = lost_tasks(store, question.place, silence)
    if question.where:
        wanted["$and"] = [with_lost(question.where, lost)]
    if splits and LOST in question.statuses:
        others = [status for status in question.statuses if status != LOST]
        wanted["$or"] = [lost, *([{"status": {"$in": others}}] if others else [])]
    elif splits:
        wanted["$nor"] = [lost]
    return wanted


def derived(tasks: Iterable[Record], silence: Silence) -> Iterator[Record]:
    """The tasks with their statuses as they read."""
    for task in tasks:
        status = silence.status(task)
        if status:
            task["status"] = status
        yield task


def _sorted(tasks: Iterator[Record], sort: Sort, limit: int) -> Iterator[Record]:
    yield from sort_documents(tasks, sort, limit)


def parse_status(text: str, known: Sequence[str] = (*STATUSES, LOST), what: str = "task") -> str:
    """A status as people write it, in any case; raises `UsageError` that names the known ones."""
    status = text.strip().upper()
    if status in known:
        return status
    near = difflib.get_close_matches(status, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"one of {', '.join(known)}"
    raise UsageError(f"unknown {what} status {text!r}; {hint}")
