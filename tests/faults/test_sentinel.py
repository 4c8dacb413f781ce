"""Redis with Sentinel: its master killed, and replaced on demand, during ingest.

Redis acknowledges a write before its replicas have it: what only the dead master had is lost, as its documentation
says. G7: `verify` counts it as missing, no more and no less. G2: with `durability: disk` producers send again what the
store has not confirmed, and nothing is missing. With `min-replicas-to-write` the master does not acknowledge at all
what no replica can have.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pymongo
import pytest

from provd.common import names
from provd.common.errors import BrokerUnavailable, SettingsError
from provd.consumer.broker import Broker as ConsumerBroker
from provd.producer.broker import Broker as ProducerBroker
from tests.conftest import RunProvd, StartProvd
from tests.faults.ingest import Ingest, assert_complete, bring_in_what_is_spooled, verify
from tests.integration.test_cli_doctor import levels
from tests.services.binaries import ServiceMissing
from tests.services.redis_sentinel import SERVICE, RedisSentinel
from tests.services.redis_server import RedisServer
from tests.services.waiting import wait_until

pytestmark = pytest.mark.sentinel

WORKFLOW = "failover.1"

#: Tasks of each producer: before the failover and replicated, before it and not replicated, during it, after it.
REPLICATED, UNREPLICATED, DURING, AFTER = 500, 300, 2_000, 300

MakeSentinel = Callable[..., RedisSentinel]


@pytest.fixture
def make_sentinel(tmp_path: Path) -> Iterator[MakeSentinel]:
    made: list[RedisSentinel] = []

    def make(*, password: str = "", sentinel_password: str = "", **config: str) -> RedisSentinel:
        folder = tmp_path / "sentinel"
        try:
            made.append(
                RedisSentinel(folder, config=config, password=password, sentinel_password=sentinel_password)
            )
        except ServiceMissing as missing:
            pytest.fail(str(missing))
        made[-1].start()
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def tasks(mongo_url: str) -> Iterator[Any]:
    """The collection of tasks, through a client of the test's own."""
    with pymongo.MongoClient[dict[str, Any]](mongo_url) as client:
        yield client.get_default_database()[names.TASKS]


def services_of(sentinel: RedisSentinel, mongo_url: str, folder: Path, *, durability: str) -> dict[str, str]:
    return {
        "PROVD_BROKER_URL": sentinel.url,
        "PROVD_STORE_URL": mongo_url,
        "PROVD_SPOOL_DIR": str(folder / "spool"),
        "PROVD_DURABILITY": durability,
        "PROVD_CLAIM_AFTER_S": "5",
        "PROVD_EXIT_DRAIN_S": "30",
        "PROVD_HEARTBEAT_S": "1",
    }


def cut_off(replicas: Sequence[RedisServer], master: RedisServer) -> None:
    """From now on these replicas get nothing of what the master takes."""
    for replica in replicas:
        replica.pause()
    with master.client() as client:
        client.execute_command("CLIENT", "KILL", "TYPE", "replica")


def frames_in(server: RedisServer) -> int:
    """Frames in all streams of a server."""
    with server.client() as client:
        return sum(int(client.xlen(key)) for key in client.scan_iter(match="provd:*:stream:*"))


def bring_in_the_rest(run_provd: RunProvd, services: dict[str, str], sentinel: RedisSentinel) -> None:
    """Replay what producers had no time to send before their end, and wait until the consumer has stored all."""
    bring_in_what_is_spooled(run_provd, services)
    wait_until(lambda: frames_in(sentinel.master) == 0, 60, "an empty Redis")


@pytest.mark.parametrize("durability", ["memory", "disk"])
def test_a_master_killed_during_ingest(
    durability: str,
    make_sentinel: MakeSentinel,
    mongo_url: str,
    tasks: Any,
    start_provd: StartProvd,
    run_provd: RunProvd,
    tmp_path: Path,
) -> None:
    """G7: what Redis lost is counted as missing; G2: with `durability: disk` nothing is."""
    sentinel = make_sentinel()
    services = services_of(sentinel, mongo_url, tmp_path, durability=durability)
    consumer = start_provd("consume", env=services)
    ingest = Ingest(tmp_path / "job", services, [WORKFLOW], each=2)
    master = sentinel.master
    replicas = [server for server in sentinel.servers if server is not master]
    try:
        # Given messages that are stored, and messages that the master alone has acknowledged
        ingest.part(REPLICATED)
        wait_until(lambda: tasks.estimated_document_count() == 2 * REPLICATED, 30)
        wait_until(lambda: frames_in(replicas[0]) == frames_in(replicas[1]) == 0, 30)
        consumer.send(signal.SIGSTOP)
        cut_off(replicas, master)
        ingest.part(UNREPLICATED)
        acknowledged = frames_in(master)

        # When the master dies in the middle of more
        ingest.begin(DURING, pause_s=0.06)
        wait_until(lambda: frames_in(master) > acknowledged, 30)
        master.kill()
        killed_at = time.monotonic()
        for replica in replicas:
            replica.resume()
        consumer.send(signal.SIGCONT)
        sentinel.wait_for_failover(master)
        print(f"{durability}: failover after {time.monotonic() - killed_at:.1f} s")
        wait_until(lambda: tasks.estimated_document_count() > 2 * REPLICATED, 30, "ingest by itself")
        print(f"{durability}: stored again after {time.monotonic() - killed_at:.1f} s")
        ingest.finish()
        ingest.part(AFTER)
        ingest.end()
    finally:
        ingest.kill()
    bring_in_the_rest(run_provd, services, sentinel)

    # Then all else is stored once, and the books say what is not
    books = verify(run_provd, WORKFLOW, services)
    print(f"{durability}: produced {books['produced']}, missing {books['missing']}")
    if durability == "disk":
        ingest.assert_every_task_is_stored_once(tasks)
        assert_complete(books)
    else:
        assert_only_what_redis_lost_is_missing(ingest, tasks, books)


