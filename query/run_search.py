"""Runs by what is derived of them: their status as it reads, and when they began.

- What the store knows narrows the search; the rest is read page by page, the latest first, until there is enough.
- Without such a condition it is `provd.query.runs.list_runs`, and asks no more than that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any

from provd.common import names
from provd.common.errors import UsageError
from provd.common.record import DEGRADED, LOST, STATUSES, Record, Status
from provd.query.runs import LOST_AFTER_S, WORKFLOW_FIELDS, Run, describe_runs, list_runs
from provd.query.where import parse_where
from provd.store.interface import Filter, Store

#: Every status that a run may read as.
RUN_STATUSES = (*STATUSES, DEGRADED, LOST)

_JUNCTIONS = ("$and", "$or", "$nor")

_STORED = {LOST: Status.RUNNING.value, DEGRADED: Status.FINISHED.value}

#: Runs described at once: the first page, and the largest.
_PAGE = 50
_PAGE_MAX = 800


@dataclass(frozen=True, slots=True)
class RunQuestion:
    """Which runs: every condition given must hold; several statuses mean any of them. `since` is of the start, `where`
    of the workflow's record as `parse_run_where` gives it.
    """

    campaign_id: str | None = None
    statuses: tuple[str, ...] = ()
    since: datetime | None = None
    where: Filter | None = None

    def takes(self, run: Run) -> bool:
        """Whether a run is one of these."""
        if self.statuses and run.status not in self.statuses:
            return False
        return self.since is None or (run.started_at is not None and run.started_at >= self.since)


def find_runs(
    store: Store, question: RunQuestion, *, limit: int = 20, lost_after_s: float = LOST_AFTER_S
) -> list[Run]:
    """The latest of these runs, the one that started last first; `limit` 0 means all."""
    if not question.statuses and question.since is None and question.where is None:
        return list_runs(store, campaign_id=question.campaign_id, limit=limit, lost_after_s=lost_after_s)
    runs: list[Run] = []
    for where, sort in (_owned(question), _ownerless(question)):
        found = store.find(names.WORKFLOWS, where, sort=[sort], fields=WORKFLOW_FIELDS)
        taken = (run for run in _described(store, found, lost_after_s) if question.takes(run))
        runs.extend(islice(taken, limit) if limit else taken)
    runs.sort(key=lambda run: run.started_at.timestamp() if run.started_at else 0.0, reverse=True)
    return runs[:limit] if limit else runs


def _owned(question: RunQuestion) -> tuple[Filter, tuple[str, int]]:
    wanted = _of_these(question)
    wanted["started_at"] = {"$exists": True} if question.since is None else {"$gte": question.since}
    if question.statuses:
        stored = {_STORED.get(status, status) for status in question.statuses}
        # One whose owner has not spoken has the status of its producers.
        wanted["status"] = {"$in": [*sorted(stored | {Status.SUBMITTED.value}), None]}
    return wanted, ("started_at", -1)


def _ownerless(question: RunQuestion) -> tuple[Filter, tuple[str, int]]:
    """What was last heard of before a moment did not begin after it."""
    wanted = _of_these(question)
    wanted["started_at"] = {"$exists": False}
    if question.since is not None:
        wanted["received_at"] = {"$gte": question.since}
    return wanted, ("producer_id", -1)


def _of_these(question: RunQuestion) -> dict[str, Any]:
    wanted: dict[str, Any] = {"campaign_id": question.campaign_id} if question.campaign_id else {}
    if question.where:
        wanted["$and"] = [dict(question.where)]
    return wanted


def parse_run_where(where: str | Filter) -> Filter:
    """A condition on workflows' records: as `provd.query.where` reads it, or a MongoDB filter.

    Raises `UsageError`, also for a condition on the status: that is derived, and asked for by itself.
    """
    wanted = parse_where(where) if isinstance(where, str) else where
    if _names_status(wanted):
        raise UsageError("the status of a run is derived: ask for it by --status, or status=")
    return wanted


def _names_status(part: Any) -> bool:
    if isinstance(part, Mapping):
        return any(
            key == "status" or (key in _JUNCTIONS and _names_status(value)) for key, value in part.items()
        )
    return isinstance(part, (list, tuple)) and any(map(_names_status, part))


def _described(store: Store, workflows: Iterable[Record], lost_after_s: float) -> Iterator[Run]:
    left = iter(workflows)
    size = _PAGE
    while page := list(islice(left, size)):
        yield from describe_runs(store, page, lost_after_s=lost_after_s)
        size = min(2 * size, _PAGE_MAX)


class RunFollower:
    """Tells runs as they begin, and as their statuses change."""

    def __init__(self, store: Store, question: RunQuestion, *, limit: int, lost_after_s: float) -> None:
        """`limit` latest runs are watched, 0 meaning all."""
        self._store = store
        self._question = question
        self._limit = limit
        self._lost_after_s = lost_after_s
        self._statuses: Mapping[str, str] = {}

    def begin(self) -> list[Run]:
        """The runs now, the latest at the end."""
        self._statuses = {run.workflow_id: run.status for run in self._watched()}
        return find_runs(self._store, self._question, limit=self._limit, lost_after_s=self._lost_after_s)[
            ::-1
        ]

    def look(self) -> list[Run]:
        """Those that are new or have another status, and are asked for."""
        runs = self._watched()
        news = [
            run
            for run in runs
            if self._statuses.get(run.workflow_id) != run.status and self._question.takes(run)
        ]
        self._statuses = {**self._statuses, **{run.workflow_id: run.status for run in runs}}
        return self._those_where(news)[::-1]

    def _those_where(self, runs: list[Run]) -> list[Run]:
        if not self._question.where or not runs:
            return runs
        wanted = {"_id": {"$in": [run.workflow_id for run in runs]}, "$and": [dict(self._question.where)]}
        found = self._store.find(names.WORKFLOWS, wanted, fields=("workflow_id",))
        those = {record["workflow_id"] for record in found}
        return [run for run in runs if run.workflow_id in those]

    def _watched(self) -> list[Run]:
        campaign_id = self._question.campaign_id
        return list_runs(
            self._store, campaign_id=campaign_id, limit=self._limit, lost_after_s=self._lost_after_s
        )
