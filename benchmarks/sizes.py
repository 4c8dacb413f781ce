"""What a task takes in Redis' memory: in frames, and as an entry for each message with the whole record.

A task has four arguments and two results. The producer is a real one; what it said of itself and of the workflow is counted as
the task's, too.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Any

import redis

from benchmarks.figure import Figure, Form, Target
from benchmarks.runs import Program
from benchmarks.services import redis_server, scratch
from benchmarks.whole_records import WholeRecords

_TASKS = {Form.QUICK: 20_000, Form.FULL: 100_000, Form.NIGHTLY: 1_000_000}

#: Tasks a second of a producer whose frames are what a flush interval holds, not as large as can be.
_SLOW = 200
_SLOW_TASKS = 1_000


def measure(form: Form) -> Iterator[Figure]:
    """Bytes of the stream for each task."""
    tasks = _TASKS[form]
    with redis_server(appendonly="no") as server:
        client: Any = redis.Redis.from_url(server.url)
        with client:
            whole = _whole_records(client, server.url, tasks)
            for what, count, rate in (
                ("a saturating loop", tasks, 0),
                (f"{_SLOW} a second", _SLOW_TASKS, _SLOW),
            ):
                client.flushdb()
                yield Figure(
                    f"a task in Redis, {what}",
                    "bytes",
                    (_frames(client, server.url, count, rate),),
                    "an entry a message",
                    (whole,),
                    Target(most=0.4),
                    "MEMORY USAGE of the stream by tasks; four arguments, two results",
                )


def _frames(client: Any, url: str, tasks: int, rate: int) -> float:
    with scratch() as folder:
        env = {"PROVD_BROKER_URL": url, "PROVD_SPOOL_DIR": str(folder)}
        feed = Program("feed_provd", ("sizes", str(tasks), str(rate)), env)
        done = subprocess.run(
            feed.command, env=feed.environment, input="\n", capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    (stream,) = client.scan_iter(match="provd:*:stream:*", count=1000)
    return _bytes(client, stream) / tasks


def _whole_records(client: Any, url: str, tasks: int) -> float:
    records = WholeRecords(url, "whole-records")
    records.fill_singly(tasks)
    records.close()
    return _bytes(client, "whole-records") / tasks


def _bytes(client: Any, stream: str) -> int:
    """Bytes of a key with everything in it: no sampling."""
    return int(client.memory_usage(stream, samples=0))
