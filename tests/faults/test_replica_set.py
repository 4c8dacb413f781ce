"""MongoDB as a replica set of three: its primary killed, and stepping down, during ingest.

G2: a frame is acknowledged only after the store confirmed it (`w: majority, j: true`), so that a majority of the
members has it on disk: what is acknowledged survives the loss of the primary. G3: what is written again after an
election, because nobody knows whether it was written before, makes no second document.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from provd.common import clock, names
from provd.common.errors import StoreUnavailable
from provd.store.open import open_store
from tests.conftest import RunProvd, StartProvd
from tests.faults.ingest import Ingest, assert_complete, verify
from tests.integration.feeder import Feeder
from tests.services.binaries import ServiceMissing
from tests.services.mongo_replica_set import MongoReplicaSet
from tests.services.waiting import wait_until

pytestmark = pytest.mark.replica_set

WORKFLOW = "elections.1"


@pytest.fixture(scope="module")
def shared_set(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MongoReplicaSet]:
    try:
        members = MongoReplicaSet(tmp_path_factory.mktemp("set"))
    except ServiceMissing as missing:
        pytest.fail(str(missing))
    try:
        members.start()
        yield members
    finally:
        members.close()


@pytest.fixture
def replica_set(shared_set: MongoReplicaSet) -> Iterator[MongoReplicaSet]:
    """The set, whole before and after."""
    yield shared_set
    for member in shared_set.members:
        if not member.child.is_running:
            member.child.start()
    wait_until(shared_set.is_whole, 60, "a whole replica set")


@pytest.fixture
def services(replica_set: MongoReplicaSet, redis_url: str, namespace: str, tmp_path: Path) -> dict[str, str]:
    return {
        "PROVD_BROKER_URL": redis_url,
        "PROVD_STORE_URL": replica_set.database_url(f"provd_t{uuid.uuid4().hex[:12]}"),
        "PROVD_NAMESPACE": namespace,
        "PROVD_SPOOL_DIR": str(tmp_path / "spool"),
        "PROVD_CLAIM_AFTER_S": "5",
        "PROVD_BATCH_MESSAGES": "200",
    }


@pytest.fixture
def tasks(replica_set: MongoReplicaSet, services: dict[str, str]) -> Iterator[Any]:
    """The collection of tasks, through a client of the test's own."""
    database = services["PROVD_STORE_URL"].rpartition("/")[2].partition("?")[0]
    with replica_set.client() as client:
        yield client[database][names.TASKS]
        client.drop_database(database)


def _ingest_through(
    lose_primary: Any, *, ingest: Ingest, consumers: list[Any], tasks: Any, replica_set: MongoReplicaSet
) -> None:
    ingest.begin(4_000, pause_s=0.02)
    wait_until(lambda: tasks.estimated_document_count() > 500, 60)

    before = replica_set.primary
    lost_at = time.monotonic()
    lose_primary(before)
    wait_until(lambda: replica_set.has_other_primary(before), 60, "another primary")
    print(f"another primary after {time.monotonic() - lost_at:.1f} s")
    stored = tasks.estimated_document_count()
    wait_until(lambda: tasks.estimated_document_count() > stored, 60, "ingest by the new primary")
    print(f"ingest went on after {time.monotonic() - lost_at:.1f} s")

    ingest.finish()
    ingest.end()
    assert [consumer.wait(90) for consumer in consumers] == [0] * len(consumers)


@pytest.mark.parametrize("how", ["killed", "stepping down"])
def test_nothing_is_lost_and_nothing_stored_twice_when_the_primary_goes_during_ingest(
    how: str,
    replica_set: MongoReplicaSet,
    services: dict[str, str],
    tasks: Any,
    start_provd: StartProvd,
    run_provd: RunProvd,
    tmp_path: Path,
) -> None:
    """G2: nothing accepted is lost. G3: repetition does not change what is stored."""
    arguments = ("consume", "--workflow-id", WORKFLOW, "--exit-when-done", "--grace", "60")
    consumers = [start_provd(*arguments, env=services) for _ in range(2)]
    ingest = Ingest(tmp_path / "job", services, [WORKFLOW], each=2)

    try:
        _ingest_through(
            (lambda primary: primary.child.kill()) if how == "killed" else lambda _: replica_set.step_down(),
            ingest=ingest, consumers=consumers, tasks=tasks, replica_set=replica_set,
        )  # fmt: skip
    finally:
        ingest.kill()

    ingest.assert_every_task_is_stored_once(tasks)
    assert_complete(verify(run_provd, WORKFLOW, services))


def test_a_write_that_was_confirmed_survives_the_loss_of_the_primary(
    replica_set: MongoReplicaSet, services: dict[str, str], tasks: Any
) -> None:
    """G2, MongoDB: `w: majority, j: true`."""
    feeder = Feeder(None, "none", "confirmed.1")  # type: ignore[arg-type]
    store = open_store(services["PROVD_STORE_URL"], timeout_s=5)
    confirmed: list[str] = []
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            batch = feeder.tasks(20)
            try:
                store.write(batch, received_at=clock.now_ms())
            except StoreUnavailable:
                continue  # whether it was written is not known, and not looked at
            confirmed.extend(message.record["task_id"] for message in batch)

    writer = threading.Thread(target=write)
    store.migrate()
    try:
        writer.start()
        wait_until(lambda: len(confirmed) > 1000, 30)
        primary = replica_set.primary
        primary.child.kill()
        wait_until(lambda: replica_set.has_other_primary(primary), 30, "another primary")
        before = len(confirmed)
        wait_until(lambda: len(confirmed) > before, 30, "a write that the new primary confirmed")
    finally:
        stop.set()
        writer.join(60)
        store.close()

    found = [task["_id"] for task in tasks.find({}, {"_id": 1})]
    assert set(confirmed) <= set(found)
    assert len(found) == len(set(found))
    print(f"{len(confirmed)} confirmed writes of {feeder.seq}, {len(found)} documents")
