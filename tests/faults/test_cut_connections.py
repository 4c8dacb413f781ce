"""Connections to Redis that are reset in the middle of its replies, and that fall silent.

G1: the programs end as they would have. G2, G3: what Redis did and could not tell is done again, and changes nothing.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from provd.common import names
from provd.store.books import read_books
from tests.conftest import RunProvd, StartProvd
from tests.faults.ingest import bring_in_what_is_spooled
from tests.integration.consuming import opened_store
from tests.services.proxy import Proxy
from tests.services.redis_server import RedisServer
from tests.services.waiting import wait_until
from tests.streams import Script

PrivateRedis = Callable[..., RedisServer]

#: Takes a few seconds, and says a task every few milliseconds.
PACED = """
import threading
import provd

@provd.task
def work(index):
    return {"square": index * index}

with provd.workflow("cut", workflow_id="cut.1", own=True):
    for index in range(1500):
        work(index)
        if index % 10 == 0:
            threading.Event().wait(0.02)
"""


@contextmanager
def proxied(server: RedisServer) -> Iterator[tuple[Proxy, str]]:
    """A proxy before a Redis, and the URL that goes through it."""
    port = urlsplit(server.url).port
    assert port is not None
    proxy = Proxy("127.0.0.1", port)
    proxy.start()
    try:
        yield proxy, f"redis://127.0.0.1:{proxy.port}/0"
    finally:
        proxy.close()


@pytest.mark.parametrize("fault", ["cut in the middle of replies", "silent for seconds"])
@pytest.mark.parametrize("durability", ["memory", "disk"])
def test_a_bad_network_to_redis_loses_and_doubles_nothing(
    private_redis: PrivateRedis,
    script: Script,
    start_provd: StartProvd,
    run_provd: RunProvd,
    mongo_url: str,
    tmp_path: Path,
    fault: str,
    durability: str,
) -> None:
    """G2, G3: of a producer and of the consumer at the same time."""
    server = private_redis()
    with proxied(server) as (proxy, url), opened_store(mongo_url) as store:
        environment = {
            "PROVD_BROKER_URL": url,
            "PROVD_STORE_URL": mongo_url,
            "PROVD_NAMESPACE": "ns",
            "PROVD_SPOOL_DIR": str(tmp_path / "spool"),
            "PROVD_DURABILITY": durability,
            "PROVD_CLAIM_AFTER_S": "2",
            "XDG_RUNTIME_DIR": str(tmp_path),
        }
        consumer = start_provd("consume", env=environment)
        producer = script.start(PACED, env=environment)
        try:
            wait_until(lambda: store.count(names.TASKS, {}) > 50, 30)
            if fault.startswith("cut"):
                proxy.cut_every(5)
                wait_until(lambda: proxy.cuts >= 8, 30)
                proxy.cut_every(0)
            else:
                proxy.hang()
                with pytest.raises(TimeoutError):  # longer than the producer's socket timeout
                    wait_until(lambda: False, 2.5)
                proxy.resume()
            _, errors = producer.communicate(timeout=60)
            assert producer.returncode == 0, errors
        finally:
            producer.kill()
            producer.communicate()
        bring_in_what_is_spooled(run_provd, environment)

        wait_until(lambda: read_books(store, "cut.1").complete, 60)
        wait_until(lambda: store.count(names.TASKS, {}) == 1500, 30)
        found = sorted(task["used"]["index"] for task in store.find(names.TASKS, {}))
        assert found == list(range(1500))
        books: dict[str, Any] = json.loads(
            run_provd("runs", "verify", "cut.1", "--json", env=environment).stdout
        )
        assert (books["complete"], books["missing"], books["quarantined"]) == (True, 0, 0)
        consumer.send(signal.SIGTERM)
        assert consumer.wait(30) == 0
