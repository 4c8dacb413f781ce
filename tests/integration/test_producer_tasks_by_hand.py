"""Tasks stated by hand, and functions that run elsewhere."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import joblib
import pytest

import provd
from provd.common.record import Record
from provd.testing import Captured, captured
from tests.streams import Script, Streams


@provd.task
def double(x: int, factor: int = 2) -> int:
    """Multiply."""
    return x * factor


def only(capture: Captured, activity: str | None = None) -> Record:
    """The one task of an activity."""
    (task,) = capture.tasks(activity)
    return task


def test_times_status_and_data_can_be_stated() -> None:
    with captured() as capture, provd.workflow("w"):
        parent = provd.Task("parent", submitted_at=1_700_000_000_000, started_at=1_700_000_001_000)
        child = provd.Task("child", parent=parent, group_id="g", agent_id="a")
        child.end(status="SKIPPED", stdout="said", x=1)
        parent.end(ended_at=1_700_000_003_500, data=b"\x00\x01")
        provd.Task("failed").end(stderr="it broke")
        provd.Task("adopted", parent="elsewhere-00000001").end()
        provd.Task("large").end(data=bytes(2_000_000))

    above = only(capture, "parent")
    assert (above["submitted_at"], above["started_at"]) == (1_700_000_000_000, 1_700_000_001_000)
    assert (above["ended_at"], above["duration"]) == (1_700_000_003_500, 2.5)
    assert above["data"] == {
        "bytes": b"\x00\x01",
        "size": 2,
        "sha256": hashlib.sha256(b"\x00\x01").hexdigest(),
    }
    below = only(capture, "child")
    assert (below["status"], below["stdout"], below["generated"]) == ("SKIPPED", "said", {"x": 1})
    assert (below["parent_task_id"], below["group_id"], below["agent_id"]) == (above["task_id"], "g", "a")
    assert (only(capture, "failed")["status"], only(capture, "failed")["stderr"]) == ("ERROR", "it broke")
    assert only(capture, "adopted")["parent_task_id"] == "elsewhere-00000001"
    assert only(capture, "large")["data"].keys() == {"size", "sha256"}


def test_an_event_takes_no_time_and_a_second_end_says_nothing() -> None:
    with captured() as capture, provd.workflow("w"):
        task = provd.Task("event")
        task.send()
        task.end(x=1)
        task.send()

    assert (only(capture)["duration"], only(capture).get("generated")) == (0.0, None)


def test_a_task_outside_of_a_workflow_does_nothing() -> None:
    with captured() as capture, provd.Task("nowhere") as task:
        task.generated(x=1)

    assert task.task_id is None
    assert capture.messages == []


@pytest.mark.parametrize("how", ["thread", "pool", "run_in_executor", "joblib"])
def test_wrap_carries_the_parent_wherever_a_function_is_run(how: str) -> None:
    wrapped_calls: dict[str, Any] = {
        "thread": _in_thread,
        "pool": _in_pool,
        "run_in_executor": _in_executor,
        "joblib": _in_joblib,
    }

    @provd.task
    def above() -> None:
        wrapped_calls[how](provd.wrap(double), 4)
        wrapped_calls[how](double, 5)

    with captured() as capture, provd.workflow("w") as workflow:
        above()

    parents = {task["used"]["x"]: task.get("parent_task_id") for task in capture.tasks("double")}
    assert parents == {4: only(capture, "above")["task_id"], 5: None}
    assert {task["workflow_id"] for task in capture.tasks()} == {workflow.workflow_id}


def _in_thread(fn: Any, x: int) -> None:
    thread = threading.Thread(target=fn, args=(x,))
    thread.start()
    thread.join()


def _in_pool(fn: Any, x: int) -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(fn, x).result()


def _in_executor(fn: Any, x: int) -> None:
    async def run() -> None:
        await asyncio.get_running_loop().run_in_executor(None, fn, x)

    asyncio.run(run())


def _in_joblib(fn: Any, x: int) -> None:
    joblib.Parallel(n_jobs=2, prefer="threads")(joblib.delayed(fn)(y) for y in [x])


def test_a_time_that_is_none_is_left_out_and_told(script: Script, streams: Streams) -> None:
    """G1 and G4: neither the program nor its other records notice."""
    ended = script.run("""
        import provd

        with provd.workflow("w"):
            for bad in (10**17, -10**17, float("inf"), float("nan"), "now"):
                with provd.Task("late", submitted_at=bad, started_at=bad):
                    pass
    """)

    assert ended.returncode == 0
    assert ended.stderr.count("not UTC milliseconds") == 2  # once for each of the two
    assert [task["status"] for task in streams.tasks("late")] == ["FINISHED"] * 5
    assert not any("submitted_at" in task for task in streams.tasks("late"))
