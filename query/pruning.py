"""Which runs are old enough to go.

- A run goes when it ended before a moment. One that still runs never does; one that is LOST, or was never begun, only
  when that is asked for: what it left in spools may still come.
- A deletion that was cut off is gone on with first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice

from provd.common import names
from provd.common.record import LOST, Status
from provd.query.runs import LOST_AFTER_S, WORKFLOW_FIELDS, Run, describe_runs
from provd.store.interface import Store

#: What has not ended.
UNENDED = (Status.RUNNING.value, Status.SUBMITTED.value, LOST)

#: Runs described at once.
_PAGE = 200


@dataclass(frozen=True, slots=True)
class Candidates:
    """Runs that go, and those that are old enough and stay because they have not ended."""

    going: tuple[Run, ...]
    staying: tuple[Run, ...]
    #: Runs whose deletion was cut off.
    unfinished: tuple[str, ...]


def find_candidates(
    store: Store,
    before: datetime,
    *,
    campaign_id: str | None = None,
    force: bool = False,
    lost_after_s: float = LOST_AFTER_S,
) -> Candidates:
    """What is to be done, the oldest first; `force` lets those go, too, that are LOST or were never begun."""
    unfinished = {} if campaign_id is None else {"campaign_id": campaign_id}
    found = store.find(names.TOMBSTONES, {**unfinished, "finished_at": {"$exists": False}})
    cut_off = tuple(sorted(tombstone["workflow_id"] for tombstone in found))
    going: list[Run] = []
    staying: list[Run] = []
    for run in _runs(store, before, campaign_id, lost_after_s):
        if run.workflow_id in cut_off or not _is_over(run, before):
            continue
        goes = run.status not in UNENDED or (force and run.status != Status.RUNNING.value)
        (going if goes else staying).append(run)
    for runs in (going, staying):
        runs.sort(key=lambda run: run.started_at.timestamp() if run.started_at else 0.0)
    return Candidates(tuple(going), tuple(staying), cut_off)


def _is_over(run: Run, before: datetime) -> bool:
    """Whether the last that is known of a run is from before."""
    last = run.ended_at
    if last is None and run.started_at is not None:
        last = run.started_at + timedelta(seconds=run.duration or 0.0)
    return last is not None and last < before


def _runs(store: Store, before: datetime, campaign_id: str | None, lost_after_s: float) -> Iterator[Run]:
    campaign = {} if campaign_id is None else {"campaign_id": campaign_id}
    for begun in ({"$lt": before}, {"$exists": False}):
        found = store.find(names.WORKFLOWS, {**campaign, "started_at": begun}, fields=WORKFLOW_FIELDS)
        while page := list(islice(found, _PAGE)):
            yield from describe_runs(store, page, lost_after_s=lost_after_s)
