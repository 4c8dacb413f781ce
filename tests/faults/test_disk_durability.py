"""`durability: disk`: what a captured call has said is on disk when it returns."""

from __future__ import annotations

import random
import resource
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from provd.common.record import Kind, Message
from provd.common.spool import read_spool, spool_files
from tests.faults.job import (
    assert_all_said,
    count_in_redis,
    in_redis,
    numbers,
    running_job,
    spooled_messages,
    steps,
)
from tests.record_values import canonical
from tests.services.redis_server import RedisServer
from tests.services.waiting import wait_until
from tests.streams import Script, Streams

PrivateRedis = Callable[..., RedisServer]

DISK = {"PROVD_DURABILITY": "disk"}

#: Writes each number to stdout when the call that has it is over: four bytes, in one write.
TIGHT_LOOP = """
import os, sys, threading
import provd

@provd.task
def step(n):
    return {"twice": 2 * n}

def work(first, count):
    for n in range(first, first + count):
        step(n)
        os.write(1, n.to_bytes(4, "big"))

threads = int(sys.argv[1])
with provd.workflow("job", workflow_id="job"):
    workers = [threading.Thread(target=work, args=(k << 20, 1 << 20)) for k in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
"""


def killed_after(process: subprocess.Popen[bytes], calls: int) -> set[int]:
    """Let a tight loop run for at least so many calls, SIGKILL it, and return the calls that were over."""
    assert process.stdout is not None
    with process:
        done = process.stdout.read(4 * calls)
        process.send_signal(signal.SIGKILL)
        done += process.stdout.read()
    return {int.from_bytes(done[at : at + 4], "big") for at in range(0, len(done) - len(done) % 4, 4)}


