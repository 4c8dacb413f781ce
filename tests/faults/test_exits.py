"""Every way a traced program can end, and what of its records is kept.

Each test is run with `durability: memory` and `durability: disk`.

- Where our code runs at the end, everything that was said is kept, and the exit is what it would have been (G1).
- Where it does not (a kill, `os._exit`, a crash), memory keeps what was said a flush interval before, and disk keeps
  everything that a captured call has returned from (G2).
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from provd.common.record import Kind, Message, Record
from provd.common.spool import TORN, read_spool, spool_files
from tests.conftest import RunProvd
from tests.services.redis_server import RedisServer
from tests.services.waiting import wait_until
from tests.streams import Script, Streams

#: Steps that were flushed before the end, and steps that were not.
FLUSHED, MORE = 50, 10

#: How much longer than its deadline an exit may take here, with a machine that is busy with other things.
SLACK_S = 20.0

HEAD = f"""
import os, signal, subprocess, sys, threading, time
import provd

@provd.task
def step(n):
    return n

def tell(text):
    os.write(1, f"{{text}}\\n".encode())

def work():
    for n in range({FLUSHED}):
        step(n)
    provd.flush(30)
    for n in range({FLUSHED}, {FLUSHED + MORE}):
        step(n)
"""


@pytest.fixture(params=["memory", "disk"])
def durability(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


@dataclass(frozen=True, slots=True)
class Job:
    """A program, and what it leaves behind in Redis and in its spool."""

    script: Script
    streams: Streams
    spool: Path
    environment: dict[str, str]

    def run(self, body: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return self.script.run(HEAD + textwrap.dedent(body), env=self.environment | environment)

    def start(self, body: str, **environment: str) -> subprocess.Popen[str]:
        return self.script.start(HEAD + textwrap.dedent(body), env=self.environment | environment)

    def messages(self) -> list[Message]:
        """What Redis or the spool has, each message once; no line is bad but a torn one at the end of a file."""
        found = {(message.producer_id, message.seq): message for message in self.streams.messages()}
        files = spool_files([self.spool], with_open=True) if self.spool.exists() else []
        for file in files:
            lines = list(read_spool(file))
            assert [line.error for line in lines[:-1] if line.error] == []
            assert not lines or lines[-1].error in (None, TORN)
            found |= {(m.producer_id, m.seq): m for m in (line.message for line in lines) if m is not None}
        return [found[place] for place in sorted(found)]

    def records(self, kind: Kind) -> list[Record]:
        return [message.record for message in self.messages() if message.kind is kind]

    def steps(self) -> list[int]:
        """The steps that are kept, each as often as it is kept."""
        tasks = [task for task in self.records(Kind.TASK) if task["activity_id"] == "step"]
        return sorted(task["used"]["n"] for task in tasks if task["status"] == "FINISHED")

    def assert_sound(self) -> None:
        """G7: of each producer every number from 1 to the last is there; nothing is missing in between."""
        numbers: dict[str, list[int]] = {}
        for message in self.messages():
            numbers.setdefault(message.producer_id, []).append(message.seq)
        for producer_id, seqs in numbers.items():
            assert seqs == list(range(1, len(seqs) + 1)), producer_id


@pytest.fixture
def job(script: Script, streams: Streams, tmp_path: Path, durability: str) -> Job:
    spool = tmp_path / "spool"
    return Job(script, streams, spool, {"PROVD_SPOOL_DIR": str(spool), "PROVD_DURABILITY": durability})


def workflow_of(job: Job) -> Record:
    return max(job.records(Kind.WORKFLOW), key=lambda record: record["seq"])


# --- our code runs: all is kept, and the exit is what it would have been -----------------------------------------

IN_ORDER = {
    "normal_end": ("pass", 0, "FINISHED"),
    "sys_exit_0": ("sys.exit(0)", 0, "FINISHED"),
    "sys_exit_3": ("sys.exit(3)", 3, "ERROR"),
    "sys_exit_text": ("sys.exit('no')", 1, "ERROR"),
    "uncaught_exception": ("raise ValueError('no')", 1, "ERROR"),
    "keyboard_interrupt": ("os.kill(os.getpid(), signal.SIGINT); time.sleep(60)", -signal.SIGINT, "CANCELLED"),
    "own_handler_of_sigterm": (
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7)); os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)",
        7,
        "ERROR",
    ),
    "daemon_thread_at_exit": (
        "threading.Thread(target=lambda: threading.Event().wait(), daemon=True).start()", 0, "FINISHED",
    ),
}  # fmt: skip


@pytest.mark.parametrize("how", IN_ORDER)
def test_exit_in_order_keeps_everything(job: Job, how: str) -> None:
    """Normal end, `sys.exit`, an uncaught exception, SIGINT, a handler that exits: everything is kept, and the exit
    status and what was printed are those of the program without provd (G1).
    """
    statement, status, recorded = IN_ORDER[how]
    body = f"""
        with provd.workflow("w", workflow_id="w1", own=True):
            work()
            tell("done")
            {statement}
    """

    ended = job.run(body)
    without = job.run(body, PROVD_ENABLED="0")

    assert (ended.returncode, ended.stdout) == (status, "done\n"), ended.stderr
    assert (without.returncode, without.stdout) == (status, "done\n")
    assert job.steps() == list(range(FLUSHED + MORE))
    assert workflow_of(job)["status"] == recorded
    assert all("closed_at" in record for record in job.records(Kind.PRODUCER)[-1:])
    job.assert_sound()


@pytest.mark.parametrize(
    ("statement", "status", "recorded"),
    [
        ("pass", 0, "FINISHED"),
        ("raise ValueError('no')", 1, "ERROR"),
        # Nothing tells `atexit` of a status: said in docs/guarantees.md.
        ("sys.exit(3)", 3, "FINISHED"),
    ],
)
def test_exit_without_a_block_around_keeps_everything(
    job: Job, statement: str, status: int, recorded: str
) -> None:
    """A workflow that is started by hand and never stopped ends with its process."""
    ended = job.run(f'provd.workflow("w", workflow_id="w1", own=True).start()\nwork()\n{statement}\n')

    assert ended.returncode == status
    assert job.steps() == list(range(FLUSHED + MORE))
    assert workflow_of(job)["status"] == recorded


def test_a_thread_that_still_works_when_the_main_thread_has_ended_is_waited_for_and_kept(job: Job) -> None:
    """Not a daemon: Python waits for it, and so do we."""
    ended = job.run(
        """
        wf = provd.workflow("w", workflow_id="w1")
        wf.start()
        def late():
            threading.main_thread().join()
            for n in range(100, 120):
                step(n)
        threading.Thread(target=late).start()
        """
    )

    assert ended.returncode == 0, ended.stderr
    assert job.steps() == list(range(100, 120))


def test_daemon_threads_that_work_on_until_the_end_do_not_disturb_it(job: Job) -> None:
    """They are cut off wherever they are, in the middle of a capture too; what the main thread said is kept."""
    ended = job.run(
        """
        def busy(start):
            n = start
            while True:
                step(n)
                n += 1
                if n % 50 == 0:
                    threading.Event().wait(0.002)
        with provd.workflow("w", workflow_id="w1"):
            for start in (1_000_000, 2_000_000):
                threading.Thread(target=busy, args=(start,), daemon=True).start()
            work()
        tell("done")
        """
    )

    assert (ended.returncode, ended.stdout) == (0, "done\n"), ended.stderr
    assert [n for n in job.steps() if n < 1_000_000] == list(range(FLUSHED + MORE))
    job.assert_sound()


# --- our code does not run --------------------------------------------------------------------------------------

AT_ONCE = {
    "sigterm_by_default": ("os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)", -signal.SIGTERM),
    "sighup_by_default": ("os.kill(os.getpid(), signal.SIGHUP); time.sleep(60)", -signal.SIGHUP),
    "sigkill": ("os.kill(os.getpid(), signal.SIGKILL); time.sleep(60)", -signal.SIGKILL),
    "os_exit": ("os._exit(5)", 5),
    "os_abort_as_by_mpi": ("os.abort()", -signal.SIGABRT),
    "segmentation_fault": ("import ctypes; ctypes.string_at(0)", -signal.SIGSEGV),
    "segmentation_fault_with_faulthandler": (
        "import ctypes, faulthandler; faulthandler.enable(); ctypes.string_at(0)",
        -signal.SIGSEGV,
    ),
    "execv": ("os.execv(sys.executable, [sys.executable, '-c', 'raise SystemExit(9)'])", 9),
}


@pytest.mark.parametrize("how", AT_ONCE)
def test_exit_at_once_loses_a_flush_interval_from_memory_and_nothing_from_disk(
    job: Job, durability: str, how: str
) -> None:
    """SIGTERM by default (walltime), SIGHUP, SIGKILL, `os._exit`, `MPI_Abort`, a crash, `os.execv`: what was flushed is
    kept; with `durability: disk` all that was said (G2). Whatever is kept has no gap.
    """
    statement, status = AT_ONCE[how]
    body = f"""
        resource = __import__("resource")
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with provd.workflow("w", workflow_id="w1"):
            work()
            tell("done")
            {statement}
    """

    ended = job.run(body)
    without = job.run(body, PROVD_ENABLED="0")

    assert (ended.returncode, ended.stdout) == (status, "done\n"), ended.stderr
    assert (without.returncode, without.stdout) == (status, "done\n")
    kept = job.steps()
    assert kept == list(range(len(kept)))
    assert len(kept) == FLUSHED + MORE if durability == "disk" else len(kept) >= FLUSHED
    assert not any("closed_at" in record for record in job.records(Kind.PRODUCER))
    job.assert_sound()


def test_every_step_that_was_told_before_a_kill_at_any_moment_is_on_disk(
    script: Script, streams: Streams, tmp_path: Path
) -> None:
    """G2, `durability: disk`: when a captured call has returned, SIGKILL takes nothing of it away."""
    spool = tmp_path / "spool"
    environment = {"PROVD_SPOOL_DIR": str(spool), "PROVD_DURABILITY": "disk"}
    job = Job(script, streams, spool, environment)
    told: set[int] = set()
    for turn in range(6):
        process = job.start(
            """
            wf = provd.workflow("w", workflow_id="w1")
            wf.start()
            n = int(os.environ["FROM"])
            while True:
                step(n)
                tell(n)
                n += 1
            """,
            FROM=str(turn * 1_000_000),
        )
        assert process.stdout is not None
        for _ in range(1 + turn * 150):
            process.stdout.readline()
        process.kill()
        rest, _ = process.communicate()
        told |= {int(line) for line in rest.split("\n")[:-1]} | {
            turn * 1_000_000 + n for n in range(1 + turn * 150)
        }

    assert told <= set(job.steps())
    job.assert_sound()


def test_a_program_that_becomes_another_by_execv_is_another_producer(job: Job, durability: str) -> None:
    """`os.execv` in the middle: the new image joins as a producer of its own; its pid is the same."""
    code = HEAD + "\nwith provd.workflow('w', workflow_id='w1'):\n    [step(n) for n in range(100, 105)]\n"
    ended = job.run(
        """
        with provd.workflow("w", workflow_id="w1"):
            work()
            os.execv(sys.executable, [sys.executable, "-c", os.environ["CODE"]])
        """,
        CODE=code,
    )

    assert ended.returncode == 0, ended.stderr
    producers = {message.producer_id: message.record["pid"] for message in job.messages()}
    assert (len(producers), len(set(producers.values()))) == (2, 1)
    kept = set(job.steps())
    assert kept >= set(range(FLUSHED)) | set(range(100, 105))
    assert durability == "memory" or kept >= set(range(FLUSHED + MORE))


# --- SIGTERM, drained -------------------------------------------------------------------------------------------

DRAINED = {"PROVD_DRAIN_ON_SIGTERM": "true"}


def test_sigterm_drained_keeps_everything_and_the_exit_status_is_still_that_of_sigterm(job: Job) -> None:
    """With `drain_on_sigterm`; the record says how it ended."""
    ended = job.run(
        """
        with provd.workflow("w", workflow_id="w1", own=True):
            work()
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        """,
        **DRAINED,
    )

    assert ended.returncode == -signal.SIGTERM, ended.stderr
    assert job.steps() == list(range(FLUSHED + MORE))
    workflow = workflow_of(job)
    assert (workflow["status"], workflow["stderr"]) == ("CANCELLED", "ended by SIGTERM")
    assert "closed_at" in job.records(Kind.PRODUCER)[-1]
    job.assert_sound()


def test_sigterm_drained_at_any_moment_keeps_every_step_that_was_told(
    script: Script, streams: Streams, tmp_path: Path
) -> None:
    """Also in the middle of a cut or of a spool write: the buffer is small and Redis is away, so that the main thread is
    nearly always in one.
    """
    spool = tmp_path / "spool"
    environment = {
        "PROVD_SPOOL_DIR": str(spool), "PROVD_BROKER_URL": f"file://{spool}", "PROVD_BUFFER_BYTES": "65536", **DRAINED
    }  # fmt: skip
    job = Job(script, streams, spool, environment)
    told: set[int] = set()
    for turn in range(8):
        first = turn * 1_000_000
        process = job.start(
            """
            wf = provd.workflow("w", workflow_id="w1")
            wf.start()
            n = int(os.environ["FROM"])
            while True:
                for _ in range(50):
                    step(n)
                    n += 1
                tell(n)
            """,
            FROM=str(first),
        )
        assert process.stdout is not None
        for _ in range(1 + turn * 9):
            process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        rest, errors = process.communicate(timeout=60)
        assert process.returncode == -signal.SIGTERM, errors
        told |= set(range(first, max([int(line) for line in rest.split("\n")[:-1]], default=first)))

    assert told <= set(job.steps())
    job.assert_sound()
    assert not list(spool.rglob("*.open"))


def test_sigterm_drained_honours_a_handler_that_the_program_had_before(job: Job) -> None:
    """It is called once, after the drain, and the program goes on as it says."""
    ended = job.run(
        """
        signal.signal(signal.SIGTERM, lambda number, frame: tell(f"mine {number} {frame is not None}"))
        with provd.workflow("w", workflow_id="w1"):
            work()
            os.kill(os.getpid(), signal.SIGTERM)
            step(99)
        tell("end")
        """,
        **DRAINED,
    )

    assert (ended.returncode, ended.stdout) == (0, "mine 15 True\nend\n"), ended.stderr
    assert job.steps() == [*range(FLUSHED + MORE), 99]


def test_sigterm_drained_is_reached_through_a_handler_that_the_program_sets_later(job: Job) -> None:
    ended = job.run(
        """
        with provd.workflow("w", workflow_id="w1"):
            work()
            before = signal.getsignal(signal.SIGTERM)
            def mine(number, frame):
                tell("mine")
                before(number, frame)
            signal.signal(signal.SIGTERM, mine)
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        """,
        **DRAINED,
    )

    assert (ended.returncode, ended.stdout) == (-signal.SIGTERM, "mine\n"), ended.stderr
    assert job.steps() == list(range(FLUSHED + MORE))


@pytest.mark.parametrize("drain", ["true", "false"])
def test_sigterm_that_the_program_ignores_stays_ignored(job: Job, drain: str) -> None:
    ended = job.run(
        """
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with provd.workflow("w", workflow_id="w1"):
            work()
            os.kill(os.getpid(), signal.SIGTERM)
        tell(signal.getsignal(signal.SIGTERM) == signal.SIG_IGN)
        """,
        PROVD_DRAIN_ON_SIGTERM=drain,
    )

    assert (ended.returncode, ended.stdout) == (0, "True\n")
    assert job.steps() == list(range(FLUSHED + MORE))


def test_sigterm_is_not_touched_without_the_setting_nor_from_another_thread(job: Job) -> None:
    body = """
        def first():
            with provd.workflow("w", workflow_id="w1"):
                step(1)
        thread = threading.Thread(target=first)
        thread.start()
        thread.join()
        tell(signal.getsignal(signal.SIGTERM) == signal.SIG_DFL)
    """

    assert job.run(body, **DRAINED).stdout == "True\n"
    assert job.run(body.replace("thread.start()", "first()").replace("thread.join()", "")).stdout == "True\n"


def test_sigterm_drained_in_a_forked_child_ends_the_child_and_keeps_its_steps(job: Job) -> None:
    ended = job.run(
        """
        with provd.workflow("w", workflow_id="w1"):
            step(1)
            child = os.fork()
            if not child:
                step(2)
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(60)
            tell(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
            step(3)
        """,
        **DRAINED,
    )

    assert (ended.returncode, ended.stdout) == (0, f"{-signal.SIGTERM}\n"), ended.stderr
    assert job.steps() == [1, 2, 3]


# --- forks and children -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["os._exit(0)", "sys.exit(0)", "raise SystemExit", "os.kill(os.getpid(), 9)"])
def test_fork_in_the_middle_keeps_parent_and_child_apart(job: Job, durability: str, end: str) -> None:
    """The child is a producer of its own; nothing of the parent is said twice, whichever way the child ends."""
    ended = job.run(
        f"""
        with provd.workflow("w", workflow_id="w1"):
            for n in range(20):
                step(n)
            child = os.fork()
            if not child:
                for n in range(100, 120):
                    step(n)
                provd.flush(30)
                step(120)
                {end}
            os.waitpid(child, 0)
            for n in range(20, 40):
                step(n)
        """
    )

    assert ended.returncode == 0, ended.stderr
    kept = job.steps()
    our_code_runs = "sys" in end or "raise" in end
    surely = list(range(100, 121 if our_code_runs or durability == "disk" else 120))
    assert [n for n in kept if n != 120] == [*range(40), *range(100, 120)]
    assert set(surely) <= set(kept)
    job.assert_sound()


def test_a_daemon_by_double_fork_is_a_producer_of_its_own_and_outlives_its_parents(job: Job) -> None:
    ended = job.run(
        """
        with provd.workflow("w", workflow_id="w1"):
            step(1)
            if os.fork() == 0:
                os.setsid()
                if os.fork() == 0:
                    step(2)
                    sys.exit(0)
                os._exit(0)
            os.wait()
        """
    )
    assert ended.returncode == 0, ended.stderr

    wait_until(lambda: job.steps() == [1, 2], 30)
    wait_until(lambda: len([r for r in job.records(Kind.PRODUCER) if "closed_at" in r]) >= 2, 30)
    job.assert_sound()


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_children_of_multiprocessing_keep_everything(job: Job, method: str) -> None:
    """`atexit` does not run in them; a pool that is closed, a process that is joined, one that raises."""
    ended = job.run(
        f"""
        import multiprocessing
        def many(start):
            for n in range(start, start + 20):
                step(n)
        def failing(start):
            many(start)
            raise ValueError("no")
        if __name__ == "__main__":
            context = multiprocessing.get_context({method!r})
            with provd.workflow("w", workflow_id="w1"):
                children = [context.Process(target=many, args=(100,)), context.Process(target=failing, args=(200,))]
                for child in children: child.start()
                for child in children: child.join()
                tell([child.exitcode for child in children])
                pool = context.Pool(2)
                pool.map(many, [300, 400], chunksize=1)
                pool.close()
                pool.join()
        """
    )

    assert (ended.returncode, ended.stdout) == (0, "[0, 1]\n"), ended.stderr
    assert job.steps() == [n for start in (100, 200, 300, 400) for n in range(start, start + 20)]
    job.assert_sound()


def test_pool_terminate_loses_a_flush_interval_from_memory_and_nothing_from_disk(
    job: Job, durability: str
) -> None:
    """`with Pool()` ends its workers by SIGTERM."""
    ended = job.run(
        """
        import multiprocessing
        def many(start):
            for n in range(start, start + 20):
                step(n)
            provd.flush(30)
            step(start + 20)
            return start
        if __name__ == "__main__":
            with provd.workflow("w", workflow_id="w1"), multiprocessing.Pool(2) as pool:
                tell(sorted(pool.imap_unordered(many, [100, 200, 300, 400])))
        """
    )

    assert (ended.returncode, ended.stdout) == (0, "[100, 200, 300, 400]\n"), ended.stderr
    extra = 21 if durability == "disk" else 20
    assert {n for start in (100, 200, 300, 400) for n in range(start, start + extra)} <= set(job.steps())
    job.assert_sound()


def test_workers_of_a_process_pool_executor_keep_everything(job: Job) -> None:
    ended = job.run(
        """
        from concurrent.futures import ProcessPoolExecutor
        if __name__ == "__main__":
            with provd.workflow("w", workflow_id="w1"), ProcessPoolExecutor(2) as pool:
                list(pool.map(step, range(40)))
        """
    )

    assert ended.returncode == 0, ended.stderr
    assert job.steps() == list(range(40))
    job.assert_sound()


def test_ranks_as_mpi_starts_them_one_killed_and_one_that_never_came(
    job: Job, durability: str, run_provd: RunProvd, tmp_path: Path
) -> None:
    """G7: `provd runs verify` names the rank that never appeared and the producer that never closed."""
    # Given three of four ranks that wait for one another, told their rank as Open MPI and PMI do
    body = """
        with provd.workflow("w", workflow_id="w1"):
            work()
            provd.flush(30)
            tell("ready")
            sys.stdin.readline()
    """
    ranks = [
        job.start(
            body,
            OMPI_COMM_WORLD_RANK=str(rank), OMPI_COMM_WORLD_SIZE="4", PMI_RANK=str(rank), PMI_SIZE="4",
        )
        for rank in range(3)
    ]  # fmt: skip
    for process in ranks:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"

    # When one is killed and the others end
    ranks[1].kill()
    ranks[1].communicate()
    for process in (ranks[0], ranks[2]):
        process.communicate("\n", timeout=60)
        assert process.returncode == 0

    (dead,) = {message.producer_id for message in job.messages() if message.record.get("rank") == 1}

    # Then all they said is stored, and the books say who is missing
    services = {
        "PROVD_BROKER_URL": job.streams.url, "PROVD_NAMESPACE": job.streams.namespace,
        "PROVD_STORE_URL": f"sqlite:///{tmp_path}/provd.db",
    }  # fmt: skip
    run_provd("consume", "-w", "w1", "--exit-when-done", "--grace", "1", env=services)
    if job.spool.exists():
        run_provd("replay", str(job.spool), "--recover", "--store", services["PROVD_STORE_URL"], env=services)
    verified = run_provd("runs", "verify", "w1", "--json", env=services)

    books = json.loads(verified.stdout)
    assert verified.returncode == 1
    assert (books["complete"], books["missing_ranks"], books["unclosed"]) == (False, [3], [dead])
    assert (books["stored"], books["missing"]) == (books["produced"], 0)


# --- a disk that is full ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A file system of 256 KiB."""
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k,mode=0700", "tmpfs", str(folder)],
        check=False, capture_output=True,
    )  # fmt: skip
    if made.returncode:
        pytest.skip("only root may mount a small file system")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


