"""A thousand producers that start at once, and a Redis that does not take as many connections as there are producers.

G1: the programs end as they would have. G2: accepted messages reach the store. G7: each producer's books are complete.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from provd.common import names
from provd.common.spool import spool_files
from provd.store.books import read_books
from provd.store.interface import Store
from tests.conftest import RunProvd, StartProvd
from tests.integration.consuming import opened_store
from tests.services.redis_server import RedisServer
from tests.services.waiting import wait_until
from tests.streams import Script

PrivateRedis = Callable[..., RedisServer]

#: Forks so many producers that wait for one another, and ends 1 if any of them did not end 0. A child has imported
#: nothing itself; everything of provd's is its own: id, sender, connection, spool.
CROWD = """
import os, sys, traceback
import redis
import provd

@provd.task
def work(number, index):
    return {"product": number * index}

def produce(number):
    with provd.workflow("crowd", workflow_id="crowd.1"):
        for index in range(5):
            work(number, index)

count = int(sys.argv[1])
waiting, go = os.pipe()
children = []
for number in range(count):
    pid = os.fork()
    if pid == 0:
        os.close(go)
        os.read(waiting, 1)  # returns when the parent closes its end: all at once
        code = 1
        try:
            produce(number)
            sys.exit(0)  # the interpreter's own end is not reached in a child of fork
        except SystemExit:
            import atexit
            atexit._run_exitfuncs()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    children.append(pid)
os.close(waiting)
os.close(go)
codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
print("ended", len(codes), "failed", sum(code != 0 for code in codes))
sys.exit(any(codes))
"""

#: A single producer of the same workflow, for starts that are real.
ONE = """
import sys
import provd

@provd.task
def work(number, index):
    return {"product": number * index}

with provd.workflow("crowd", workflow_id="crowd.1"):
    for index in range(5):
        work(int(sys.argv[1]), index)
"""


@pytest.fixture
def environment(mongo_url: str, tmp_path: Path) -> dict[str, str]:
    return {
        "PROVD_STORE_URL": mongo_url,
        "PROVD_NAMESPACE": "ns",
        "PROVD_SPOOL_DIR": str(tmp_path / "spool"),
        "PROVD_SPOOL_FREE_FLOOR": "0",
        "PROVD_WORKFLOW_ID": "crowd.1",
        "XDG_RUNTIME_DIR": str(tmp_path),
    }


def bring_in_and_check(
    store: Store, run_provd: RunProvd, environment: dict[str, str], *, producers: int
) -> None:
    """All that was said is in the store, of every producer, whichever way it came."""
    folder = Path(environment["PROVD_SPOOL_DIR"])
    if folder.is_dir() and spool_files([folder]):
        replayed = run_provd("replay", str(folder), env=environment, timeout=120)
        assert replayed.returncode == 0, replayed.stderr
    wait_until(lambda: store.count(names.TASKS, {}) == 5 * producers, 60)
    # A batch's tasks are there a moment before its producers are: the books cannot know of those yet.
    wait_until(lambda: len(read_books(store, "crowd.1").producers) == producers, 60)
    wait_until(lambda: read_books(store, "crowd.1").complete, 60)
    books = read_books(store, "crowd.1")
    assert books.total("produced") == books.total("stored")
    found = store.find(names.TASKS, {}, fields=["used"])
    assert sorted((task["used"]["number"], task["used"]["index"]) for task in found) == [
        (number, index) for number in range(producers) for index in range(5)
    ]


@pytest.mark.parametrize("count", [300, pytest.param(1000, marks=pytest.mark.long)])
def test_producers_that_start_at_once_are_all_stored(
    private_redis: PrivateRedis,
    script: Script,
    start_provd: StartProvd,
    run_provd: RunProvd,
    environment: dict[str, str],
    mongo_url: str,
    count: int,
) -> None:
    """G2, G7: hundreds of ids, senders and connections in one moment, into one workflow."""
    server = private_redis()
    environment |= {"PROVD_BROKER_URL": server.url}
    consumer = start_provd("consume", env=environment)

    crowd = script.run(CROWD, str(count), env=environment, timeout=150)

    assert crowd.returncode == 0, crowd.stderr[-2000:]
    assert crowd.stdout == f"ended {count} failed 0\n"
    with opened_store(mongo_url) as store:
        bring_in_and_check(store, run_provd, environment, producers=count)
    consumer.send(signal.SIGTERM)
    assert consumer.wait(30) == 0


def test_producers_that_redis_has_no_connection_for_spool(
    private_redis: PrivateRedis,
    script: Script,
    start_provd: StartProvd,
    run_provd: RunProvd,
    environment: dict[str, str],
    mongo_url: str,
) -> None:
    """G1, G2: `maxclients` 12, eleven of them taken, a hundred producers: who is refused writes to the disk and ends in
    order."""
    server = private_redis(config={"maxclients": "12"})
    environment |= {"PROVD_BROKER_URL": server.url}

    with ExitStack() as taken:
        for _ in range(11):
            taken.enter_context(server.client()).ping()
        crowd = script.run(CROWD, "100", env=environment, timeout=120)

    assert crowd.returncode == 0, crowd.stderr[-2000:]
    with server.client() as client:
        refused = int(client.info("stats")["rejected_connections"])
    assert refused > 0
    consumer = start_provd("consume", env=environment)
    with opened_store(mongo_url) as store:
        bring_in_and_check(store, run_provd, environment, producers=100)
    consumer.send(signal.SIGTERM)
    assert consumer.wait(30) == 0


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_a_thousand_programs_that_are_started_at_once_are_all_stored(
    private_redis: PrivateRedis,
    script: Script,
    start_provd: StartProvd,
    run_provd: RunProvd,
    environment: dict[str, str],
    mongo_url: str,
) -> None:
    """G2, G7: a thousand starts of Python, as many of them at a time as the machine has room for."""
    server = private_redis()
    environment |= {"PROVD_BROKER_URL": server.url}
    consumer = start_provd("consume", env=environment)
    at_once = 50 * (os.cpu_count() or 1)
    for start in range(0, 1000, at_once):
        numbers = range(start, min(start + at_once, 1000))
        programs = [script.start(ONE, str(number), env=environment) for number in numbers]
        ends = [(program.communicate(timeout=300)[1], program.returncode) for program in programs]
        assert [code for _, code in ends] == [0] * len(programs), ends
    with opened_store(mongo_url) as store:
        bring_in_and_check(store, run_provd, environment, producers=1000)
    consumer.send(signal.SIGTERM)
    assert consumer.wait(30) == 0
