"""Which runs are old enough to go.

- A run goes when the last that is known of it, and of every producer of it, is from before a moment. One that still runs
  never does, nor one whose owner has ended while a producer of it works on; one that is LOST, or was never begun, goes
  only when that is asked for: what it left in spools may still come.
- Of a campaign go the runs that are its alone: not one in which another campaign has tasks.
- A deletion that was cut off is gone on with first.
- What was found is looked at once more before it goes (`still_goes`): somebody may have been asked in between.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import islice

from provd.common import names
from provd.common.record import LOST, Record, Status
from provd.query.present import Watch, read_present
from provd.query.runs import LOST_AFTER_S, WORKFLOW_FIELDS, Run, describe_runs
from provd.query.state import producer_status
from provd.store.interface import Filter, Store
from provd.store.tombstones import find_tombstone

#: What has not ended.
UNENDED = (Status.RUNNING.value, Status.SUBMITTED.value, LOST)

#: Runs described at once.
_PAGE = 200

_PRODUCER_FIELDS = (
    "producer_id", "workflow_id", "campaign_id", "campaigns", "status", "started_at", "closed_at", "received_at",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Age:
    """Which runs are meant: what is before a moment, of a campaign or of all; `force` lets those go, too, that are LOST
    or were never begun.
    """

    before: datetime
    campaign_id: str | None = None
    force: bool = False
    lost_after_s: float = LOST_AFTER_S


@dataclass(frozen=True, slots=True)
class Candidates:
    """Runs that go, and those that are old enough and stay: because they have not ended, or are another campaign's, too."""

    going: tuple[Run, ...]
    staying: tuple[Run, ...]
    shared: tuple[Run, ...]
    #: Runs whose deletion was cut off.
    unfinished: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Life:
    """What a run's producers say: whether one works on, when the last was heard of, and their campaigns."""

    goes_on: bool
    last: datetime | None
    campaigns: frozenset[str]


def find_candidates(store: Store, age: Age) -> Candidates:
    """What is to be done, the oldest first."""
    of_campaign = {} if age.campaign_id is None else {"campaign_id": age.campaign_id}
    found = store.find(names.TOMBSTONES, {**of_campaign, "finished_at": {"$exists": False}})
    cut_off = tuple(sorted(tombstone["workflow_id"] for tombstone in found))
    by_fate: dict[str, list[Run]] = {"goes": [], "stays": [], "shared": []}
    for begun in ({"$lt": age.before}, {"$exists": False}):
        workflows = store.find(names.WORKFLOWS, {**of_campaign, "started_at": begun}, fields=WORKFLOW_FIELDS)
        while page := list(islice(workflows, _PAGE)):
            for run, fate in _judged(store, page, age):
                if fate and run.workflow_id not in cut_off:
                    by_fate[fate].append(run)
    for runs in by_fate.values():
        runs.sort(key=lambda run: run.started_at.timestamp() if run.started_at else 0.0)
    going, staying, shared = map(tuple, by_fate.values())
    return Candidates(going, staying, shared, cut_off)


def still_goes(store: Store, workflow_id: str, age: Age) -> bool:
    """Whether a run that was found is still to go: its deletion is unfinished, or it is as old as it was."""
    tombstone = find_tombstone(store, workflow_id)
    if tombstone is not None:
        return "finished_at" not in tombstone
    found = list(store.find(names.WORKFLOWS, {"_id": workflow_id}, fields=WORKFLOW_FIELDS))
    return any(fate == "goes" for _, fate in _judged(store, found, age))


def as_they_live(store: Store, runs: Sequence[Run], lost_after_s: float) -> list[Run]:
    """The runs, those as running whose owner has ended while a producer of them works on."""
    lives = _lives(store, [run.workflow_id for run in runs], lost_after_s)
    return [_living(run, lives[run.workflow_id]) for run in runs]


def _living(run: Run, life: _Life) -> Run:
    return replace(run, status=Status.RUNNING.value) if life.goes_on else run


def _judged(store: Store, workflows: Sequence[Record], age: Age) -> Iterator[tuple[Run, str]]:
    """Runs and what becomes of them; nothing of those that are not old enough."""
    described = describe_runs(store, workflows, lost_after_s=age.lost_after_s)
    lives = _lives(store, [run.workflow_id for run in described], age.lost_after_s)
    for run in described:
        life = lives[run.workflow_id]
        yield _living(run, life), _fate(_living(run, life), life, age)


def _fate(run: Run, life: _Life, age: Age) -> str:
    last = run.ended_at
    if last is None and run.started_at is not None:
        last = run.started_at + timedelta(seconds=run.duration or 0.0)
    if last is None or last >= age.before:
        return ""
    is_running = run.status == Status.RUNNING.value
    if is_running or (run.status in UNENDED and not age.force):
        return "stays"
    if life.last is not None and life.last >= age.before:
        return ""
    if age.campaign_id is not None and life.campaigns - {age.campaign_id}:
        return "shared"
    return "goes"


def _lives(store: Store, workflow_ids: Sequence[str], lost_after_s: float) -> dict[str, _Life]:
    of_these: Filter = {"workflow_id": {"$in": list(workflow_ids)}}
    beats: dict[str, dict[str, datetime]] = {workflow_id: {} for workflow_id in workflow_ids}
    for beat in store.find(names.BEATS, of_these, fields=("producer_id", "workflow_id", "beat_at")):
        beats[beat["workflow_id"]][beat["producer_id"]] = beat["beat_at"]
    producers: dict[str, list[Record]] = {workflow_id: [] for workflow_id in workflow_ids}
    for producer in store.find(names.PRODUCERS, of_these, fields=_PRODUCER_FIELDS):
        producers[producer["workflow_id"]].append(producer)
    present = read_present(store)
    return {
        workflow_id: _life(of_run, beats[workflow_id], present.watch(workflow_id), lost_after_s)
        for workflow_id, of_run in producers.items()
    }


def _life(
    producers: Sequence[Record], beats: Mapping[str, datetime], watch: Watch, lost_after_s: float
) -> _Life:
    moments = [one.get(name) for one in producers for name in ("started_at", "closed_at")]
    return _Life(
        any(
            producer_status(
                one, beats.get(one["producer_id"]), now=watch.now, lost_after_s=lost_after_s, watch=watch
            )
            == Status.RUNNING.value
            for one in producers
        ),
        max((moment for moment in (*moments, *beats.values()) if moment is not None), default=None),
        frozenset(
            name
            for one in producers
            for name in (one.get("campaign_id"), *(one.get("campaigns") or ()))
            if name
        ),
    )
