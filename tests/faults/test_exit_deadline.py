"""Exit takes no longer than its deadline, whatever Redis does.

G1. Each test is run with `durability: memory` and `durability: disk`.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.ending import DRAINED, HEAD, SLACK_S, Job
from tests.services.redis_server import RedisServer
from tests.streams import Script, Streams


@pytest.mark.parametrize("trouble", ["hangs", "refuses"])
def test_exit_takes_no_longer_than_its_deadline_when_redis(
    script: Script, private_redis: Callable[..., RedisServer], tmp_path: Path, durability: str, trouble: str
) -> None:
    """G1: at exit a program waits for the drain deadline at most, and never for Redis. Everything is kept."""
    # Given a Redis that stops answering while a program is connected, and forgets nothing
    server = private_redis(config={"appendfsync": "always"})
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
