"""A store as one tenant sees it: whatever is asked, only that tenant's documents answer.

- Tasks, workflows, producers and links carry `tenant_id`, and are shown where it is the tenant's. A document without one is nobody's.
- What carries none (the ledger, beats, samples, quarantine) is shown by its run: where all that is known of a run's
  workflow and producers is the tenant's, all of it; in a run that several share, what the tenant's producers have there.
- Every stage of a pipeline that reads a collection is restricted in the same way, however deep it stands. A pipeline
  has to pass `provd.query.readonly`, so that no stage is there that nobody has thought of.
- What consumers say of themselves is told without their names, hosts and figures. What belongs to nobody is refused.
- Nothing is written but quarantined pieces of the tenant's that are tried again.

This keeps tenants out of each other's way, not each other's data safe: whoever may connect to the store may also leave
the setting out. The hard boundary is a role in MongoDB.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from provd.common import names
from provd.common.errors import StoreError, UnsupportedQuery
from provd.common.ranges import Ranges
from provd.common.record import Message, Record
from provd.query.readonly import check_pipeline, collection_of
from provd.store import documents
from provd.store.interface import (
    Filter,
    Quarantined,
    Sort,
    Store,
    Stored,
    TaskTimes,
    Written,
)

FIELD = "tenant_id"

#: Collections whose documents say whose they are.
_OWN = frozenset({names.TASKS, names.WORKFLOWS, names.PRODUCERS, names.LINKS, names.TOMBSTONES})
_OF_RUNS = frozenset({names.SAMPLES, names.LEDGER, names.BEATS, names.QUARANTINE})

#: Runs that one question may be about: a filter that names them has to stay below 16 MiB.
_RUNS_MAX = 100_000

_NOTHING: Filter = {"workflow_id": {"$in": []}}

#: What a tenant may know of a consumer: when it listened.
_MARK = ("since", "broker_at", "store_at", "now", "state", "version")


def scoped(store: Store, tenant_id: str) -> TenantStore:
    """The store as this tenant sees it."""
    return TenantStore(store, tenant_id)


@dataclass(frozen=True, slots=True)
class _Runs:
    """The tenant's runs: those that are its alone, and of the others its producers."""

    alone: frozenset[str]
    producers: Mapping[str, frozenset[str]]

    @property
    def filter(self) -> Filter:
        """The filter of what belongs to these runs."""
        parts: list[Filter] = [
            {"workflow_id": workflow_id, "producer_id": {"$in": sorted(mine)}}
            for workflow_id, mine in sorted(self.producers.items())
        ]
        if self.alone:
            parts.insert(0, {"workflow_id": {"$in": sorted(self.alone)}})
        return parts[0] if len(parts) == 1 else {"$or": parts} if parts else _NOTHING