def assert_only_what_redis_lost_is_missing(ingest: Ingest, tasks: Any, books: dict[str, Any]) -> None:
    stored = ingest.stored(tasks, WORKFLOW)
    every = {(number, index) for number in range(ingest.each) for index in range(ingest.tasks)}
    lost = every - set(stored)
    uncertain = range(REPLICATED, REPLICATED + UNREPLICATED + DURING)
    only_on_the_master = {
        (number, index) for number in range(ingest.each) for index in uncertain[:UNREPLICATED]
    }
    assert len(stored) == len(set(stored))
    assert only_on_the_master <= lost
    assert {index for _, index in lost} <= set(uncertain)
    # Each task is one message; producers and workflow have a few messages of their own, none of them lost.
    assert books["missing"] == len(lost)
    assert books["produced"] == books["stored"] + books["missing"]
    assert (books["spooled"], books["dropped"], books["quarantined"], books["unclosed"]) == (0, 0, 0, [])


@pytest.mark.parametrize("how", ["asked for", "frozen"])
def test_a_master_that_lives_on_after_its_failover_takes_nothing_with_it(
    how: str,
    make_sentinel: MakeSentinel,
    mongo_url: str,
    tasks: Any,
    start_provd: StartProvd,
    run_provd: RunProvd,
    tmp_path: Path,
) -> None:
    """G2, `durability: disk`: whether it refuses writes as a replica, or wakes up and still takes itself for master."""
    sentinel = make_sentinel()
    services = services_of(sentinel, mongo_url, tmp_path, durability="disk")
    start_provd("consume", env=services)
    ingest = Ingest(tmp_path / "job", services, [WORKFLOW], each=2)
    before = sentinel.master
    try:
        ingest.begin(DURING, pause_s=0.06)
        wait_until(lambda: tasks.estimated_document_count() > 300, 30)
        if how == "frozen":
            before.pause()
        else:
            with sentinel.sentinels[0].client() as client:
                client.execute_command("SENTINEL FAILOVER", SERVICE)
        sentinel.wait_for_failover(before)
        before.resume()
        ingest.finish()
        ingest.part(AFTER)
        ingest.end()
    finally:
        ingest.kill()
    bring_in_the_rest(run_provd, services, sentinel)

    ingest.assert_every_task_is_stored_once(tasks)
    assert_complete(verify(run_provd, WORKFLOW, services))


def test_with_min_replicas_to_write_nothing_is_lost_with_the_master(
    make_sentinel: MakeSentinel,
    mongo_url: str,
    tasks: Any,
    start_provd: StartProvd,
    run_provd: RunProvd,
    tmp_path: Path,
) -> None:
    """G2, `durability: memory`: a master without replicas takes nothing, and producers spool."""
    sentinel = make_sentinel(**{"min-replicas-to-write": "1", "min-replicas-max-lag": "2"})
    services = services_of(sentinel, mongo_url, tmp_path, durability="memory")
    start_provd("consume", env=services)
    ingest = Ingest(tmp_path / "job", services, [WORKFLOW], each=2)
    master = sentinel.master
    replicas = [server for server in sentinel.servers if server is not master]
    try:
        ingest.part(REPLICATED)
        cut_off(replicas, master)  # the links are gone: none counts as a good replica from here on
        ingest.part(UNREPLICATED)
        assert list(Path(services["PROVD_SPOOL_DIR"]).iterdir()) != []
        master.kill()
        for replica in replicas:
            replica.resume()
        sentinel.wait_for_failover(master)
        ingest.part(AFTER)
        ingest.end()
    finally:
        ingest.kill()
    bring_in_the_rest(run_provd, services, sentinel)

    ingest.assert_every_task_is_stored_once(tasks)
    assert_complete(verify(run_provd, WORKFLOW, services))


