"""What an instrumented program leaves in Redis."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from provd.common.record import Kind
from provd.common.wire import unpack
from tests.services.waiting import wait_until
from tests.streams import Script, Streams


def test_a_decorated_call_is_recorded_with_what_it_used_and_made(script: Script, streams: Streams) -> None:
    # Given a script with one decorated function
    source = """
        import provd

        @provd.task(outputs=("loss", "steps"), tags=["fast"], metadata={"owner": "ada"}, subtype="training")
        def train(lr, epochs=3, *, name="adam"):
            return lr * epochs, epochs

        with provd.workflow("sweep", campaign_id="exp42", args={"trials": 1}) as workflow:
            train(0.5, name="sgd")
        print(workflow.workflow_id)
    """

    # When it runs
    ended = script.run(source)

    # Then its task says what happened
    assert ended.stderr == ""
    (task,) = streams.tasks()
    assert task["activity_id"] == "train"
    assert task["used"] == {"lr": 0.5, "epochs": 3, "name": "sgd"}
    assert task["generated"] == {"loss": 1.5, "steps": 3}
    assert task["status"] == "FINISHED"
    assert task["tags"] == ["fast"]
    assert task["custom_metadata"] == {"owner": "ada"}
    assert task["subtype"] == "training"
    assert task["workflow_id"] == ended.stdout.strip()
    assert task["campaign_id"] == "exp42"
    assert task["ended_at"] - task["started_at"] == round(task["duration"] * 1000)

    # And its workflow says who ran what
    first, last = streams.records(Kind.WORKFLOW)
    assert (first["status"], last["status"]) == ("RUNNING", "FINISHED")
    assert last["name"] == "sweep"
    assert last["args"] == {"trials": 1}
    assert last["code"]["file"].endswith("script.py")
    assert last["started_at"] == first["started_at"] <= last["ended_at"]


def test_arguments_are_recorded_as_they_were_when_the_call_began(script: Script, streams: Streams) -> None:
    """G6: arguments are captured as they were when the call began."""
    script.run("""
        import provd

        @provd.task
        def empty(items):
            items.clear()

        with provd.workflow("w"):
            empty([1, 2, 3])
    """)

    (task,) = streams.tasks()
    assert task["used"] == {"items": [1, 2, 3]}


def test_what_a_task_raises_is_recorded_and_raised_on_unchanged(script: Script, streams: Streams) -> None:
    """G1 and G6: the same exception object reaches the caller, and the record says ERROR."""
    ended = script.run("""
        import provd

        error = ValueError("no such model")

        @provd.task
        def load(path):
            raise error

        with provd.workflow("w"):
            try:
                load("m.pt")
            except ValueError as raised:
                print(raised is error)
    """)

    assert ended.stdout == "True\n"
    (task,) = streams.tasks()
    assert task["status"] == "ERROR"
    assert task["stderr"] == "ValueError: no such model"
    assert "raise error\nValueError: no such model" in task["traceback"]
    assert "provd" not in task["traceback"]
    assert streams.records(Kind.WORKFLOW)[-1]["status"] == "FINISHED"


@pytest.mark.parametrize(
    ("ending", "exit_status", "status", "stderr"),
    [
        ("raise KeyError('lost')", 1, "ERROR", "KeyError: 'lost'"),
        ("sys.exit(0)", 0, "FINISHED", None),
        ("sys.exit(3)", 3, "ERROR", "SystemExit: 3"),
        ("raise KeyboardInterrupt", -2, "CANCELLED", "KeyboardInterrupt"),
    ],
)
def test_a_workflow_says_how_its_block_ended_and_the_exit_status_stays(
    script: Script, streams: Streams, ending: str, exit_status: int, status: str, stderr: str | None
) -> None:
    """G1 and G6: what the block raised is in the record, and the program ends as it would have."""
    ended = script.run(f"""
        import sys
        import provd

        with provd.workflow("w"):
            {ending}
    """)

    assert ended.returncode == exit_status
    workflow = streams.records(Kind.WORKFLOW)[-1]
    producer = streams.records(Kind.PRODUCER)[-1]
    assert (workflow["status"], workflow.get("stderr")) == (status, stderr)
    assert (producer["status"], producer.get("stderr")) == (status, stderr)
    assert ("traceback" in workflow) == (status == "ERROR")


def test_a_task_that_ends_the_program_says_where(script: Script, streams: Streams) -> None:
    """G6: what raised is ERROR with its message and traceback, `sys.exit` too."""
    ended = script.run("""
        import sys
        import provd

        def give_up(status):
            sys.exit(status)

        @provd.task
        def train(status):
            give_up(status)

        with provd.workflow("w"):
            try:
                train(0)
            except SystemExit:
                pass
            train(2)
    """)

    assert ended.returncode == 2
    fine, failed = sorted(streams.tasks("train"), key=lambda task: task["used"]["status"])
    assert (fine["status"], "traceback" in fine) == ("FINISHED", False)
    assert (failed["status"], failed["stderr"]) == ("ERROR", "SystemExit: 2")
    assert "in give_up\n" in failed["traceback"]
    assert failed["traceback"].endswith("SystemExit: 2\n")
    assert "provd" not in failed["traceback"]


def test_a_workflow_that_is_never_stopped_ends_with_its_process(script: Script, streams: Streams) -> None:
    script.run("""
        import provd

        provd.workflow("w").start()
        raise RuntimeError("boom")
    """)

    workflow = streams.records(Kind.WORKFLOW)[-1]
    assert (workflow["status"], workflow["stderr"]) == ("ERROR", "RuntimeError: boom")


def test_tasks_nest_in_calls_threads_and_asyncio(script: Script, streams: Streams) -> None:
    script.run("""
        import asyncio
        from concurrent.futures import ThreadPoolExecutor
        import provd

        @provd.task
        def leaf(name):
            pass

        @provd.task
        def plain():
            leaf("plain")

        @provd.task
        def threaded():
            with ThreadPoolExecutor(1) as pool:
                pool.submit(provd.wrap(leaf), "wrapped").result()
                pool.submit(leaf, "unwrapped").result()

        @provd.task
        async def step(name):
            await asyncio.sleep(0)
            leaf(name)

        @provd.task
        async def concurrent():
            await asyncio.gather(step("one"), step("two"))

        with provd.workflow("w"):
            plain()
            threaded()
            asyncio.run(concurrent())
    """)

    tasks = {task["task_id"]: task for task in streams.tasks()}

    def parent_of(task: str) -> str | None:
        parent = tasks.get(task)
        return None if parent is None else parent["activity_id"]

    leaves = {
        task["used"]["name"]: parent_of(task.get("parent_task_id", "")) for task in streams.tasks("leaf")
    }
    assert leaves == {
        "plain": "plain",
        "wrapped": "threaded",
        "unwrapped": None,
        "one": "step",
        "two": "step",
    }
    assert {parent_of(task["parent_task_id"]) for task in streams.tasks("step")} == {"concurrent"}
    one, two = ({tasks[leaf["parent_task_id"]]["used"]["name"] for leaf in streams.tasks("leaf")
                 if leaf["used"]["name"] == name} for name in ("one", "two"))  # fmt: skip
    assert (one, two) == ({"one"}, {"two"})


def test_a_task_stated_by_hand_is_recorded_with_its_results(script: Script, streams: Streams) -> None:
    script.run("""
        import provd

        with provd.workflow("w"):
            with provd.Task("download", used={"url": "https://example.org"}, tags=["io"]) as task:
                task.generated(bytes=4)
            try:
                with provd.Task("parse"):
                    raise OSError("torn")
            except OSError:
                pass
            provd.Task("event", used={"x": 1}).send()
            provd.Task("sum").end(total=3)
    """)

    tasks = {task["activity_id"]: task for task in streams.tasks()}
    assert tasks["download"]["used"] == {"url": "https://example.org"}
    assert tasks["download"]["generated"] == {"bytes": 4}
    assert tasks["download"]["tags"] == ["io"]
    assert (tasks["parse"]["status"], tasks["parse"]["stderr"]) == ("ERROR", "OSError: torn")
    assert tasks["event"]["status"] == "FINISHED"
    assert tasks["sum"]["generated"] == {"total": 3}


def test_a_long_task_is_visible_while_it_runs(script: Script, streams: Streams) -> None:
    # Given a task that runs until it is told to end
    process = script.start("""
        import provd, sys

        @provd.task
        def simulate(steps):
            sys.stdin.readline()
            return {"energy": -1.5}

        with provd.workflow("w"):
            simulate(10)
    """)

    # When it has run for more than a second
    def announced() -> bool:
        return any(record["status"] == "RUNNING" for record in streams.records(Kind.TASK))

    wait_until(announced, 15)

    # Then one message says that it runs, and its last one says that it was announced
    process.communicate("go\n", timeout=30)
    running, final = streams.records(Kind.TASK)
    assert running["used"] == final["used"] == {"steps": 10}
    assert (running["status"], final["status"]) == ("RUNNING", "FINISHED")
    assert running["task_id"] == final["task_id"]
    assert "generated" not in running
    assert final["announced"] is True


def test_every_process_of_a_program_is_a_producer_of_the_same_workflow(
    script: Script, streams: Streams
) -> None:
    """Fork, `multiprocessing` of every kind, pools and subprocesses join by themselves, each with its own id."""
    # Given a program that works in processes of every kind
    ended = script.run("""
        import multiprocessing, os, subprocess, sys
        from concurrent.futures import ProcessPoolExecutor
        import provd

        @provd.task
        def work(kind):
            return os.getpid()

        @provd.task
        def forking():
            pid = os.fork()
            if pid == 0:
                work("fork")
                sys.exit(0)
            os.waitpid(pid, 0)

        def main():
            with provd.workflow("w") as workflow:
                forking()
                for kind in ("fork", "spawn", "forkserver"):
                    process = multiprocessing.get_context(kind).Process(target=work, args=("mp-" + kind,))
                    process.start()
                    process.join()
                    assert process.exitcode == 0
                with ProcessPoolExecutor(2) as pool:
                    list(pool.map(work, ["pool"] * 4))
                code = "import provd\\n@provd.task\\ndef work(kind): pass\\nwork('subprocess')"
                subprocess.run([sys.executable, "-c", code], check=True)
            print(workflow.workflow_id)

        if __name__ == "__main__":
            main()
    """)

    # Then every one of them has spoken for itself
    assert ended.stderr == ""
    tasks = streams.tasks("work")
    kinds = [task["used"]["kind"] for task in tasks]
    assert sorted(kinds) == sorted(
        ["fork", "mp-fork", "mp-spawn", "mp-forkserver", *["pool"] * 4, "subprocess"]
    )
    assert {task["workflow_id"] for task in tasks} == {ended.stdout.strip()}
    producers = {task["used"]["kind"]: task["producer_id"] for task in tasks}
    assert len(set(producers.values())) == len(producers)
    (parent,) = streams.tasks("forking")
    assert (
        next(task for task in tasks if task["used"]["kind"] == "fork")["parent_task_id"] == parent["task_id"]
    )

    # And said goodbye with books that add up
    closing = {
        record["producer_id"]: record for record in streams.records(Kind.PRODUCER) if "closed_at" in record
    }
    by_producer: dict[str, list[int]] = {}
    for message in streams.messages():
        by_producer.setdefault(message.producer_id, []).append(message.seq)
    assert closing.keys() == by_producer.keys()
    for producer_id, seqs in by_producer.items():
        assert seqs == list(range(1, closing[producer_id]["sent"] + 1))


def test_whoever_made_the_id_owns_the_workflow(script: Script, streams: Streams) -> None:
    # Given a script that is given an id, on its command line and by environment
    source = """
        import argparse
        import provd

        parser = argparse.ArgumentParser()
        provd.add_arguments(parser)
        parser.parse_args()

        @provd.task
        def step():
            pass

        with provd.workflow("joined"):
            step()
    """
    script.run(source, "--workflow-id", "given.1", "--campaign-id", "camp")
    script.run(source, env={"PROVD_WORKFLOW_ID": "given.2"})
    script.run("import provd\nwith provd.workflow('mine', workflow_id='given.3', own=True): pass\n")

    # Then it joins: its tasks are there, and it says nothing of how the workflow did
    workflows = streams.records(Kind.WORKFLOW)
    statuses = [(record["workflow_id"], record["status"]) for record in workflows]
    assert sorted(statuses) == [
        ("given.1", "SUBMITTED"),
        ("given.2", "SUBMITTED"),
        ("given.3", "FINISHED"),
        ("given.3", "RUNNING"),
    ]
    assert all("started_at" not in record for record in workflows if record["status"] == "SUBMITTED")
    assert {task["workflow_id"] for task in streams.tasks()} == {"given.1", "given.2"}
    assert next(iter(streams.tasks()))["campaign_id"] == "camp"


def test_all_ranks_of_a_job_step_make_one_workflow_by_themselves(script: Script, streams: Streams) -> None:
    # Given two ranks of a restarted Slurm job that are told `auto`
    source = """
        import provd

        @provd.task
        def step(): pass

        with provd.workflow("ranks", workflow_id="auto"):
            step()
    """
    job = {
        "SLURM_JOB_ID": "77", "SLURM_CLUSTER_NAME": "big", "SLURM_STEP_ID": "0", "SLURM_RESTART_COUNT": "1",
        "SLURM_NTASKS": "2",
    }  # fmt: skip
    for rank in ("0", "1"):
        script.run(source, env={**job, "SLURM_PROCID": rank})

    # Then they agree on the id, and know which attempt they are and what went before
    assert {task["workflow_id"] for task in streams.tasks()} == {"big-77-0-r1"}
    assert [task["rank"] for task in streams.tasks()] == [0, 1]
    record = streams.records(Kind.WORKFLOW)[0]
    assert (record["attempt"], record["predecessor"]) == (2, "big-77-0-r0")
    assert {record["world_size"] for record in streams.records(Kind.PRODUCER)} == {2}
    assert streams.records(Kind.PRODUCER)[0]["scheduler"]["job_id"] == "77"


def test_workflows_nest_and_follow_each_other(script: Script, streams: Streams) -> None:
    script.run("""
        import provd

        @provd.task
        def step(n): pass

        with provd.workflow("outer", campaign_id="c") as outer:
            with provd.workflow("inner") as inner:
                step(1)
            step(2)
        step(3)

        @provd.workflow("decorated")
        def run(n):
            step(n)

        run(4)
        run(5)
    """)

    ended = {r["workflow_id"]: r for r in streams.records(Kind.WORKFLOW) if r["status"] == "FINISHED"}
    names = {task["used"]["n"]: ended[task["workflow_id"]]["name"] for task in streams.tasks()}
    assert names == {1: "inner", 2: "outer", 4: "decorated", 5: "decorated"}
    assert len(ended) == 4
    inner = next(record for record in ended.values() if record["name"] == "inner")
    assert ended[inner["parent_workflow_id"]]["name"] == "outer"
    assert inner["campaign_id"] == "c"


def test_without_a_workflow_or_switched_off_nothing_is_said(script: Script, streams: Streams) -> None:
    source = """
        import threading
        import provd

        @provd.task
        def double(x):
            return 2 * x

        print(double(21), threading.active_count())
        with provd.workflow("w"):
            print(double(21), threading.active_count())
    """

    off = script.run(source, env={"PROVD_ENABLED": "0"})

    assert off.stdout == "42 1\n42 1\n"
    assert streams.messages() == []


def test_a_wrong_setting_warns_once_and_the_science_runs(script: Script, streams: Streams) -> None:
    """G1: inside a user's process a bad setting warns once; it is never refused."""
    source = """
        import provd

        @provd.task
        def double(x):
            return 2 * x

        with provd.workflow("w"):
            print([double(x) for x in range(3)])
    """

    ended = script.run(source, env={"PROVD_FLUSH_INTERVAL_S": "soon"})

    assert ended.returncode == 0
    assert ended.stdout == "[0, 2, 4]\n"
    assert ended.stderr.count("\n") == 1
    assert "PROVD_FLUSH_INTERVAL_S is 'soon': use a number from 0.01 to 60" in ended.stderr
    assert len(streams.tasks()) == 3


