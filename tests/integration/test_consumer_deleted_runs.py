"""What comes late of a deleted run: acknowledged, counted, settled for its producer, and not kept."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
import redis

from provd.common import clock, names
from provd.common.record import Record
from provd.common.spool import SpoolWriter
from provd.consumer.quarantine import Fate, retry_piece
from provd.consumer.replay import replay_into_store
from provd.query.quarantine import find_pieces, load_piece
from provd.store.interface import Quarantined, Store
from provd.store.tombstones import RUN_COLLECTIONS, find_tombstone
from tests.integration.consuming import MakeConsumer, running
from tests.integration.feeder import Feeder
from tests.services.waiting import wait_until
from tests.streams import Script


def left_of(store: Store, workflow_id: str = "w1") -> int:
    return sum(store.count(name, {"workflow_id": workflow_id}) for name in RUN_COLLECTIONS)


def delete(store: Store, workflow_id: str = "w1") -> None:
    store.begin_deletion(workflow_id, by="ada@login1")
    store.delete_run(workflow_id)


def tombstone_of(store: Store, workflow_id: str = "w1") -> Record:
    found = find_tombstone(store, workflow_id)
    assert found is not None
    return found


def files_in(spool: Path) -> list[Path]:
    return [path for path in spool.rglob("*.jsonl*") if path.is_file()]


def test_late_frames_are_acknowledged_and_counted_and_their_producer_gets_its_receipts(
    client: redis.Redis, namespace: str, make_consumer: MakeConsumer, store: Store
) -> None:
    deleted, other = Feeder(client, namespace, receipt=True), Feeder(client, namespace, "w2")
    deleted.send([deleted.hello(), *deleted.tasks(10)])
    consumer = make_consumer(batch_messages=20)
    consumer.run_until_empty()
    delete(store)

    deleted.send(deleted.tasks(30), frame=7)
    deleted.send_garbled(deleted.tasks(5))
    deleted.beat(clock.now_ms())
    other.whole_run(3)
    consumer.run_until_empty()

    assert deleted.length() == deleted.pending() == 0
    assert deleted.receipts() == "1-43,45-46"  # all but the damaged one, of which it has the good copy
    assert tombstone_of(store)["refused"] >= 30
    assert consumer.progress.refused == tombstone_of(store)["refused"]
    assert left_of(store) == 0
    assert store.count(names.QUARANTINE, {}) == 0
    assert store.count(names.TASKS, {"workflow_id": "w2"}) == 3


def test_a_run_is_deleted_while_a_consumer_stores_it_and_stays_deleted(
    client: redis.Redis, namespace: str, make_consumer: MakeConsumer, store: Store
) -> None:
    feeder = Feeder(client, namespace, receipt=True)
    with running(make_consumer(batch_messages=10)):
        feeder.send(feeder.tasks(300), frame=5)
        wait_until(lambda: store.count(names.TASKS, {}) > 20, 30)
        delete(store)
        feeder.send(feeder.tasks(50), frame=5)
        wait_until(lambda: feeder.length() == 0 and feeder.pending() == 0, 60)

    assert left_of(store) == 0
    assert feeder.receipts() == "1-350"
    assert tombstone_of(store)["refused"] >= 50


def test_a_producer_with_its_own_copy_on_disk_lets_it_go_when_its_run_was_deleted(
    script: Script, make_consumer: MakeConsumer, store: Store, tmp_path: Path
) -> None:
    spool = tmp_path / "spool"
    job = script.start(
        """
        import sys, provd

        @provd.task
        def work(n):
            return n

        workflow = provd.workflow("deleted", workflow_id="w1").start()
        for n in range(20):
            work(n)
        provd.flush()
        sys.stdin.readline()
        for n in range(20):
            work(n)
        workflow.stop()
        print(provd.flush(), flush=True)
        sys.stdin.readline()
        """,
        env={"PROVD_DURABILITY": "disk", "PROVD_SPOOL_DIR": str(spool)},
    )
    with running(make_consumer()):
        wait_until(lambda: store.count(names.TASKS, {"workflow_id": "w1"}) == 20, 60)
        delete(store)
        assert job.stdin is not None
        assert job.stdout is not None
        job.stdin.write("go on\n")
        job.stdin.flush()
        assert job.stdout.readline() == "True\n"
        wait_until(lambda: tombstone_of(store)["refused"] >= 20, 60)
        # At its end it would wait for its receipts, though not for long.
        wait_until(lambda: files_in(spool) == [], 60)
        _, said = job.communicate("end\n", timeout=60)
        assert job.returncode == 0, said

    assert left_of(store) == 0
    assert files_in(spool) == []


def test_what_a_consumer_kept_in_its_spool_of_a_deleted_run_is_settled_too(
    client: redis.Redis, namespace: str, make_consumer: MakeConsumer, store: Store, tmp_path: Path
) -> None:
    feeder = Feeder(client, namespace)
    consumer = make_consumer(spool_dir=str(tmp_path / "spool"))
    writer = SpoolWriter(tmp_path / "spool", f"{consumer.name}.{namespace}", ceiling_bytes=1 << 30, free_floor=0, hostname="head")  # fmt: skip
    writer.write(feeder.tasks(10))
    writer.close()
    delete(store)

    consumer.run_until_empty()

    assert left_of(store) == 0
    assert (consumer.progress.brought_back, consumer.progress.refused) == (10, 10)
    assert tombstone_of(store)["refused"] == 10
    assert list((tmp_path / "spool").rglob("*.jsonl*")) == []


def test_replayed_messages_of_a_deleted_run_are_refused_and_their_file_is_done_with(
    feeder: Feeder, store: Store, tmp_path: Path
) -> None:
    writer = SpoolWriter(tmp_path, "p1", ceiling_bytes=1 << 30, free_floor=0, hostname="node1")
    writer.write([feeder.hello(), *feeder.tasks(8)])
    writer.close()
    delete(store)

    report = replay_into_store([tmp_path], store, remove=True)

    assert (report.of_deleted_runs, report.stored, report.duplicates, report.refused) == (9, 0, 0, 0)
    assert left_of(store) == 0
    assert report.removed == 1


@pytest.mark.parametrize(("days", "streams"), [(0, 1), (2, 0)])
def test_the_stream_of_a_deleted_run_goes_a_day_later(
    client: redis.Redis, namespace: str, make_consumer: MakeConsumer, store: Store, days: int, streams: int
) -> None:
    """Until then its producers may look for their receipts there."""
    feeder = Feeder(client, namespace, receipt=True)
    delete(store)
    if days:
        _grow_older(store, days)
    feeder.send(feeder.tasks(3))
    feeder.beat(clock.now_ms())

    make_consumer().run_until_empty()

    assert client.exists(feeder.keys.stream) == streams
    assert left_of(store) == 0


def _grow_older(store: Store, days: int) -> None:
    """As if the run had been deleted so many days ago."""
    tombstone = tombstone_of(store)
    store.undelete_run("w1")
    long_ago = tombstone["deleted_at"] - timedelta(days=days)
    database = getattr(store, "_database", None)
    if database is not None:
        database[names.TOMBSTONES].insert_one({**tombstone, "_id": "w1", "deleted_at": long_ago})
        return
    store._add(names.TOMBSTONES, [{**tombstone, "_id": "w1", "deleted_at": long_ago}])  # type: ignore[attr-defined]


def test_a_quarantined_piece_that_turns_out_to_be_of_a_deleted_run_goes_with_it(
    feeder: Feeder, store: Store
) -> None:
    header, body = feeder.encoded(feeder.tasks(3))
    store.add_quarantined([Quarantined("not read then", header + body, header_bytes=len(header))])
    delete(store)
    (piece,) = find_pieces(store)
    loaded = load_piece(store, piece.piece_id)
    assert loaded.raw is not None

    retried = retry_piece(store, piece.piece_id, loaded.document, loaded.raw, now=clock.now_ms)

    assert retried.fate is Fate.GONE
    assert left_of(store) == store.count(names.QUARANTINE, {}) == 0
    assert tombstone_of(store)["refused"] == 3
