"""Frames in Redis for a consumer to find: as producers send them, without the producers.

- A backlog is filled unseen, and becomes visible at once: its streams are entered into the registry by `show`. So what
  a consumer does with it begins at one known moment.
- Producers and streams of a backlog are alive: `beat` gives each of them its heartbeat.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis

from provd.common import ids, names, wire
from provd.common.record import RANKS, Kind, Status

BUCKETS = 16

#: A task of four arguments and two results.
_SHAPE = wire.Shape(
    Kind.TASK,
    (("activity_id", "train"),),
    ("lr", "epochs", "optimizer", "rate"),
    ("loss", "steps"),
)
_RUNNING, _FINISHED = RANKS[Status.RUNNING.value], RANKS[Status.FINISHED.value]

#: Frames in one request.
_PIPELINE = 64


class _Lane:
    """One producer in one workflow: the numbers it has given."""

    def __init__(self, namespace: str, workflow_id: str) -> None:
        self.workflow_id = workflow_id
        self.producer_id = ids.new_producer_id()
        self.keys = names.WorkflowKeys.of(namespace, BUCKETS, workflow_id, None)
        self.sent = 0

    def frame(self, count: int, pack: Any, *, announced: bool = False) -> dict[bytes, bytes]:
        """The next tasks, as the fields of an entry; those `announced` have a message of their beginning before."""
        first = self.sent + 1
        now = int(time.time() * 1000)
        rows = []
        for number in range(first, first + count):
            used = [0.1, number, "adam", 7]
            if announced:
                rows.append(pack([0, number, None, now, None, _RUNNING, used, None]))
            extra = [{"announced": True}] if announced else []
            rows.append(pack([0, number, None, now, 0.25, _FINISHED, used, [1.5, number], *extra]))
        self.sent += len(rows)
        header = wire.Header(self.producer_id, self.workflow_id, None, "node1", 1, None, first, len(rows))
        return {
            names.HEADER_FIELD: wire.encode_header(header),
            names.BODY_FIELD: wire.encode_body([_SHAPE], rows),
        }


class Backlog:
    """Streams that are filled before anybody sees them."""

    def __init__(
        self, url: str, label: str, *, streams: int = 1, producers: int = 1, namespace: str = "provd"
    ) -> None:
        """`label` tells its workflows from those of others; `producers` is how many each workflow has."""
        # Any: the client's own types are unions with its asynchronous half.
        self._client: Any = redis.Redis.from_url(url)
        self._lanes = [
            _Lane(namespace, f"{label}-{stream}") for _ in range(producers) for stream in range(streams)
        ]
        self._keys = [lane.keys for lane in self._lanes[:streams]]
        self.tasks = 0
        self._client.set(names.buckets_key(namespace), BUCKETS, nx=True)
        with self._client.pipeline(transaction=False) as pipeline:
            for keys in self._keys:
                pipeline.xgroup_create(keys.stream, names.GROUP, id="0", mkstream=True)
            pipeline.execute()

    def fill(self, tasks: int, *, frame: int = 500, announced: bool = False) -> None:
        """Put tasks into the streams, a frame of each producer in turn."""
        pack = wire.new_packer().pack
        lanes = itertools.cycle(self._lanes)
        left = tasks
        while left:
            with self._client.pipeline(transaction=False) as pipeline:
                for _ in range(_PIPELINE):
                    count = min(frame, left)
                    if count:
                        lane = next(lanes)
                        pipeline.xadd(lane.keys.stream, lane.frame(count, pack, announced=announced))
                        left -= count
                pipeline.execute()
        self.tasks += tasks

    def show(self) -> None:
        """Let consumers find the streams."""
        with self._client.pipeline(transaction=False) as pipeline:
            for keys in self._keys:
                pipeline.sadd(keys.registry, keys.stream)
            pipeline.execute()

    def frames(self) -> int:
        """Entries that are not acknowledged yet."""
        with self._client.pipeline(transaction=False) as pipeline:
            for keys in self._keys:
                pipeline.xlen(keys.stream)
            return sum(pipeline.execute())

    @contextmanager
    def beating(self, every_s: float = 10.0) -> Iterator[None]:
        """Every producer says that it lives, as often as the default has it."""
        ended = threading.Event()
        thread = threading.Thread(target=self._beat, args=(ended, every_s), name="beats")
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _beat(self, ended: threading.Event, every_s: float) -> None:
        """All producers within each period, spread over it as they are in life."""
        parts = 20
        for part in itertools.cycle(range(parts)):
            with self._client.pipeline(transaction=False) as pipeline:
                for lane in self._lanes[part::parts]:
                    said = {"at": int(time.time() * 1000), "sent": lane.sent, "ended": lane.sent}
                    pipeline.hset(lane.keys.beats, lane.producer_id, wire.pack(said))
                pipeline.execute()
            if ended.wait(every_s / parts):
                return

    def close(self) -> None:
        """Remove its keys, and close the connection."""
        with self._client.pipeline(transaction=False) as pipeline:
            for keys in self._keys:
                pipeline.srem(keys.registry, keys.stream)
                pipeline.delete(keys.stream, keys.beats)
            pipeline.execute()
        self._client.close()
