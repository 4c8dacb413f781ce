"""Whole records in a stream: what a consumer and a message are measured beside.

A record is what provd stores of a task of four arguments and two results, field by field.
"""

from __future__ import annotations

import time
from typing import Any

import msgpack
import redis

from provd.common import ids
from provd.common.record import SCHEMA_VERSION, Record

#: Entries in one request.
_PIPELINE = 64


class WholeRecords:
    """Makes records of one producer in one workflow, and puts them into a stream."""

    def __init__(self, url: str, stream: str) -> None:
        # Any: the client's own types are unions with its asynchronous half.
        self._client: Any = redis.Redis.from_url(url)
        self._stream = stream
        self._producer_id = ids.new_producer_id()
        self._workflow_id = ids.new_workflow_id()
        self._made = 0

    def fill(self, tasks: int, *, frame: int) -> None:
        """Put tasks into the stream, so many in an entry."""
        for start in range(0, tasks, frame * _PIPELINE):
            with self._client.pipeline(transaction=False) as pipeline:
                for first in range(start, min(tasks, start + frame * _PIPELINE), frame):
                    records = [self._record() for _ in range(min(frame, tasks - first))]
                    pipeline.xadd(self._stream, {"b": msgpack.packb(records)})
                pipeline.execute()

    def fill_singly(self, tasks: int) -> None:
        """Put tasks into the stream, each in an entry of its own, without a list around it."""
        with self._client.pipeline(transaction=False) as pipeline:
            for _ in range(tasks):
                record = self._record()
                del record["_id"], record["received_at"]  # a message has neither
                pipeline.xadd(self._stream, {"b": msgpack.packb(record)})
            pipeline.execute()

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _record(self) -> Record:
        self._made += 1
        now = int(time.time() * 1000)
        task_id = ids.task_id(self._producer_id, self._made)
        return {
            "_id": task_id,
            "activity_id": "step",
            "task_id": task_id,
            "status": "FINISHED",
            "started_at": now,
            "ended_at": now,
            "duration": 0.25e-6 * (self._made % 7),
            "used": {"rate": 0.1, "epochs": self._made, "optimizer": "adam", "shuffle": True},
            "generated": {"loss": 0.25, "accuracy": 0.5},
            "workflow_id": self._workflow_id,
            "producer_id": self._producer_id,
            "seq": self._made,
            "hostname": "node0001",
            "pid": 12345,
            "schema_version": SCHEMA_VERSION,
            "received_at": now,
        }
