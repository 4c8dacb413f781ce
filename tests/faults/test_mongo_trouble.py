"""MongoDB killed, hung, slow, cut off, out of disk, stepping down, or answering with any passing error.

G2: a frame is acknowledged only after the store confirmed it; nothing accepted is lost. G3: what is written again
makes no second document. G4: what the server refuses for ever costs the one document, and a passing error costs none.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pymongo
import pytest
import redis

from provd.common import names
from provd.common.settings import Settings
from provd.consumer.service import Consumer
from provd.store.mongo_errors import _TRANSIENT_CODES
from tests.faults.proof import assert_stored_once, assert_whole
from tests.integration.consuming import make_consumers, opened_store, plain_settings, running
from tests.integration.feeder import Feeder
from tests.services.binaries import ServiceMissing
from tests.services.mongo_server import MongoServer
from tests.services.proxy import Proxy
from tests.services.waiting import wait_until

PrivateMongo = Callable[..., MongoServer]


def settings_for(redis_url: str, url: str, namespace: str, folder: Path) -> Settings:
    """Small batches, so that the fault finds work in hand."""
    return replace(plain_settings(redis_url, url, namespace, folder), batch_messages=100)


def feed(client: redis.Redis, namespace: str, count: int) -> Feeder:
    """A workflow whose frames wait in Redis."""
    feeder = Feeder(client, namespace)
    feeder.send([feeder.hello(), *feeder.tasks(count), feeder.goodbye()], frame=20)
    return feeder


def retired(client: redis.Redis, feeder: Feeder) -> bool:
    """Whether all is stored, and the workflow's keys are gone."""
    return not client.exists(feeder.keys.stream)


@contextmanager
def ingest(
    client: redis.Redis, feeder: Feeder, settings: Settings, slots: Path, url: str
) -> Iterator[Consumer]:
    """A consumer at work, for the caller to disturb; after that all must come to the store at `url`, once and whole."""
    with ExitStack() as stack, opened_store(url) as store:
        store.migrate()
        consumer = make_consumers(settings, slots, stack)()
        with running(consumer):
            yield consumer
            wait_until(lambda: retired(client, feeder), 60)

        assert_whole(store, feeder)
        assert store.count(names.QUARANTINE, {}) == 0


# --- the process and the network ---------------------------------------------------------------------------------


def test_mongodb_killed_twice_in_the_middle_of_ingest_loses_and_doubles_nothing(
    redis_url: str,
    client: redis.Redis,
    namespace: str,
    private_mongo: PrivateMongo,
    tmp_path: Path,
    slots: Path,
) -> None:
    """G2: what was confirmed is in MongoDB's journal; what was not is written again."""
    mongo = private_mongo()
    url = mongo.database_url("provd")
    feeder = feed(client, namespace, 12_000)
    with ingest(client, feeder, settings_for(redis_url, url, namespace, tmp_path), slots, url):
        for share in (0.2, 0.5):
            most = (1 - share) * 600
            wait_until(lambda most=most: bool(feeder.length() < most), 30)  # type: ignore[misc]
            mongo.kill()
            assert feeder.length() > 0
            mongo.start()


def test_mongodb_frozen_for_some_seconds_loses_and_doubles_nothing(
    redis_url: str,
    client: redis.Redis,
    namespace: str,
    private_mongo: PrivateMongo,
    tmp_path: Path,
    slots: Path,
) -> None:
    """G2: connections stay open and nobody answers, for longer than frames may be held without a sign of life."""
    mongo = private_mongo()
    url = mongo.database_url("provd")
    feeder = feed(client, namespace, 6_000)
    settings = replace(settings_for(redis_url, url, namespace, tmp_path), claim_after_s=0.5)
    with ExitStack() as stack, opened_store(url) as store:
        store.migrate()
        make = make_consumers(settings, slots, stack)
        with running(make()), running(make()):
            wait_until(lambda: feeder.length() < 250, 30)
            mongo.pause()
            frozen_at = time.monotonic()
            assert feeder.length() > 0
            wait_until(lambda: time.monotonic() - frozen_at > 3.0)
            mongo.resume()
            wait_until(lambda: retired(client, feeder), 60)

        assert_whole(store, feeder)
        assert store.count(names.QUARANTINE, {}) == 0


