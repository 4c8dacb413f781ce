"""Which run a text means: its id, `last`, a unique prefix of its id, or its name."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from provd.common import names
from provd.common.errors import Ambiguous, NotFound
from provd.common.record import Record
from provd.query.runs import list_runs
from provd.store.interface import Store
from provd.store.tombstones import deleted_error, find_tombstone

LAST = "last"

#: Candidates that an error lists before it says how many more there are.
_LISTED = 10

#: Runs among which the nearest id or name is looked for, the latest first.
_NEAR_AMONG = 5000

_FIELDS = ("workflow_id", "name", "started_at")

_BY_TIME = {names.WORKFLOWS: "started_at", names.TOMBSTONES: "deleted_at"}


def find_run(store: Store, text: str) -> str:
    """The workflow id that `text` means.

    Raises `Ambiguous` that lists the candidates, `Deleted`, and `NotFound` that names the nearest.
    """
    found = _found(store, text)
    tombstone = find_tombstone(store, found)
    if tombstone is not None:
        raise deleted_error(tombstone)
    return found


def _found(store: Store, text: str) -> str:
    if _is_known(store, text):
        return text
    if text == LAST:
        latest = list_runs(store, limit=1)
        if not latest:
            raise NotFound("there are no runs yet")
        return latest[0].workflow_id
    candidates = _candidates(store, text, names.WORKFLOWS)
    if len(candidates) == 1:
        return str(candidates[0]["workflow_id"])
    if candidates:
        raise Ambiguous(_ambiguous(text, candidates))
    deleted = _candidates(store, text, names.TOMBSTONES)
    if len(deleted) == 1:
        return str(deleted[0]["workflow_id"])
    if deleted:
        raise Ambiguous(_ambiguous(text, deleted, "deleted runs"))
    raise NotFound(_not_found(store, text))


def _is_known(store: Store, text: str) -> bool:
    """Whether this is a whole id; a run whose workflow record is still missing is known by its other records."""
    of_this = {"workflow_id": text}
    return any(
        next(iter(store.find(collection, where, fields=("workflow_id",), limit=1)), None) is not None
        for collection, where in (
            (names.WORKFLOWS, {"_id": text}),
            (names.PRODUCERS, of_this),
            (names.TASKS, of_this),
        )
    )


def _candidates(store: Store, text: str, collection: str) -> list[Record]:
    if not text:
        return []
    beyond = text + "\U0010ffff"
    found = {}
    for wanted in ({"_id": {"$gte": text, "$lt": beyond}}, {"name": text}):
        for record in store.find(
            collection, wanted, fields=_FIELDS, sort=[(_BY_TIME[collection], -1)], limit=1000
        ):
            found[record["workflow_id"]] = record
    return list(found.values())


def _ambiguous(text: str, candidates: Sequence[Record], what: str = "runs") -> str:
    lines = [f"{text!r} fits {len(candidates)} {what}; give more of the id of one:"]
    for record in candidates[:_LISTED]:
        started = f"  started {record['started_at']:%Y-%m-%d %H:%M:%S} UTC" if "started_at" in record else ""
        lines.append(f"  {record['workflow_id']}  {record.get('name', '')}{started}".rstrip())
    if len(candidates) > _LISTED:
        lines.append(f"  and {len(candidates) - _LISTED} more")
    return "\n".join(lines)


def _not_found(store: Store, text: str) -> str:
    known: list[str] = []
    for record in store.find(
        names.WORKFLOWS, {}, fields=_FIELDS, sort=[("started_at", -1)], limit=_NEAR_AMONG
    ):
        known.append(record["workflow_id"])
        if isinstance(record.get("name"), str):
            known.append(record["name"])
    if not known:
        return f"no run {text!r}: there are no runs yet"
    near = difflib.get_close_matches(text, known, n=1, cutoff=0.5)
    hint = f"the nearest is {near[0]!r}" if near else "`provd runs tail` lists them"
    return f"no run has the id, prefix or name {text!r}; {hint}"
