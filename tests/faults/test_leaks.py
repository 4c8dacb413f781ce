"""Nothing is left of what has ended: streams, groups, consumers, notes, ledger entries, and the consumer's memory.

G5: bounded. After many ended workflows the key count and Redis' memory are back where they were.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import redis

from provd.common import names
from provd.consumer import compaction
from provd.consumer.absent import Absent
from provd.consumer.broker import Broker
from provd.store.interface import Store, Stored
from tests.faults.proof import assert_whole
from tests.integration.consuming import make_consumers, opened_store, plain_settings, running
from tests.integration.feeder import Feeder
from tests.services.redis_server import RedisServer
from tests.services.waiting import wait_until

PrivateRedis = Callable[..., RedisServer]


@pytest.fixture
def store_url(mongo_url: str) -> str:
    return mongo_url


def feed(client: redis.Redis, first: int, count: int) -> list[Feeder]:
    """Workflows from their first word to their last, each with heartbeats, and with receipts to be given."""
    feeders = []
    for number in range(first, first + count):
        feeder = Feeder(client, "ns", f"workflow-{number}", campaign_id="c", receipt=True)
        feeder.send([feeder.hello(), *feeder.tasks(4)], frame=2)
        feeder.beat(1_800_000_000_000, started=4, ended=4)
        feeder.send([feeder.goodbye()])
        feeders.append(feeder)
    return feeders


def used(client: Any) -> int:
    client.execute_command("MEMORY", "PURGE")
    return int(client.info("memory")["used_memory_dataset"])


def sizes(consumer: Any) -> dict[str, int]:
    """How much a consumer keeps at hand: the length of every container that hangs on it, by its path."""
    found: dict[str, int] = {}
    seen: set[int] = set()

    def walk(path: str, value: Any) -> None:
        if id(value) in seen or not type(value).__module__.startswith("provd.") or "store" in path:
            return
        seen.add(id(value))
        slots = [name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())]
        for name in [*getattr(value, "__dict__", {}), *slots]:
            inner: Any = getattr(value, name, None)
            if isinstance(inner, (dict, list, set, frozenset)) or hasattr(inner, "popleft"):
                found[f"{path}.{name}"] = len(inner)
            else:
                walk(f"{path}.{name}", inner)

    walk("consumer", consumer)
    return found


@pytest.mark.parametrize(
    "workflows", [300, pytest.param(10_000, marks=[pytest.mark.long, pytest.mark.timeout(900)])]
)
def test_ended_workflows_leave_nothing_in_redis_and_one_ledger_entry_a_producer(
    private_redis: PrivateRedis, store_url: str, tmp_path: Path, slots: Path, workflows: int
) -> None:
    """Streams, groups, heartbeats, receipts and notes go; a gapless ledger is one range of each producer."""
    # What it remembers of slow commands is in its memory too.
    server = private_redis(config={"slowlog-log-slower-than": "-1"})
    settings = plain_settings(server.url, store_url, "ns", tmp_path)
    with ExitStack() as stack, server.client() as client, opened_store(store_url) as store:
        store.migrate()
        consumers = [make_consumers(settings, slots, stack)() for _ in range(2)]
        with running(consumers[0]), running(consumers[1]):
            feeders = feed(client, 0, 20)
            wait_until(lambda: client.dbsize() == 1, 30)  # the bucket count is for good
            memory = used(client)
            kept = [sizes(consumer) for consumer in consumers]

            with ThreadPoolExecutor(1) as feeding:
                feeding.submit(feed, client, 20, workflows).result()
            wait_until(lambda: client.dbsize() == 1, 600)

            # In the consumers too: heartbeats are the last to be forgotten, at the next copy.
            def grown() -> dict[str, int]:
                now = [sizes(consumer) for consumer in consumers]
                more = {path: now[one][path] - kept[one].get(path, 0) for one in (0, 1) for path in now[one]}
                return {path: count for path, count in more.items() if count > 20}

            try:
                wait_until(lambda: not grown(), 15)
            except TimeoutError:
                assert grown() == {}

        assert used(client) - memory < 100_000
        assert store.count(names.TASKS, {}) == 4 * (workflows + 20)
        assert store.count(names.LEDGER, {}) == workflows + 20
        for feeder in feeders:
            assert_whole(store, feeder)


def test_the_ledger_of_a_long_workflow_is_compacted_while_it_goes_on(
    client: redis.Redis,
    redis_url: str,
    store_url: str,
    namespace: str,
    tmp_path: Path,
    slots: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two consumers write and compact one ledger; it grows with its gaps, not with the messages."""
    monkeypatch.setattr(compaction, "_GROWN", 50)
    monkeypatch.setattr(compaction._Growth.__init__, "__defaults__", (0, 50))
    settings = plain_settings(redis_url, store_url, namespace, tmp_path)
    feeder = Feeder(client, namespace)
    with ExitStack() as stack, opened_store(store_url) as store:
        consumers = [make_consumers(settings, slots, stack)(batch_messages=1) for _ in range(2)]
        feeder.send([feeder.hello(), *feeder.tasks(1999)], frame=2)
        with running(consumers[0]), running(consumers[1]):
            wait_until(lambda: feeder.length() == 0, 60)
            # Nothing more comes, and the workflow has not ended: only the periodic compaction can do this.
            wait_until(lambda: store.count(names.LEDGER, {}) <= 100, 20)

        assert str(store.stored_ranges("w1")[feeder.producer_id]) == "1-2000"
        assert client.exists(feeder.keys.stream)


