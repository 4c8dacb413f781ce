"""MongoDB away while Redis fills up: everything goes to the consumer's disk, and comes back by itself.

G2: a frame is acknowledged after the store confirmed it or after fsync of the consumer's own spool. G4: what is bad
is set aside with its raw bytes. G5: Redis' memory has a ceiling, the consumer's too.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from provd.common import names
from provd.common.ranges import Ranges
from provd.common.settings import Settings
from provd.common.spool import SpoolWriter, spool_files
from provd.consumer.broker import Broker
from provd.consumer.identity import Identity
from provd.consumer.service import Consumer
from provd.store.books import read_books
from provd.store.open import open_store
from tests.faults.proof import assert_stored_once, assert_whole
from tests.integration.consuming import make_consumers, opened_store, plain_settings, running
from tests.integration.feeder import Feeder, newer_frame
from tests.services.redis_server import RedisServer
from tests.services.waiting import wait_until

PrivateRedis = Callable[..., RedisServer]

#: Where nobody listens.
NO_STORE = "mongodb://127.0.0.1:1/provd"


@pytest.fixture
def store_url(mongo_url: str) -> str:
    return mongo_url


def filling(server: RedisServer, store_url: str, folder: Path) -> Settings:
    """Settings of a consumer that spools as soon as the store is away."""
    settings = plain_settings(server.url, store_url, "ns", folder)
    return replace(settings, drain_share=0.01, spool_free_floor=0.0)


def set_aside(settings: Settings) -> list[Path]:
    return sorted(path for path in settings.spool_path.rglob("*.quarantine*"))


def memory() -> int:
    """Bytes that this process has in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def fill_up(server: RedisServer) -> None:
    """From now on every write that needs memory is refused."""
    with server.client() as client:
        client.config_set("maxmemory", int(client.info("memory")["used_memory"]))


def test_what_belongs_in_quarantine_does_not_keep_a_full_redis_from_being_drained(
    private_redis: PrivateRedis, store_url: str, tmp_path: Path, slots: Path
) -> None:
    """G4, G5: flaws, ruined frames, what is no frame, and what no line can hold: all leave Redis, none is lost."""
    server = private_redis()
    settings = filling(server, store_url, tmp_path)
    with ExitStack() as stack, server.client() as client, opened_store(store_url) as store:
        sound, flawed, refused = (Feeder(client, "ns", name, receipt=True) for name in ("w1", "w2", "w3"))
        sound.send([sound.hello(), *sound.tasks(99)], frame=10)
        flawed.send_garbled(flawed.tasks(10))
        sound.send_raw(b"ruined", b"body")
        client.xadd(sound.keys.stream, {"greeting": "hello"})
        refused.send([*refused.tasks(2), *refused.tasks(1, activity_id=7), *refused.tasks(2)])
        sound.send_raw(*newer_frame(sound))
        fill_up(server)
        consumer = make_consumers(replace(settings, store_url=NO_STORE), slots, stack)()
        with running(consumer):
            wait_until(lambda: flawed.length() + refused.length() == 0 and sound.length() == 1)

        # Then everything but the frame of a later schema is on the disk, unreadable to replay where it is no message
        assert client.hget(flawed.keys.spooled, flawed.producer_id) == b"1-10"
        assert client.hget(sound.keys.spooled, sound.producer_id) == b"1-100"
        assert (sound.receipts(), flawed.receipts()) == ("", "")
        assert len(set_aside(settings)) == 1
        assert [path.stat().st_mode & 0o777 for path in set_aside(settings)] == [0o600]
        assert not set(set_aside(settings)) & set(spool_files([settings.spool_path], with_open=True))

        # And when the store is back it all comes back, each to its place
        consumer.close()
        client.config_set("maxmemory", 0)
        make_consumers(settings, slots, stack)().run_until_empty()
        items = list(store.find(names.QUARANTINE, {}))
        assert len(items) == 4
        assert {bytes(item["raw"]) for item in items} >= {b"ruinedbody", b"greeting=hello"}
        assert store.count(names.TASKS, {}) == 99 + 9 + 4
        assert_stored_once(store, sound)
        (producer,) = read_books(store, "w2").producers
        assert (len(producer.stored), len(producer.quarantined), len(producer.missing)) == (9, 1, 0)

        # With receipts for what is stored, none for what was damaged, and no note left
        assert sound.receipts() == "1-100"
        assert Ranges.parse(flawed.receipts()) == Ranges.of([(1, 10)]).minus(producer.quarantined)
        assert refused.receipts() == "1-5"
        assert not client.exists(sound.keys.spooled, flawed.keys.spooled, refused.keys.spooled)
        assert [path for path in settings.spool_path.rglob("*") if path.is_file()] == []


