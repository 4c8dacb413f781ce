"""The record: what one message says, and how messages about one thing become one document.

Invariants:

- A message is a complete statement. Its record is the document itself, `received_at` and `filled` aside.
- The merge rule (G3): the document is the message with the highest (status rank, producer, seq). Only
  `submitted_at` and `started_at` are filled in, when it lacks them, from the highest message below it that has
  them; `filled` then says whose they are. So the document is a function of the set of messages: order and
  repetition do not matter.
- Times are UTC milliseconds, held as `int` in the fields named by `TIME_FIELDS`, and become dates in the store.
- Absent beats null: a field that has nothing to say is not there.
"""

from __future__ import annotations

from datetime import datetime
from enum import Enum
from typing import Any, NamedTuple, TypeAlias

from provd.common import clock, names

#: Version of the record, the frame and the spool line. Later versions read all earlier ones.
SCHEMA_VERSION = 1

#: The highest number that a producer may give a message: three hundred years of a million a second. What keeps numbers
#: as doubles (Lua, readers of JSON) still tells it from its neighbours.
SEQ_MAX = (1 << 53) - 1

Record: TypeAlias = dict[str, Any]


class Kind(str, Enum):
    """What a message is about."""

    TASK = "task"
    WORKFLOW = "workflow"
    PRODUCER = "producer"
    SAMPLE = "sample"

    @property
    def collection(self) -> str:
        """The store collection that holds records of this kind."""
        return _COLLECTION[self]


_COLLECTION = {
    Kind.TASK: names.TASKS,
    Kind.WORKFLOW: names.WORKFLOWS,
    Kind.PRODUCER: names.PRODUCERS,
    Kind.SAMPLE: names.SAMPLES,
}


class Status(str, Enum):
    """How far a task or workflow has come, in rising rank."""

    SUBMITTED = "SUBMITTED"
    RUNNING = "RUNNING"
    SKIPPED = "SKIPPED"
    CANCELLED = "CANCELLED"
    FINISHED = "FINISHED"
    ERROR = "ERROR"

    @property
    def rank(self) -> int:
        """The place in the merge rule; higher wins."""
        return RANKS[self.value]


#: Status names by rank; a record without a status ranks with the lowest.
STATUSES: tuple[str, ...] = tuple(status.value for status in Status)
RANKS: dict[str | None, int] = {name: rank for rank, name in enumerate(STATUSES)} | {None: 0}

#: Statuses after which nothing more is expected.
ENDED: frozenset[str] = frozenset(STATUSES) - {"SUBMITTED", "RUNNING"}

#: Derived by readers, never stored: running, but its producer has fallen silent.
LOST = "LOST"
#: Derived by readers, never stored: finished, and some of its tasks failed.
DEGRADED = "DEGRADED"

TIME_FIELDS = ("submitted_at", "started_at", "ended_at", "closed_at", "sampled_at", "received_at", "beat_at")

#: Times that a lower message may lend to a higher one that lacks them.
LENT_FIELDS = ("submitted_at", "started_at")

TASK_FIELDS = (
    "task_id", "workflow_id", "campaign_id", "activity_id", "subtype", "group_id", "parent_task_id", "agent_id",
    "source_agent_id", "used", "generated", "status", "submitted_at", "started_at", "ended_at", "duration",
    "stdout", "stderr", "traceback", "tags", "custom_metadata", "telemetry_at_start", "telemetry_at_end",
    "attempt", "depends_on", "links", "data", "tenant_id", "trace_id", "producer_id", "seq", "hostname", "pid",
    "rank", "received_at", "schema_version",
)  # fmt: skip

WORKFLOW_FIELDS = (
    "workflow_id", "campaign_id", "parent_workflow_id", "program_id", "name", "subtype", "args", "status",
    "stderr", "traceback", "started_at", "ended_at", "duration", "user", "hostname", "argv", "cwd", "code",
    "environment", "tags", "custom_metadata", "attempt", "predecessor", "input_fingerprint", "code_ref",
    "config_hash", "tenant_id", "trace_id", "producer_id", "seq", "received_at", "schema_version",
)  # fmt: skip

PRODUCER_FIELDS = (
    "producer_id", "workflow_id", "campaign_id", "campaigns", "tenant_id", "hostname", "pid", "rank", "world_size", "scheduler", "status",
    "stderr", "traceback", "started_at", "closed_at", "sent", "tasks_started", "tasks_ended", "dropped",
    "dropped_reasons", "counts", "clock_offset", "seq", "received_at", "schema_version",
)  # fmt: skip


class Message(NamedTuple):
    """One statement, as it left its producer: where it stands in the books, and the record it states."""

    kind: Kind
    producer_id: str
    workflow_id: str
    seq: int
    record: Record

    @property
    def record_id(self) -> str:
        """The `_id` of the document this message is about."""
        if self.kind is Kind.TASK:
            return str(self.record["task_id"])
        if self.kind is Kind.WORKFLOW:
            return self.workflow_id
        if self.kind is Kind.PRODUCER:
            return producer_record_id(self.producer_id, self.workflow_id)
        return f"{self.producer_id}/{self.seq}"

    @property
    def is_final(self) -> bool:
        """Whether this ends what it is about."""
        return self.record.get("status") in ENDED

    @property
    def was_announced(self) -> bool:
        """Whether a lower message about the same thing went before it, so that a plain insert would collide."""
        return bool(self.record.get("announced")) or self.kind in (Kind.WORKFLOW, Kind.PRODUCER)


def producer_record_id(producer_id: str, workflow_id: str) -> str:
    """The `_id` of a producer's record in one workflow."""
    return f"{producer_id}/{workflow_id}"


def merge_key(record: Record) -> tuple[int, str, int]:
    """(status rank, producer, seq): the greater one is the document."""
    return RANKS.get(record.get("status"), 0), record.get("producer_id", ""), record.get("seq", 0)


def merge(one: Record, other: Record) -> Record:
    """The document that two records, or documents made of several, amount to. Commutative and idempotent."""
    low, high = sorted((one, other), key=merge_key)
    merged = {name: value for name, value in high.items() if name != "filled"}
    filled: dict[str, list[Any]] = {}
    for field in LENT_FIELDS:
        lender = max(_lent(high, field), _lent(low, field), key=lambda lent: lent[0])
        if field in high and field not in high.get("filled", {}):
            continue
        if lender[0]:
            merged[field], filled[field] = lender[1], lender[0]
        else:
            merged.pop(field, None)
    if filled:
        merged["filled"] = filled
    return merged


def _lent(document: Record, field: str) -> tuple[list[Any], Any]:
    """What a document can lend of a field: the merge key of the message that stated it, and the value."""
    if field not in document:
        return [], None
    return list(document.get("filled", {}).get(field, merge_key(document))), document[field]


def to_document(record: Record) -> Record:
    """The record with its times as aware UTC datetimes, as stores, readers and JSONL lines have it."""
    document = dict(record)
    for field in TIME_FIELDS:
        if isinstance(document.get(field), int):
            document[field] = clock.to_datetime(document[field])
    return document


def from_document(document: Record) -> Record:
    """Undo `to_document`."""
    record = dict(document)
    for field in TIME_FIELDS:
        if isinstance(record.get(field), datetime):
            record[field] = clock.from_datetime(record[field])
    return record
