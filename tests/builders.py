"""Runs as stores hold them, made without producers: messages written straight through the store's interface."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from provd.common import ids
from provd.common.ranges import Ranges
from provd.common.record import Kind, Message, Status
from provd.store.interface import Beat, Store, Stored

#: 2026-11-20T14:00:00Z, where every built run begins unless told otherwise.
START_MS = 1_795_183_200_000


@dataclass
class ProducerBuilder:
    """One process of a run: collects messages, and writes them with their ledger."""

    workflow_id: str
    producer_id: str
    campaign_id: str | None = None
    hostname: str = "node01"
    pid: int = 4242
    rank: int | None = None
    world_size: int | None = None
    started_at: int = START_MS
    messages: list[Message] = field(default_factory=list)
    ended: int = 0

    def _add(self, kind: Kind, record: dict[str, Any]) -> Message:
        seq = len(self.messages) + 1
        common = {
            "workflow_id": self.workflow_id,
            "campaign_id": self.campaign_id,
            "producer_id": self.producer_id,
            "seq": seq,
            "hostname": self.hostname,
            "pid": self.pid,
            "rank": self.rank,
            "schema_version": 1,
        }
        complete = {key: value for key, value in (common | record).items() if value is not None}
        message = Message(kind, self.producer_id, self.workflow_id, seq, complete)
        self.messages.append(message)
        return message

    def open(self) -> ProducerBuilder:
        """Say hello."""
        self._add(
            Kind.PRODUCER,
            {"status": "RUNNING", "started_at": self.started_at, "world_size": self.world_size},
        )
        return self

    def task(
        self,
        activity: str = "train",
        status: Status = Status.FINISHED,
        *,
        after_ms: int = 0,
        duration: float | None = 0.25,
        **more: Any,
    ) -> str:
        """Add a task that starts `after_ms` after the producer; returns its id."""
        task_id = ids.task_id(self.producer_id, len(self.messages))
        started_at = self.started_at + after_ms
        record: dict[str, Any] = {
            "task_id": task_id,
            "activity_id": activity,
            "status": status.value,
            "started_at": started_at,
            "used": {"lr": 0.1, "epochs": 3},
        }
        if status not in (Status.RUNNING, Status.SUBMITTED):
            self.ended += 1
            if duration is not None:
                record |= {"duration": duration, "ended_at": started_at + round(duration * 1000)}
        if status is Status.FINISHED:
            record["generated"] = {"loss": 0.5}
        self._add(Kind.TASK, record | more)
        return task_id

    def workflow(self, status: Status = Status.FINISHED, **fields: Any) -> ProducerBuilder:
        """Speak as the workflow's owner; SUBMITTED is what a joiner says."""
        record: dict[str, Any] = {"status": status.value}
        if status is not Status.SUBMITTED:
            record["started_at"] = self.started_at
        if status not in (Status.SUBMITTED, Status.RUNNING):
            record |= {"ended_at": self.started_at + 12_340, "duration": 12.34}
        self._add(Kind.WORKFLOW, record | fields)
        return self

    def close(
        self, status: Status = Status.FINISHED, *, after_ms: int = 12_000, **fields: Any
    ) -> ProducerBuilder:
        """Say goodbye."""
        record = {
            "status": status.value,
            "started_at": self.started_at,
            "closed_at": self.started_at + after_ms,
            "world_size": self.world_size,
            "sent": len(self.messages) + 1,
            "tasks_started": self.ended,
            "tasks_ended": self.ended,
        }
        self._add(Kind.PRODUCER, record | fields)
        return self

    def write(self, store: Store, *, without: Sequence[int] = ()) -> ProducerBuilder:
        """Store the messages and enter them in the ledger, but for the seqs in `without`: they are lost."""
        kept = [message for message in self.messages if message.seq not in without]
        store.write(kept, received_at=self.started_at + 1000)
        store.add_stored(
            Stored(self.producer_id, self.workflow_id, first, last)
            for first, last in Ranges.of_numbers(message.seq for message in kept)
        )
        return self

    def beat(self, store: Store, at_ms: int) -> ProducerBuilder:
        """Give a sign of life."""
        none = Ranges()
        store.put_beats(
            [
                Beat(
                    self.producer_id,
                    self.workflow_id,
                    at_ms,
                    len(self.messages),
                    self.ended,
                    self.ended,
                    none,
                    none,
                )
            ]
        )
        return self


def finished_run(
    store: Store,
    workflow_id: str = "alpha0000000001",
    *,
    campaign_id: str | None = "exp42",
    name: str = "sweep",
    started_at: int = START_MS,
    failing: int = 1,
) -> ProducerBuilder:
    """A complete run of four good tasks and `failing` bad ones, by one owner."""
    owner = ProducerBuilder(workflow_id, f"p-{workflow_id}", campaign_id, started_at=started_at).open()
    owner.workflow(Status.RUNNING, name=name)
    for number in range(4):
        owner.task(after_ms=number * 100, duration=(number + 1) / 10)
    for number in range(failing):
        error = f"ValueError: loss is nan at {number}" if number > 1 else "ValueError: loss is nan"
        text = f'Traceback (most recent call last):\n  File "train.py", line 7, in train\n{error}\n'
        owner.task("evaluate", Status.ERROR, after_ms=500, duration=0.01, stderr=error, traceback=text)
    owner.workflow(
        Status.FINISHED,
        name=name,
        user="ada",
        hostname="login1",
        cwd="/home/ada/exp",
        argv=["python", "sweep.py", "--lr", "0.1"],
        args={"lr": 0.1},
        code={
            "repository": "git@host:ada/exp.git",
            "branch": "main",
            "commit": "0123456789abcdef",
            "dirty": True,
        },
        environment={"python": "3.11.7", "scheduler": {"name": "slurm", "job_id": "1234"}},
    )
    return owner.close().write(store)
