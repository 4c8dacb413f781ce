"""A stream is retired while a late producer writes: nothing is lost, nothing is left.

G2: accepted messages reach the store, also those that come after everyone has said goodbye.
"""

from __future__ import annotations

import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import redis

from provd.common import names, wire
from provd.common.errors import BrokerUnavailable
from provd.consumer import scripts
from provd.producer.broker import Broker
from provd.producer.framing import CutFrame
from tests.integration.consuming import make_consumers, opened_store, plain_settings
from tests.integration.feeder import BUCKETS, Feeder
from tests.services.waiting import wait_until

#: Frames that come after the goodbye, one at a time, each to a stream that is being retired.
LATE = 100


@pytest.fixture
def store_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/provd.db"


def has_sent(broker: Broker, frame: CutFrame) -> bool:
    """Send a frame, and say whether it is accepted; what is not is sent again, as the sender does."""
    try:
        broker.send([frame])
    except BrokerUnavailable:
        return False
    return True


def keys_of(feeder: Feeder) -> list[bytes]:
    """Every key of a workflow that is in Redis."""
    every = (
        feeder.keys.stream,
        feeder.keys.beats,
        feeder.keys.spooled,
        feeder.keys.stored,
        feeder.keys.suspects,
    )
    return [key.encode() for key in every if feeder.client.exists(key)]


def test_what_a_late_producer_sends_to_a_stream_that_is_being_retired_is_there_to_be_read(
    client: redis.Redis, redis_url: str, namespace: str
) -> None:
    """G2: the producer's own connection against retirement as fast as it can be: each frame is read by somebody."""
    late = Feeder(client, namespace)
    broker = Broker(redis_url, namespace=namespace, buckets=BUCKETS, timeout_s=5)
    broker.open()
    ended = threading.Event()
    keys = late.keys
    retired = 0
    read: set[int] = set()

    def retire() -> None:
        nonlocal retired
        with redis.Redis.from_url(redis_url) as other:
            while not ended.is_set():
                retired += other.eval(
                    scripts.RETIRE, 6,
                    keys.registry, keys.stream, keys.beats, keys.spooled, keys.stored, keys.suspects, names.GROUP,
                    0,
                )  # fmt: skip

    def consume() -> None:
        with redis.Redis.from_url(redis_url) as other:
            while not ended.is_set():
                try:
                    found: Any = other.xreadgroup(names.GROUP, "c", {keys.stream: ">"})
                except redis.ResponseError:  # no such stream, for now
                    continue
                for entry_id, fields in found[0][1] if found else ():
                    read.add(wire.decode_header(fields[names.HEADER_FIELD]).first_seq)
                    other.eval(scripts.ACKNOWLEDGE, 2, keys.stream, keys.stored, names.GROUP, 1, entry_id)

    threads = [threading.Thread(target=work) for work in (retire, consume)]
    for thread in threads:
        thread.start()
    try:
        for number in range(LATE):
            header, body = late.encoded(late.tasks(1))
            frame = CutFrame(wire.decode_header(header), header, body)
            wait_until(lambda frame=frame: has_sent(broker, frame))  # type: ignore[misc]
            if number % 2:
                wait_until(lambda: late.seq in read)
        wait_until(lambda: len(read) == LATE)
        wait_until(lambda: keys_of(late) == [])
    finally:
        ended.set()
        for thread in threads:
            thread.join()
        broker.close()

    assert retired >= LATE // 10
    assert not client.sismember(keys.registry, keys.stream)


def test_a_workflow_is_not_retired_while_a_consumer_holds_its_messages_in_its_spool(
    client: redis.Redis, redis_url: str, store_url: str, namespace: str, tmp_path: Path, slots: Path
) -> None:
    """The books name them as spooled, and their producers' receipts are still to come."""
    feeder = Feeder(client, namespace)
    feeder.whole_run(5)
    client.hset(feeder.keys.spooled, feeder.producer_id, "3-4")
    settings = plain_settings(redis_url, store_url, namespace, tmp_path)
    with ExitStack() as stack, opened_store(store_url) as store:
        make_consumers(settings, slots, stack)().run_until_empty()
        assert client.exists(feeder.keys.stream)

        client.hdel(feeder.keys.spooled, feeder.producer_id)
        make_consumers(settings, slots, stack)().run_until_empty()

        assert keys_of(feeder) == []
        assert store.count(names.TASKS, {}) == 5


def test_one_workflow_that_has_not_ended_does_not_keep_the_others(
    client: redis.Redis, redis_url: str, store_url: str, namespace: str, tmp_path: Path, slots: Path
) -> None:
    """Hundreds are asked about together; each is judged alone."""
    feeders = [Feeder(client, namespace, f"w{number}") for number in range(60)]
    for feeder in feeders[:-3]:
        feeder.whole_run(2)
    unclosed, beating, unheard = feeders[-3:]
    unclosed.send([unclosed.hello(), *unclosed.tasks(2)])
    beating.whole_run(2)
    Feeder(client, namespace, beating.workflow_id).beat(1_800_000_000_000)
    unheard.send(unheard.tasks(2))
    with ExitStack() as stack, opened_store(store_url) as store:
        make_consumers(
            plain_settings(redis_url, store_url, namespace, tmp_path), slots, stack
        )().run_until_empty()

        assert [feeder.workflow_id for feeder in feeders if keys_of(feeder)] == ["w57", "w58", "w59"]
        assert store.count(names.TASKS, {}) == 120


def test_a_workflow_is_not_retired_where_a_consumer_has_spooled_its_last_frame_a_moment_ago(
    client: redis.Redis, namespace: str
) -> None:
    """G7: the note of what is in the spool would be gone, and so would the receipts for it."""
    feeder = Feeder(client, namespace)
    (entry,) = feeder.send(feeder.tasks(5))
    keys = feeder.keys
    client.xreadgroup(names.GROUP, "head-0", {keys.stream: ">"})
    client.eval(scripts.SPOOLED, 2, keys.stream, keys.spooled, names.GROUP, entry, feeder.producer_id, "1-5")
    all_keys = (keys.registry, keys.stream, keys.beats, keys.spooled, keys.stored, keys.suspects)

    assert client.eval(scripts.RETIRE, 6, *all_keys, names.GROUP, 0) == 0
    assert client.hget(keys.spooled, feeder.producer_id) == b"1-5"
    assert client.eval(scripts.RETIRE, 6, *all_keys, names.GROUP, 1) == 1