def start(script: Script, source: str, *arguments: str, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start a script whose output is bytes."""
    return subprocess.Popen(
        script.command(source, arguments), stdout=subprocess.PIPE, cwd=script.folder,
        env={**script.environment, **env},
    )  # fmt: skip


def assert_no_holes(folder: Path) -> None:
    """Numbers from 1 up without a gap, in the order of the lines; nothing torn but the last line of a file."""
    seen: dict[str, list[int]] = {}
    for file in spool_files([folder], with_open=True):
        lines = list(read_spool(file))
        assert all(line.error is None for line in lines[:-1])
        for line in lines:
            if line.message is not None:
                seen.setdefault(line.message.producer_id, []).append(line.message.seq)
    for found in seen.values():
        assert found == list(range(1, len(found) + 1))


@pytest.mark.parametrize("threads", [1, 4])
def test_sigkill_in_a_tight_loop_loses_nothing(
    script: Script, redis_url: str, tmp_path: Path, threads: int
) -> None:
    """G2: with `durability: disk` nothing short of losing the node loses a call that was over.

    Killed again and again, between any two steps: a number that was given is always in a line before the next one.
    """
    moments = random.Random(threads)

    for kill in range(6):
        spool = tmp_path / f"spool-{kill}"
        process = start(script, TIGHT_LOOP, str(threads), env={**DISK, "PROVD_SPOOL_DIR": str(spool)})
        over = killed_after(process, moments.randrange(1, 4_000))

        assert over
        assert over <= steps(spooled_messages(spool))
        assert_no_holes(spool)


def test_a_fork_in_the_middle_loses_neither_of_the_two(script: Script, tmp_path: Path) -> None:
    """G2: parent and child are producers of their own, each with its own files."""
    source = """
        import os, signal, threading
        import provd

        @provd.task
        def step(n):
            pass

        def work(first):
            for n in range(first, first + 300):
                step(n)

        with provd.workflow("job", workflow_id="job"):
            busy = threading.Thread(target=work, args=(1000,))
            busy.start()
            for child in range(5):
                if os.fork() == 0:
                    work(10_000 * (child + 1))
                    os.kill(os.getpid(), signal.SIGKILL)
            busy.join()
            while True:
                try:
                    os.wait()
                except ChildProcessError:
                    break
            work(2000)
            os.kill(os.getpid(), signal.SIGKILL)
    """

    ended = script.run(source, env={**DISK, "PROVD_SPOOL_DIR": str(tmp_path / "spool")})

    assert ended.returncode == -signal.SIGKILL
    expected = {1000, 2000, *(10_000 * (child + 1) for child in range(5))}
    messages = spooled_messages(tmp_path / "spool")
    assert steps(messages) == {first + n for first in expected for n in range(300)}
    assert len({message.producer_id for message in messages}) == 6
    assert_no_holes(tmp_path / "spool")


def test_everything_that_is_said_is_on_disk_when_it_has_been_said(script: Script, tmp_path: Path) -> None:
    """G2: not tasks alone: the workflow, the producer, loops of both kinds, tasks by hand, coroutines, failures."""
    ended = script.run(
        """
        import asyncio, os, signal
        import provd

        @provd.task
        def fail():
            raise ValueError("no")

        @provd.task(light=True)
        def light(n):
            pass

        @provd.task
        async def later():
            await asyncio.sleep(0)

        @provd.task
        def numbers():
            yield 1

        workflow = provd.workflow("job", workflow_id="job", own=True).start()
        for n in provd.loop(range(3), name="plain"):
            pass
        for n in provd.loop(range(3), name="lean", light=True):
            pass
        try:
            fail()
        except ValueError:
            pass
        for n in range(3):
            light(n)
        asyncio.run(later())
        list(numbers())
        provd.Task("by hand").end(result=1)
        with provd.workflow("inner", workflow_id="inner", own=True):
            pass
        workflow.stop()
        os.kill(os.getpid(), signal.SIGKILL)
        """,
        env={**DISK, "PROVD_SPOOL_DIR": str(tmp_path / "spool")},
    )

    assert ended.returncode == -signal.SIGKILL
    messages = spooled_messages(tmp_path / "spool")
    ended_tasks = Counter(m.record["activity_id"] for m in messages if m.kind is Kind.TASK)
    assert ended_tasks == {
        "plain": 3, "lean": 3, "fail": 1, "light": 3, "later": 1, "numbers": 1, "by hand": 1,
    }  # fmt: skip
    for workflow_id in ("job", "inner"):
        mine = [message for message in messages if message.workflow_id == workflow_id]
        statuses = [(m.kind, m.record["status"]) for m in mine if m.kind is not Kind.TASK]
        assert statuses == [
            (Kind.PRODUCER, "RUNNING"), (Kind.WORKFLOW, "RUNNING"), (Kind.WORKFLOW, "FINISHED"),
            (Kind.PRODUCER, "FINISHED"),
        ]  # fmt: skip
        assert [message.seq for message in mine] == list(range(1, len(mine) + 1))


def test_a_line_says_what_its_frame_says(script: Script, streams: Streams, tmp_path: Path) -> None:
    """G3: the way over the disk changes nothing, whatever the values."""
    script.run(
        """
        import math
        import provd

        @provd.task(outputs=("one", "two"), tags=["t"], metadata={"$a": {"b.c": 1}})
        def give(*values, **named):
            return values[0] if values else None, [1, 2]

        @provd.task
        def nested(n):
            give(n)

        with provd.workflow("job", workflow_id="job", campaign_id="camp"):
            for value in (1, -1.5, True, None, "text", "ünïcode \\ud800", 2**63, 2**80, math.nan, math.inf, b"x",
                          "a" * 1000, {"$k": 1, "~int": "0x1", "": 2}, [[1], {"a": (1, 2)}], "http://a:b@c/"):
                give(value, key=value)
            nested(1)
            give(1, campaign_id="other")
        """,
        env={**DISK, "PROVD_SPOOL_DIR": str(tmp_path / "spool")},
    )

    def told(messages: list[Message]) -> list[str]:
        return [
            repr((m.kind, m.seq, canonical(dict(sorted(m.record.items())))))
            for m in sorted(messages, key=lambda m: m.seq)
        ]

    assert told(spooled_messages(tmp_path / "spool")) == told(streams.messages())
    assert len(streams.tasks()) == 18


def test_a_signal_handler_that_interrupts_the_writing_neither_waits_nor_is_lost(
    script: Script, tmp_path: Path
) -> None:
    """G1 and G2: it may strike between any two steps of a write, in the very thread that holds the lock."""
    ended = script.run(
        """
        import signal, provd

        ticks = calls = 0

        @provd.task
        def tick(n):
            pass

        @provd.task
        def step(n):
            pass

        def handler(*_):
            global ticks
            tick(ticks)
            ticks += 1

        signal.signal(signal.SIGALRM, handler)
        with provd.workflow("job", workflow_id="job"):
            signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
            while ticks < 1000:
                step(calls)
                calls += 1
            signal.setitimer(signal.ITIMER_REAL, 0)
        print(ticks + calls)
        """,
        env={**DISK, "PROVD_SPOOL_DIR": str(tmp_path / "spool")},
    )

    assert (ended.returncode, ended.stderr) == (0, "")
    messages = spooled_messages(tmp_path / "spool")
    assert_no_holes(tmp_path / "spool")
    assert sum(message.kind is Kind.TASK for message in messages) == int(ended.stdout)
    assert max(messages, key=lambda m: m.seq).record["tasks_ended"] == int(ended.stdout)


def test_a_frame_holds_many_messages_although_each_was_written_alone(
    script: Script, streams: Streams, redis_url: str, namespace: str, tmp_path: Path
) -> None:
    """G5: bytes per task in Redis do not explode."""
    script.run(
        TIGHT_LOOP.replace("1 << 20)) for", "2000)) for")
        .replace("os.write(1", "len((1")
        .replace('"big"))', '"big")))'),
        "1",
        env={**DISK, "PROVD_SPOOL_DIR": str(tmp_path / "spool")},
    )

    import redis

    with redis.Redis.from_url(redis_url) as client:
        (key,) = client.scan_iter(match=f"{namespace}:*:stream:*", count=1000)
        entries = client.xlen(key)
    assert len(streams.tasks()) == 2000
    assert entries < 100


# --- a disk that refuses ---------------------------------------------------------------------------------------


@contextmanager
def full_disk(folder: Path) -> Iterator[Callable[[], None] | None]:
    """A folder that takes two hundred kilobytes; where it cannot be mounted, what limits a child's files to nothing."""
    folder.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(folder)], capture_output=True, check=False
    ).returncode:
        yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
        return
    try:
        yield None
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_costs_nothing_while_redis_is_there(
    script: Script, streams: Streams, tmp_path: Path
) -> None:
    """G2 and G5: what the disk refuses goes to Redis from memory; one line says so, and nothing is dropped."""
    source = """
        import provd

        @provd.task
        def step(n):
            pass

        with provd.workflow("job", workflow_id="job"):
            for n in range(5000):
                step(n)
    """
    with full_disk(tmp_path / "small") as limit:
        ended = subprocess.run(
            script.command(source), capture_output=True, text=True, check=False, timeout=60, cwd=script.folder,
            preexec_fn=limit,
            env={**script.environment, **DISK, "PROVD_SPOOL_DIR": str(tmp_path / "small"), "PROVD_SPOOL_FREE_FLOOR": "0",
                 "PROVD_EXIT_DRAIN_S": "30"},
        )  # fmt: skip

    assert ended.returncode == 0
    assert ended.stderr.count("\n") == 1
    assert "from memory alone" in ended.stderr
    messages = streams.messages()
    assert_all_said(messages, 5000)
    assert "dropped" not in max(messages, key=lambda m: m.seq).record


def test_what_disk_and_redis_both_refuse_is_dropped_and_counted(
    script: Script, private_redis: PrivateRedis, tmp_path: Path
) -> None:
    """G5: only where both refuse, and the memory's bound is reached; the books say how many and which."""
    server = private_redis()
    server.kill()
    (tmp_path / "file").write_text("no folder")
    environment = {**DISK, "PROVD_BUFFER_BYTES": str(1 << 20)}

    with running_job(script, server.url, tmp_path / "file" / "spool", environment) as job:
        job.do("work 60000")
        server.start()
        wait_until(lambda: count_in_redis(server.url) > 0, 60, "the return of what memory held")
        job.do("work 1")
        job.do("flush")
        job.do("stop")
        complaint = job.end()

    assert "dropped and counted" in complaint
    messages = in_redis(server.url)
    goodbye = max(messages, key=lambda message: message.seq).record
    dropped = {n for first, last in goodbye["dropped"] for n in range(first, last + 1)}
    assert dropped
    assert dropped | numbers(messages) == set(range(1, goodbye["sent"] + 1))
    assert not dropped & numbers(messages)
