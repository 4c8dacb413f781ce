"""SIGTERM with `drain_on_sigterm`: everything is kept, and the exit is still that of SIGTERM.

G1, G2: handlers that the program has are honoured. Each test is run with `durability: memory` and `durability: disk`.
"""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from provd.common.record import Kind
from tests.faults.ending import DRAINED, FLUSHED, MORE, Job, workflow_of
from tests.streams import Script, Streams


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
