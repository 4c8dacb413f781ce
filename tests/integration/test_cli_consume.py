"""`provd consume` and `provd replay` as processes, on real services."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from provd.common.record import Status
from provd.common.spool import SpoolWriter
from tests.builders import ProducerBuilder
from tests.conftest import RunProvd, StartProvd
from tests.services.redis_server import RedisServer
from tests.services.waiting import wait_until


def spooled_run(folder: Path, workflow_id: str = "spooled") -> Path:
    """A complete run of three tasks in a spool file, which is returned."""
    part = ProducerBuilder(workflow_id, f"p-{workflow_id}").open().workflow(Status.RUNNING)
    for _ in range(3):
        part.task()
    part.workflow(Status.FINISHED).close()
    writer = SpoolWriter(folder, part.producer_id, ceiling_bytes=1 << 30, free_floor=0.0, hostname="node01")
    writer.write(part.messages)
    writer.close()
    (file,) = folder.glob("*/*.jsonl")
    return file


@pytest.fixture
def services(redis_url: str, namespace: str, tmp_path: Path) -> dict[str, str]:
    """The environment of a broker and an embedded store of the test's own."""
    return {
        "PROVD_BROKER_URL": redis_url,
        "PROVD_NAMESPACE": namespace,
        "PROVD_STORE_URL": f"sqlite:///{tmp_path}/provd.db",
    }


def test_a_spool_goes_through_the_broker_into_the_store_and_verifies(
    run_provd: RunProvd, services: dict[str, str], tmp_path: Path
) -> None:
    spooled_run(tmp_path / "spool")

    replayed = run_provd("replay", "spool", "--json", env=services)
    consumed = run_provd(
        "consume", "--workflow-id", "spooled", "--exit-when-done", "--grace", "20", env=services
    )
    verified = run_provd("runs", "verify", "spooled", env=services)

    assert (replayed.returncode, json.loads(replayed.stdout)["messages"]) == (0, 7), replayed.stderr
    assert consumed.returncode == 0, consumed.stderr
    assert "stored=7" in consumed.stderr
    assert consumed.stdout == ""
    assert verified.returncode == 0, verified.stdout


def test_replaying_into_a_store_twice_changes_nothing(
    run_provd: RunProvd, services: dict[str, str], tmp_path: Path
) -> None:
    file = spooled_run(tmp_path / "spool")
    url = services["PROVD_STORE_URL"]

    first = run_provd("replay", str(file), "--store", url)
    once = run_provd("query", "tasks", "--sort", "task_id", "--json", env=services).stdout
    second = run_provd("replay", str(file), "--store", url)
    twice = run_provd("query", "tasks", "--sort", "task_id", "--json", env=services).stdout

    assert (first.returncode, second.returncode) == (0, 0)
    assert "replayed 7 messages of 1 file into the store" in first.stderr
    assert len(once.splitlines()) == 3
    assert once == twice


@pytest.mark.parametrize("into", [[], ["--store", "sqlite:///here.db"]])
def test_a_bad_line_is_named_the_others_come_in_and_the_exit_is_1(
    run_provd: RunProvd, services: dict[str, str], tmp_path: Path, into: list[str]
) -> None:
    file = spooled_run(tmp_path / "spool")
    lines = file.read_bytes().splitlines(keepends=True)
    lines[3] = lines[3][:40] + b"\n"
    file.write_bytes(b"".join(lines))

    done = run_provd("replay", str(file), *into, env=services)

    assert done.returncode == 1
    assert f"{file}:4: " in done.stderr
    assert "replayed 6 messages" in done.stderr
    assert "1 line could not be read" in done.stderr


@pytest.mark.parametrize(
    "where", [["--broker", "redis://:secret@127.0.0.1:1/0"], ["--store", "mongodb://a:secret@127.0.0.1:1/x"]]
)
def test_replay_exits_3_when_the_service_is_away(
    run_provd: RunProvd, tmp_path: Path, where: list[str]
) -> None:
    file = spooled_run(tmp_path / "spool")

    done = run_provd("replay", str(file), *where)

    assert done.returncode == 3
    assert "127.0.0.1:1" in done.stderr
    assert "secret" not in done.stderr
    assert file.exists()


def test_a_workflow_that_stays_incomplete_exits_1_after_the_grace(
    run_provd: RunProvd, services: dict[str, str]
) -> None:
    done = run_provd("consume", "--workflow-id", "never", "--exit-when-done", "--grace", "0.5", env=services)

    assert done.returncode == 1
    assert "incomplete: never" in done.stderr


@pytest.mark.parametrize(
    "away",
    [
        {"PROVD_BROKER_URL": "redis://127.0.0.1:1/0"},
        {"PROVD_STORE_URL": "mongodb://127.0.0.1:1/provd"},
    ],
    ids=["broker", "store"],
)
def test_a_service_that_does_not_answer_once_within_the_grace_exits_3(
    run_provd: RunProvd, services: dict[str, str], away: dict[str, str]
) -> None:
    waiting = ("consume", "--workflow-id", "never", "--exit-when-done", "--grace", "0.5")
    done = run_provd(*waiting, env=services | away | {"PROVD_CONNECT_TIMEOUT_S": "0.5"})

    assert done.returncode == 3, done.stderr
    assert "127.0.0.1:1" in done.stderr


def test_a_service_that_goes_away_for_good_exits_1_after_the_grace(
    start_provd: StartProvd, services: dict[str, str], private_redis: Callable[..., RedisServer]
) -> None:
    server = private_redis()
    env = services | {"PROVD_BROKER_URL": server.url}
    waiting = ("consume", "--workflow-id", "never", "--exit-when-done", "--grace", "10")
    consumer = start_provd(*waiting, env=env)
    with server.client() as client:
        # It has looked around several times, and at the books in between
        wait_until(
            lambda: client.info("commandstats").get("cmdstat_smembers", {"calls": 0})["calls"] >= 48, 30
        )

    server.kill()

    assert consumer.wait(60) == 1, consumer.log.read_text()
    assert "incomplete: gave up after 10 s without a service" in consumer.log.read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_consumer_with_status_0(
    start_provd: StartProvd, services: dict[str, str], number: signal.Signals
) -> None:
    consumer = start_provd("consume", env=services)
    wait_until(lambda: "consumer started" in consumer.log.read_text(), what="the consumer to start")

    consumer.send(number)

    assert consumer.wait() == 0
    assert "consumer stopped" in consumer.log.read_text()


def test_a_reader_that_has_had_enough_is_no_error(
    run_provd: RunProvd, services: dict[str, str], tmp_path: Path
) -> None:
    file = spooled_run(tmp_path / "spool")
    run_provd("replay", str(file), "--store", services["PROVD_STORE_URL"])
    command = f"{sys.executable} -m provd query ledger --json --store {services['PROVD_STORE_URL']} | true"

    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True, timeout=60
    )

    assert (done.returncode, done.stderr) == (0, "")