FILLING = """
with provd.workflow("w", workflow_id="w1"):
    step("before")
    provd.flush(30)
    tell("flushed")
    sys.stdin.readline()
    for n in range(400):
        step(str(n) + 2000 * "x")
    provd.flush(1)
    tell("spooled")
    sys.stdin.readline()
    step("after")
tell("end")
"""


@pytest.mark.parametrize("limit", ["disk", "file_size"])
def test_a_full_spool_disk_while_redis_is_away_drops_and_counts_and_the_count_is_shown(
    script: Script, private_redis: Callable[..., RedisServer], run_provd: RunProvd, tmp_path: Path,
    durability: str, limit: str,
) -> None:  # fmt: skip
    """G5: at the disk's ceiling messages are dropped and counted, and the count is shown; the program goes on."""
    # Given a program whose spool takes 256 KiB, and a Redis that itself loses nothing
    server = private_redis(config={"appendfsync": "always"})
    spool = tmp_path / "spool"
    services = {
        "PROVD_BROKER_URL": server.url, "PROVD_NAMESPACE": "t", "PROVD_SPOOL_DIR": str(spool),
        "PROVD_DURABILITY": durability, "PROVD_SPOOL_FREE_FLOOR": "0", "PROVD_BUFFER_BYTES": str(1 << 20),
        "PROVD_EXIT_DRAIN_S": "30", "PROVD_STORE_URL": f"sqlite:///{tmp_path}/provd.db",
    }  # fmt: skip
    limited = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (262144, 262144))\n"
    source = HEAD + (limited if limit == "file_size" else "") + FILLING
    with small_disk(spool) if limit == "disk" else contextlib.nullcontext():
        process = script.start(source, env=services)
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "flushed\n"

        # When Redis goes away, the spool is full, and Redis comes back
        server.kill()
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "spooled\n"
        server.start()
        output, errors = process.communicate("\n", timeout=60)

        # Then the program has done its work, one line says what happened
        assert (process.returncode, output) == (0, "end\n"), errors
        assert "Traceback" not in errors

        # And every number is stored or counted
        run_provd("consume", "-w", "w1", "--exit-when-done", "--grace", "1", env=services)
        run_provd("replay", str(spool), "--recover", "--store", services["PROVD_STORE_URL"], env=services)
        verified = json.loads(run_provd("runs", "verify", "w1", "--json", env=services).stdout)
    assert verified["missing"] == 0, (verified, errors)
    assert verified["stored"] + verified["dropped"] == verified["produced"] >= 403, (verified, errors)
    if limit == "disk":
        assert verified["dropped"] > 0
        assert "dropped" in errors


