"""Redis away, in every way there is: the traced program keeps its speed and loses nothing, and all returns by itself.

That nobody waits for a socket is shown by the order of events: the program ends its loop while Redis is still away,
and only then is Redis brought back. The loop is long enough to overflow the buffer several times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from tests.faults.job import Job, assert_all_said, count_in_redis, in_redis, running_job, steps
from tests.services.redis_server import RedisServer
from tests.services.waiting import wait_until
from tests.streams import Script

PrivateRedis = Callable[..., RedisServer]

#: Calls before Redis goes away, and while it is away.
BEFORE = 100
DURING = 8_000

#: With the smallest buffer there is, callers come to its end.
SMALL_BUFFER = {"PROVD_BUFFER_BYTES": str(1 << 20)}

pytestmark = pytest.mark.parametrize("durability", ["memory", "disk"])


@pytest.fixture
def job_on(script: Script, tmp_path: Path, durability: str) -> Callable[[str], object]:
    """Start the job on a Redis."""

    def start(url: str) -> object:
        return running_job(script, url, tmp_path / "spool", {"PROVD_DURABILITY": durability, **SMALL_BUFFER})

    return start


@contextmanager
def working_before(server: RedisServer, job_on: Callable[[str], object]) -> Iterator[Job]:
    """A job that has done its first calls, and Redis has them."""
    with job_on(server.url) as job:  # type: ignore[attr-defined]
        job.do(f"work {BEFORE}")
        job.do("flush")
        assert steps(in_redis(server.url)) == set(range(BEFORE))
        yield job


def works_on(job: Job) -> None:
    """The loop ends while Redis is away, and all of it is on disk or in memory that is bounded."""
    assert job.do(f"work {DURING}") == "work"
    assert job.process.poll() is None


def returns_by_itself(job: Job, server: RedisServer, durability: str, calls: int = BEFORE + DURING) -> None:
    """Without a call of the program's, everything reaches Redis; then it ends, and nothing is left behind."""
    if durability == "memory":
        wait_until(lambda: not list(job.spool.rglob("*.jsonl*")), 60, "the removal of what Redis has")
    wait_until(lambda: count_in_redis(server.url) >= calls + 2, 60, "the return of what was said")
    assert steps(in_redis(server.url)) == set(range(calls))
    complaint = job.end()
    assert complaint.count("\n") == 1
    assert "provd replay" in complaint
    assert_all_said(in_redis(server.url), calls)
    left = job.spooled()
    if durability == "memory":
        assert left == []
    else:  # nobody has confirmed anything: there is no consumer
        assert_all_said(left, calls)


def test_redis_that_is_away_at_the_start(
    private_redis: PrivateRedis, job_on: Callable[[str], object], durability: str
) -> None:
    """G1 and G2: what is said before Redis exists is in it when it does."""
    server = private_redis()
    server.kill()

    with job_on(server.url) as job:  # type: ignore[attr-defined]
        works_on(job)
        job.do("flush")
        assert steps(job.spooled()) == set(range(DURING))
        server.start()

        returns_by_itself(job, server, durability, DURING)


def test_redis_that_goes_away_in_the_middle(
    private_redis: PrivateRedis, job_on: Callable[[str], object], durability: str
) -> None:
    """G1 and G2: killed between two calls, and started again."""
    server = private_redis(config={"appendfsync": "always"})

    with working_before(server, job_on) as job:
        server.kill()
        works_on(job)
        server.start()

        returns_by_itself(job, server, durability)


def test_redis_that_refuses_connections(
    private_redis: PrivateRedis, job_on: Callable[[str], object], durability: str
) -> None:
    """G1 and G2: all its connections are taken by others."""
    server = private_redis()

    with working_before(server, job_on) as job, server.client() as client:
        client.config_set("maxclients", 1)
        client.client_kill_filter(_type="normal", skipme=True)
        works_on(job)
        client.config_set("maxclients", 1000)

        returns_by_itself(job, server, durability)


