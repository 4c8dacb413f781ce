"""Memory over a long time: of a consumer with a backlog, and of a producer that never rests.

- Flat means: the last third of the time beside the first.
- The consumer's run is that of `scale`, too: the CPU time is there.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from statistics import median
from typing import Any

import redis

from benchmarks.draining import long_backlog
from benchmarks.figure import Figure, Form, Target
from benchmarks.runs import Program
from benchmarks.services import redis_server

#: Tasks in the backlog; seconds of the loop.
BACKLOG = {Form.QUICK: 300_000, Form.FULL: 1_000_000, Form.NIGHTLY: 10_000_000}
_SECONDS = {Form.QUICK: 15, Form.FULL: 60, Form.NIGHTLY: 600}

_FLAT = Target(most=1.05)
_CONSUMER_MIB = 200.0
_PRODUCER_MIB = 40.0

#: Seconds between two looks of the reader that keeps Redis empty.
_TRIM_S = 0.1


def measure(form: Form) -> Iterator[Figure]:
    """Its figures."""
    yield from _consumer(BACKLOG[form])
    yield from _producer(_SECONDS[form])


def _consumer(tasks: int) -> Iterator[Figure]:
    looks = long_backlog(tasks).long.looks
    held = [look.consumer_mib for look in looks]
    yield _flat(f"consumer memory, {tasks:,} tasks waiting: last third", "MiB", held)
    yield Figure(
        "the same, at its highest",
        "MiB",
        (max(held),),
        target=Target(most=_CONSUMER_MIB),
        note=f"{tasks / looks[-1].at:,.0f} tasks/s stored meanwhile",
    )


def _producer(seconds: int) -> Iterator[Figure]:
    bare = Program("memory_bare").run()["resident"]
    with redis_server(appendonly="no") as server, emptied(server.url):
        looks = Program("memory_producer", (str(seconds),), {"PROVD_BROKER_URL": server.url}).run()["looks"]
    calls, held, files = zip(*looks, strict=True)
    note = f"{calls[-1] / seconds:,.0f} calls/s, a reader keeps Redis empty"
    yield _flat(f"producer memory, saturating loop of {seconds} s: last third", "MiB", held)
    yield Figure(
        "the same, at its highest, over a bare interpreter",
        "MiB",
        (max(held) - bare,),
        target=Target(most=_PRODUCER_MIB),
        note=f"bare {bare:.1f} MiB; {note}",
    )
    third = len(files) // 3
    yield Figure(
        "open files of the producer: most in the last third",
        "files",
        (float(max(files[-third:])),),
        "most in the first",
        (float(max(files[:third])),),
        Target(most=1.0),
    )


def _flat(what: str, unit: str, samples: Sequence[float]) -> Figure:
    third = len(samples) // 3
    return Figure(what, unit, (median(samples[-third:]),), "first third", (median(samples[:third]),), _FLAT)


@contextmanager
def emptied(url: str) -> Iterator[None]:
    """A reader that takes all there is out of every stream, at once: Redis must not fill."""
    ended = threading.Event()

    def empty() -> None:
        client: Any = redis.Redis.from_url(url)
        while not ended.wait(_TRIM_S):
            for stream in client.scan_iter(match="*:stream:*", count=1000):
                client.xtrim(stream, maxlen=0, approximate=False)
        client.close()

    thread = threading.Thread(target=empty, name="reader")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
