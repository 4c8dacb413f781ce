"""A node whose clock is five minutes off, either way: no merge, no lineage and no LOST changes.

G3: the stored document is a function of the messages. G6: durations come from a monotonic clock. LOST is silence by the
server's clock.
"""

from __future__ import annotations

import json
import signal
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from provd.common import names
from provd.store.books import read_books
from tests.conftest import RunProvd, StartProvd
from tests.integration.consuming import opened_store
from tests.services.waiting import wait_until
from tests.streams import Script

#: Seconds by which a wrong clock is off.
OFF = 300

#: The clock of a node, which it has before provd is imported.
CLOCK = """
import sys, time
offset = int(sys.argv.pop(1))
right, right_ns = time.time, time.time_ns
time.time = lambda: right() + offset
time.time_ns = lambda: right_ns() + offset * 10**9
"""

#: A parent whose children run on other nodes; work takes long enough to be announced before it ends.
FAMILY = """
import os, subprocess, threading
import provd

@provd.task
def step(number):
    threading.Event().wait(1.2)
    return {"double": 2 * number}

if sys.argv[1] == "child":
    with provd.workflow("part", workflow_id="family.1"):
        with provd.Task("inner", used={"number": int(sys.argv[2])}):
            step(int(sys.argv[2]))
else:
    with provd.workflow("family", workflow_id="family.1", own=True):
        with provd.Task("outer", used={"number": 0}) as outer:
            children = [
                subprocess.Popen(
                    [sys.executable, __file__, child_offset, "child", str(number)],
                    env={**os.environ, "PROVD_PARENT_TASK_ID": outer.task_id},
                )
                for number, child_offset in enumerate(sys.argv[2:], start=1)
            ]
            codes = [child.wait() for child in children]
    sys.exit(any(codes))
"""

#: Works until it is told to end.
WORKING = """
import provd

with provd.workflow("working", workflow_id="working.1", own=True):
    with provd.Task("simulate"):
        print("working", flush=True)
        sys.stdin.readline()
"""


@pytest.fixture
def environment(redis_url: str, mongo_url: str, namespace: str, tmp_path: Path) -> dict[str, str]:
    return {
        "PROVD_BROKER_URL": redis_url,
        "PROVD_STORE_URL": mongo_url,
        "PROVD_NAMESPACE": namespace,
        "PROVD_HEARTBEAT_S": "0.5",
        "PROVD_LOST_AFTER_S": "8",
        "XDG_RUNTIME_DIR": str(tmp_path),
    }


@pytest.mark.parametrize(
    ("parent", "children"),
    [(0, (OFF, -OFF)), (OFF, (-OFF, 0)), (-OFF, (OFF, 0))],
    ids=["children off", "parent ahead", "parent behind"],
)
def test_merges_and_lineage_are_what_they_are_with_right_clocks(
    script: Script,
    start_provd: StartProvd,
    environment: dict[str, str],
    mongo_url: str,
    parent: int,
    children: tuple[int, ...],
) -> None:
    """G3, G6: a family of processes over nodes whose clocks are up to ten minutes apart."""
    consumer = start_provd("consume", env=environment)
    ended = script.run(
        CLOCK + FAMILY, str(parent), "parent", *map(str, children), env=environment, timeout=60
    )
    assert ended.returncode == 0, ended.stderr

    with opened_store(mongo_url) as store:
        wait_until(lambda: read_books(store, "family.1").complete, 30)
        (run,) = store.find(names.WORKFLOWS, {})
        (outer,) = store.find(names.TASKS, {"activity_id": "outer"})
        inner = {task["task_id"]: task for task in store.find(names.TASKS, {"activity_id": "inner"})}
        steps = list(store.find(names.TASKS, {"activity_id": "step"}))
        producers = list(store.find(names.PRODUCERS, {}))

    # Everything ended, once, below its own parent
    assert (run["status"], outer["status"]) == ("FINISHED", "FINISHED")
    assert sorted(task["used"]["number"] for task in inner.values()) == [1, 2]
    assert all(task["parent_task_id"] == outer["task_id"] for task in inner.values())
    assert len(steps) == 2
    for step in steps:
        above = inner[step["parent_task_id"]]
        assert step["used"] == above["used"]
        assert step["producer_id"] == above["producer_id"]
        assert step["generated"] == {"double": 2 * step["used"]["number"]}
    for task in [outer, *inner.values(), *steps]:
        assert task["status"] == "FINISHED"
        assert 1.2 <= task["duration"] < 60
        assert abs((task["ended_at"] - task["started_at"]).total_seconds() - task["duration"]) < 0.01

    # And the books say by how much each node was wrong
    offsets = sorted(round(producer["clock_offset"] / 1000) for producer in producers)
    assert offsets == sorted(-offset for offset in (parent, *children))
    consumer.send(signal.SIGTERM)
    assert consumer.wait(30) == 0


def state_of_run(run_provd: RunProvd, environment: dict[str, str]) -> str:
    shown: dict[str, Any] = json.loads(
        run_provd("runs", "show", "working.1", "--json", env=environment).stdout or "{}"
    )
    return str(shown.get("status"))


def test_a_living_producer_whose_clock_is_behind_is_not_lost(
    script: Script,
    start_provd: StartProvd,
    run_provd: RunProvd,
    environment: dict[str, str],
    mongo_url: str,
) -> None:
    """It is heard, for longer than silence is allowed to last, whatever its clock says of when it began."""
    consumer = start_provd("consume", env=environment)
    producer = script.start(CLOCK + WORKING, str(-OFF), env=environment)
    try:
        with opened_store(mongo_url) as store:

            def last_beat() -> datetime | None:
                beats = list(store.find(names.BEATS, {}))
                return beats[0]["beat_at"] if beats else None

            wait_until(last_beat, 30)
            first = last_beat()
            assert first is not None
            wait_until(lambda: (now := last_beat()) and (now - first).total_seconds() > 8.5, 30)
            assert state_of_run(run_provd, environment) == "RUNNING"
        _, errors = producer.communicate("\n", timeout=30)
        assert producer.returncode == 0, errors
        wait_until(lambda: state_of_run(run_provd, environment) == "FINISHED", 30)
    finally:
        producer.kill()
        producer.communicate()
    consumer.send(signal.SIGTERM)
    assert consumer.wait(30) == 0


def test_a_dead_producer_whose_clock_was_ahead_is_lost_when_it_is_silent(
    script: Script,
    start_provd: StartProvd,
    run_provd: RunProvd,
    environment: dict[str, str],
    mongo_url: str,
) -> None:
    """It does not live on for as long as its clock was ahead."""
    consumer = start_provd("consume", env=environment)
    producer = script.start(CLOCK + WORKING, str(OFF), env=environment)
    try:
        with opened_store(mongo_url) as store:
            wait_until(lambda: store.count(names.BEATS, {}) == 1, 30)
        assert state_of_run(run_provd, environment) == "RUNNING"
        producer.send_signal(signal.SIGKILL)
        wait_until(lambda: state_of_run(run_provd, environment) == "LOST", 60)
    finally:
        producer.kill()
        producer.communicate()
    consumer.send(signal.SIGTERM)
    assert consumer.wait(30) == 0