def test_the_master_is_found_while_one_sentinel_hangs_and_one_is_gone(make_sentinel: MakeSentinel) -> None:
    sentinel = make_sentinel()
    hanging, gone, _ = sentinel.sentinels
    gone.child.kill()
    hanging.child.send(signal.SIGSTOP)
    try:
        broker = ProducerBroker(sentinel.url, namespace="ns", buckets=16, timeout_s=1)
        broker.open()
        generation = broker.generation
        broker.close()
        consumer = ConsumerBroker(sentinel.url, connect_timeout_s=1)
        consumer.ping()
        consumer.close()
    finally:
        hanging.child.send(signal.SIGCONT)

    with sentinel.servers[0].client() as client:
        facts: Any = client.info()
    assert generation == f"{facts['run_id']}-{facts['master_replid']}"


def test_a_lost_connection_is_not_made_again_to_a_master_that_was(make_sentinel: MakeSentinel) -> None:
    """A master that comes back after its failover calls itself master until the Sentinels have told it otherwise."""
    sentinel = make_sentinel()
    master = sentinel.master
    producer = ProducerBroker(sentinel.url, namespace="ns", buckets=16, timeout_s=1)
    consumer = ConsumerBroker(sentinel.url, connect_timeout_s=1)
    producer.open()
    before = producer.generation
    keys = producer.keys_of("w1", None)
    consumer.ping()
    for one in sentinel.sentinels:
        one.child.send(signal.SIGSTOP)
    try:
        master.kill()
        master.start()  # with its data, and as master

        with pytest.raises(BrokerUnavailable, match="lost"):
            producer.stored([(keys, "p1")])
        with pytest.raises(BrokerUnavailable, match="lost"):
            consumer.ask("HGETALL", keys.stored)
        with pytest.raises(BrokerUnavailable, match="no Sentinel leads to a master"):
            consumer.ask("HGETALL", keys.stored)
    finally:
        for one in sentinel.sentinels:
            one.child.send(signal.SIGCONT)
    wait_until(lambda: _answers(consumer), 30, "a master that Sentinels agree on")
    again = ProducerBroker(sentinel.url, namespace="ns", buckets=16, timeout_s=1)
    again.open()
    assert again.generation != before
    for broker in (producer, again):
        broker.close()
    consumer.close()


def _answers(broker: ConsumerBroker) -> bool:
    try:
        broker.ping()
    except BrokerUnavailable:
        return False
    return True


def test_servers_and_sentinels_each_have_their_own_password(make_sentinel: MakeSentinel) -> None:
    """G8: and neither is shown when it is wrong, or missing."""
    url = make_sentinel(password="geheim12", sentinel_password="geheim34").url
    producer = ProducerBroker(url, namespace="ns", buckets=16, timeout_s=1)
    producer.open()
    producer.close()
    consumer = ConsumerBroker(url, connect_timeout_s=1)
    consumer.ping()
    consumer.close()

    for wrong in (url.replace("geheim12", "geheim56"), url.replace("geheim34", "geheim56")):
        with pytest.raises(BrokerUnavailable) as caught:
            ConsumerBroker(wrong, connect_timeout_s=1).ping()
        assert "geheim" not in str(caught.value)


def test_a_service_that_the_sentinels_do_not_know_is_named(make_sentinel: MakeSentinel) -> None:
    url = make_sentinel().url.replace(f"/{SERVICE}", "/other")

    with pytest.raises(BrokerUnavailable, match="'other'"):
        ConsumerBroker(url, connect_timeout_s=1).ping()
    with pytest.raises(SettingsError, match="names no service"):
        ConsumerBroker(url.removesuffix("/other"), connect_timeout_s=1)


def test_the_doctor_looks_at_the_master_and_asks_every_sentinel(
    make_sentinel: MakeSentinel, run_provd: RunProvd, tmp_path: Path
) -> None:
    sentinel = make_sentinel(maxmemory="100mb", maxclients="2000")
    arguments = ("doctor", "--broker", sentinel.url, "--store", f"sqlite:///{tmp_path}/new.db", "--json")
    asked = [f"sentinel 127.0.0.1:{one.port}" for one in sentinel.sentinels]

    well = run_provd(*arguments)
    for one in sentinel.sentinels[1:]:
        one.child.kill()
    wait_until(lambda: "NOQUORUM" in sentinel.sentinels[0].quorum(), 30, "a Sentinel that is alone")
    badly = run_provd(*arguments)

    found = levels(well)
    assert [found[check] for check in ("broker", "broker replicas", "broker persistence")] == ["ok"] * 3
    assert found["broker acknowledgement"] == "warning"
    assert [found[check] for check in asked] == ["ok"] * 3
    assert well.returncode == 0
    assert [levels(badly)[check] for check in asked] == ["failed", "warning", "warning"]
    assert badly.returncode == 1
