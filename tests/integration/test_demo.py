"""`provd demo`, and the same sweep against Redis and MongoDB."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import provd
from tests.conftest import RunProvd
from tests.services.child import Child
from tests.services.waiting import wait_until

SWEEP = Path(provd.__file__).parent / "examples" / "digits_sweep" / "sweep.py"


def test_the_demo_shows_a_real_campaign_from_its_store(run_provd: RunProvd, clean_env: Path) -> None:
    # When the demo runs where no service is known
    ended = run_provd("demo", timeout=120)

    # Then it ends well, and shows the sweep, its workers, its failure and its books
    assert ended.returncode == 0, ended.stderr
    assert re.search(r"0\.9\d{3} +0\.9\d{3} +\w+", ended.stdout)
    assert "InvalidParameterError" in ended.stdout
    assert re.search(r"verify: complete: all \d+ messages of 5 producers stored", ended.stdout)

    # And its records can be asked as it says
    (store,) = re.findall(r"PROVD_STORE_URL=(\S+)", ended.stdout)
    asked = run_provd("tasks", "--status", "ERROR", "--json", "--store", store)
    activities = [json.loads(line)["activity_id"] for line in asked.stdout.splitlines()]
    assert sorted(activities) == ["evaluate", "fit"]


def test_a_demo_that_is_ended_ends_its_sweep(clean_env: Path, tmp_path: Path) -> None:
    demo = Child([sys.executable, "-m", "provd", "demo"], log=tmp_path / "log", env=dict(os.environ))
    sweep: list[int] = []

    def has_workers() -> bool:
        sweep[:] = _below(demo.pid, SWEEP.name)
        return len(sweep) > 1

    demo.start()
    try:
        wait_until(has_workers, timeout=60, what="no worker of the sweep")

        demo.send(signal.SIGTERM)

        assert demo.wait() == 143, demo.tail()
        wait_until(lambda: not any(map(_is_alive, sweep)), timeout=60, what="the sweep goes on")
    finally:
        demo.kill()


def _below(pid: int, script: str) -> list[int]:
    """The processes of a script, and of its workers, below a process."""
    children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    found = [child for child in children if script in Path(f"/proc/{child}/cmdline").read_text()]
    return [*found, *(each for child in children for each in _below(child, script))]


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_the_same_sweep_works_against_redis_and_mongodb(
    run_provd: RunProvd, redis_url: str, mongo_url: str, namespace: str
) -> None:
    # Given the demo's script, pointed at services by environment alone
    services = {"PROVD_BROKER_URL": redis_url, "PROVD_STORE_URL": mongo_url, "PROVD_NAMESPACE": namespace}
    ended = subprocess.run(
        [sys.executable, str(SWEEP), "--workers", "4", "--folds", "2"],
        env={**os.environ, **services}, capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    workflow_id = ended.stdout.split()[1]

    # When a consumer has brought it in
    consumed = run_provd(
        "consume", "--workflow-id", workflow_id, "--exit-when-done", "--grace", "30", env=services
    )
    assert consumed.returncode == 0, consumed.stderr

    # Then the store answers for it
    shown = json.loads(run_provd("runs", "show", workflow_id, "--json", env=services).stdout)
    assert shown["status"] == "DEGRADED"
    assert shown["campaign_id"] == "handwritten-digits"
    assert run_provd("runs", "verify", workflow_id, env=services).returncode == 0
