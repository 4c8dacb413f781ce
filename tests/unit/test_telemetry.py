"""The telemetry of tasks, read from the real process."""

from __future__ import annotations

import asyncio
import gc
import mmap
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import provd
from provd.common.record import Record
from provd.common.settings import Settings
from provd.common.spool import read_spool, spool_files
from provd.producer import telemetry
from provd.producer.process import replaced_producer
from provd.testing import captured

#: A program that tells what it recorded, after a head that the test writes.
TELLING = """
import json, sys
{head}
import provd
from provd.testing import captured

@provd.task(telemetry=True)
def double(x):
    return 2 * x

with captured() as capture, provd.workflow("w"):
    print(double(21), double(4))
for task in capture.tasks():
    print(sorted(key for key in task if key.startswith("telemetry")), task["generated"])
"""


@pytest.fixture(autouse=True)
def _no_reading_from_another_test() -> Iterator[None]:
    telemetry._forget()
    yield
    telemetry._forget()


def python(source: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(source)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, **env},
    )


def outlive_a_reading() -> None:
    """Be busy until readings made before are too old to be used again."""
    until = time.perf_counter() + telemetry.FRESH_S
    while time.perf_counter() <= until:
        pass


def delta_of(task: Record) -> Any:
    return task["telemetry_at_end"]["delta"]


def test_a_task_that_burns_processor_time_shows_it() -> None:
    @provd.task(telemetry=True)
    def burn() -> None:
        until = time.process_time() + 0.2
        while time.process_time() < until:
            pass

    with captured() as capture, provd.workflow("w"):
        burn()

    (task,) = capture.tasks("burn")
    used = delta_of(task)["cpu"]
    assert 0.19 <= used["user_s"] + used["system_s"] <= task["duration"] + 0.05
    assert 0 < used["percent"] <= 130
    start, end = task["telemetry_at_start"]["cpu"], task["telemetry_at_end"]["cpu"]
    assert end["user_s"] - start["user_s"] == pytest.approx(used["user_s"], abs=1e-5)


def test_a_task_shows_the_processor_time_of_children_it_waited_for() -> None:
    @provd.task(telemetry="cpu")
    def simulate() -> None:
        burn = "import time\nwhile time.process_time() < 0.2: pass"
        subprocess.run([sys.executable, "-c", burn], check=True)

    with captured() as capture, provd.workflow("w"):
        simulate()

    (task,) = capture.tasks()
    used = delta_of(task)["cpu"]
    assert used["children_user_s"] + used["children_system_s"] >= 0.19


def test_a_task_that_writes_a_file_shows_the_bytes(tmp_path: Path) -> None:
    @provd.task(telemetry=["disk"])
    def write() -> None:
        (tmp_path / "out").write_bytes(bytes(3_000_000))
        outlive_a_reading()

    with captured() as capture, provd.workflow("w"):
        write()

    (task,) = capture.tasks("write")
    assert 3_000_000 <= delta_of(task)["disk"]["written_bytes"] < 4_000_000
    assert delta_of(task)["interval_s"] >= telemetry.FRESH_S


@pytest.fixture
def no_garbage() -> Iterator[None]:
    """What earlier tests left is freed before, and nothing meanwhile: memory and files are the test's own."""
    gc.collect()
    gc.disable()
    outlive_a_reading()  # that of an earlier test, which a task would share
    yield
    gc.enable()


@pytest.mark.usefixtures("no_garbage")
def test_a_task_that_keeps_memory_and_a_file_open_shows_both(tmp_path: Path) -> None:
    kept: list[Any] = []

    @provd.task(telemetry=True)
    def load() -> None:
        memory = mmap.mmap(
            -1, 50_000_000
        )  # not from the heap, which may hold enough that earlier tests have freed
        memory[:: mmap.PAGESIZE] = b"x" * len(range(0, len(memory), mmap.PAGESIZE))
        kept.append(memory)
        kept.append((tmp_path / "open").open("w"))
        outlive_a_reading()

    with captured() as capture, provd.workflow("w"):
        load()
    for one in kept:
        one.close()

    (task,) = capture.tasks("load")
    assert delta_of(task)["memory"]["rss_bytes"] >= 45_000_000
    # At least: the recorder itself may open its spool meanwhile.
    assert delta_of(task)["process"]["open_files"] >= 1
    assert task["telemetry_at_end"]["memory"]["rss_bytes"] >= 50_000_000
    assert task["telemetry_at_end"]["process"]["threads"] >= 1
    assert 0 < task["telemetry_at_end"]["memory"]["percent"] < 100
    assert set(task["telemetry_at_end"]["network"]) == {"sent_bytes", "received_bytes"}


