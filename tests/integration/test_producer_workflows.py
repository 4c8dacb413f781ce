"""Workflows of every form, what they say of code and environment, and `persist=True`."""

from __future__ import annotations

import asyncio
import inspect
import threading
from pathlib import Path

import pytest

import provd
from provd.common.errors import InvalidId
from provd.store.books import read_books
from provd.store.open import open_store
from provd.testing import captured
from tests.streams import Script


def test_a_coroutine_function_is_a_workflow_to_its_last_step() -> None:
    @provd.task
    async def step(n: int) -> None:
        await asyncio.sleep(0)

    @provd.workflow("asynchronous", tags=["t"])
    async def main(n: int) -> int:
        await step(n)
        return n

    with captured() as capture:
        assert asyncio.run(main(3)) == 3

    (workflow,) = capture.workflows()
    assert inspect.iscoroutinefunction(main)
    assert (workflow["name"], workflow["status"], workflow["tags"]) == ("asynchronous", "FINISHED", ["t"])
    assert capture.tasks("step")[0]["workflow_id"] == workflow["workflow_id"]


def test_every_call_of_a_decorated_function_is_a_workflow_of_its_own() -> None:
    @provd.workflow()
    def nightly(fail: bool) -> None:
        if fail:
            raise ValueError("no")

    with captured() as capture:
        nightly(fail=False)
        with pytest.raises(ValueError, match="no"):
            nightly(fail=True)

    assert sorted((w["name"], w["status"]) for w in capture.workflows()) == [
        ("nightly", "ERROR"),
        ("nightly", "FINISHED"),
    ]


def test_a_workflow_is_started_and_stopped_by_hand() -> None:
    with captured() as capture:
        workflow = provd.workflow(
            "by hand", metadata={"x": 1}, subtype="etl", parent_workflow_id="above.1"
        ).start()
        workflow.stop()
        workflow.stop()

    (record,) = capture.workflows()
    assert (record["custom_metadata"], record["subtype"]) == ({"x": 1}, "etl")
    assert (record["parent_workflow_id"], record["workflow_id"]) == ("above.1", workflow.workflow_id)


def test_an_id_that_cannot_be_one_is_refused_where_the_program_gives_it() -> None:
    with pytest.raises(InvalidId, match="workflow_id 'a b': use 1-128 ASCII letters"):
        provd.workflow("w", workflow_id="a b").start()


def test_tasks_of_threads_belong_to_the_workflow_of_the_process_and_workflows_of_threads_to_themselves() -> (
    None
):
    @provd.task
    def step(where: str) -> None: ...

    def in_thread(function: object, *arguments: str) -> None:
        thread = threading.Thread(target=function, args=arguments)  # type: ignore[arg-type]
        thread.start()
        thread.join()

    def own(name: str) -> None:
        with provd.workflow(name):
            step(name)

    with captured() as capture, provd.workflow("main"):
        in_thread(step, "main")
        in_thread(own, "one")
        in_thread(own, "two")
        step("main")

    names = {w["workflow_id"]: w["name"] for w in capture.workflows()}
    assert [
        (t["used"]["where"], names[t["workflow_id"]]) for t in capture.tasks() if t["used"]["where"] == "main"
    ] == [("main", "main")] * 2
    assert {(t["used"]["where"], names[t["workflow_id"]]) for t in capture.tasks()} == {
        ("main", "main"), ("one", "one"), ("two", "two"),
    }  # fmt: skip


def test_the_environment_is_recorded_by_allowlist(script: Script, tmp_path: Path) -> None:
    source = "import provd\nwith provd.workflow('w'): pass\n"
    script.run(
        source,
        env={
            "PROVD_BROKER_URL": f"file://{tmp_path}/spool",
            "PROVD_RECORD_VARIABLES": "EXPERIMENT, NOT_SET",
            "PROVD_RECORD_PACKAGES": "msgpack,no-such-package",
            "EXPERIMENT": "42",
            "API_TOKEN": "hunter2",
            "LOADEDMODULES": "gcc/13:openmpi/5",
            "OMP_NUM_THREADS": "4",
        },
    )

    (workflow,) = provd.read_jsonl(tmp_path / "spool", kind="workflow")
    environment = workflow["environment"]
    assert environment["variables"] == {"EXPERIMENT": "42"}
    assert environment["packages"].keys() == {"msgpack"}
    assert (environment["modules"], environment["omp_num_threads"]) == ("gcc/13:openmpi/5", "4")
    assert environment["python"].startswith("3.")
    assert "hunter2" not in str(workflow)


def test_files_are_read_back_as_records_or_a_data_frame(script: Script, tmp_path: Path) -> None:
    script.run(
        """
        import provd

        @provd.task
        def train(lr):
            return {"loss": 1 / lr}

        with provd.workflow("w", workflow_id="w.1", own=True):
            train(0.5)
            train(0.25)
        """,
        env={"PROVD_BROKER_URL": f"file://{tmp_path}/spool"},
    )

    tasks = provd.read_jsonl(tmp_path / "spool")
    (workflow,) = provd.read_jsonl(tmp_path / "spool", kind="workflow", workflow_id="w.1")
    frame = provd.read_jsonl(tmp_path / "spool", as_frame=True)

    assert [task["generated"] for task in tasks] == [{"loss": 2.0}, {"loss": 4.0}]
    assert tasks[0]["started_at"].tzinfo is not None
    assert workflow["status"] == "FINISHED"
    assert list(frame["used.lr"]) == [0.5, 0.25]


PERSISTED = """
    import sys
    import provd

    @provd.task
    def square(x):
        return x * x

    with provd.workflow("laptop", persist=True) as workflow:
        for x in range(20):
            square(x)
    print(workflow.workflow_id)
"""


@pytest.mark.parametrize("broker", ["redis", "spool"])
def test_persist_brings_the_records_into_the_embedded_store_by_the_end_of_the_block(
    script: Script, tmp_path: Path, broker: str
) -> None:
    # Given four programs at once that persist by themselves, over Redis or without any
    env = {"PROVD_DATA_DIR": str(tmp_path / "data")}
    if broker == "spool":
        env["PROVD_BROKER_URL"] = ""
    programs = [script.start(PERSISTED, env=env) for _ in range(4)]
    said = [program.communicate(timeout=60) for program in programs]

    # Then all have ended quietly, and the store has all of each
    assert [error for _, error in said] == [""] * 4
    store = open_store(f"sqlite:///{tmp_path / 'data' / 'provd.db'}")
    for output, _ in said:
        workflow_id = output.strip()
        tasks = store.find("tasks", {"workflow_id": workflow_id})
        assert sorted(task["generated"]["result"] for task in tasks) == [x * x for x in range(20)]
        assert {book.total("missing") for book in [read_books(store, workflow_id)]} == {0}
    store.close()
