"""Receipts: with `durability: disk` what was said stays on disk until the store has it, and is sent again if it must."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from provd.common.spool import spool_files
from tests.conftest import RunProvd, StartProvd
from tests.faults.job import (
    assert_all_said,
    count_in_redis,
    in_redis,
    numbers,
    running_job,
    spooled_messages,
    steps,
)
from tests.services.redis_server import RedisServer
from tests.services.waiting import wait_until
from tests.streams import Script

PrivateRedis = Callable[..., RedisServer]

DISK = {"PROVD_DURABILITY": "disk"}


@pytest.fixture
def store_url(tmp_path: Path) -> str:
    """A store of the test's own."""
    return f"sqlite:///{tmp_path}/provd.db"


def changed(folder: Path, code: str) -> dict[str, str]:
    """An environment in which a program begins by running this."""
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text(code)
    return {"PYTHONPATH": str(folder / "site")}


def files(spool: Path) -> list[Path]:
    """What is in a spool."""
    return spool_files([spool], with_open=True) if spool.is_dir() else []


def test_files_go_when_the_store_has_confirmed_them(
    script: Script, private_redis: PrivateRedis, start_provd: StartProvd, run_provd: RunProvd, store_url: str,
    tmp_path: Path,
) -> None:  # fmt: skip
    """G2: until then they stay; with a consumer, a program that ends leaves nothing behind."""
    server = private_redis()
    services = {"PROVD_BROKER_URL": server.url, "PROVD_STORE_URL": store_url, "PROVD_NAMESPACE": "t"}

    with running_job(script, server.url, tmp_path / "spool", DISK) as job:
        # Given messages that Redis has, and no consumer
        job.do("work 1000")
        job.do("flush")
        assert count_in_redis(server.url) >= 1002
        assert steps(job.spooled()) == set(range(1000))

        # When a consumer has stored them, the file goes while the program waits; so does what follows
        start_provd("consume", env=services)
        wait_until(lambda: files(job.spool) == [], 30, "the removal of what is confirmed")
        job.do("work 1000")
        assert files(job.spool) != []
        wait_until(lambda: files(job.spool) == [], 30, "the removal of what is confirmed")
        job.do("work 1000")
        job.do("stop")
        assert job.end() == ""

    # Then the books are complete
    run_provd("consume", "--workflow-id", "job", "--exit-when-done", env=services)
    assert run_provd("runs", "verify", "job", env=services).returncode == 0


def test_segments_are_sealed_and_removed_one_by_one(
    script: Script, private_redis: PrivateRedis, start_provd: StartProvd, store_url: str, tmp_path: Path
) -> None:
    """G5: the disk is given back while the program goes on; a segment is sealed when it is large."""
    server = private_redis()
    services = {"PROVD_BROKER_URL": server.url, "PROVD_STORE_URL": store_url, "PROVD_NAMESPACE": "t"}
    smaller = changed(tmp_path, "from provd.producer import journal\njournal.SEGMENT_BYTES = 20_000\n")
    environment = {**DISK, **smaller}

    with running_job(script, server.url, tmp_path / "spool", environment) as job:
        for _ in range(5):
            job.do("work 100")
            job.do("flush")
        assert len(files(job.spool)) >= 3
        assert steps(job.spooled()) == set(range(500))
        start_provd("consume", env=services)
        wait_until(lambda: files(job.spool) == [], 30, "the removal of what is confirmed")
        assert job.end() == ""