def test_a_thousand_short_tasks_share_a_few_readings() -> None:
    @provd.task(telemetry=True)
    def tick() -> None:
        pass

    started = time.perf_counter()
    with captured() as capture, provd.workflow("w"):
        for _ in range(1000):
            tick()
    elapsed = time.perf_counter() - started

    # Reading is itself a read, so that two readings never have equal counts of calls.
    tasks = capture.tasks("tick")
    readings = {
        task[f"telemetry_at_{when}"]["disk"]["read_calls"] for task in tasks for when in ("start", "end")
    }
    assert len(tasks) == 1000
    assert 1 <= len(readings) <= elapsed / telemetry.FRESH_S + 1


def test_a_task_within_one_reading_has_no_difference_but_of_processor_time() -> None:
    @provd.task(telemetry=True)
    def tick() -> None:
        pass

    with captured() as capture, provd.workflow("w"):
        for _ in range(200):
            tick()

    deltas = [delta_of(task) for task in capture.tasks("tick")]
    within = [delta for delta in deltas if "interval_s" not in delta]
    assert within
    assert all(set(delta) == {"cpu"} for delta in within)


def test_only_the_groups_that_were_asked_for_are_read() -> None:
    @provd.task(telemetry=("memory", "cpu"))
    def tick() -> None:
        outlive_a_reading()

    with captured() as capture, provd.workflow("w"):
        tick()

    (task,) = capture.tasks()
    assert set(task["telemetry_at_start"]) == {"cpu", "memory"}
    assert set(task["telemetry_at_end"]) == {"cpu", "memory", "delta"}
    assert set(delta_of(task)) == {"cpu", "memory", "interval_s"}


def test_a_group_that_there_is_not_is_named_and_the_function_runs(caplog: pytest.LogCaptureFixture) -> None:
    @provd.task(telemetry=["cpu", "vibrations"])
    def tick() -> int:
        return 7

    with captured() as capture, provd.workflow("w"):
        result = tick()

    (task,) = capture.tasks()
    assert result == 7
    assert "telemetry_at_end" not in task
    assert "'vibrations' is no group of readings" in caplog.text


def test_a_task_that_raises_has_its_telemetry_too() -> None:
    @provd.task(telemetry=True)
    def fail() -> None:
        raise KeyError("lost")

    with captured() as capture, provd.workflow("w"), pytest.raises(KeyError):
        fail()

    (task,) = capture.tasks()
    assert task["status"] == "ERROR"
    assert "lost" in task["stderr"]
    assert delta_of(task)["cpu"]["user_s"] >= 0


def test_coroutines_generators_and_tasks_stated_by_hand_have_telemetry() -> None:
    @provd.task(telemetry=True)
    async def wait() -> None:
        await asyncio.sleep(0)

    @provd.task(telemetry=True)
    def count() -> Iterator[int]:
        yield from range(3)

    with captured() as capture, provd.workflow("w"):
        asyncio.run(wait())
        assert list(count()) == [0, 1, 2]
        with provd.Task("by hand", telemetry="cpu"):
            pass

    tasks = capture.tasks()
    assert [task["activity_id"] for task in tasks] == ["wait", "count", "by hand"]
    assert all("cpu" in delta_of(task) for task in tasks)


def test_a_task_stated_about_another_time_has_no_telemetry() -> None:
    with captured() as capture, provd.workflow("w"):
        provd.Task("earlier", started_at=1_700_000_000_000, telemetry=True).end()
        provd.Task("then", telemetry=True).send()

    assert [task for task in capture.tasks() if "telemetry_at_end" in task] == []


