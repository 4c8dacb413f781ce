"""Receipts: what the store holds, told to the producers that keep their own copy until then (G2)."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis

from provd.common import names
from provd.common.ranges import Ranges
from provd.consumer import scripts
from provd.store.interface import Store
from tests.integration.consuming import MakeConsumer, make_consumers, opened_store, plain_settings
from tests.integration.feeder import Feeder
from tests.services.redis_server import RedisServer


@pytest.fixture
def store_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/provd.db"


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    with opened_store(store_url) as opened:
        yield opened


def test_a_producer_that_waits_for_the_store_is_told_what_is_stored(
    client: redis.Redis, namespace: str, make_consumer: MakeConsumer
) -> None:
    waiting, other = Feeder(client, namespace, receipt=True), Feeder(client, namespace)
    tasks = waiting.tasks(100)
    waiting.send([*tasks[:40], *tasks[:40]], frame=10)
    waiting.send(tasks[60:], frame=10)
    other.send(other.tasks(10))

    make_consumer(batch_messages=30).run_until_empty()

    assert waiting.receipts() == "1-40,61-100"
    assert other.receipts() == ""
    waiting.send(tasks[40:60])
    make_consumer().run_until_empty()
    assert waiting.receipts() == "1-100"


def test_what_was_damaged_on_the_way_gets_no_receipt(
    client: redis.Redis, namespace: str, make_consumer: MakeConsumer, store: Store
) -> None:
    """The producer has the good copy, and must keep it."""
    feeder = Feeder(client, namespace, receipt=True)
    feeder.send_garbled(feeder.tasks(20))

    make_consumer().run_until_empty()

    (item,) = store.find(names.QUARANTINE, {})
    assert Ranges.parse(feeder.receipts()) == Ranges.of([(1, 20)]).minus(
        Ranges.of([(item["first_seq"], item["last_seq"])])
    )


def test_a_frame_in_another_workflows_stream_is_stored_and_gets_no_receipt_there(
    client: redis.Redis, namespace: str, make_consumer: MakeConsumer, store: Store
) -> None:
    """A producer numbers each workflow's messages anew: it would take the receipt for others of its own."""
    feeder, other = Feeder(client, namespace, receipt=True), Feeder(client, namespace, "w2", receipt=True)
    feeder.send(feeder.tasks(3))
    feeder.send_raw(*other.encoded(other.tasks(5)))

    make_consumer().run_until_empty()

    assert store.count(names.TASKS, {}) == 8
    assert client.hkeys(feeder.keys.stored) == [b":store", feeder.producer_id.encode()]
    assert feeder.receipts() == "1-3"
    assert not client.exists(other.keys.stored)


def test_what_the_store_refuses_for_good_gets_its_receipt(
    client: redis.Redis, namespace: str, make_consumer: MakeConsumer, store: Store
) -> None:
    """It is in quarantine as it was sent: to send it again would change nothing."""
    feeder = Feeder(client, namespace, receipt=True)
    feeder.send([*feeder.tasks(3), *feeder.tasks(1, activity_id=7), *feeder.tasks(3)])

    make_consumer().run_until_empty()

    assert store.count(names.QUARANTINE, {}) == 1
    assert feeder.receipts() == "1-7"


def test_receipts_of_a_retired_workflow_are_gone_and_do_not_come_back(
    client: redis.Redis, namespace: str, make_consumer: MakeConsumer
) -> None:
    feeder = Feeder(client, namespace, receipt=True)
    feeder.whole_run(10)
    consumer = make_consumer()
    consumer.run_until_empty()
    assert not client.exists(feeder.keys.stream, feeder.keys.stored)

    late = client.eval(
        scripts.ACKNOWLEDGE, 2, feeder.keys.stream, feeder.keys.stored, names.GROUP, 1, "1-1", "s", "p", "1-5"
    )

    assert late == 0
    assert not client.exists(feeder.keys.stored)


def test_another_store_gives_receipts_for_what_it_holds_itself(
    client: redis.Redis, namespace: str, make_consumer: MakeConsumer, redis_url: str, tmp_path: Path
) -> None:
    """G2: a producer lets go of nothing because a store that is not in use any more once had it."""
    feeder = Feeder(client, namespace, receipt=True)
    feeder.send(feeder.tasks(10))
    make_consumer().run_until_empty()
    assert feeder.receipts() == "1-10"

    with ExitStack() as stack:
        other = plain_settings(redis_url, f"sqlite:///{tmp_path}/other.db", namespace, tmp_path)
        feeder.send(feeder.tasks(10))
        make_consumers(other, tmp_path / "slots", stack)().run_until_empty()

    assert feeder.receipts() == "11-20"


def test_receipts_are_written_where_redis_has_no_room_left(
    private_redis: type[RedisServer], store_url: str, tmp_path: Path
) -> None:
    server = private_redis()  # type: ignore[call-arg]
    (tmp_path / "slots").mkdir()
    with ExitStack() as stack, server.client() as client:
        feeder = Feeder(client, "ns", receipt=True)
        feeder.send(feeder.tasks(200), frame=10)
        client.config_set("maxmemory", 1)
        settings = plain_settings(server.url, store_url, "ns", tmp_path)

        make_consumers(settings, tmp_path / "slots", stack)().run_until_empty()

        assert (feeder.length(), feeder.receipts()) == (0, "1-200")


def test_ranges_in_redis_are_merged_as_sets(client: redis.Redis, namespace: str) -> None:
    """In whatever order frames are acknowledged and taken back, the text says the set and no more."""
    feeder = Feeder(client, namespace)
    feeder.send(feeder.tasks(1))
    keys, chosen = feeder.keys, random.Random(4)
    stored = spooled = Ranges()
    for _ in range(300):
        first = chosen.randrange(1, 400)
        some = Ranges.of([(first, first + chosen.randrange(20)), (first + 30, first + 31)])
        if chosen.random() < 0.3:
            client.eval(scripts.UNSPOOLED, 2, keys.spooled, keys.stored, "s", "p", some.text, some.text)
            stored = stored.union(some) if spooled else stored
            spooled = spooled.minus(some)
        elif chosen.random() < 0.5:
            client.eval(
                scripts.ACKNOWLEDGE, 2, keys.stream, keys.stored, names.GROUP, 1, "1-1", "s", "p", some.text
            )
            stored = stored.union(some)
        else:
            entry = client.xadd(keys.stream, {"a": "b"})
            client.xreadgroup(names.GROUP, "c", {keys.stream: ">"})
            client.eval(scripts.SPOOLED, 2, keys.stream, keys.spooled, names.GROUP, entry, "p", some.text)
            spooled = spooled.union(some)

        assert (client.hget(keys.stored, "p") or b"") == stored.text.encode()
        assert (client.hget(keys.spooled, "p") or b"") == spooled.text.encode()


def test_numbers_of_sixteen_digits_keep_them(client: redis.Redis, namespace: str) -> None:
    feeder = Feeder(client, namespace)
    feeder.send(feeder.tasks(1))
    last = (1 << 53) - 2

    client.eval(
        scripts.ACKNOWLEDGE, 2, feeder.keys.stream, feeder.keys.stored,
        names.GROUP, 1, "1-1", "s", feeder.producer_id, f"1-{last}",
    )  # fmt: skip

    assert feeder.receipts() == f"1-{last}"
