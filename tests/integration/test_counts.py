"""Numbers that programs count, whose records they are, and campaigns that calls name: real programs, real services."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from provd.cli.main import app
from provd.common import names
from provd.common.record import Kind
from provd.query.compare import compare_runs
from provd.query.connection import connect
from provd.query.runs import list_runs
from provd.query.tasks import TaskQuestion, find_tasks
from provd.store.interface import Store
from tests.integration.commands import Provd
from tests.services.waiting import wait_until
from tests.streams import Script, Streams

Collect = Callable[[], None]

COUNTING = """
    import os, provd

    with provd.workflow("etl", workflow_id="etl", args={"lr": 0.1}, code_ref="r7", input_fingerprint="v3"):
        provd.count(rows_in=100, tokens=12)
        provd.count(rows_in=50, cost_usd=0.25)
        pid = os.fork()
        if pid == 0:
            provd.count(rows_in=1_000_000, cost_usd=0.5)
        else:
            os.waitpid(pid, 0)
"""


def document(provd: Provd, *args: str) -> dict[str, Any]:
    """The one JSON document that a command prints."""
    done = provd(*args)
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_counts_of_all_processes_are_summed_and_shown(
    script: Script, collect: Collect, store: Store, provd: Provd
) -> None:
    assert script.run(COUNTING).returncode == 0
    collect()

    sums = {"cost_usd": 0.75, "rows_in": 1_000_150, "tokens": 12}
    (run,) = list_runs(store)
    assert (run.counts, run.producers) == (sums, 2)
    assert document(provd, "runs", "show", "etl", "--json")["counts"] == sums
    assert document(provd, "runs", "tail", "--json")["counts"] == sums
    page = provd("runs", "show", "etl").stdout
    assert "cost_usd 0.75, rows_in 1,000,150, tokens 12" in page
    assert document(provd, "runs", "verify", "etl", "--json")["complete"]


def test_what_tells_a_run_apart_is_shown_and_can_be_asked_for(
    script: Script, collect: Collect, store: Store, provd: Provd
) -> None:
    script.run(COUNTING)
    collect()

    shown = document(provd, "runs", "show", "etl", "--json")
    page = provd("runs", "show", "etl").stdout
    for field, value in (
        ("input_fingerprint", "v3"),
        ("code_ref", "r7"),
        ("config_hash", shown["config_hash"]),
    ):
        assert shown[field] == value
        assert value in page
        (found,) = store.find(names.WORKFLOWS, {field: value})
        assert found["workflow_id"] == "etl"


def test_the_code_reference_is_the_commit_marked_where_what_runs_differs(
    script: Script, streams: Streams
) -> None:
    source = """
        import provd

        with provd.workflow("w"):
            pass
    """
    script.command(source)

    def git(*args: str) -> str:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        command = ["git", *identity, *args]
        done = subprocess.run(command, cwd=script.folder, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    git("init", "-q")
    git("add", "script.py")
    git("commit", "-q", "-m", "first")
    commit = git("rev-parse", "HEAD")
    script.run(source)
    script.run(source.replace('"w"', '"changed"'))

    references = {record["code_ref"] for record in streams.records(Kind.WORKFLOW)}
    assert references == {commit, f"{commit}-dirty"}


def test_totals_are_seen_while_the_program_runs_and_said_at_most_once_a_second(
    script: Script, streams: Streams
) -> None:
    source = """
        import sys, time, provd

        with provd.workflow("w"):
            provd.flush()
            begun = time.monotonic()
            while time.monotonic() - begun < 1.5:
                provd.count(rows=1)
            provd.count(last=1)
            print("counted", flush=True)
            sys.stdin.readline()
    """
    with script.start(source, env={"PROVD_FLUSH_INTERVAL_S": "0.05", "PROVD_HEARTBEAT_S": "300"}) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "counted\n"
        wait_until(
            lambda: any("last" in one.get("counts", {}) for one in streams.records(Kind.PRODUCER)), 20.0
        )
        said = streams.records(Kind.PRODUCER)
        assert len(said) <= 5
        assert {one["status"] for one in said} == {"RUNNING"}
        program.communicate("\n")


def test_a_flush_says_what_was_counted_a_moment_ago(script: Script, streams: Streams) -> None:
    done = script.run(
        """
        import os, signal, provd

        with provd.workflow("w"):
            for _ in range(3):
                provd.count(rows=1)
                provd.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        """
    )

    assert done.returncode == -signal.SIGKILL
    assert [one.get("counts") for one in streams.records(Kind.PRODUCER)][-1] == {"rows": 3}


def test_a_process_that_only_counts_is_heard(script: Script, streams: Streams) -> None:
    """A forked child that captures nothing says nothing, but a count is something to say."""
    script.run(
        """
        import os, provd

        with provd.workflow("w"):
            pid = os.fork()
            if pid == 0:
                provd.count(rows=1)
            else:
                os.waitpid(pid, 0)
        """
    )

    parts = {one["producer_id"]: one.get("counts") for one in streams.records(Kind.PRODUCER)}
    assert sorted(parts.values(), key=str) == [None, {"rows": 1}]


@pytest.mark.parametrize("again", [False, True])
def test_what_was_counted_is_on_disk_when_the_call_returns(
    script: Script, tmp_path: Path, again: bool
) -> None:
    """Also in a workflow that the process has left before, and entered again."""
    from provd.query.jsonl import read_jsonl

    spool = tmp_path / "spool"
    done = script.run(
        f"""
        import os, signal, threading, provd

        if {again}:
            with provd.workflow("w", workflow_id="w"):
                provd.count(rows=1000)
        with provd.workflow("w", workflow_id="w"):
            def work():
                for _ in range(50):
                    provd.count(rows=1)
            threads = [threading.Thread(target=work) for _ in range(4)]
            [thread.start() for thread in threads]
            [thread.join() for thread in threads]
            os.kill(os.getpid(), signal.SIGKILL)
        """,
        env={"PROVD_DURABILITY": "disk", "PROVD_SPOOL_DIR": str(spool), "PROVD_BROKER_URL": ""},
    )

    assert done.returncode == -signal.SIGKILL, done.stderr
    (producer,) = read_jsonl(spool, kind="producer")
    assert producer["counts"] == {"rows": 200 + 1000 * again}


def test_with_durability_on_disk_counts_reach_the_store_once(
    script: Script, collect: Collect, store: Store, provd: Provd
) -> None:
    assert script.run(COUNTING, env={"PROVD_DURABILITY": "disk"}).returncode == 0
    collect()

    (run,) = list_runs(store)
    assert run.counts == {"cost_usd": 0.75, "rows_in": 1_000_150, "tokens": 12}
    assert document(provd, "runs", "verify", "etl", "--json")["complete"]


# --- campaigns of single calls ---------------------------------------------------------------------------------

CALLS = """
    import sys, provd

    @provd.task
    def train(n):
        return n

    with provd.workflow("own", campaign_id="c2"):
        train(1)
    with provd.workflow("host", campaign_id="c1"):
        train(2)
        train(3, campaign_id="c2")
        train(4, workflow_id="elsewhere", campaign_id="c3")
        train(5, workflow_id="elsewhere", campaign_id="c2")
