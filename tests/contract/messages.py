"""Messages to write into a store."""

from __future__ import annotations

from typing import Any

from provd.common.record import Kind, Message, Record, producer_record_id

#: 2023-11-14T22:13:20Z in UTC milliseconds.
START_MS = 1_700_000_000_000


def task(
    seq: int = 1, *, number: int | None = None, producer: str = "p1", workflow: str = "w1", **fields: Any
) -> Message:
    """A finished task, the `number`-th of its producer (the same as `seq` unless told); None leaves a field out."""
    record: dict[str, Any] = {
        "task_id": f"{workflow}-{seq if number is None else number:08x}",
        "workflow_id": workflow,
        "activity_id": "train",
        "status": "FINISHED",
        "started_at": START_MS + seq,
        "ended_at": START_MS + seq + 500,
        "duration": 0.5,
        "used": {"epochs": seq},
        "producer_id": producer,
        "seq": seq,
        "schema_version": 1,
    }
    record |= fields
    stated = {name: value for name, value in record.items() if value is not None}
    return Message(Kind.TASK, producer, workflow, seq, stated)


def workflow_message(seq: int = 1, *, producer: str = "p1", workflow: str = "w1", **fields: Any) -> Message:
    """A statement about a workflow."""
    record = {"workflow_id": workflow, "producer_id": producer, "seq": seq, **fields}
    return Message(Kind.WORKFLOW, producer, workflow, seq, record)


def producer_message(seq: int = 1, *, producer: str = "p1", workflow: str = "w1", **fields: Any) -> Message:
    """A statement about a producer in a workflow."""
    record = {"workflow_id": workflow, "producer_id": producer, "seq": seq, **fields}
    message = Message(Kind.PRODUCER, producer, workflow, seq, record)
    assert message.record_id == producer_record_id(producer, workflow)
    return message


def without(document: Record, *names: str) -> Record:
    """The document less some fields."""
    return {name: value for name, value in document.items() if name not in names}
