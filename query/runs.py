"""Runs: which there are, and which one a text on the command line means.

A handful of questions answers a whole list: workflows, their producers, their beats and one aggregation of their
tasks, whatever the number of runs listed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from provd.common import names
from provd.common.record import DEGRADED, LOST, Record, Status
from provd.query.counts import Counts, sum_counts
from provd.query.present import Watch, lost_producers, read_present
from provd.query.state import State, derive_state
from provd.store.interface import Filter, Store

#: Settings' default of the same name, for callers that have no settings.
LOST_AFTER_S = 60.0

#: What a run is described from.
WORKFLOW_FIELDS = (
    "workflow_id", "campaign_id", "name", "status", "started_at", "ended_at", "duration", "received_at",
)  # fmt: skip
_PRODUCER_FIELDS = (
    "producer_id", "workflow_id", "campaign_id", "status", "started_at", "closed_at", "rank", "world_size", "counts",
    "received_at",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Run:
    """One line of the list: `tasks` counts by status, `duration` is in seconds (so far, while it runs)."""

    workflow_id: str
    campaign_id: str | None
    name: str | None
    status: str
    started_at: datetime | None
    ended_at: datetime | None
    duration: float | None
    tasks: Mapping[str, int]
    producers: int
    #: It ran then, and no consumer has looked since.
    unknown_since: datetime | None = None
    #: What the program counted (`provd.count`), summed over the producers.
    counts: Counts = field(default_factory=dict)

    def to_document(self) -> Record:
        """The run as JSON has it; absent beats null."""
        document = {
            "workflow_id": self.workflow_id,
            "campaign_id": self.campaign_id,
            "name": self.name,
            "status": self.status,
            "started_at": self.started_at,
            "ended_at": self.ended_at,
            "duration": self.duration,
            "tasks": dict(self.tasks),
            "producers": self.producers,
            "unknown_since": self.unknown_since,
            "counts": dict(self.counts) or None,
        }
        return {key: value for key, value in document.items() if value is not None}


def list_runs(
    store: Store, *, campaign_id: str | None = None, limit: int = 20, lost_after_s: float = LOST_AFTER_S
) -> list[Run]:
    """The latest runs, the one that started last first; `limit` 0 means all.

    A run without an owner is as recent as its youngest producer: its workflow record has no times, and carries the id
    of that producer, which begins with its time of birth.
    """
    wanted: Filter = {"campaign_id": campaign_id} if campaign_id else {}
    owned = store.find(
        names.WORKFLOWS, {**wanted, "started_at": {"$exists": True}}, sort=[("started_at", -1)], limit=limit,
        fields=WORKFLOW_FIELDS,
    )  # fmt: skip
    ownerless = store.find(
        names.WORKFLOWS, {**wanted, "started_at": {"$exists": False}}, sort=[("producer_id", -1)], limit=limit,
        fields=WORKFLOW_FIELDS,
    )  # fmt: skip
    runs = describe_runs(store, [*owned, *ownerless], lost_after_s=lost_after_s)
    runs.sort(key=lambda run: run.started_at.timestamp() if run.started_at else 0.0, reverse=True)
    return runs[:limit] if limit else runs


def read_run(
    store: Store,
    workflow_id: str,
    *,
    lost_after_s: float = LOST_AFTER_S,
    tasks: Mapping[str, int] | None = None,
) -> Run:
    """One run, by its whole id; one whose workflow record has not arrived is described by its producers.

    `tasks` are its tasks by status, where the caller has counted them, the lost ones told.
    """
    found = list(store.find(names.WORKFLOWS, {"_id": workflow_id}, fields=WORKFLOW_FIELDS, limit=1))
    counted = None if tasks is None else {workflow_id: dict(tasks)}
    workflows = found or [{"workflow_id": workflow_id}]
    return describe_runs(store, workflows, lost_after_s=lost_after_s, counted=counted)[0]


def read_children(
    store: Store, workflow_id: str, *, limit: int = 0, lost_after_s: float = LOST_AFTER_S
) -> list[Run]:
    """The runs that a run started, the latest first; `limit` 0 means all."""
    started: Filter = {"parent_workflow_id": workflow_id}
    found = store.find(
        names.WORKFLOWS, started, sort=[("started_at", -1)], limit=limit, fields=WORKFLOW_FIELDS
    )
    return describe_runs(store, list(found), lost_after_s=lost_after_s)


def read_statuses(
    store: Store, workflow_ids: Sequence[str], *, lost_after_s: float = LOST_AFTER_S
) -> dict[str, str]:
    """How these runs read, those of which a record is there; no task is counted, only one that failed looked for."""
    these: Filter = {"_id": {"$in": list(workflow_ids)}}
    workflows = {
        one["workflow_id"]: one for one in store.find(names.WORKFLOWS, these, fields=WORKFLOW_FIELDS)
    }
    asked = [workflows.get(workflow_id, {"workflow_id": workflow_id}) for workflow_id in workflow_ids]
    runs = describe_runs(store, asked, lost_after_s=lost_after_s, counted={})
    return {
        run.workflow_id: DEGRADED
        if run.status == Status.FINISHED.value and _has_failed_tasks(store, run.workflow_id)
        else run.status
        for run in runs
        if run.producers or run.workflow_id in workflows
    }


def _has_failed_tasks(store: Store, workflow_id: str) -> bool:
    failed: Filter = {"workflow_id": workflow_id, "status": Status.ERROR.value}
    return any(True for _ in store.find(names.TASKS, failed, fields=("task_id",), limit=1))


def describe_runs(
    store: Store,
    workflows: Sequence[Record],
    *,
    lost_after_s: float,
    counted: dict[str, dict[str, int]] | None = None,
) -> list[Run]:
    """Merge workflow records with what their producers, beats and tasks say, in the same order.

    `counted` are the tasks of each by status, where the caller has them, the lost ones told.
    """
    if not workflows:
        return []
    of_these: Filter = {"workflow_id": {"$in": [workflow["workflow_id"] for workflow in workflows]}}
    producers: dict[str, list[Record]] = {}
    for producer in store.find(names.PRODUCERS, of_these, fields=_PRODUCER_FIELDS):
        producers.setdefault(producer["workflow_id"], []).append(producer)
    beats: dict[str, dict[str, datetime]] = {}
    for beat in store.find(names.BEATS, of_these, fields=("producer_id", "workflow_id", "beat_at")):
        beats.setdefault(beat["workflow_id"], {})[beat["producer_id"]] = beat["beat_at"]
    tasks = _count_tasks(store, of_these) if counted is None else counted
    present = read_present(store)
    lost = {
        workflow_id: lost_producers(
            {one["producer_id"]: one for one in producers.get(workflow_id, [])},
            beats.get(workflow_id, {}),
            present.watch(workflow_id),
            lost_after_s,
        )
        for workflow_id, counts in tasks.items()
        if Status.RUNNING.value in counts and counted is None
    }
    _tell_lost_tasks(store, tasks, lost)
    return [
        _describe(
            workflow,
            producers.get(workflow["workflow_id"], []),
            tasks.get(workflow["workflow_id"], {}),
            beats.get(workflow["workflow_id"], {}),
            present.watch(workflow["workflow_id"]),
            lost_after_s,
        )
        for workflow in workflows
    ]


def in_rising_rank(counts: Mapping[str, int]) -> dict[str, int]:
    """Counts by status, ordered by the statuses' rank."""
    order = [status.value for status in Status]
    known = {status: counts[status] for status in order if status in counts}
    return known | {status: count for status, count in counts.items() if status not in known}


