"""Ends of a traced program at which our code does not run: a kill, a crash, `os._exit`, another program.

G2: memory keeps what was said a flush interval before, and disk keeps everything that a captured call has returned
from. Each test is run with `durability: memory` and `durability: disk`.
"""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from provd.common.record import Kind
from tests.faults.ending import FLUSHED, HEAD, MORE, Job
from tests.streams import Script, Streams

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
