"""A run's records for the standard exports: read in one order on every store, statuses as readers see them.

- Tasks come by id. What the store keeps for itself (when it received a record, and what was filled in) is left out, so
  that two stores that hold the same say the same.
- Producers and workflow come first, so that what refers to them can be written as tasks go by.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

from provd.common import names
from provd.common.errors import UsageError
from provd.common.record import Record
from provd.query.present import Silence
from provd.query.runs import read_run
from provd.query.tasks import derived

if TYPE_CHECKING:
    from provd.query.exports import Exported

#: Tasks of one question.
_AT_ONCE = 500

#: Bookkeeping of the store and of the wire.
_HIDDEN = ("filled", "announced", "received_at", "schema_version", "_id")


class RunRecords(NamedTuple):
    """The workflow as its readers see it (its status derived), its producers, and where its tasks are read."""

    workflow: Record
    producers: Sequence[Record]
    exported: Exported

    def tasks(self) -> Iterator[Record]:
        """The tasks, by id. Only their ids are held: no store sorts a run by them without reading other runs."""
        store, workflow_id, lost_after_s = self.exported
        silence = Silence(store, lost_after_s)
        found = store.find(names.TASKS, {"workflow_id": workflow_id}, fields=("task_id",))
        ids = sorted(task["task_id"] for task in found)
        for first in range(0, len(ids), _AT_ONCE):
            some = {"_id": {"$in": ids[first : first + _AT_ONCE]}}
            tasks = sorted(store.find(names.TASKS, some), key=itemgetter("task_id"))
            yield from map(_shown, derived(tasks, silence))

    @property
    def name(self) -> str:
        """The workflow's name; its id where it has none."""
        name = self.workflow.get("name")
        return name if isinstance(name, str) and name else self.exported.workflow_id


def read_records(run: Exported) -> RunRecords:
    """What is to be exported."""
    place = {"workflow_id": run.workflow_id}
    found = next(run.store.find(names.WORKFLOWS, place, limit=1), None) or dict(place)
    seen = read_run(run.store, run.workflow_id, lost_after_s=run.lost_after_s).to_document()
    derived_facts = {
        name: seen[name]
        for name in ("campaign_id", "status", "started_at", "ended_at", "duration")
        if name in seen
    }
    producers = sorted(
        map(_shown, run.store.find(names.PRODUCERS, place)), key=lambda one: str(one["producer_id"])
    )
    return RunRecords(_shown(found) | derived_facts, producers, run)


def check_size(run: Exported, most: int, format: str) -> None:
    """Raise `UsageError` for a run with more tasks than a format that is made in memory can hold."""
    tasks = run.store.count(names.TASKS, {"workflow_id": run.workflow_id})
    if tasks > most:
        raise UsageError(
            f"{run.workflow_id} has {tasks:,} tasks; {format} is made in memory and ends at {most:,}: "
            "use jsonl, parquet or openlineage"
        )


def iso(moment: datetime) -> str:
    """A time as the standards write it: UTC, milliseconds, the offset in numbers."""
    return moment.isoformat(timespec="milliseconds")


def encoded(text: str) -> str:
    """Any text as the local part of a name; `urllib.parse.unquote` with `surrogatepass` gives it back."""
    return quote(text.encode("utf-8", "surrogatepass"), safe="")


def is_text(value: object) -> bool:
    """Whether this is text that every format of text can hold: XML's characters, no lone surrogates."""
    return isinstance(value, str) and (value.isprintable() or all(map(_is_xml, value)))


def plain(value: object) -> str:
    """Text that every format can hold: what none can is replaced by U+FFFD."""
    text = str(value)
    return text if is_text(text) else "".join(one if _is_xml(one) else "\ufffd" for one in text)


def _is_xml(character: str) -> bool:
    code = ord(character)
    return code in (9, 10, 13) or 32 <= code < 0xD800 or 0xE000 <= code < 0xFFFE or code > 0xFFFF


def _shown(record: Record) -> Record:
    return {name: value for name, value in record.items() if name not in _HIDDEN}
