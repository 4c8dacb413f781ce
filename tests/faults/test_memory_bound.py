"""G5: what a producer holds in memory is bounded, however long Redis is away."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.services.ports import free_port
from tests.streams import Script, Streams

#: The guarantee, in KiB of resident memory.
GROWTH_MAX = 32 * 1024

#: Ten thousand messages a second for so long, after a warm-up of a tenth of that.
RATE = 10_000
PROGRAM = """
import sys, time
import provd

@provd.task(outputs=("loss", "steps"))
def train(lr, epochs, name, rate):
    return lr * epochs, epochs

def resident():
    for line in open("/proc/self/status"):
        if line.startswith("VmRSS:"):
            return int(line.split()[1])

def work(calls, rate):
    \"\"\"So many calls at this rate; as fast as possible where that is slower.\"\"\"
    begun = time.perf_counter()
    for n in range(calls):
        train(0.5, n, "adam", 7)
        if n % 100 == 99:
            pause = begun + n / rate - time.perf_counter()
            if pause > 0:
                time.sleep(pause)

rate, seconds = int(sys.argv[1]), float(sys.argv[2])
with provd.workflow("w", workflow_id="bounded"):
    work(int(rate * seconds / 10), rate)
    before = resident()
    highest = before
    for _ in range(10):
        work(int(rate * seconds / 10), rate)
        highest = max(highest, resident())
    print(before, highest)
"""


def growth(script: Script, spool: Path, seconds: float, env: Mapping[str, str]) -> int:
    """KiB by which the program has grown, at its highest, since the warm-up."""
    ended = script.run(
        PROGRAM,
        str(RATE),
        str(seconds),
        env={
            "PROVD_BROKER_URL": f"redis://127.0.0.1:{free_port()}/0",
            "PROVD_SPOOL_DIR": str(spool),
            **env,
        },
        timeout=seconds * 3 + 60,
    )
    assert ended.returncode == 0, ended.stderr
    before, highest = map(int, ended.stdout.split())
    print(f"resident: {before} KiB, then {highest} KiB at most", file=sys.stderr)
    # Nothing was dropped for it: every message is on disk.
    assert sum(map(lines_of, spool.rglob("*.jsonl"))) >= RATE * seconds * 1.1
    return highest - before


def lines_of(file: Path) -> int:
    """The number of lines of a file, which may be larger than memory should be."""
    with file.open("rb") as stream:
        return sum(1 for _ in stream)


@pytest.mark.parametrize("durability", ["memory", "disk"])
def test_half_a_minute_without_redis_at_ten_thousand_messages_a_second_takes_less_than_32_mib(
    script: Script, tmp_path: Path, durability: str
) -> None:
    """G5: bounded memory; the default run's form of the ten minutes below."""
    assert growth(script, tmp_path / "spool", 30, {"PROVD_DURABILITY": durability}) <= GROWTH_MAX


@pytest.mark.long
@pytest.mark.timeout(2400)
@pytest.mark.parametrize("durability", ["memory", "disk"])
def test_ten_minutes_without_redis_at_ten_thousand_messages_a_second_take_less_than_32_mib(
    script: Script, tmp_path: Path, durability: str
) -> None:
    """G5: ten minutes of Redis outage at 10,000 messages a second grow the process by no more than 32 MiB."""
    assert growth(script, tmp_path / "spool", 600, {"PROVD_DURABILITY": durability}) <= GROWTH_MAX


