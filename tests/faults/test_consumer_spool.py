"""The consumer's own spool, whose files somebody removes, whose disk refuses, or which others might take for theirs.

G2: a frame is acknowledged only when it is in a file that will be found again. G5: the spool has a ceiling.
"""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
import redis

from provd.common import names
from provd.common.errors import SpoolError
from provd.common.spool import read_spool, spool_files
from provd.consumer import fallback
from provd.consumer.broker import Broker
from provd.consumer.fallback import Fallback
from provd.consumer.registry import Registry
from provd.consumer.streams import Entry, Streams
from tests.integration.consuming import make_consumers, opened_store, plain_settings, running
from tests.integration.feeder import BUCKETS, Feeder
from tests.services.redis_server import RedisServer
from tests.services.waiting import wait_until


@pytest.fixture
def streams(redis_url: str, namespace: str) -> Iterator[Streams]:
    broker = Broker(redis_url, connect_timeout_s=2)
    registry = Registry(broker, namespace=namespace, buckets=BUCKETS)
    yield Streams(
        broker, registry, consumer="head-0", read_bytes=1 << 24, read_frames=1000, read_messages=2000
    )
    broker.close()


@pytest.fixture
def make_fallback(streams: Streams, tmp_path: Path) -> Callable[..., Fallback]:
    def make(ceiling_bytes: int = 1 << 30) -> Fallback:
        return Fallback(
            streams,
            folder=tmp_path,
            name="head-0.ns",
            hostname="head",
            ceiling_bytes=ceiling_bytes,
            free_floor=0.0,
        )

    return make


def read_some(streams: Streams) -> list[Entry]:
    streams.rewind()
    entries: list[Entry] = []

    def there_are() -> bool:
        entries.extend(streams.read())
        return bool(entries)

    wait_until(there_are)
    return entries


def spooled(folder: Path) -> set[int]:
    """The numbers in all files that are still there."""
    lines = [line for path in spool_files([folder], with_open=True) for line in read_spool(path)]
    return {line.message.seq for line in lines if line.message is not None}


def test_what_is_spooled_after_a_file_could_not_be_sealed_is_in_a_file_of_its_own(
    client: redis.Redis,
    namespace: str,
    streams: Streams,
    make_fallback: Callable[..., Fallback],
    tmp_path: Path,
) -> None:
    """The file that was in hand is brought back and removed: what came after it would go with it."""
    spool, feeder = make_fallback(), Feeder(client, namespace)
    feeder.send(feeder.tasks(5))
    feeder.send_raw(b"no header", b"no body")
    spool.take(read_some(streams))
    (quarantine,) = tmp_path.rglob("*.quarantine.open")
    quarantine.unlink()
    with pytest.raises(SpoolError):
        spool.close()
    for path in spool_files([tmp_path], with_open=True):
        path.unlink()

    feeder.send(feeder.tasks(5))
    spool.take(read_some(streams))

    assert feeder.length() == 0
    assert spooled(tmp_path) == set(range(6, 11))


def test_nothing_is_acknowledged_that_went_into_a_file_that_somebody_has_removed(
    client: redis.Redis,
    namespace: str,
    streams: Streams,
    make_fallback: Callable[..., Fallback],
    tmp_path: Path,
) -> None:
    """As `provd replay --recover` on another host may, when nothing was spooled for an hour."""
    spool, feeder = make_fallback(), Feeder(client, namespace)
    feeder.send(feeder.tasks(5))
    spool.take(read_some(streams))
    for path in spool_files([tmp_path], with_open=True):
        path.unlink()
    feeder.send(feeder.tasks(5))

    with pytest.raises(SpoolError, match="taken it away"):
        spool.take(read_some(streams))

    assert feeder.pending() == 1
    spool.take(read_some(streams))
    assert feeder.length() == 0
    assert spooled(tmp_path) == set(range(6, 11))


