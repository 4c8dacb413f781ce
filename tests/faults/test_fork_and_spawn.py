"""Programs that are several processes: forks, daemons, pools, and the ranks of an MPI job.

G2, G7: each process is a producer of its own, and the books tell them apart. Each test is run with
`durability: memory` and `durability: disk`.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from provd.common.record import Kind
from tests.conftest import RunProvd
from tests.faults.ending import Job
from tests.services.waiting import wait_until


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