def test_flush_returns_when_what_was_said_is_in_redis(script: Script, streams: Streams) -> None:
    process = script.start("""
        import provd, sys

        @provd.task
        def step(): pass

        with provd.workflow("w"):
            step()
            print(provd.flush(30), flush=True)
            sys.stdin.readline()
    """)
    assert process.stdout is not None

    said = process.stdout.readline()
    tasks = streams.tasks()
    process.communicate("\n", timeout=30)

    assert said == "True\n"
    assert len(tasks) == 1


def test_a_producer_leaves_signs_of_life(script: Script, streams: Streams) -> None:
    process = script.start(
        """
        import provd, sys

        with provd.workflow("w", workflow_id="w1"):
            provd.Task("event").send()
            sys.stdin.readline()
        """,
        env={"PROVD_HEARTBEAT_S": "0.5"},
    )
    with redis.Redis.from_url(streams.url) as client:
        wait_until(lambda: bool(list(client.scan_iter(match=f"{streams.namespace}:*:beats:w1"))), 15)
        (key,) = client.scan_iter(match=f"{streams.namespace}:*:beats:w1")
        beats: Any = client.hgetall(key)
        seconds, _ = client.time()
    ((producer_id, packed),) = beats.items()
    process.communicate("\n", timeout=30)

    beat = unpack(packed)
    assert producer_id.decode() == streams.messages()[0].producer_id
    assert (beat["ended"], beat["started"], beat["spooled"], beat["dropped"]) == (1, 1, [], [])
    assert abs(beat["at"] / 1000 - seconds) < 30
