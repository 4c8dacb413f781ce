"""Runs that are not known to be over and whole, and how many are.

- Over: the owner said how it ended or, where nobody owns it, every producer has closed. Whole: every message of every
  producer is stored, and every rank has appeared. Tasks are not counted: `provd runs verify` does.
- The latest runs are looked through, and those that something is known to be wrong with, however old they are. How many
  were not looked at is said.
- The number of questions grows with the runs that are looked through, fifty at a time, never with their tasks. Of those
  that are over and whole nothing is kept.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from provd.common import clock, ids, names
from provd.common.record import ENDED, Record, Status
from provd.store.books import WorkflowBooks, read_several_books
from provd.store.interface import Filter, Store

_AT_ONCE = 50

#: Producers whose books are read, unless all runs are looked through.
_PRODUCERS_MAX = 20_000

_FIELDS = ("workflow_id", "status", "started_at", "producer_id")

#: Those whose state is that of their producers.
_OWNERLESS = (None, Status.SUBMITTED.value)


@dataclass(frozen=True, slots=True)
class Unfinished:
    """The books of such runs, the latest first; `whole` counts those that were found in order, `unseen` those that were
    not looked at.
    """

    books: tuple[WorkflowBooks, ...]
    whole: int
    unseen: int


def read_unfinished(store: Store, *, among: int) -> Unfinished:
    """Look through so many of the latest runs, 0 meaning all."""
    workflows = {one["workflow_id"]: one for one in _latest(store, among)}
    workflows |= _troubled(store, workflows.keys(), among)
    open_: list[WorkflowBooks] = []
    seen: list[str] = []
    producers = 0
    for some in portions(list(workflows)):
        if among and producers > _PRODUCERS_MAX:
            break
        read = read_several_books(store, some)
        seen += read
        producers += sum(len(books.producers) for books in read.values())
        open_ += [books for books in read.values() if not _is_over(workflows[books.workflow_id], books)]
    recorded = sum("started_at" in workflows[one] or "status" in workflows[one] for one in seen)
    unseen = store.count(names.WORKFLOWS, {}) - recorded if among else 0
    return Unfinished(tuple(open_), len(seen) - len(open_), max(0, unseen))


def portions(workflow_ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """As many runs as one question is asked for."""
    for start in range(0, len(workflow_ids), _AT_ONCE):
        yield workflow_ids[start : start + _AT_ONCE]


def _latest(store: Store, limit: int) -> list[Record]:
    """The records of the latest runs; one without an owner began when the producer that it names was born."""
    owned = store.find(
        names.WORKFLOWS, {"started_at": {"$exists": True}}, sort=[("started_at", -1)], limit=limit, fields=_FIELDS
    )  # fmt: skip
    ownerless = store.find(
        names.WORKFLOWS, {"started_at": {"$exists": False}}, sort=[("producer_id", -1)], limit=limit, fields=_FIELDS
    )  # fmt: skip
    found = sorted([*owned, *ownerless], key=_began_ms, reverse=True)
    return found[:limit] if limit else found


def _began_ms(workflow: Record) -> int:
    if "started_at" in workflow:
        return clock.from_datetime(workflow["started_at"])
    return ids.born_ms(str(workflow.get("producer_id", ""))) or 0


def _troubled(store: Store, known: Collection[str], limit: int) -> dict[str, Record]:
    """Others with something quarantined, spooled or dropped, and those whose own record has not come."""
    found = {
        row["_id"]: None
        for row in store.aggregate(names.QUARANTINE, [{"$group": {"_id": "$workflow_id"}}])
        if row.get("_id")
    }
    troubled: Filter = {"$or": [{"spooled": {"$ne": []}}, {"dropped": {"$ne": []}}]}
    for collection, where, newest in (
        (names.BEATS, troubled, "beat_at"),
        (names.PRODUCERS, {"dropped": {"$exists": True, "$ne": []}}, "_id"),
        (names.PRODUCERS, {}, "_id"),
    ):
        for one in store.find(collection, where, fields=("workflow_id",), sort=[(newest, -1)], limit=limit):
            found[one["workflow_id"]] = None
    others: dict[str, Record] = {name: {"workflow_id": name} for name in found if name not in known}
    for some in portions(list(others)):
        for record in store.find(names.WORKFLOWS, {"workflow_id": {"$in": list(some)}}, fields=_FIELDS):
            others[record["workflow_id"]] = record
    return others


def _is_over(workflow: Record, books: WorkflowBooks) -> bool:
    status = workflow.get("status")
    return books.all_stored and (status in ENDED or status in _OWNERLESS)