"""


def of_campaign(store: Store, campaign_id: str) -> list[int]:
    """What the tasks of a campaign used."""
    return sorted(task["used"]["n"] for task in find_tasks(store, TaskQuestion(campaign_id=campaign_id)))


@pytest.mark.parametrize("durability", ["memory", "disk"])
def test_a_call_is_found_by_its_own_campaign_also_where_that_has_runs(
    script: Script, collect: Collect, store: Store, provd: Provd, durability: str
) -> None:
    assert script.run(CALLS, env={"PROVD_DURABILITY": durability}).returncode == 0
    collect()

    assert {campaign: of_campaign(store, campaign) for campaign in ("c1", "c2", "c3")} == {
        "c1": [2],
        "c2": [1, 3, 5],
        "c3": [4],
    }
    listed = provd("tasks", "--campaign-id", "c2", "--json").stdout.splitlines()
    assert sorted(json.loads(line)["used"]["n"] for line in listed) == [1, 3, 5]


def test_a_call_that_still_runs_is_found_by_its_own_campaign(
    script: Script, collect: Collect, store: Store
) -> None:
    source = """
        import sys, provd

        @provd.task
        def wait(n):
            sys.stdin.readline()

        with provd.workflow("other", campaign_id="c2"):
            pass
        with provd.workflow("host", campaign_id="c1"):
            wait(1, campaign_id="c2")
    """
    with script.start(source) as program:

        def found() -> bool:
            collect()
            return of_campaign(store, "c2") == [1]

        wait_until(found, 20.0)
        program.communicate("\n")


def test_a_process_whose_calls_name_ever_new_campaigns_says_that_it_may_be_any(
    script: Script, collect: Collect, store: Store
) -> None:
    script.run(
        """
        import provd

        @provd.task
        def train(n):
            return n

        with provd.workflow("other", campaign_id="c1500"):
            train(0)
        with provd.workflow("host", campaign_id="c"):
            for n in range(1, 1600):
                train(n, campaign_id=f"c{n}")
        """
    )
    collect()

    assert of_campaign(store, "c1500") == [0, 1500]
    assert of_campaign(store, "c3") == [3]
    (host,) = store.find(names.PRODUCERS, {"campaigns": {"$exists": True}})
    assert host["campaigns"] == ["*"]


# --- tenants ---------------------------------------------------------------------------------------------------

TENANTS = """
    import sys, provd

    @provd.task
    def train(who):
        return {"file": provd.Key(who)}

    with provd.workflow("shared", workflow_id=sys.argv[1], own=True):
        provd.count(rows=int(sys.argv[2]))
        train(sys.argv[2])
