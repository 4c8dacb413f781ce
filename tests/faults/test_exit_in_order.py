"""Ends of a traced program at which our code runs: what was said is kept, and the exit is what it would have been.

G1, G2. Each test is run with `durability: memory` and `durability: disk`.
"""

from __future__ import annotations

import signal

import pytest

from provd.common.record import Kind
from tests.faults.ending import FLUSHED, MORE, Job, workflow_of

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
