"""Tasks by the questions people ask most."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from provd.common import names
from provd.common.errors import UsageError
from provd.common.record import STATUSES, Record
from provd.store.interface import Store


@dataclass(frozen=True, slots=True)
class TaskQuestion:
    """Which tasks: every condition given must hold; several statuses mean any of them."""

    workflow_id: str | None = None
    campaign_id: str | None = None
    activity_id: str | None = None
    statuses: tuple[str, ...] = ()

    def to_filter(self) -> dict[str, Any]:
        """The filter that a store takes."""
        wanted: dict[str, Any] = {}
        for field in ("workflow_id", "campaign_id", "activity_id"):
            value = getattr(self, field)
            if value is not None:
                wanted[field] = value
        if len(self.statuses) == 1:
            wanted["status"] = self.statuses[0]
        elif self.statuses:
            wanted["status"] = {"$in": list(self.statuses)}
        return wanted


def find_tasks(
    store: Store, question: TaskQuestion, *, limit: int = 0, fields: Sequence[str] | None = None
) -> Iterator[Record]:
    """The tasks asked for, the one that started last first; `limit` 0 means all."""
    return store.find(
        names.TASKS,
        question.to_filter(),
        sort=[("started_at", -1), ("task_id", -1)],
        limit=limit,
        fields=fields,
    )


def parse_status(text: str) -> str:
    """A status as people write it, in any case; raises `UsageError` that names the known ones."""
    status = text.strip().upper()
    if status in STATUSES:
        return status
    near = difflib.get_close_matches(status, STATUSES, n=1)
    hint = f"did you mean {near[0]}?" if near else f"one of {', '.join(STATUSES)}"
    raise UsageError(f"unknown task status {text!r}; {hint}")