"""


@pytest.mark.parametrize("durability", ["memory", "disk"])
@pytest.mark.parametrize("runs", [("run-a", "run-b"), ("run", "run")])
def test_a_tenant_sees_its_own_records_and_nobody_elses(
    script: Script,
    collect: Collect,
    store: Store,
    store_url: str,
    runs: tuple[str, str],
    durability: str,
) -> None:
    from typer.testing import CliRunner

    for number, (tenant, workflow_id) in enumerate(zip("ab", runs, strict=True), start=1):
        environment = {"PROVD_TENANT_ID": tenant, "PROVD_DURABILITY": durability}
        assert script.run(TENANTS, workflow_id, str(number), env=environment).returncode == 0
    assert script.run(TENANTS, "nobodys", "3").returncode == 0
    collect()

    for collection in (names.TASKS, names.PRODUCERS, names.LINKS):
        owners = [found.get("tenant_id") for found in store.find(collection, {})]
        assert sorted(map(str, owners)) == ["None", "a", "b"]
    assert store.count(names.TASKS, {}) == 3
    for number, (tenant, workflow_id) in enumerate(zip("ab", runs, strict=True), start=1):
        environment = {"PROVD_TENANT_ID": tenant, "PROVD_STORE_URL": store_url}

        def lines(*args: str, env: dict[str, str] = environment) -> list[dict[str, Any]]:
            done = CliRunner().invoke(app, [*args, "--json"], env=env)
            assert done.exit_code == 0, done.output
            return [json.loads(line) for line in done.stdout.splitlines()]

        assert [task["used"]["who"] for task in lines("tasks")] == [str(number)]
        assert lines("runs", "show", workflow_id)[0]["counts"] == {"rows": number}


def test_messages_of_a_tenant_keep_their_tenant_by_way_of_the_spool(
    script: Script, run_provd: Any, streams: Streams, tmp_path: Path
) -> None:
    spool = tmp_path / "spool"
    away = {
        "PROVD_BROKER_URL": "redis://127.0.0.1:1/0",
        "PROVD_SPOOL_DIR": str(spool),
        "PROVD_TENANT_ID": "a",
    }
    script.run(TENANTS, "run", "1", env=away)
    assert streams.messages() == []

    broker = {name: script.environment[name] for name in ("PROVD_BROKER_URL", "PROVD_NAMESPACE")}
    done = run_provd("replay", str(spool), env=broker)

    assert done.returncode == 0, done.stderr
    messages = streams.messages()
    assert {message.record.get("tenant_id") for message in messages} == {"a"}
    assert {message.kind for message in messages} == {Kind.TASK, Kind.WORKFLOW, Kind.PRODUCER}


def test_what_was_counted_is_compared_and_read_in_python(
    script: Script, collect: Collect, store: Store, store_url: str
) -> None:
    for name, rows in (("one", 3), ("two", 5)):
        script.run(
            f"""
            import provd

            with provd.workflow("etl", workflow_id="{name}"):
                provd.count(rows={rows}, batches=1)
            """
        )
    collect()

    told = {one.name: (one.a, one.b) for one in compare_runs(store, "one", "two").counts}
    with connect(store_url) as books:
        assert books.run("two").counts == {"batches": 1, "rows": 5}
    assert told == {"rows": (3, 5)}
