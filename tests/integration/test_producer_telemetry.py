"""Node samples and telemetry, from real processes through Redis, spool and store to the reader."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from provd.common.record import Kind, Message
from tests.conftest import RunProvd
from tests.services.waiting import wait_until
from tests.streams import Script, Streams

#: Joins a workflow, says so, and stays until its input ends.
JOINER = """
    import sys
    import provd

    with provd.workflow(workflow_id="w1"):
        print("in", flush=True)
        sys.stdin.read()
"""

#: A workflow with one short task, over long before the interval is.
SHORT = """
    import provd

    @provd.task(telemetry=True)
    def step():
        return 1

    with provd.workflow("short", workflow_id="{workflow_id}", own=True):
        step()
"""

OFTEN = {"PROVD_SAMPLE_INTERVAL_S": "0.2"}
SELDOM = {"PROVD_SAMPLE_INTERVAL_S": "3600"}


@pytest.fixture
def samples(streams: Streams) -> Callable[[], list[Message]]:
    """The samples in Redis."""
    return lambda: [message for message in streams.messages() if message.kind is Kind.SAMPLE]


def joined(script: Script, count: int) -> list[subprocess.Popen[str]]:
    """Processes of one workflow on this node."""
    processes = [script.start(JOINER, env=OFTEN) for _ in range(count)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "in\n"
    return processes


def end(*processes: subprocess.Popen[str]) -> list[str]:
    """Let them end; returns what they said on stderr."""
    return [process.communicate(timeout=30)[1] for process in processes]


def test_of_two_processes_on_a_node_one_samples(script: Script, samples: Callable[[], list[Message]]) -> None:
    # Given two processes that have been in one workflow for several intervals
    processes = joined(script, 2)
    wait_until(lambda: len(samples()) >= 5)

    # When their samples are looked at
    senders = {message.record["pid"] for message in samples()}

    # Then they all come from one of them
    assert len(senders) == 1
    assert senders < {process.pid for process in processes}
    assert end(*processes) == ["", ""]


def test_a_sample_says_what_the_node_does(script: Script, samples: Callable[[], list[Message]]) -> None:
    (process,) = joined(script, 1)
    wait_until(lambda: len(samples()) >= 6)
    end(process)

    first, second, *later = [message.record for message in samples()]
    assert first["hostname"] == os.uname().nodename
    assert first["cpu"]["count"] == os.cpu_count()
    assert 0 < first["memory"]["available_bytes"] < first["memory"]["total_bytes"]
    assert set(first["network"]) == {"sent_bytes", "received_bytes"}
    assert "delta" not in first
    assert 0 <= second["delta"]["cpu"]["percent"] <= 100
    assert second["delta"]["network"]["received_bytes"] >= 0

    # A reading begins after the sample before, and ends with its own: a slow one moves a bound, and passes none.
    times = [record["sampled_at"] for record in (first, second, *later)]
    covered_ms = 1000 * sum(record["delta"]["interval_s"] for record in later)
    assert times[-2] - times[1] - 2 <= covered_ms <= times[-1] - times[0] + 2
    assert times[-1] - times[0] > 100 * len(later)


def test_a_sampler_that_is_killed_is_followed(script: Script, samples: Callable[[], list[Message]]) -> None:
    # Given two processes, of which one samples
    processes = {process.pid: process for process in joined(script, 2)}
    wait_until(lambda: len(samples()) >= 2)
    sampler = processes.pop(samples()[0].record["pid"])

    # When it is killed
    os.kill(sampler.pid, signal.SIGKILL)
    sampler.communicate()

    # Then the other one goes on
    (other,) = processes.values()
    wait_until(lambda: any(message.record["pid"] == other.pid for message in samples()))
    assert end(other) == [""]


def test_a_sampler_that_leaves_is_followed(script: Script, samples: Callable[[], list[Message]]) -> None:
    processes = {process.pid: process for process in joined(script, 2)}
    wait_until(lambda: len(samples()) >= 2)
    sampler = processes.pop(samples()[0].record["pid"])

    assert end(sampler) == [""]

    (other,) = processes.values()
    wait_until(lambda: sum(message.record["pid"] == other.pid for message in samples()) >= 2)
    end(other)


def test_a_workflow_ends_with_a_sample(
    script: Script, streams: Streams, samples: Callable[[], list[Message]]
) -> None:
    ended = script.run(SHORT.format(workflow_id="w2"), env=SELDOM)

    assert ended.stderr == ""
    (task,) = streams.tasks("step")
    last = samples()[-1]
    assert last.record["sampled_at"] >= task["ended_at"] - 1
    closing = streams.records(Kind.PRODUCER)[-1]
    assert closing["sent"] == closing["seq"] > last.seq


def test_a_program_that_was_forked_leaves_sampling_to_its_parent(
    script: Script, streams: Streams, samples: Callable[[], list[Message]]
) -> None:
    ended = script.run(
        """
        import os
        import provd

        @provd.task
        def step(who):
            pass

        with provd.workflow():
            step("parent")
            pid = os.fork()
            if pid == 0:
                step("child")
                provd.flush()
                os._exit(0)
            os.waitpid(pid, 0)
        print(os.getpid())
        """,
        env=OFTEN,
    )

    assert ended.stderr == ""
    assert len(streams.tasks("step")) == 2
    assert {message.record["pid"] for message in samples()} == {int(ended.stdout)}


def test_without_the_setting_nobody_samples(script: Script, samples: Callable[[], list[Message]]) -> None:
    script.run(SHORT.format(workflow_id="w3"))

    assert samples() == []


def test_without_psutil_sampling_is_one_warning(script: Script, samples: Callable[[], list[Message]]) -> None:
    source = (
        'import sys\nsys.modules["psutil"] = None\nimport provd\nwith provd.workflow():\n    print("done")\n'
    )

    ended = script.run(source, env=SELDOM)

    assert ended.stdout == "done\n"
    (warning,) = ended.stderr.splitlines()
    assert 'pip install "provd[telemetry]"' in warning
    assert samples() == []


def test_samples_and_telemetry_survive_spool_and_replay_and_are_in_the_books(
    script: Script, run_provd: RunProvd, tmp_path: Path
) -> None:
    # Given a run without a broker
    spool = tmp_path / "spool"
    ended = script.run(
        SHORT.format(workflow_id="w4"),
        env={**SELDOM, "PROVD_BROKER_URL": f"file://{spool}"},
    )
    assert ended.stderr == ""

    # When its spool is replayed, twice
    store = f"sqlite:///{tmp_path / 'provd.db'}"
    environment = {"PROVD_STORE_URL": store}
    for _ in range(2):
        assert run_provd("replay", str(spool), "--store", store).returncode == 0

    # Then the books are complete
    verified = run_provd("runs", "verify", "w4", "--json", env=environment)
    books = json.loads(verified.stdout)
    assert verified.returncode == 0
    assert books["complete"]

    # And samples are read like any record
    query = json.dumps({"workflow_id": "w4", "memory.total_bytes": {"$gt": 0}})
    asked = run_provd("query", "samples", query, "--sort", "sampled_at", "--json", env=environment)
    samples = [json.loads(line) for line in asked.stdout.splitlines()]
    assert asked.returncode == 0
    assert 1 <= len(samples) <= 2
    assert samples[0]["hostname"] == os.uname().nodename
    assert samples[0]["cpu"]["count"] == os.cpu_count()

    # And so is the telemetry of the task
    asked = run_provd("query", "tasks", '{"workflow_id": "w4"}', "--json", env=environment)
    (task,) = [json.loads(line) for line in asked.stdout.splitlines()]
    assert task["telemetry_at_start"]["memory"]["rss_bytes"] > 1_000_000
    assert task["telemetry_at_end"]["delta"]["cpu"]["user_s"] >= 0


def test_samples_reach_mongodb_through_the_consumer_with_their_time_as_a_date(
    script: Script, run_provd: RunProvd, mongo_url: str, redis_url: str, namespace: str
) -> None:
    ended = script.run(SHORT.format(workflow_id="w5"), env=SELDOM)
    assert ended.stderr == ""
    environment = {
        "PROVD_BROKER_URL": redis_url,
        "PROVD_STORE_URL": mongo_url,
        "PROVD_NAMESPACE": namespace,
    }

    consumed = run_provd("consume", "--workflow-id", "w5", "--exit-when-done", env=environment)

    assert consumed.returncode == 0, consumed.stderr
    query = '{"sampled_at": {"$gt": {"$date": "2020-01-01T00:00:00Z"}}}'
    asked = run_provd("query", "samples", query, "--json", env=environment)
    samples = [json.loads(line) for line in asked.stdout.splitlines()]
    assert samples, asked.stderr
    assert {sample["workflow_id"] for sample in samples} == {"w5"}