def test_redis_that_hangs(
    private_redis: PrivateRedis, job_on: Callable[[str], object], durability: str
) -> None:
    """G1 and G2: stopped, so that connections are accepted and nothing is ever answered."""
    server = private_redis()

    with working_before(server, job_on) as job:
        server.pause()
        try:
            works_on(job)
            job.do("flush")
            assert len(steps(job.spooled())) >= DURING
        finally:
            server.resume()

        returns_by_itself(job, server, durability)


def test_a_send_that_timed_out_after_redis_had_it_is_sent_again_and_changes_nothing(
    private_redis: PrivateRedis, job_on: Callable[[str], object], durability: str
) -> None:
    """G2 and G3: an ambiguous send is repeated; the same numbers carry the same messages."""
    server = private_redis()

    with working_before(server, job_on) as job:
        # What is written to a stopped server waits in its socket, and is executed when it goes on.
        server.pause()
        try:
            job.do("work 50")
            job.do("flush")
            assert steps(job.spooled()) >= set(range(BEFORE, BEFORE + 50))
        finally:
            server.resume()
        returns_by_itself(job, server, durability, BEFORE + 50)

    by_number: dict[int, set[str]] = {}
    for message in in_redis(server.url):
        by_number.setdefault(message.seq, set()).add(repr(sorted(message.record.items())))
    assert {len(records) for records in by_number.values()} == {1}


def test_redis_that_is_out_of_memory(
    private_redis: PrivateRedis, job_on: Callable[[str], object], durability: str
) -> None:
    """G1 and G2: full, and told to evict nothing, it answers and refuses every write."""
    server = private_redis()

    with working_before(server, job_on) as job, server.client() as client:
        client.config_set("maxmemory", 1)
        works_on(job)
        job.do("flush")
        assert len(steps(in_redis(server.url))) == BEFORE
        client.config_set("maxmemory", 0)

        returns_by_itself(job, server, durability)


def test_redis_that_is_a_read_only_replica(
    private_redis: PrivateRedis, job_on: Callable[[str], object], durability: str
) -> None:
    """G1 and G2: it answers, and takes no write, until it is made master again."""
    server, other = private_redis(), private_redis()
    other.kill()  # so that it does not give our server its own, empty data

    with working_before(server, job_on) as job, server.client() as client:
        client.replicaof("127.0.0.1", port_of(other))
        works_on(job)
        job.do("flush")
        client.replicaof("NO", "ONE")

        returns_by_itself(job, server, durability)


def test_redis_that_has_another_password(
    private_redis: PrivateRedis, job_on: Callable[[str], object], durability: str
) -> None:
    """G1, G2 and G8: it knows nobody of our name; the warning shows no password."""
    server = private_redis()

    with working_before(server, job_on) as job, server.client() as client:
        client.config_set("requirepass", "s3cret")
        client.client_kill_filter(_type="normal", skipme=True)
        works_on(job)
        job.do("flush")
        client.config_set("requirepass", "")

        returns_by_itself(job, server, durability)


def test_redis_that_fails_over(
    private_redis: PrivateRedis, job_on: Callable[[str], object], durability: str
) -> None:
    """G1 and G2: for as long as the election lasts nobody is master; then the same address is another server's."""
    first, second = private_redis(config={"appendfsync": "always"}), private_redis()
    with second.client() as replica:
        replica.replicaof("127.0.0.1", port_of(first))
        wait_until(lambda: replica.info("replication")["master_link_status"] == "up", 20)

        with working_before(first, job_on) as job:
            wait_until(lambda: steps(in_redis(second.url)) == set(range(BEFORE)), 20)
            first.kill()
            works_on(job)
            job.do("flush")
            replica.replicaof("NO", "ONE")
            take_over(first, replica)

            returns_by_itself(job, first, durability)


def take_over(lost: RedisServer, promoted: redis.Redis) -> None:
    """The promoted server is from now on what answers at the lost one's address, with the promoted one's data."""
    lost.start()
    with lost.client() as client:
        client.flushall()
        client.replicaof("127.0.0.1", promoted.connection_pool.connection_kwargs["port"])
        wait_until(lambda: client.info("replication")["master_link_status"] == "up", 20)
        client.replicaof("NO", "ONE")


def port_of(server: RedisServer) -> int:
    """The port of a private Redis."""
    return int(server.url.rsplit(":", 1)[1].split("/")[0])
