"""Redis Cluster, three masters with a replica each: a master killed during ingest, and a slot that moves.

Workflows are spread over the masters by their buckets, consumers share them without a leader. G7: what Redis lost with
the master is counted as missing, in the workflows that it had and in no other. G2: with `durability: disk` nothing is.
"""

from __future__ import annotations

import itertools
import re
import signal
import time
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pymongo
import pytest

from provd.common import clock, names
from provd.common.broker_nodes import slot_of
from provd.common.errors import BrokerUnavailable
from provd.common.wire import decode_header, encode_messages
from provd.consumer.broker import Broker as ConsumerBroker
from provd.producer.broker import Broker as ProducerBroker
from provd.producer.framing import CutFrame
from tests.conftest import RunProvd, StartProvd
from tests.faults.ingest import Ingest, assert_complete, bring_in_what_is_spooled, verify
from tests.integration.feeder import BUCKETS, Feeder
from tests.integration.test_cli_doctor import levels
from tests.services.binaries import ServiceMissing
from tests.services.ports import free_port
from tests.services.redis_cluster import RedisCluster
from tests.services.redis_server import RedisServer
from tests.services.waiting import wait_until

pytestmark = pytest.mark.cluster

#: Tasks of each producer: before the failover and not replicated, during it, after it.
UNREPLICATED, DURING, AFTER = 300, 2_000, 500

#: Tasks in each part before that, until every consumer has had its share, and how many there may be.
PART, PARTS = 500, 20

CONSUMERS = 3


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[RedisCluster]:
    try:
        made = RedisCluster(tmp_path / "cluster")
    except ServiceMissing as missing:
        pytest.fail(str(missing))
    try:
        made.start()
        yield made
    finally:
        made.close()


@pytest.fixture
def tasks(mongo_url: str) -> Iterator[Any]:
    """The collection of tasks, through a client of the test's own."""
    with pymongo.MongoClient[dict[str, Any]](mongo_url) as client:
        yield client.get_default_database()[names.TASKS]


def services_of(cluster: RedisCluster, mongo_url: str, folder: Path, durability: str) -> dict[str, str]:
    return {
        "PROVD_BROKER_URL": cluster.url,
        "PROVD_STORE_URL": mongo_url,
        "PROVD_SPOOL_DIR": str(folder / "spool"),
        "PROVD_DURABILITY": durability,
        "PROVD_CLAIM_AFTER_S": "5",
        "PROVD_EXIT_DRAIN_S": "30",
        "PROVD_HEARTBEAT_S": "1",
        "PROVD_BATCH_MESSAGES": "100",
    }


def stream_of(workflow: str) -> str:
    return names.WorkflowKeys.of("provd", BUCKETS, workflow, None).stream


def workflows_on_every_master(cluster: RedisCluster, each: int) -> dict[str, RedisServer]:
    """As many workflows for each master as asked for, and who has them."""
    wanted = {server.port: each for server in cluster.masters()}
    found: dict[str, RedisServer] = {}
    for number in itertools.count():
        workflow = f"spread.{number}"
        server = cluster.master_of(stream_of(workflow))
        if wanted[server.port]:
            wanted[server.port] -= 1
            found[workflow] = server
        if not any(wanted.values()):
            return found
    raise AssertionError


def frames_in(cluster: RedisCluster) -> int:
    """Frames in all streams of all masters."""
    total = 0
    for server in cluster.masters():
        with server.client() as client:
            total += sum(int(client.xlen(key)) for key in client.scan_iter(match="provd:*:stream:*"))
    return total


