"""From the streams into the store: every message once, whatever goes wrong with one of them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from provd.common import names
from provd.store.books import read_books
from provd.store.interface import Store
from tests.integration.consuming import MakeConsumer, opened_store
from tests.integration.feeder import Feeder, newer_frame
from tests.services.waiting import wait_until


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    with opened_store(store_url) as opened:
        yield opened


def test_every_task_is_stored_once_and_its_frame_acknowledged_and_deleted(
    client: redis.Redis, namespace: str, make_consumer: MakeConsumer, store: Store
) -> None:
    feeder = Feeder(client, namespace)
    tasks = feeder.tasks(1235)
    feeder.send(tasks, frame=100)

    consumer = make_consumer()
    consumer.run_until_empty()

    assert {task["task_id"] for task in store.find(names.TASKS, {})} == {task.record_id for task in tasks}
    assert (feeder.length(), feeder.pending()) == (0, 0)
    assert (consumer.progress.received, consumer.progress.stored) == (1235, 1235)
    assert str(store.stored_ranges("w1")[feeder.producer_id]) == "1-1235"


def test_a_consumer_that_starts_before_any_producer_reads_the_streams_that_come(
    client: redis.Redis, namespace: str, make_consumer: MakeConsumer, store: Store
) -> None:
    consumer = make_consumer()
    worker = threading.Thread(target=consumer.run)
    worker.start()

    for number in range(3):
        Feeder(client, namespace, f"w{number}").whole_run(10)

    wait_until(lambda: store.count(names.TASKS, {}) == 30)
    consumer.stop()
    worker.join()


def test_two_consumers_share_a_stream(
    client: redis.Redis, namespace: str, make_consumer: MakeConsumer, store: Store
) -> None:
    feeder = Feeder(client, namespace)
    feeder.send(feeder.tasks(6000), frame=10)
    consumers = [make_consumer(batch_messages=100) for _ in range(2)]

    workers = [threading.Thread(target=consumer.run_until_empty) for consumer in consumers]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()

    assert [consumer.name for consumer in consumers] == ["head-0", "head-1"]
    assert all(consumer.progress.stored > 0 for consumer in consumers)
    assert sum(consumer.progress.stored for consumer in consumers) == 6000
    assert store.count(names.TASKS, {}) == 6000


def test_messages_that_come_twice_change_nothing(
    client: redis.Redis, namespace: str, make_consumer: MakeConsumer, store: Store
) -> None:
    feeder = Feeder(client, namespace)
    messages = [feeder.hello(), *feeder.tasks(50), feeder.goodbye()]
    feeder.send(messages)
    make_consumer().run_until_empty()
    before = sorted(store.find(names.TASKS, {}), key=lambda task: task["task_id"])

    feeder.send(messages)
    consumer = make_consumer()
    consumer.run_until_empty()

    assert sorted(store.find(names.TASKS, {}), key=lambda task: task["task_id"]) == before
    assert (consumer.progress.duplicates, consumer.progress.stored) == (52, 0)
    assert read_books(store, "w1").complete


def test_only_the_named_workflows_are_consumed(
    client: redis.Redis, namespace: str, make_consumer: MakeConsumer, store: Store
) -> None:
    wanted, other = Feeder(client, namespace, "wanted"), Feeder(client, namespace, "other", campaign_id="c")
    for feeder in (wanted, other):
        feeder.send(feeder.tasks(10))

    make_consumer(workflow_ids=("wanted",)).run_until_empty()

    assert {task["workflow_id"] for task in store.find(names.TASKS, {})} == {"wanted"}
    assert other.length() == 1


def test_a_consumer_that_was_stopped_lets_go_of_what_it_had_read(
    client: redis.Redis, namespace: str, make_consumer: MakeConsumer, store: Store
) -> None:
    """The next consumer need not wait until the frames count as abandoned."""
    feeder = Feeder(client, namespace)
    feeder.send(feeder.tasks(100), frame=1)
    stop = threading.Event()
    first = make_consumer(batch_messages=10, on_progress=lambda _: stop.set())
    first.run_until(stop)
    assert 0 < first.progress.stored < 100
    assert feeder.pending() > 0

    make_consumer().run_until_empty()

    assert store.count(names.TASKS, {}) == 100
    assert feeder.pending() == 0


def test_a_consumer_that_is_started_again_finds_what_it_had_in_hand(
    client: redis.Redis, namespace: str, make_consumer: MakeConsumer, store: Store
) -> None:
    feeder = Feeder(client, namespace)
    feeder.send(feeder.tasks(30), frame=1)
    client.xreadgroup(names.GROUP, "head-0", {feeder.keys.stream: ">"}, count=20)

    make_consumer().run_until_empty()

    assert store.count(names.TASKS, {}) == 30
    assert (feeder.length(), feeder.pending()) == (0, 0)


# --- one bad record (G4) -----------------------------------------------------------------------------------------


def test_a_garbled_message_costs_only_itself(
    client: redis.Redis, namespace: str, make_consumer: MakeConsumer, store: Store
) -> None:
    feeder = Feeder(client, namespace)
    body = feeder.send_garbled(feeder.tasks(20))
    feeder.send(feeder.tasks(5))

    consumer = make_consumer()
    consumer.run_until_empty()

    (item,) = store.find(names.QUARANTINE, {})
    assert store.count(names.TASKS, {}) == 24
    assert (item["producer_id"], item["workflow_id"]) == (feeder.producer_id, "w1")
    assert item["first_seq"] == item["last_seq"]
    assert bytes(item["raw"]) in body
    assert item["first_seq"] not in store.stored_ranges("w1")[feeder.producer_id]
    assert (consumer.progress.received, consumer.progress.quarantined) == (25, 1)
    assert feeder.length() == 0


def test_a_frame_with_a_ruined_header_is_quarantined_whole(
    client: redis.Redis, namespace: str, make_consumer: MakeConsumer, store: Store
) -> None:
    feeder = Feeder(client, namespace)
    feeder.send(feeder.tasks(3))
    feeder.send_raw(b"ruined", b"body")

    make_consumer().run_until_empty()

    (item,) = store.find(names.QUARANTINE, {})
    assert bytes(item["raw"]) == b"ruinedbody"
    assert item["workflow_id"] == "w1"
    assert "producer_id" not in item
    assert store.count(names.TASKS, {}) == 3
    assert read_books(store, "w1").unattributed == 1
    assert feeder.length() == 0


def test_an_entry_that_is_no_frame_is_quarantined(
    client: redis.Redis, namespace: str, make_consumer: MakeConsumer, store: Store
) -> None:
    feeder = Feeder(client, namespace)
    feeder.send(feeder.tasks(1))
    client.xadd(feeder.keys.stream, {"greeting": "hello"})

    make_consumer().run_until_empty()

    (item,) = store.find(names.QUARANTINE, {})
    assert bytes(item["raw"]) == b"greeting=hello"
    assert feeder.length() == 0


def test_a_frame_of_a_later_schema_stays_pending_and_is_told_of_once(
    client: redis.Redis,
    namespace: str,
    make_consumer: MakeConsumer,
    store: Store,
    caplog: pytest.LogCaptureFixture,
) -> None:
    feeder = Feeder(client, namespace)
    for _ in range(3):
        feeder.send_raw(*newer_frame(feeder))
    feeder.send(feeder.tasks(5))

    make_consumer().run_until_empty()

    assert store.count(names.TASKS, {}) == 5
    assert store.count(names.QUARANTINE, {}) == 0
    assert (feeder.length(), feeder.pending()) == (3, 3)
    assert sum("later schema" in record.getMessage() for record in caplog.records) == 1


def test_a_frame_deleted_while_it_was_pending_is_dropped_alone(
    client: redis.Redis, namespace: str, make_consumer: MakeConsumer, store: Store
) -> None:
    feeder = Feeder(client, namespace)
    entries = feeder.send(feeder.tasks(3), frame=1)
    client.xreadgroup(names.GROUP, "gone", {feeder.keys.stream: ">"})
    client.xdel(feeder.keys.stream, entries[1])
    client.xclaim(feeder.keys.stream, names.GROUP, "gone", 0, [*entries], idle=10_000, justid=True)

    make_consumer(claim_after_s=5.0).run_until_empty()

    assert store.count(names.TASKS, {}) == 2
    assert (feeder.length(), feeder.pending()) == (0, 0)


# --- consumers that die ------------------------------------------------------------------------------------------


def test_the_frames_of_a_dead_consumer_are_taken_over(
    client: redis.Redis, namespace: str, make_consumer: MakeConsumer, store: Store
) -> None:
    feeder = Feeder(client, namespace)
    feeder.send(feeder.tasks(200), frame=2)
    client.xreadgroup(names.GROUP, "dead-0", {feeder.keys.stream: ">"})

    consumer = make_consumer(claim_after_s=0.2)
    worker = threading.Thread(target=consumer.run)
    worker.start()
    wait_until(lambda: store.count(names.TASKS, {}) == 200)
    wait_until(lambda: feeder.pending() == 0)
    consumer.stop()
    worker.join()

    assert consumer.progress.duplicates == 0


def test_frames_that_somebody_works_on_are_not_taken_over(
    client: redis.Redis, namespace: str, make_consumer: MakeConsumer, store: Store
) -> None:
    feeder = Feeder(client, namespace)
    feeder.send(feeder.tasks(10), frame=1)
    client.xreadgroup(names.GROUP, "busy-0", {feeder.keys.stream: ">"})

    make_consumer(claim_after_s=60.0).run_until_empty()

    assert store.count(names.TASKS, {}) == 0
    assert feeder.pending() == 10


# --- streams -----------------------------------------------------------------------------------------------------


def test_three_hundred_streams_are_read_in_chunks(
    client: redis.Redis, namespace: str, make_consumer: MakeConsumer, store: Store
) -> None:
    for number in range(300):
        feeder = Feeder(client, namespace, f"workflow-{number}")
        feeder.send(feeder.tasks(3), frame=1)
    client.config_resetstat()

    consumer = make_consumer()
    consumer.run_until_empty()

    calls: Any = client.info("commandstats")
    assert store.count(names.TASKS, {}) == 900
    assert consumer.progress.stored == 900
    assert calls["cmdstat_xreadgroup"]["calls"] < 300


def test_a_stream_without_its_group_gets_it_back(
    client: redis.Redis, namespace: str, make_consumer: MakeConsumer, store: Store
) -> None:
    feeders = [Feeder(client, namespace, f"w{number}") for number in range(40)]
    for feeder in feeders:
        feeder.send(feeder.tasks(2))
    client.xgroup_destroy(feeders[7].keys.stream, names.GROUP)

    make_consumer().run_until_empty()

    assert store.count(names.TASKS, {}) == 80


def test_a_registered_stream_that_is_gone_stops_nobody(
    client: redis.Redis, namespace: str, make_consumer: MakeConsumer, store: Store
) -> None:
    feeders = [Feeder(client, namespace, f"w{number}") for number in range(40)]
    for feeder in feeders:
        feeder.send(feeder.tasks(2))
    client.delete(feeders[7].keys.stream)
    client.sadd(feeders[8].keys.registry, f"{feeders[8].keys.stream}-text")
    client.set(f"{feeders[8].keys.stream}-text", "not a stream")

    make_consumer().run_until_empty()

    assert store.count(names.TASKS, {}) == 78
    assert not client.sismember(feeders[7].keys.registry, feeders[7].keys.stream)


def test_the_stream_of_an_ended_workflow_is_retired_and_a_late_writer_makes_a_new_one(
    client: redis.Redis, namespace: str, make_consumer: MakeConsumer, store: Store
) -> None:
    feeder = Feeder(client, namespace)
    feeder.whole_run(10)
    feeder.beat(1_800_000_000_000)
    make_consumer().run_until_empty()
    assert not client.exists(feeder.keys.stream, feeder.keys.beats, feeder.keys.spooled)
    assert not client.sismember(feeder.keys.registry, feeder.keys.stream)
    assert store.count(names.BEATS, {}) == 1

    feeder.send(feeder.tasks(1))
    make_consumer().run_until_empty()

    assert store.count(names.TASKS, {}) == 11


def test_a_stream_is_not_retired_while_a_producer_has_not_closed(
    client: redis.Redis, namespace: str, make_consumer: MakeConsumer
) -> None:
    closed, unclosed, only_beating = (Feeder(client, namespace) for _ in range(3))
    closed.whole_run(5)
    unclosed.send([unclosed.hello(), *unclosed.tasks(5)])
    only_beating.beat(1_800_000_000_000)

    make_consumer().run_until_empty()

    assert client.exists(closed.keys.stream)
    assert client.sismember(closed.keys.registry, closed.keys.stream)


def test_a_heartbeat_is_copied_with_what_it_says_of_the_books(
    client: redis.Redis, namespace: str, make_consumer: MakeConsumer, store: Store
) -> None:
    feeder = Feeder(client, namespace)
    feeder.send(feeder.tasks(10))
    feeder.beat(1_800_000_000_000, sent=40, started=12, ended=10, spooled=[[11, 30]], dropped=[[31, 32]])
    client.hset(feeder.keys.spooled, feeder.producer_id, "33-35,37-38")

    make_consumer().run_until_empty()

    (producer,) = read_books(store, "w1").producers
    assert (producer.produced, str(producer.stored), str(producer.spooled)) == (
        40,
        "1-10",
        "11-30, 33-35, 37-38",
    )
    assert (str(producer.dropped), str(producer.missing)) == ("31-32", "36, 39-40")


# --- --exit-when-done --------------------------------------------------------------------------------------------


def test_a_run_for_named_workflows_ends_when_they_are_complete(
    client: redis.Redis, namespace: str, make_consumer: MakeConsumer, store: Store
) -> None:
    feeders = [Feeder(client, namespace, "w1"), Feeder(client, namespace, "w2")]
    for feeder in feeders:
        feeder.whole_run(100)

    outcome = make_consumer(workflow_ids=("w1", "w2")).run_until_done(grace_s=60)

    assert (outcome.complete, outcome.gaps) == (True, ())
    assert store.count(names.TASKS, {}) == 200


def test_a_run_for_named_workflows_gives_up_after_its_grace_and_names_the_gaps(
    client: redis.Redis, namespace: str, make_consumer: MakeConsumer
) -> None:
    complete, broken = Feeder(client, namespace, "w1"), Feeder(client, namespace, "w2")
    complete.whole_run(10)
    broken.send(broken.tasks(3))
    broken.tasks(2)
    broken.send(broken.tasks(4))

    outcome = make_consumer(workflow_ids=("w1", "w2", "w3")).run_until_done(grace_s=0.5)

    assert not outcome.complete
    assert outcome.gaps == (
        f"w2: missing {broken.producer_id}: 4-5; never closed: {broken.producer_id}",
        "w3: no producer has been heard of",
    )


def test_a_second_request_to_stop_ends_at_once(make_consumer: MakeConsumer) -> None:
    consumer = make_consumer()
    consumer.stop()

    with pytest.raises(KeyboardInterrupt):
        consumer.stop()
