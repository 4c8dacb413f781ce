"""When a producer looks for the store's receipts: ever less often, and in the end only when it is awake anyway."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from provd.common import clock
from provd.common.spool import SpoolWriter
from provd.producer.broker import Broker
from provd.producer.journal import Journal
from provd.producer.receipts import Receipts


@contextmanager
def looking(redis_url: str, folder: Path) -> Iterator[tuple[Receipts, Broker]]:
    spool = SpoolWriter(folder, "p1", ceiling_bytes=1 << 20, free_floor=0.0, hostname="h")
    broker = Broker(redis_url, namespace="ns", buckets=16, timeout_s=1)
    try:
        yield Receipts(Journal(spool)), broker
    finally:
        broker.close()


def test_looks_that_bring_nothing_end_up_in_the_rhythm_of_the_heartbeat(
    redis_url: str, tmp_path: Path
) -> None:
    """An idle producer wakes once per heartbeat, also when a consumer is away for days."""
    with looking(redis_url, tmp_path) as (receipts, broker):
        next_beat = clock.monotonic() + 20.0
        due: list[float] = []
        for _ in range(5):
            receipts.ask(broker, [], next_beat)
            due.append(receipts.due_at)

    assert sorted(due) == due
    assert due[0] < next_beat
    assert due[-1] == next_beat


def test_a_heartbeat_that_is_far_away_is_not_waited_for(redis_url: str, tmp_path: Path) -> None:
    with looking(redis_url, tmp_path) as (receipts, broker):
        for _ in range(5):
            receipts.ask(broker, [], clock.monotonic() + 3600.0)

        assert receipts.due_at <= clock.monotonic() + 60.0