@pytest.mark.parametrize("durability", ["memory", "disk"])
def test_workflows_that_have_ended_take_no_memory(
    script: Script, streams: Streams, tmp_path: Path, durability: str
) -> None:
    """G5: a process may run any number of workflows one after the other; what is left of each is a bit."""
    ended = script.run(
        """
        import gc, os, sys, time
        import redis
        import provd
        from provd.producer.channel import Channel
        from provd.producer.process import producer

        @provd.task
        def step(n):
            pass

        def resident():
            for line in open("/proc/self/status"):
                if line.startswith("VmRSS:"):
                    return int(line.split()[1])

        def confirm(url, namespace):
            "Say, as a consumer does, that all of it is stored; and wait until the channels are gone."
            with redis.Redis.from_url(url) as client:
                for key in client.scan_iter(match=f"{namespace}:*:stream:*", count=1000):
                    head, _, tail = key.decode().partition(":stream:")
                    client.hset(f"{head}:stored:{tail.rpartition(':')[2]}", sys.argv[1], "1-1000000")
            deadline = time.monotonic() + 30
            while any(isinstance(thing, Channel) for thing in gc.get_objects()):
                assert provd.flush(30)
                assert time.monotonic() < deadline

        def run(first, last):
            for number in range(first, last):
                with provd.workflow("w", workflow_id=f"w{number}", own=True):
                    step(number)
                if number % 100 == 99:
                    assert provd.flush(30)

        sys.argv[1:] = [producer().id]
        url, namespace = os.environ["PROVD_BROKER_URL"], os.environ["PROVD_NAMESPACE"]
        for part in range(6):
            run(500 * part, 500 * part + 500)
            confirm(url, namespace)
            if part == 2:
                before = resident()
        print(resident() - before)
        """,
        env={
            "PROVD_DURABILITY": durability,
            "PROVD_SPOOL_DIR": str(tmp_path / "spool"),
            "PROVD_HEARTBEAT_S": "0.5",
        },
    )

    assert ended.stderr == ""
    # Kept for ever, they took five kilobytes each: more than seven megabytes.
    assert int(ended.stdout) < 4 * 1024
    tasks = streams.tasks()
    assert len({task["task_id"] for task in tasks}) == len(tasks) == 3000


def test_a_workflow_that_is_joined_again_after_it_was_let_go_of_repeats_no_number(
    script: Script, streams: Streams
) -> None:
    """G7: a number of a producer in a workflow is given once."""
    script.run(
        """
        import gc, time, weakref
        import provd
        from provd.producer.process import producer

        @provd.task
        def step(n):
            pass

        def run(n):
            with provd.workflow("w", workflow_id="again") as workflow:
                step(n)
            return weakref.ref(workflow.channel)

        for n in range(3):
            channel = run(n)
            deadline = time.monotonic() + 20
            while channel() is not None and time.monotonic() < deadline:
                assert provd.flush(30)
                gc.collect()
        """,
        env={"PROVD_HEARTBEAT_S": "0.5"},
    )

    messages = streams.messages()
    numbers = [(message.producer_id, message.seq) for message in messages]
    assert len(set(numbers)) == len(numbers)
    producers = {message.producer_id for message in messages}
    assert len(producers) == 3
    for producer_id in producers:
        mine = [message for message in messages if message.producer_id == producer_id]
        assert [message.seq for message in mine] == list(range(1, len(mine) + 1))
        assert mine[-1].record["sent"] == len(mine)
    assert {task["used"]["n"] for task in streams.tasks()} == {0, 1, 2}


def test_flushing_while_ended_workflows_are_let_go_of_never_raises(script: Script, streams: Streams) -> None:
    """G1: the sender's thread lets go of channels while a thread of the program goes through them."""
    ended = script.run(
        """
        import sys, threading
        import provd

        sys.setswitchinterval(1e-6)
        ended = threading.Event()

        @provd.task
        def step(n):
            pass

        def flush():
            while not ended.is_set():
                provd.flush(0)

        with provd.workflow("outer", workflow_id="outer"):
            flushing = threading.Thread(target=flush)
            flushing.start()
            for part in range(5):
                several = [provd.workflow("w", workflow_id=f"w{part}-{n}", own=True) for n in range(500)]
                for each in several:
                    each.start()
                    step(part)
                for each in several:
                    each.stop()
            ended.set()
            flushing.join()
        """
    )

    assert ended.stderr == ""
    assert len(streams.tasks()) == 2500


def test_two_workflows_of_a_process_have_no_task_id_in_common(script: Script, streams: Streams) -> None:
    """G3: every task has one id, unique for ever; also a task and its parent of another workflow."""
    script.run("""
        import provd

        @provd.task
        def step(n):
            pass

        with provd.workflow("one"):
            with provd.Task("outer"):
                with provd.workflow("two"):
                    step(1)
                    step(2)
            step(3)
    """)

    tasks = {task["task_id"]: task for task in streams.tasks()}
    assert len(tasks) == 4
    parents = {task["used"]["n"]: tasks.get(task.get("parent_task_id", "")) for task in streams.tasks("step")}
    assert [parent and parent["activity_id"] for _, parent in sorted(parents.items())] == [
        "outer",
        "outer",
        None,
    ]