def test_redis_that_loses_everything_gets_everything_again(
    script: Script, private_redis: PrivateRedis, run_provd: RunProvd, store_url: str, tmp_path: Path
) -> None:
    """G2: with `durability: disk` the producer's receipts close the gap that a Redis without an AOF leaves."""
    server = private_redis(config={"appendonly": "no"})
    services = {"PROVD_BROKER_URL": server.url, "PROVD_STORE_URL": store_url, "PROVD_NAMESPACE": "t"}

    with running_job(script, server.url, tmp_path / "spool", DISK) as job:
        # Given messages that only Redis, and the producer's disk, have
        job.do("work 2000")
        job.do("flush")
        assert count_in_redis(server.url) >= 2002

        # When Redis comes back empty
        server.kill()
        server.start()
        assert count_in_redis(server.url) == 0

        # Then the producer finds out by itself, and sends all of it again
        wait_until(lambda: count_in_redis(server.url) >= 2002, 60, "the second sending")
        job.do("work 100")
        job.do("stop")
        job.end()
    done = run_provd("consume", "--workflow-id", "job", "--exit-when-done", env=services)
    assert done.returncode == 0, done.stderr
    assert run_provd("runs", "verify", "job", env=services).returncode == 0


def test_redis_that_loses_everything_after_the_first_goodbye_gets_it_again_all_the_same(
    script: Script, private_redis: PrivateRedis, tmp_path: Path
) -> None:
    """G2: what is said after the drain at exit has a sender of its own, which knows what Redis was before."""
    server = private_redis(config={"appendonly": "no"})
    process = script.start(
        """
        import atexit, sys
        import provd

        @provd.task
        def step(n):
            pass

        @atexit.register  # before provd's own, hence called after it
        def late():
            print("left", flush=True)
            sys.stdin.readline()
            with provd.workflow("late", workflow_id="late"):
                step(1000)
            assert provd.flush(60)
            sys.stdin.readline()

        workflow = provd.workflow("job", workflow_id="job").start()
        for n in range(1000):
            step(n)
        """,
        env={
            **DISK,
            "PROVD_BROKER_URL": server.url,
            "PROVD_NAMESPACE": "t",
            "PROVD_SPOOL_DIR": str(tmp_path / "spool"),
        },
    )
    with process:
        # Given a program whose sender has taken its leave of one life of Redis
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "left\n"
        said = count_in_redis(server.url)
        assert said >= 1002

        # When something more is said, to another life of it
        server.kill()
        server.start()
        process.stdin.write("\n")
        process.stdin.flush()

        # Then what the first had goes there, too
        wait_until(lambda: count_in_redis(server.url) >= said, 30, "the second sending")
        process.stdin.close()


@pytest.mark.parametrize("fate", ["damaged on the way", "retired with its stream"])
def test_what_is_not_confirmed_while_the_rest_is_gets_sent_again(
    script: Script, private_redis: PrivateRedis, tmp_path: Path, fate: str
) -> None:
    """G2: the good copy of what was damaged is the producer's; so is what a stream had when it was retired."""
    server = private_redis()
    environment = {
        **DISK,
        **changed(tmp_path, "from provd.producer import receipts\nreceipts._GAP_S = (0.3, 5.0)\n"),
    }

    with running_job(script, server.url, tmp_path / "spool", environment) as job, server.client() as client:
        # Given messages that Redis has
        job.do("work 100")
        job.do("flush")
        lost = in_redis(server.url)
        assert numbers(lost) == set(range(1, 103))
        (stream,) = client.scan_iter(match="t:*:stream:*")

        # When they are gone, without a trace or with receipts for later ones alone
        if fate == "damaged on the way":
            client.xtrim(stream, maxlen=0)
            job.do("work 100")
            job.do("flush")
            head = stream.decode().partition(":stream:")[0]
            client.hset(f"{head}:stored:job", lost[0].producer_id, "103-202")
        else:
            client.delete(stream)

        # Then the producer sends them again, by itself
        wait_until(lambda: numbers(in_redis(server.url)) >= numbers(lost), 30, "the second sending")
        assert job.end() == ""


def test_what_nobody_has_confirmed_is_left_sealed_for_replay(
    script: Script, private_redis: PrivateRedis, tmp_path: Path
) -> None:
    """G2: a program that ends before the store has everything leaves its files, which `provd replay` brings in."""
    server = private_redis()

    with running_job(script, server.url, tmp_path / "spool", DISK) as job:
        job.do("work 100")
        job.end()

    (file,) = files(tmp_path / "spool")
    assert file.name.endswith(".jsonl")
    assert_all_said(spooled_messages(tmp_path / "spool"), 100)
