"""`provd run -- CMD`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from provd.common.record import Kind
from tests.conftest import RunProvd
from tests.services.waiting import wait_until
from tests.streams import Streams


@pytest.fixture
def broker(redis_url: str, namespace: str) -> dict[str, str]:
    """The environment that leads to this test's streams."""
    return {"PROVD_BROKER_URL": redis_url, "PROVD_NAMESPACE": namespace}


def test_a_command_is_a_workflow_and_its_output_and_status_are_its_own(
    run_provd: RunProvd, streams: Streams, broker: dict[str, str]
) -> None:
    # When a command runs under provd
    ended = run_provd(
        "run", "--name", "relax", "--campaign-id", "exp42", "--",
        "sh", "-c", "cat; echo oops >&2; exit 3",
        env=broker, input="from stdin\n",
    )  # fmt: skip

    # Then nothing about it has changed
    assert (ended.returncode, ended.stdout, ended.stderr) == (3, "from stdin\n", "oops\n")

    # And the record says what it was and how it ended
    record = streams.records(Kind.WORKFLOW)[-1]
    assert record["name"] == "relax"
    assert record["campaign_id"] == "exp42"
    assert record["argv"] == ["sh", "-c", "cat; echo oops >&2; exit 3"]
    assert (record["status"], record["stderr"]) == ("ERROR", "exit status 3")
    assert record["custom_metadata"] == {"exit_status": 3}
    assert record["duration"] > 0


def test_instrumented_programs_below_it_join(
    run_provd: RunProvd, streams: Streams, broker: dict[str, str]
) -> None:
    code = "import provd\n@provd.task\ndef step(): pass\nwith provd.workflow('inner'): step()"

    ended = run_provd("run", "--", sys.executable, "-c", code, env=broker)

    assert ended.returncode == 0
    (task,) = streams.tasks()
    owners = {r["workflow_id"] for r in streams.records(Kind.WORKFLOW) if r["status"] == "FINISHED"}
    assert owners == {task["workflow_id"]}


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGUSR1, signal.SIGKILL])
def test_signals_reach_the_command_and_their_status_comes_back(
    streams: Streams, broker: dict[str, str], sent: signal.Signals
) -> None:
    # Given a command that has started
    process = subprocess.Popen(
        [sys.executable, "-m", "provd", "run", "--", "sh", "-c", "echo $$; exec sleep 60"],
        env={**os.environ, **broker}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    command = int(process.stdout.readline())

    # When provd gets a signal that ends the command, or the command one that nobody can catch
    if sent is signal.SIGKILL:
        os.kill(command, sent)
    else:
        process.send_signal(sent)
    process.communicate(timeout=30)

    # Then it ends by the same signal, and the record says so
    assert process.returncode == -sent
    record = streams.records(Kind.WORKFLOW)[-1]
    assert record["stderr"] == f"ended by {sent.name}"
    assert record["status"] == ("CANCELLED" if sent is signal.SIGTERM else "ERROR")


def test_a_command_that_is_not_there_is_said_and_recorded(
    run_provd: RunProvd, streams: Streams, broker: dict[str, str]
) -> None:
    ended = run_provd("run", "--", "no-such-command-here", env=broker)

    assert ended.returncode == 127
    assert ended.stderr == "provd: no-such-command-here: command not found\n"
    assert streams.records(Kind.WORKFLOW)[-1]["status"] == "ERROR"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--workflow-id", "a b", "--", "true"], ["--workflow-id", "'a b'", "1-128 ASCII letters"]),
        ([], ["missing argument"]),
    ],
)
def test_wrong_usage_is_refused_before_anything_runs(
    run_provd: RunProvd, arguments: list[str], words: list[str]
) -> None:
    ended = run_provd("run", *arguments)

    assert ended.returncode == 2
    assert all(word in ended.stderr for word in words), ended.stderr


def test_a_long_command_is_visible_while_it_runs(streams: Streams, broker: dict[str, str]) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "provd", "run", "--name", "long", "--", "cat"],
        env={**os.environ, **broker}, stdin=subprocess.PIPE,
    )  # fmt: skip
    wait_until(lambda: bool(streams.records(Kind.WORKFLOW)), 15)
    running = streams.records(Kind.WORKFLOW)[-1]["status"]
    process.communicate(timeout=30)

    assert running == "RUNNING"
    assert streams.records(Kind.WORKFLOW)[-1]["status"] == "FINISHED"
