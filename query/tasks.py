"""Tasks by the questions people ask most."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from provd.common import names
from provd.common.errors import UsageError
from provd.common.record import LOST, STATUSES, Record, Status
from provd.query.present import Silence
from provd.query.runs import LOST_AFTER_S
from provd.store.interface import Store

_RUNNING = Status.RUNNING.value


@dataclass(frozen=True, slots=True)
class TaskQuestion:
    """Which tasks: every condition given must hold; several statuses mean any of them."""

    workflow_id: str | None = None
    campaign_id: str | None = None
    activity_id: str | None = None
    statuses: tuple[str, ...] = ()

    @property
    def stored_statuses(self) -> tuple[str, ...]:
        """The statuses asked for as the store has them: LOST is RUNNING there."""
        return tuple(dict.fromkeys(_RUNNING if status == LOST else status for status in self.statuses))

    def to_filter(self) -> dict[str, Any]:
        """The filter that a store takes."""
        wanted: dict[str, Any] = {}
        for field in ("workflow_id", "campaign_id", "activity_id"):
            value = getattr(self, field)
            if value is not None:
                wanted[field] = value
        statuses = self.stored_statuses
        if len(statuses) == 1:
            wanted["status"] = statuses[0]
        elif statuses:
            wanted["status"] = {"$in": list(statuses)}
        return wanted


def find_tasks(
    store: Store, question: TaskQuestion, *, limit: int = 0, lost_after_s: float = LOST_AFTER_S
) -> Iterator[Record]:
    """The tasks asked for, the one that started last first; `limit` 0 means all.

    A running task whose producer has fallen silent is LOST (`provd.query.present`): so it reads, and so it is found.
    """
    silence = Silence(store, lost_after_s)
    derives = _RUNNING in question.stored_statuses
    found = store.find(
        names.TASKS,
        question.to_filter(),
        sort=[("started_at", -1), ("task_id", -1)],
        limit=0 if derives else limit,
    )
    tasks = _derived(found, silence, question.statuses)
    return islice(tasks, limit) if limit else tasks


def _derived(found: Iterator[Record], silence: Silence, statuses: Sequence[str]) -> Iterator[Record]:
    for task in found:
        status = silence.status(task)
        if status:
            task["status"] = status
        if not statuses or status in statuses:
            yield task


def parse_status(text: str) -> str:
    """A status as people write it, in any case; raises `UsageError` that names the known ones."""
    status = text.strip().upper()
    known = (*STATUSES, LOST)
    if status in known:
        return status
    near = difflib.get_close_matches(status, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"one of {', '.join(known)}"
    raise UsageError(f"unknown task status {text!r}; {hint}")
