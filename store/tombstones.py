"""Tombstones: what is left of a deleted run, and what keeps it deleted.

- A run's tombstone is written before anything of the run is deleted, and stands for ever, unless somebody brings the
  run back on purpose. From then on no message, range, piece or beat of the run is kept.
- A writer that was under way when the tombstone was written takes back what it wrote, before it says that it is done.
- What is refused is counted, and is settled: it is nobody's gap. A message that comes twice is counted twice.
- `begun_at` says that documents may be missing: an archive is made, and is checked, before.
- A deletion that was cut off has no `finished_at`, and is finished by doing it again. The ledger goes first: the books
  never claim what has gone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from provd.common import clock, names
from provd.common.errors import Deleted
from provd.common.record import Message, Record
from provd.common.values import is_unicode
from provd.store.interface import Store

#: The collections that hold a run, in the order in which it is deleted.
RUN_COLLECTIONS = (
    names.LEDGER, names.BEATS, names.TASKS, names.LINKS, names.SAMPLES, names.QUARANTINE, names.PRODUCERS,
    names.WORKFLOWS,
)  # fmt: skip

#: Documents in one deletion.
AT_ONCE = 5000

#: What a tombstone repeats of the run's record.
_FROM_WORKFLOW = ("campaign_id", "name", "tenant_id", "status", "started_at", "ended_at")

#: Told how many documents have been deleted, and of how many.
Progress: TypeAlias = Callable[[int, int], None]


def new_tombstone(
    workflow_id: str, workflow: Record, counts: Mapping[str, int], *, by: str, archive: str | None
) -> Record:
    """The document."""
    document = {
        "_id": workflow_id,
        "workflow_id": workflow_id,
        **{name: workflow[name] for name in _FROM_WORKFLOW if name in workflow},
        "deleted_at": clock.to_datetime(clock.now_ms()),
        "by": by,
        "counts": dict(counts),
        "refused": 0,
    }
    return document if archive is None else {**document, "archive": archive}


def count_documents(store: Store, workflow_id: str) -> dict[str, int]:
    """What a store has of a run, by collection."""
    return {name: store.count(name, {"workflow_id": workflow_id}) for name in RUN_COLLECTIONS}


def workflow_ids_of(messages: Iterable[Message]) -> frozenset[str]:
    """The runs that messages are about."""
    return frozenset(message.workflow_id for message in messages)


def askable(workflow_ids: Iterable[str]) -> list[str]:
    """Those that a store can be asked for. A run whose id is not Unicode has no tombstone, and its messages spoil no
    other's batch (G4).
    """
    return [one for one in workflow_ids if is_unicode(one)]


def count_gone(messages: Iterable[Message], deleted: Container[str]) -> dict[str, int]:
    """How many of the messages are of which deleted run."""
    return dict(Counter(message.workflow_id for message in messages if message.workflow_id in deleted))


def living(messages: Sequence[Message], deleted: Container[str]) -> list[Message]:
    """The others."""
    return [message for message in messages if message.workflow_id not in deleted]


def find_tombstone(store: Store, workflow_id: str) -> Record | None:
    """The tombstone of a run, by its whole id."""
    found = store.find(names.TOMBSTONES, {"_id": workflow_id}, limit=1)
    return next(iter(found), None)


def deleted_error(tombstone: Mapping[str, Any]) -> Deleted:
    """The error that tells of a deleted run."""
    workflow_id, at = tombstone["workflow_id"], tombstone["deleted_at"]
    when = f"{at.astimezone():%Y-%m-%d %H:%M:%S %Z}"
    archive = f"; archive at {tombstone['archive']}" if "archive" in tombstone else ""
    if "finished_at" not in tombstone:
        text = (
            f"run {workflow_id} is being deleted since {when} by {tombstone.get('by', '?')}{archive};"
            f" if that was cut off, `provd runs delete {workflow_id}` goes on"
        )
    else:
        text = f"run {workflow_id} was deleted on {when} by {tombstone.get('by', '?')}{archive}"
    return Deleted(text, workflow_id=workflow_id, finished="finished_at" in tombstone)