def test_the_ceiling_counts_what_was_sealed_and_what_lies_beside(
    client: redis.Redis,
    namespace: str,
    streams: Streams,
    make_fallback: Callable[..., Fallback],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """G5, also in one long outage that fills many files."""
    monkeypatch.setattr(fallback, "_FILE_BYTES", 10_000)
    spool, feeder = make_fallback(200_000), Feeder(client, namespace)

    def spool_on() -> None:
        for _ in range(100):
            feeder.send(feeder.tasks(10, stdout="x" * 100), frame=5)
            feeder.send_raw(b"no header", os.urandom(1000))
            spool.take(read_some(streams))

    with pytest.raises(SpoolError, match="ceiling"):
        spool_on()

    size = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    assert 100_000 < size < 250_000
    assert feeder.pending() > 0


def test_a_consumer_of_another_namespace_leaves_the_spool_alone(
    private_redis: Callable[..., RedisServer], tmp_path: Path, slots: Path
) -> None:
    """Names come back: the next consumer of this host may serve another deployment, with another store."""
    server = private_redis()
    here, there = (f"sqlite:///{tmp_path}/{name}.db" for name in ("here", "there"))
    settings = replace(plain_settings(server.url, here, "here", tmp_path), drain_share=0.01)
    with ExitStack() as stack, server.client() as client, opened_store(here) as store:
        feeder = Feeder(client, "here")
        feeder.send(feeder.tasks(10))
        client.config_set("maxmemory", 1)
        blocked = tmp_path / "here.db"
        blocked.mkdir()
        with make_consumers(settings, slots, stack)() as consumer, running(consumer):
            wait_until(lambda: consumer.progress.spooled == 10)
        blocked.rmdir()
        client.config_set("maxmemory", 0)

        other = replace(settings, namespace="there", store_url=there)
        with make_consumers(other, slots, stack)() as consumer:
            assert consumer.name == "head-0"
            consumer.run_until_empty()
        assert spooled(tmp_path) == set(range(1, 11))

        make_consumers(settings, slots, stack)().run_until_empty()
        assert store.count(names.TASKS, {}) == 10
        assert spooled(tmp_path) == set()


@pytest.mark.parametrize("odd", [{"campaign_id": "no id"}, {"status": 7}, {"$x": 1}], ids=str)
def test_what_could_not_be_read_again_as_a_line_goes_to_quarantine_and_not_into_the_spool(
    client: redis.Redis,
    namespace: str,
    streams: Streams,
    make_fallback: Callable[..., Fallback],
    tmp_path: Path,
    odd: dict[str, object],
) -> None:
    """G4: a line that no reader takes would be neither stored nor quarantined."""
    spool, feeder = make_fallback(), Feeder(client, namespace)
    hello = feeder.hello()
    hello.record.update(odd)
    feeder.send([hello, *feeder.tasks(2)])

    batch, count = spool.take(read_some(streams))

    (piece,) = batch.quarantined
    assert (piece.first_seq, piece.last_seq, count) == (1, 1, 3)
    assert spooled(tmp_path) == {2, 3}
    assert client.hget(feeder.keys.spooled, feeder.producer_id) == b"1-3"


def test_a_reading_that_is_spooled_is_in_memory_one_frame_at_a_time(
    client: redis.Redis, namespace: str, streams: Streams, make_fallback: Callable[..., Fallback]
) -> None:
    """G5: a reading holds many batches' worth, and there is no store that would bound a batch."""
    spool, feeder = make_fallback(), Feeder(client, namespace)
    feeder.send(feeder.tasks(1), frame=1)
    spool.take(read_some(streams))  # the file is open
    feeder.send(feeder.tasks(8000), frame=500)
    entries: list[Entry] = []

    def are_all_read() -> bool:
        entries.extend(streams.read())
        return len(entries) == 16

    wait_until(are_all_read)
    tracemalloc.start()
    try:
        spool.take(entries)
        highest = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert feeder.length() == 0
    assert highest < 4 << 20


def test_a_file_that_somebody_else_brings_in_gets_nothing_more(
    client: redis.Redis,
    namespace: str,
    streams: Streams,
    make_fallback: Callable[..., Fallback],
    tmp_path: Path,
) -> None:
    """G2: who takes a file renames it first, so that what comes later is in another one when it is acknowledged."""
    spool, feeder = make_fallback(), Feeder(client, namespace)
    feeder.send(feeder.tasks(5))
    spool.take(read_some(streams))
    (path,) = spool_files([tmp_path], with_open=True)
    taken = path.rename(path.with_suffix(""))
    feeder.send(feeder.tasks(5))

    with pytest.raises(SpoolError, match="taken it away"):
        spool.take(read_some(streams))
    assert feeder.pending() == 1
    taken.unlink()

    spool.take(read_some(streams))
    assert feeder.length() == 0
    assert spooled(tmp_path) == set(range(6, 11))