def test_a_ledger_that_many_write_and_compact_at_once_says_all_of_it(store_url: str) -> None:
    """G7: whatever is compacted when, a reader finds every number that has been entered."""
    with ExitStack() as stack:
        stores = [stack.enter_context(opened_store(store_url)) for _ in range(4)]
        stores[0].migrate()
        entered = [0]
        lost: list[str] = []
        done = threading.Event()

        def write(store: Store, residue: int) -> None:
            for number in range(residue, 600, 2):
                store.add_stored([Stored("p", "w1", 2 * number + 1, 2 * number + 2)])
                if residue == 0:
                    entered[0] = 2 * number + 2

        def compact(store: Store) -> None:
            while not done.is_set():
                store.compact_ledger("w1", "another")

        def read(store: Store) -> None:
            while not done.is_set():
                known = entered[0]
                found = store.stored_ranges("w1").get("p")
                if known and (found is None or known not in found):
                    lost.append(f"{known} of {found}")

        threads = [threading.Thread(target=compact, args=[stores[one]]) for one in (0, 1)]
        threads.append(threading.Thread(target=read, args=[stores[2]]))
        writers = [threading.Thread(target=write, args=[stores[3], residue]) for residue in (0, 1)]
        for thread in [*threads, *writers]:
            thread.start()
        for thread in writers:
            thread.join()
        done.set()
        for thread in threads:
            thread.join()

        assert lost == []
        assert str(stores[0].stored_ranges("w1")["p"]) == "1-1200"
        assert stores[0].compact_ledger("w1") == 1
        assert stores[0].count(names.LEDGER, {}) == 1


def test_consumers_that_are_gone_are_taken_out_of_the_group_and_those_with_frames_are_not(
    client: redis.Redis, redis_url: str, namespace: str
) -> None:
    feeder = Feeder(client, namespace)
    feeder.send(feeder.tasks(3), frame=1)
    for number in range(30):
        client.xgroup_createconsumer(feeder.keys.stream, names.GROUP, f"gone-{number}")
    client.xreadgroup(names.GROUP, "dead-with-a-frame", {feeder.keys.stream: ">"}, count=1)
    client.xgroup_createconsumer(feeder.keys.stream, names.GROUP, "me")
    absent = Absent(Broker(redis_url, connect_timeout_s=1), consumer="me", gone_ms=50, pause_s=0)
    missing = f"{feeder.keys.stream}-that-is-not-there"

    def left() -> set[str]:
        absent.look([missing, feeder.keys.stream])
        found: Any = client.xinfo_consumers(feeder.keys.stream, names.GROUP)
        return {consumer["name"].decode() for consumer in found}

    wait_until(lambda: left() == {"dead-with-a-frame", "me"})
    assert feeder.pending() == 1

    # Whoever comes back after all is entered again
    assert client.xreadgroup(names.GROUP, "gone-1", {feeder.keys.stream: ">"}, count=1)
    assert left() >= {"gone-1"}