class TenantStore:
    """See the module."""

    def __init__(self, store: Store, tenant_id: str) -> None:
        self._store = store
        self._own: Filter = {FIELD: tenant_id}
        self._others: Filter = {FIELD: {"$ne": tenant_id}}
        self.tenant_id = tenant_id
        self.url = store.url

    # --- reading -----------------------------------------------------------------------------------------------

    def find(
        self,
        collection: str,
        filter: Filter,
        *,
        fields: Sequence[str] | None = None,
        sort: Sort = (),
        limit: int = 0,
        timeout_s: float | None = None,
    ) -> Iterator[Record]:
        """The tenant's documents that match."""
        where = self._restricted(collection, filter)
        return self._store.find(collection, where, fields=fields, sort=sort, limit=limit, timeout_s=timeout_s)

    def count(self, collection: str, filter: Filter) -> int:
        """How many of the tenant's documents match."""
        return self._store.count(collection, self._restricted(collection, filter))

    def count_by(self, collection: str, filter: Filter, fields: Sequence[str]) -> dict[tuple[Any, ...], int]:
        """How many of the tenant's documents match for each combination of values."""
        return self._store.count_by(collection, self._restricted(collection, filter), fields)

    def task_times(self, workflow_id: str, *, expected: int = 0) -> Iterator[TaskTimes]:
        """The tenant's tasks of a workflow; from an index alone where all of them are."""
        if workflow_id in self._runs([workflow_id]).alone:
            yield from self._store.task_times(workflow_id, expected=expected)
            return
        fields = ("activity_id", "status", "duration")
        for task in self.find(names.TASKS, {"workflow_id": workflow_id}, fields=fields):
            yield TaskTimes(task.get("activity_id"), task.get("status"), 1, [task.get("duration")])

    def aggregate(
        self, collection: str, pipeline: Sequence[Mapping[str, Any]], *, timeout_s: float | None = None
    ) -> Iterator[Record]:
        """Run a pipeline in which every collection holds the tenant's documents alone."""
        stages = list(pipeline)
        check_pipeline(stages)
        first: Filter = {}
        if stages and "$match" in stages[0]:
            first = stages[0]["$match"]
            stages = stages[1:]
        beginning = {"$match": self._restricted(collection, first)}
        return self._store.aggregate(collection, [beginning, *self._stages(stages)], timeout_s=timeout_s)

    def stored_ranges(self, workflow_id: str) -> dict[str, Ranges]:
        """The ledger of a workflow, as far as it is the tenant's."""
        runs = self._runs([workflow_id])
        mine = runs.producers.get(workflow_id, frozenset())
        if workflow_id not in runs.alone and not mine:
            return {}
        ranges = self._store.stored_ranges(workflow_id)
        if workflow_id in runs.alone:
            return ranges
        return {producer_id: stored for producer_id, stored in ranges.items() if producer_id in mine}

    def consumers(self) -> list[Record]:
        """When consumers listened, and to which of the tenant's runs."""
        marks = []
        for number, mark in enumerate(self._store.consumers(), start=1):
            told = {name: mark[name] for name in _MARK if name in mark}
            told["_id"] = told["name"] = f"consumer-{number}"
            if mark.get("workflow_ids"):
                told["workflow_ids"] = self.run_ids(mark["workflow_ids"])
            marks.append(told)
        return marks

    def run_ids(self, among: Sequence[str] = ()) -> list[str]:
        """The runs that the tenant has a part in; of these, if they are given."""
        runs = self._runs(list(among) or None)
        return sorted({*runs.alone, *runs.producers})

    def ping(self) -> None:
        """Raise `StoreUnavailable` unless the store answers now."""
        self._store.ping()

    def identity(self) -> str:
        """What tells this store from every other."""
        return self._store.identity()

    def close(self) -> None:
        """Release connections and files."""
        self._store.close()

    # --- restricting -------------------------------------------------------------------------------------------

    def _restricted(self, collection: str, filter: Filter) -> Filter:
        restriction = self._restriction(collection, filter)
        return {"$and": [dict(filter), dict(restriction)]} if filter else restriction

    def _restriction(self, collection: str, filter: Filter) -> Filter:
        """What is the tenant's in a collection, as far as the filter asks for it."""
        if collection in _OWN:
            return self._own
        if collection in _OF_RUNS:
            return self._runs(_named_runs(filter)).filter
        if collection in (*names.COLLECTIONS, names.MIGRATIONS):
            raise UnsupportedQuery(
                f"{collection} belong to no tenant: they are not shown while tenant_id is set"
            )
        known = ", ".join(sorted(_OWN | _OF_RUNS))
        raise UnsupportedQuery(f"there is no collection {collection!r}; there are {known}")

    def _stages(self, stages: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        return [self._stage(name, body) for stage in stages for name, body in stage.items()]

    def _stage(self, name: str, body: Any) -> Mapping[str, Any]:
        if name == "$facet":
            return {name: {facet: self._stages(pipeline) for facet, pipeline in body.items()}}
        if name == "$graphLookup":
            where = self._restricted(collection_of(name, body), body.get("restrictSearchWithMatch", {}))
            return {name: {**body, "restrictSearchWithMatch": where}}
        if name in ("$lookup", "$unionWith"):
            source = collection_of(name, body)
            told = dict(body) if isinstance(body, Mapping) else {"coll": body}
            restriction = {"$match": self._restriction(source, {})}
            return {name: {**told, "pipeline": [restriction, *self._stages(told.get("pipeline", []))]}}
        return {name: body}

    def _runs(self, workflow_ids: Sequence[str] | None) -> _Runs:
        """The tenant's runs; of these, if they are given."""
        place: Filter = {} if workflow_ids is None else {"workflow_id": {"$in": list(workflow_ids)}}
        mine: dict[str, set[str]] = {}
        for record in self._store.find(names.WORKFLOWS, {**place, **self._own}, fields=("workflow_id",)):
            mine.setdefault(record["workflow_id"], set())
        fields = ("workflow_id", "producer_id")
        for record in self._store.find(names.PRODUCERS, {**place, **self._own}, fields=fields):
            mine.setdefault(record["workflow_id"], set()).add(record["producer_id"])
        if len(mine) > _RUNS_MAX:
            raise UnsupportedQuery(
                f"the tenant has {len(mine):,} runs: name the workflow_id that is asked for"
            )
        also: set[str] = set()
        if mine:
            foreign: Filter = {"workflow_id": {"$in": list(mine)}, **self._others}
            for collection in (names.WORKFLOWS, names.PRODUCERS):
                found = self._store.find(collection, foreign, fields=("workflow_id",))
                also.update(record["workflow_id"] for record in found)
        return _Runs(
            frozenset(mine.keys() - also),
            {
                workflow_id: frozenset(producers)
                for workflow_id, producers in mine.items()
                if workflow_id in also and producers
            },
        )

    # --- writing -----------------------------------------------------------------------------------------------

    def write(self, messages: Sequence[Message], *, received_at: int) -> Written:
        """Store what could be read of quarantined pieces."""
        return self._store.write(messages, received_at=received_at)

    def add_stored(self, ranges: Iterable[Stored]) -> None:
        """Enter it into the ledger."""
        self._store.add_stored(ranges)

    def add_quarantined(self, items: Iterable[Quarantined]) -> None:
        """Keep what still cannot be read."""
        self._store.add_quarantined(items)

    def note_quarantined(self, piece_id: str, reason: str) -> None:
        """Give a piece of the tenant's a new reason."""
        if self._owns_piece(piece_id):
            self._store.note_quarantined(piece_id, reason)

    def drop_quarantined(self, piece_ids: Iterable[str]) -> None:
        """Remove pieces of the tenant's."""
        self._store.drop_quarantined([piece_id for piece_id in piece_ids if self._owns_piece(piece_id)])

    def _owns_piece(self, piece_id: str) -> bool:
        return self.count(names.QUARANTINE, documents.piece_filter(piece_id)) > 0

    def _refused(self, *_arguments: Any, **_options: Any) -> Any:
        """What changes the store for everybody."""
        raise StoreError("this changes the store for everybody: leave tenant_id (PROVD_TENANT_ID) out")

    migrate = put_documents = put_pieces = put_beats = put_consumer = compact_ledger = _refused
    begin_deletion = delete_run = undelete_run = upkeep = _refused

    def deleted_among(self, workflow_ids: Iterable[str]) -> frozenset[str]:
        """Those of these runs that the tenant had, and that have been deleted."""
        wanted = {"workflow_id": {"$in": list(workflow_ids)}}
        return frozenset(one["workflow_id"] for one in self.find(names.TOMBSTONES, wanted))


def _named_runs(filter: Filter) -> list[str] | None:
    """The runs that a filter keeps to, None where it does not say."""
    condition = filter.get("workflow_id")
    if isinstance(condition, str):
        return [condition]
    if isinstance(condition, Mapping):
        if isinstance(condition.get("$eq"), str):
            return [condition["$eq"]]
        several = condition.get("$in")
        if isinstance(several, (list, tuple)) and all(isinstance(one, str) for one in several):
            return list(several)
    parts = filter.get("$and")
    found = (
        (_named_runs(part) for part in parts if isinstance(part, Mapping)) if isinstance(parts, list) else ()
    )
    return next((named for named in found if named is not None), None)