# --- exit takes no longer than its deadline ---------------------------------------------------------------------


@pytest.mark.parametrize("trouble", ["hangs", "refuses"])
def test_exit_takes_no_longer_than_its_deadline_when_redis(
    script: Script, private_redis: Callable[..., RedisServer], tmp_path: Path, durability: str, trouble: str
) -> None:
    """G1: at exit a program waits for the drain deadline at most, and never for Redis. Everything is kept."""
    # Given a Redis that stops answering while a program is connected
    server = private_redis()
    spool = tmp_path / "spool"
    process = script.start(
        HEAD + "with provd.workflow('w', workflow_id='w1'):\n"
        "    work()\n    provd.flush(30)\n    tell('flushed')\n    sys.stdin.readline()\n"
        "    [step(n) for n in range(100, 200)]\n"
        "tell(time.monotonic())\n",
        env={
            "PROVD_BROKER_URL": server.url, "PROVD_NAMESPACE": "t", "PROVD_SPOOL_DIR": str(spool),
            "PROVD_DURABILITY": durability, "PROVD_EXIT_DRAIN_S": "1", "PROVD_CONNECT_TIMEOUT_S": "60",
        },
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "flushed\n"
    if trouble == "hangs":
        server.pause()
    else:
        server.kill()

    # When the program ends
    output, errors = process.communicate("\n", timeout=1 + 2 * SLACK_S)
    ended_at = time.monotonic()

    # Then it has ended by its deadline, and its records are on disk
    assert process.returncode == 0, errors
    assert ended_at - float(output) < 1 + SLACK_S
    if trouble == "hangs":
        server.resume()
    else:
        server.start()
    job = Job(script, Streams(server.url, "t"), spool, {})
    assert set(job.steps()) >= set(range(100, 200))
    job.assert_sound()


def test_a_drain_on_sigterm_takes_no_longer_than_its_deadline_when_redis_hangs(
    script: Script, private_redis: Callable[..., RedisServer], tmp_path: Path, durability: str
) -> None:
    server = private_redis()
    spool = tmp_path / "spool"
    process = script.start(
        HEAD + "wf = provd.workflow('w', workflow_id='w1')\nwf.start()\n"
        "work()\nprovd.flush(30)\n[step(n) for n in range(100, 200)]\ntell('ready')\nsys.stdin.readline()\n"
        "[step(n) for n in range(200, 300)]\ntell('said')\nsys.stdin.readline()\n",
        env={
            "PROVD_BROKER_URL": server.url, "PROVD_NAMESPACE": "t", "PROVD_SPOOL_DIR": str(spool),
            "PROVD_DURABILITY": durability, "PROVD_EXIT_DRAIN_S": "1", "PROVD_CONNECT_TIMEOUT_S": "60", **DRAINED,
        },
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    server.pause()
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline() == "said\n"

    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=1 + 2 * SLACK_S)

    server.resume()
    assert process.returncode == -signal.SIGTERM
    job = Job(script, Streams(server.url, "t"), spool, {})
    assert set(job.steps()) >= set(range(100, 300))
    job.assert_sound()