@contextmanager
def proxied(url: str) -> Iterator[tuple[Proxy, str]]:
    """A proxy before a server, and the URL that goes through it."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    proxy = Proxy(parts.hostname, parts.port or 27017)
    proxy.start()
    try:
        yield proxy, parts._replace(netloc=f"127.0.0.1:{proxy.port}").geturl()
    finally:
        proxy.close()


def test_a_slow_mongodb_is_waited_for_and_its_frames_are_not_taken_over(
    redis_url: str, client: redis.Redis, namespace: str, mongo_url: str, tmp_path: Path, slots: Path
) -> None:
    """Every reply takes a while, longer in sum than the claim time: who works on frames keeps them."""
    feeder = feed(client, namespace, 198)
    with ExitStack() as stack, opened_store(mongo_url) as store, proxied(mongo_url) as (proxy, url):
        store.migrate()
        settings = replace(settings_for(redis_url, url, namespace, tmp_path), claim_after_s=0.8)
        make = make_consumers(replace(settings, batch_messages=1000), slots, stack)
        first, second = make(), make()
        proxy.slow(0.3)
        with running(first):
            wait_until(lambda: feeder.pending() > 0)
            with running(second):
                wait_until(lambda: retired(client, feeder), 60)
            proxy.slow(0)

        assert_whole(store, feeder)
        assert (first.progress.received, second.progress.received) == (200, 0)


@pytest.mark.parametrize("pieces", [2, 3, 5])
def test_connections_cut_in_the_middle_of_mongodbs_replies_cost_nothing(
    redis_url: str,
    client: redis.Redis,
    namespace: str,
    mongo_url: str,
    tmp_path: Path,
    slots: Path,
    pieces: int,
) -> None:
    """What the server did and could not tell is done again, and changes nothing."""
    feeder = Feeder(client, namespace)
    feeder.send([feeder.hello(), *feeder.tasks(2_000)], frame=20)
    with proxied(mongo_url) as (proxy, url):
        settings = settings_for(redis_url, url, namespace, tmp_path)
        with ingest(client, feeder, settings, slots, mongo_url):
            wait_until(lambda: feeder.length() < 100, 30)
            proxy.cut_every(pieces)

            def is_cut_often() -> bool:
                """As long as it is not, there is work."""
                if feeder.length() < 100:
                    feeder.send(feeder.tasks(100), frame=20)
                return proxy.cuts >= 5

            wait_until(is_cut_often, 30)
            proxy.cut_every(0)
            feeder.send([feeder.goodbye()])


def test_a_primary_that_steps_down_and_comes_back_loses_and_doubles_nothing(
    redis_url: str,
    client: redis.Redis,
    namespace: str,
    private_mongo: PrivateMongo,
    tmp_path: Path,
    slots: Path,
) -> None:
    """G2: without a primary there is no majority; the consumer waits for the next one."""
    mongo = private_mongo(replica_set=True)
    url = mongo.database_url("provd")
    feeder = feed(client, namespace, 6_000)
    settings = settings_for(redis_url, url, namespace, tmp_path)
    with mongo.client() as admin, ingest(client, feeder, settings, slots, url):
        wait_until(lambda: feeder.length() < 250, 30)
        admin.admin.command({"replSetStepDown": 2, "force": True})
        assert feeder.length() > 0


# --- the disk ----------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 400 MB; where the user may not mount one, the error's failpoint stands for it."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400m", "tmpfs", folder], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"no file system may be mounted here: {mounted.stderr.strip()}; 14031 is provoked below")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def mends(mongo: MongoServer) -> bool:
    """Start a server again that has ended: WiredTiger gives up, sooner or later, rather than lose its journal."""
    if not mongo.child.is_running:
        mongo.start()
    return True


def test_a_full_disk_below_mongodb_loses_and_doubles_nothing(
    redis_url: str,
    client: redis.Redis,
    namespace: str,
    small_disk: Path,
    tmp_path: Path,
    slots: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """G2: the disk fills up in the middle of ingest; with room again (and mongod started again) all is stored."""
    try:
        mongo = MongoServer(small_disk)
    except ServiceMissing as missing:
        pytest.skip(str(missing))
    url = mongo.database_url("provd")
    feeder = Feeder(client, namespace)
    noise = os.urandom(60_000)  # WiredTiger compresses what repeats
    feeder.send([feeder.hello(), *feeder.tasks(600, data=noise), feeder.goodbye()], frame=10)
    try:
        mongo.start()
        with ExitStack() as stack, opened_store(url) as store:
            store.migrate()
            balloon = small_disk / "balloon"
            disk = os.statvfs(small_disk)
            balloon.write_bytes(bytes(disk.f_bavail * disk.f_frsize - (8 << 20)))
            consumer = make_consumers(settings_for(redis_url, url, namespace, tmp_path), slots, stack)()
            with running(consumer):
                wait_until(lambda: "the store is away" in caplog.text, 60)
                assert feeder.length() > 0
                balloon.unlink()
                wait_until(lambda: mends(mongo) and retired(client, feeder), 150)

            assert_whole(store, feeder)
            assert store.count(names.QUARANTINE, {}) == 0
    finally:
        mongo.close()


# --- the server's answers ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def failing_mongo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MongoServer]:
    """A MongoDB that can be told to fail."""
    try:
        server = MongoServer(tmp_path_factory.mktemp("failing"), parameters={"enableTestCommands": "1"})
    except ServiceMissing as missing:
        if os.environ.get("CI"):
            pytest.fail(str(missing), pytrace=False)
        pytest.skip(str(missing))
    server.start()
    yield server
    server.close()


class Failpoint:
    """Makes commands of a database fail, and counts them."""

    def __init__(self, admin: pymongo.MongoClient[dict[str, Any]]) -> None:
        self._admin = admin.admin

    def on(self, times: int, **data: Any) -> None:
        """Fail the next so many of `data["failCommands"]`."""
        self._before = self._set({"times": times}, data)

    def off(self) -> int:
        """Fail no more; returns how often the failpoint was passed."""
        return self._set("off", {}) - self._before

    def _set(self, mode: Any, data: Any) -> int:
        answer = self._admin.command({"configureFailPoint": "failCommand", "mode": mode, "data": data})
        return int(answer["count"])


@pytest.fixture
def failpoint(failing_mongo: MongoServer) -> Iterator[Failpoint]:
    with failing_mongo.client() as admin:
        point = Failpoint(admin)
        point.on(0, failCommands=["insert"], errorCode=1)
        yield point
        point.off()


@pytest.fixture
def failing_url(failing_mongo: MongoServer, namespace: str) -> str:
    # A server that says "not primary" is looked at again when its state changes, which a failpoint's does not.
    return failing_mongo.database_url(f"provd_{namespace}") + "?heartbeatFrequencyMS=500"


def ingest_with(
    fault: Callable[[Failpoint], None],
    failpoint: Failpoint,
    client: redis.Redis,
    settings: Settings,
    slots: Path,
) -> None:
    """A workflow goes into the store while `fault` is on, and must come out whole with nothing quarantined."""
    feeder = Feeder(client, settings.namespace)
    feeder.send([feeder.hello(), *feeder.tasks(199)], frame=50)
    with ExitStack() as stack, opened_store(settings.resolved_store_url()) as store:
        store.migrate()
        consumer = make_consumers(settings, slots, stack)()
        fault(failpoint)
        with running(consumer):
            wait_until(lambda: feeder.length() == 0, 30)
        passed = failpoint.off()
        again = make_consumers(settings, slots, stack)()
        feeder.send([feeder.goodbye()])
        again.run_until_empty()

        assert passed >= 1
        assert_stored_once(store, feeder)
        assert store.count(names.QUARANTINE, {}) == 0
        assert feeder.length() == 0


@pytest.mark.parametrize("code", sorted(_TRANSIENT_CODES))
def test_a_command_that_fails_for_the_servers_reasons_is_repeated(
    failpoint: Failpoint,
    failing_url: str,
    redis_url: str,
    client: redis.Redis,
    namespace: str,
    tmp_path: Path,
    slots: Path,
    code: int,
) -> None:
    """G2, G4: every code that `store.mongo_errors` calls passing: the batch is retried, nothing is quarantined."""
    settings = plain_settings(redis_url, failing_url, namespace, tmp_path)
    ingest_with(
        lambda point: point.on(2, failCommands=["insert"], errorCode=code), failpoint, client, settings, slots
    )


#: Of each kind one: no majority in time, stepping down, shutting down, interrupted, never to be had.
UNCONFIRMED = frozenset({64, 91, 100, 189, 11602})


@pytest.mark.parametrize(
    "code",
    [
        pytest.param(code, marks=() if code in UNCONFIRMED else pytest.mark.long)
        for code in sorted(_TRANSIENT_CODES)
    ],
)
def test_a_write_that_a_majority_did_not_confirm_is_repeated(
    failpoint: Failpoint,
    failing_url: str,
    redis_url: str,
    client: redis.Redis,
    namespace: str,
    tmp_path: Path,
    slots: Path,
    code: int,
) -> None:
    """G2: the documents are there, and may not stay: without the confirmation nothing is acknowledged."""
    settings = plain_settings(redis_url, failing_url, namespace, tmp_path)
    concern = {"code": code, "errmsg": "not confirmed"}
    ingest_with(
        lambda point: point.on(2, failCommands=["insert"], writeConcernError=concern),
        failpoint,
        client,
        settings,
        slots,
    )


@pytest.mark.parametrize(
    ("collection", "commands"),
    [
        (names.TASKS, ["insert"]),
        (names.TASKS, ["update"]),
        (names.TASKS, ["insert", "update"]),
        (names.PRODUCERS, ["update"]),
        (names.LEDGER, ["insert"]),
    ],
)
@pytest.mark.parametrize(
    "fault", [{"errorCode": 189}, {"closeConnection": True}, {"writeConcernError": {"code": 64, "errmsg": "w"}}],
    ids=["stepped down", "closed", "no majority"],
)  # fmt: skip
def test_each_write_of_a_batch_may_fail_and_is_repeated(
    failpoint: Failpoint,
    failing_url: str,
    redis_url: str,
    client: redis.Redis,
    namespace: str,
    tmp_path: Path,
    slots: Path,
    collection: str,
    commands: list[str],
    fault: dict[str, Any],
) -> None:
    """G2: inserts, conditional updates and the ledger, one after the other."""
    where = f"{urlsplit(failing_url).path[1:]}.{collection}"
    data = {"failCommands": commands, "namespace": where, **fault}
    settings = plain_settings(redis_url, failing_url, namespace, tmp_path)
    feeder = Feeder(client, namespace)
    first = [feeder.hello(), *feeder.tasks(50)]
    with ExitStack() as stack, opened_store(failing_url) as store:
        store.migrate()
        make = make_consumers(settings, slots, stack)
        feeder.send(first, frame=10)
        make().run_until_empty()
        # The same messages in another cut meet their documents: inserts, then updates.
        failpoint.on(2, **data)
        feeder.send([*first[20:], *feeder.tasks(30), feeder.goodbye()], frame=15)
        with running(make()):
            wait_until(lambda: retired(client, feeder), 30)

        assert failpoint.off() >= 1
        assert_whole(store, feeder)
        assert store.count(names.QUARANTINE, {}) == 0


def test_a_document_that_the_server_refuses_for_ever_is_the_only_one_in_quarantine(
    mongo_url: str, redis_url: str, client: redis.Redis, namespace: str, tmp_path: Path, slots: Path
) -> None:
    """G4: a validator set by an administrator refuses one of three hundred."""
    feeder = Feeder(client, namespace)
    feeder.send([feeder.hello(), *feeder.tasks(300), feeder.goodbye()])
    with ExitStack() as stack, opened_store(mongo_url) as store:
        store.migrate()
        with pymongo.MongoClient[dict[str, Any]](mongo_url) as admin:
            database = admin.get_default_database()
            database.command("collMod", names.TASKS, validator={"used.epochs": {"$ne": 13}})
        consumer = make_consumers(plain_settings(redis_url, mongo_url, namespace, tmp_path), slots, stack)()
        consumer.run_until_empty()

        (item,) = store.find(names.QUARANTINE, {})
        assert (item["producer_id"], item["first_seq"], item["last_seq"]) == (feeder.producer_id, 14, 14)
        assert "validation" in item["reason"]
        assert store.count(names.TASKS, {}) == 299
        assert str(store.stored_ranges("w1")[feeder.producer_id]) == "1-13, 15-302"
        assert feeder.length() == 0


def test_a_batch_that_the_server_refuses_as_a_whole_is_halved_and_stored(
    failpoint: Failpoint,
    failing_url: str,
    redis_url: str,
    client: redis.Redis,
    namespace: str,
    tmp_path: Path,
    slots: Path,
) -> None:
    """G4: a refusal that is nobody's fault does not stick to the batch: its halves are tried."""
    settings = plain_settings(redis_url, failing_url, namespace, tmp_path)
    where = f"{urlsplit(failing_url).path[1:]}.{names.TASKS}"
    ingest_with(
        lambda point: point.on(3, failCommands=["insert"], namespace=where, errorCode=2),
        failpoint,
        client,
        settings,
        slots,
    )