class _Gated:
    """A real store that lets one write through at a time, when told to."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.sizes: list[int] = []
        self.gate = threading.Semaphore(0)
        self.waiting = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    @contextmanager
    def opened_at_the_end(self) -> Iterator[None]:
        try:
            yield
        finally:
            self.gate.release(10_000)

    def write(self, messages: Any, **named: Any) -> Any:
        self.waiting = True
        self.gate.acquire()
        self.waiting = False
        self.sizes.append(len(messages))
        return self._store.write(messages, **named)


def spool_of(settings: Settings, feeder: Feeder, count: int, *, name: str = "head-0.ns") -> None:
    """What a consumer that has ended left in its spool."""
    writer = SpoolWriter(settings.spool_path, name, ceiling_bytes=1 << 40, free_floor=0, hostname="head")
    for start in range(0, count, 1000):
        writer.write(feeder.tasks(min(1000, count - start)))
    writer.forget()


def test_live_frames_do_not_wait_for_the_spool(
    private_redis: PrivateRedis, store_url: str, tmp_path: Path, slots: Path
) -> None:
    """Between two slices of the spool there is always a look at the streams."""
    server = private_redis()
    settings = replace(filling(server, store_url, tmp_path), batch_messages=100)
    with ExitStack() as stack, server.client() as client, opened_store(store_url) as store:
        spooled, live = Feeder(client, "ns"), Feeder(client, "ns", "w2")
        spool_of(settings, spooled, 5000)
        gated: Any = _Gated(open_store(store_url))
        consumer = stack.enter_context(
            Consumer(
                settings,
                broker=Broker(server.url, connect_timeout_s=1),
                store=gated,
                identity=Identity(slots, hostname="head"),
            )
        )
        live.send(live.tasks(10))
        with running(consumer), gated.opened_at_the_end():
            gated.gate.release(3)
            wait_until(lambda: len(gated.sizes) == 3)
            wait_until(lambda: gated.waiting)
            live.send(live.tasks(10))
            gated.gate.release(2)  # one more slice, which was waiting already, and then the live frame
            wait_until(lambda: live.length() == 0)
            brought_back = consumer.progress.brought_back
            backlog = consumer.progress.backlog_files
            gated.gate.release(1000)
            wait_until(lambda: consumer.progress.brought_back == 5000, 30)

        assert brought_back <= 300
        assert backlog == 1
        assert max(gated.sizes) <= 100
        assert_stored_once(store, live)
        assert_stored_once(store, spooled)
        assert consumer.progress.backlog_files == consumer.progress.backlog_bytes == 0


def test_a_spool_that_comes_back_is_read_in_slices_that_fit_in_memory(
    private_redis: PrivateRedis, store_url: str, tmp_path: Path, slots: Path
) -> None:
    """G5: 60 MB of spool do not make a consumer grow by anything near it."""
    server = private_redis()
    settings = filling(server, store_url, tmp_path)
    with ExitStack() as stack, server.client() as client, opened_store(store_url) as store:
        small, large = Feeder(client, "ns"), Feeder(client, "ns", "w2")
        spool_of(settings, small, 500)
        make_consumers(settings, slots, stack)().run_until_empty()
        writer = SpoolWriter(
            settings.spool_path, "head-1.ns", ceiling_bytes=1 << 40, free_floor=0, hostname="head"
        )
        for _ in range(60):
            writer.write(large.tasks(10, stdout="x" * 100_000))
        writer.forget()
        consumer = make_consumers(settings, slots, stack)()
        before = memory()
        highest = 0

        with running(consumer):
            while consumer.progress.brought_back < 600:
                highest = max(highest, memory())
                threading.Event().wait(0.01)

        assert consumer.name == "head-1"
        assert_stored_once(store, large)
        assert highest - before < 40 << 20


def test_mongodb_that_goes_away_while_the_spool_comes_back_costs_nothing(
    private_redis: PrivateRedis, private_mongo: Callable[..., Any], tmp_path: Path, slots: Path
) -> None:
    """G2, G3: the slice in hand is tried again when the store is back."""
    server, mongo = private_redis(), private_mongo()
    url = mongo.database_url("provd")
    settings = replace(filling(server, url, tmp_path), batch_messages=100)
    with ExitStack() as stack, server.client() as client, opened_store(url) as store:
        feeder = Feeder(client, "ns", receipt=True)
        feeder.send([feeder.hello(), *feeder.tasks(9999)], frame=100)
        fill_up(server)
        away = make_consumers(replace(settings, store_url=NO_STORE), slots, stack)()
        with running(away):
            wait_until(lambda: feeder.length() == 0, 30)
        away.close()
        client.config_set("maxmemory", 0)

        consumer = make_consumers(settings, slots, stack)()
        with running(consumer):
            wait_until(lambda: consumer.progress.brought_back > 0)
            mongo.kill()
            wait_until(lambda: "waiting for the store" in consumer.progress.state)
            half = consumer.progress.brought_back
            # What comes meanwhile is spooled beside what was there, and comes back with it
            feeder.send([*feeder.tasks(500), feeder.goodbye()], frame=100)
            mongo.start()
            wait_until(lambda: consumer.progress.brought_back >= 10_000, 60)
            wait_until(lambda: not client.exists(feeder.keys.stream), 30)

        assert 0 < half < 10_000
        assert_whole(store, feeder)
        assert spool_files([settings.spool_path], with_open=True) == []


def test_a_torn_last_line_of_the_spool_is_nothing_lost_and_a_garbled_one_is_kept_and_told(
    private_redis: PrivateRedis, store_url: str, tmp_path: Path, slots: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A line without an end was never synced, so its frame was never acknowledged."""
    server = private_redis()
    settings = filling(server, store_url, tmp_path)
    with ExitStack() as stack, server.client() as client, opened_store(store_url) as store:
        feeder = Feeder(client, "ns")
        spool_of(settings, feeder, 20)
        (torn,) = spool_files([settings.spool_path], with_open=True)
        torn.write_bytes(torn.read_bytes() + b'{"kind": "task", "tas')
        spool_of(settings, feeder, 20)
        (garbled,) = set(spool_files([settings.spool_path], with_open=True)) - {torn}
        garbled.write_bytes(garbled.read_bytes() + b'{"kind": "task"}\n')

        consumer = make_consumers(settings, slots, stack)()
        consumer.run_until_empty()
        consumer.close()
        make_consumers(settings, slots, stack)().run_until_empty()

        assert_stored_once(store, feeder)
        left = [path for path in settings.spool_path.rglob("*") if path.is_file()]
        assert left == [garbled.with_name(garbled.name.removesuffix(".open") + ".unreadable")]
        assert caplog.text.count("spool file kept") == 1