def stored_by(port: int) -> float:
    """Messages that one consumer has stored, by its own metrics."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    found = re.search(r"^provd_consumer_stored_total (\S+)$", text, re.MULTILINE)
    assert found is not None
    return float(found[1])


def answers(port: int) -> bool:
    """Whether a consumer is there."""
    return stored_by(port) >= 0


def ingest_until_each_has_a_share(ingest: Ingest, ports: list[int]) -> list[float]:
    """Consumers share the work without a leader: under a steady load each gets some of it."""
    for port in ports:
        wait_until(partial(answers, port), 60, "a consumer's metrics")
    shares: list[float] = []
    for _ in range(PARTS):
        ingest.part(PART, pause_s=0.05)
        shares = [stored_by(port) for port in ports]
        if all(shares):
            return shares
    raise AssertionError(f"a consumer without work: {shares}")


def replica_of(cluster: RedisCluster, master: RedisServer) -> RedisServer:
    """The one replica of a master."""
    with master.client() as client:
        facts: Any = client.info("replication")
    return next(server for server in cluster.servers if server.port == facts["slave0"]["port"])


def cut_off(replica: RedisServer, master: RedisServer) -> None:
    """From now on the replica gets nothing of what the master takes."""
    replica.pause()
    with master.client() as client:
        client.execute_command("CLIENT", "KILL", "TYPE", "replica")


@pytest.mark.parametrize("durability", ["memory", "disk"])
def test_a_master_of_the_cluster_killed_during_ingest(
    durability: str,
    cluster: RedisCluster,
    mongo_url: str,
    tasks: Any,
    start_provd: StartProvd,
    run_provd: RunProvd,
    tmp_path: Path,
) -> None:
    """G7: what Redis lost is counted as missing where it was lost; G2: with `durability: disk` nothing is."""
    services = services_of(cluster, mongo_url, tmp_path, durability)
    owners = workflows_on_every_master(cluster, each=2)
    doomed = next(iter(owners.values()))
    replica = replica_of(cluster, doomed)
    ports = [free_port() for _ in range(CONSUMERS)]
    consumers = [start_provd("consume", "--metrics-port", str(port), env=services) for port in ports]
    ingest = Ingest(tmp_path / "job", services, list(owners), each=1)
    try:
        # Given messages that are stored, and messages that one master alone has acknowledged
        shares = ingest_until_each_has_a_share(ingest, ports)
        replicated = ingest.tasks
        wait_until(lambda: tasks.estimated_document_count() == len(owners) * replicated, 60)
        wait_until(lambda: frames_in(cluster) == 0, 30)
        for consumer in consumers:
            consumer.send(signal.SIGSTOP)
        cut_off(replica, doomed)
        ingest.part(UNREPLICATED)
        acknowledged = frames_in(cluster)

        # When that master dies in the middle of more
        ingest.begin(DURING, pause_s=0.06)
        wait_until(lambda: frames_in(cluster) > acknowledged, 30)
        doomed.kill()
        killed_at = time.monotonic()
        replica.resume()
        for consumer in consumers:
            consumer.send(signal.SIGCONT)
        stored = tasks.estimated_document_count()
        cluster.wait_for_failover(doomed)
        print(f"{durability}: failover after {time.monotonic() - killed_at:.1f} s")
        wait_until(lambda: tasks.estimated_document_count() > stored, 30, "ingest by itself")
        print(f"{durability}: stored again after {time.monotonic() - killed_at:.1f} s")
        ingest.finish()
        ingest.part(AFTER)
        ingest.end()
    finally:
        ingest.kill()
    bring_in_what_is_spooled(run_provd, services)
    wait_until(lambda: frames_in(cluster) == 0, 60, "an empty Redis")

    # Then the consumers had shared the work, all else is stored once, and the books say what is not
    print(f"{durability}: stored by each consumer {[int(share) for share in shares]}")
    lost = 0
    for workflow, owner in owners.items():
        books = verify(run_provd, workflow, services)
        lost += books["missing"]
        if owner is doomed and durability == "memory":
            assert_only_what_redis_lost_is_missing(
                ingest, workflow, tasks, books, range(replicated, replicated + UNREPLICATED + DURING)
            )
        else:
            assert_complete(books)
    print(f"{durability}: {lost} messages missing")
    if durability == "disk":
        ingest.assert_every_task_is_stored_once(tasks)


def assert_only_what_redis_lost_is_missing(
    ingest: Ingest, workflow: str, tasks: Any, books: dict[str, Any], uncertain: range
) -> None:
    stored = ingest.stored(tasks, workflow)
    lost = {(0, index) for index in range(ingest.tasks)} - set(stored)
    assert len(stored) == len(set(stored))
    assert {(0, index) for index in uncertain[:UNREPLICATED]} <= lost
    assert {index for _, index in lost} <= set(uncertain)
    # Each task is one message; producer and workflow have a few messages of their own, none of them lost.
    assert books["missing"] == len(lost)
    assert books["produced"] == books["stored"] + books["missing"]
    assert (books["spooled"], books["dropped"], books["quarantined"], books["unclosed"]) == (0, 0, 0, [])


def test_a_slot_that_moves_to_another_master_is_followed(cluster: RedisCluster) -> None:
    """Nobody writes to, or reads from, a server that has the slot no more: the masters are asked for anew."""
    workflow, owner = next(iter(workflows_on_every_master(cluster, each=1).items()))
    stream = stream_of(workflow)
    before = ProducerBroker(cluster.url, namespace="provd", buckets=BUCKETS, timeout_s=1)
    consumer = ConsumerBroker(cluster.url, connect_timeout_s=1)
    before.open()
    consumer.ask("XLEN", stream)
    frame = frame_of(workflow)

    cluster.move_slot(slot_of(stream), next(server for server in cluster.masters() if server is not owner))
    with pytest.raises(BrokerUnavailable):
        before.send([frame])
    with pytest.raises(BrokerUnavailable):
        consumer.run([("XLEN", stream)])
    after = ProducerBroker(cluster.url, namespace="provd", buckets=BUCKETS, timeout_s=1)
    after.open()
    after.send([frame])

    assert consumer.run([("XLEN", stream), ("SMEMBERS", names.WorkflowKeys.of_stream(stream).registry)]) == [
        1,
        {stream.encode()},
    ]
    assert after.generation != before.generation
    for broker in (before, after, consumer):
        broker.close()


def frame_of(workflow: str) -> CutFrame:
    feeder = Feeder(None, "provd", workflow)  # type: ignore[arg-type]
    header, body = encode_messages(
        [feeder.hello(), *feeder.tasks(3)], campaign_id=None, hostname="node1", pid=1, rank=None
    )
    return CutFrame(decode_header(header), header, body)


def test_frames_of_many_workflows_reach_their_masters_in_one_call(cluster: RedisCluster) -> None:
    """And are read, acknowledged and counted from there in one call."""
    workflows = list(workflows_on_every_master(cluster, each=2))
    producer = ProducerBroker(cluster.url, namespace="provd", buckets=BUCKETS, timeout_s=1)
    consumer = ConsumerBroker(cluster.url, connect_timeout_s=1)
    producer.open()
    streams = [stream_of(workflow) for workflow in workflows]

    producer.send([frame_of(workflow) for workflow in workflows for _ in range(2)])
    read = consumer.run(
        [("XREADGROUP", "GROUP", names.GROUP, "c1", "COUNT", 1, "STREAMS", key, ">") for key in streams]
    )

    assert consumer.run([("XLEN", stream) for stream in streams]) == [2] * len(streams)
    assert [key.decode() for reply in read for key, _ in reply] == streams
    assert abs(consumer.now_ms() - clock.now_ms()) < 60_000
    assert consumer.memory().policy == "noeviction"
    producer.close()
    consumer.close()


def test_the_doctor_looks_at_every_master(cluster: RedisCluster, run_provd: RunProvd, tmp_path: Path) -> None:
    done = run_provd("doctor", "--broker", cluster.url, "--store", f"sqlite:///{tmp_path}/new.db", "--json")

    found = levels(done)
    assert found["broker cluster"] == "ok"
    for server in cluster.masters():
        assert found[f"broker 127.0.0.1:{server.port}"] == "ok"
        assert found[f"broker replicas 127.0.0.1:{server.port}"] == "ok"