def _describe(
    workflow: Record,
    producers: Sequence[Record],
    tasks: Mapping[str, int],
    beats: Mapping[str, datetime],
    watch: Watch,
    lost_after_s: float,
) -> Run:
    failed = tasks.get(Status.ERROR.value, 0)
    state: State = derive_state(
        workflow,
        producers,
        beats,
        failed_tasks=failed,
        now=watch.now,
        lost_after_s=lost_after_s,
        watch=watch,
    )
    return Run(
        workflow_id=workflow["workflow_id"],
        campaign_id=workflow.get("campaign_id") or _first(producers, "campaign_id"),
        name=workflow.get("name"),
        status=state.status,
        started_at=state.started_at,
        ended_at=state.ended_at,
        duration=state.duration,
        tasks=in_rising_rank(tasks),
        producers=len(producers),
        unknown_since=state.unknown_since,
        counts=sum_counts(producer.get("counts") for producer in producers),
    )


def _first(records: Iterable[Record], field: str) -> str | None:
    return next((record[field] for record in records if field in record), None)


def _count_tasks(store: Store, of_these: Filter) -> dict[str, dict[str, int]]:
    counts: dict[str, dict[str, int]] = {}
    for (workflow_id, status), count in store.count_by(
        names.TASKS, of_these, ("workflow_id", "status")
    ).items():
        of_this = counts.setdefault(workflow_id, {})
        told = status or Status.SUBMITTED.value
        of_this[told] = of_this.get(told, 0) + count
    return counts


def _tell_lost_tasks(
    store: Store, tasks: Mapping[str, dict[str, int]], lost: Mapping[str, frozenset[str]]
) -> None:
    """Count running tasks of lost producers as LOST; one question, and none where nobody is lost."""
    concerned = sorted(workflow_id for workflow_id, producers in lost.items() if producers)
    if not concerned:
        return
    running: Filter = {"workflow_id": {"$in": concerned}, "status": Status.RUNNING.value}
    found = store.count_by(names.TASKS, running, ("workflow_id", "producer_id"))
    for (workflow_id, producer_id), count in found.items():
        if producer_id in lost[workflow_id]:
            tell_lost(tasks[workflow_id], count)


def tell_lost(counts: MutableMapping[str, int], lost: int) -> None:
    """Count so many of the running tasks as LOST."""
    counts[LOST] = counts.get(LOST, 0) + lost
    counts[Status.RUNNING.value] -= lost
    if counts[Status.RUNNING.value] <= 0:
        del counts[Status.RUNNING.value]