def test_the_setting_turns_telemetry_on_for_tasks_that_do_not_say_otherwise(tmp_path: Path) -> None:
    @provd.task
    def silent() -> None:
        pass

    @provd.task(telemetry=False)
    def refuses() -> None:
        pass

    @provd.task(telemetry=["memory"])
    def chooses() -> None:
        pass

    settings = Settings(broker_url=f"file://{tmp_path}", spool_free_floor=0.0, telemetry="cpu")
    with replaced_producer(settings), provd.workflow("w"):
        silent()
        refuses()
        chooses()
        with provd.Task("by hand"):
            pass

    lines = [line.message for file in spool_files([tmp_path], with_open=True) for line in read_spool(file)]
    records = [message.record for message in lines if message is not None and "task_id" in message.record]
    groups = {record["activity_id"]: set(record.get("telemetry_at_start", ())) for record in records}
    assert groups == {"silent": {"cpu"}, "refuses": set(), "chooses": {"memory"}, "by hand": {"cpu"}}


def test_readings_stay_out_of_the_tasks_duration() -> None:
    @provd.task(telemetry=True)
    def tick() -> None:
        pass

    with captured() as capture, provd.workflow("w"):
        for _ in range(50):
            telemetry._forget()  # so that each pays for its own, and for opening the probe
            tick()

    opening = time.perf_counter()
    telemetry._forget()
    telemetry.read_start(("cpu", "memory", "disk", "network", "process"))
    cost = time.perf_counter() - opening
    assert min(task["duration"] for task in capture.tasks("tick")) < cost


def test_a_forked_child_reads_itself(tmp_path: Path) -> None:
    done = python(f"""
        import os, provd
        from provd.common.settings import Settings
        from provd.producer.process import replaced_producer
        from provd.producer import telemetry

        @provd.task(telemetry=["disk"])
        def write(size):
            with open({str(tmp_path / "out")!r}, "wb") as stream:
                stream.write(bytes(size))
            reading = telemetry.clock.monotonic()
            while telemetry.clock.monotonic() < reading + telemetry.FRESH_S:
                pass

        settings = Settings(broker_url="file://{tmp_path / "spool"}", spool_free_floor=0.0)
        with replaced_producer(settings) as mine, provd.workflow("w"):
            write(10)
            pid = os.fork()
            if pid == 0:
                write(2_000_000)
                mine.close()
                os._exit(0)
            os.waitpid(pid, 0)
    """)

    assert done.stderr == ""
    written = {}
    for file in spool_files([tmp_path / "spool"], with_open=True):
        for line in read_spool(file):
            record = {} if line.message is None else line.message.record
            if record.get("activity_id") == "write":
                written[record["used"]["size"]] = delta_of(record)["disk"]["written_bytes"]
    assert written[2_000_000] >= 2_000_000
    assert written[10] < 1_000_000


def test_without_psutil_one_warning_is_given_and_the_science_runs() -> None:
    done = python(TELLING.format(head='sys.modules["psutil"] = None'))

    assert done.returncode == 0
    assert done.stdout == "42 8\n[] {'result': 42}\n[] {'result': 8}\n"
    (warning,) = done.stderr.splitlines()
    assert 'pip install "provd[telemetry]"' in warning


def test_with_psutil_the_same_program_has_telemetry_and_says_nothing() -> None:
    done = python(TELLING.format(head=""))

    assert done.stderr == ""
    assert done.stdout.splitlines()[1] == "['telemetry_at_end', 'telemetry_at_start'] {'result': 42}"


def test_a_program_without_telemetry_loads_nothing_for_it() -> None:
    done = python("""
        import sys
        import provd
        from provd.testing import captured

        @provd.task
        def double(x):
            return 2 * x

        with captured(), provd.workflow("w"):
            double(21)
        telling = ("psutil", "pynvml", "amdsmi", "provd.producer.telemetry", "provd.producer.sampler")
        print([name for name in telling if name in sys.modules])
    """)

    assert (done.stdout, done.stderr) == ("[]\n", "")
