"""The Slurm job script, run for real but for Slurm: a stand-in `srun` starts the ranks on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import RunProvd
from tests.services.binaries import find_redis_server

_SBATCH = Path(__file__).resolve().parents[2] / "deploy" / "slurm" / "campaign.sbatch"

#: What Slurm's `srun` does for a job of two ranks on one node.
_SRUN = """#!/bin/bash
status=0
for rank in 0 1; do
    SLURM_STEP_ID=0 SLURM_PROCID=$rank SLURM_NTASKS=2 "$@" &
    ranks+=($!)
done
for rank in "${ranks[@]}"; do wait "$rank" || status=$?; done
exit "$status"
"""

_PROGRAM = """
import provd

@provd.task
def square(number):
    return {"result": number * number}

with provd.workflow("job"):
    for number in range(50):
        square(number)
"""


def _run_job(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    programs = folder / "bin"
    programs.mkdir()
    srun = programs / "srun"
    srun.write_text(_SRUN)
    srun.chmod(0o755)
    job = {
        "PATH": f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PROVD_REDIS_SERVER": str(find_redis_server().path),
        "PROVD_WORKFLOW_ID": "job-1",
        "CAMPAIGN_SCRATCH": str(folder),
        "SLURM_JOB_ID": "1",
        "SLURM_JOB_NUM_NODES": "1",
        "SLURM_SUBMIT_DIR": str(folder),
        # Slurm sets these in the script too, which is no rank.
        "SLURM_PROCID": "0",
        "SLURM_NTASKS": "2",
    }
    return subprocess.run(
        ["bash", _SBATCH, *command],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={**os.environ, **job},
        timeout=120,
    )


def test_a_job_ends_when_the_books_are_complete_and_leaves_the_records(
    tmp_path: Path, run_provd: RunProvd
) -> None:
    # When
    done = _run_job(tmp_path, sys.executable, "-c", _PROGRAM)

    # Then
    assert done.returncode == 0, done.stdout + done.stderr
    kept = tmp_path / "provd-job-1"
    store = {"PROVD_STORE_URL": f"sqlite:///{kept}/provd.db"}
    books = json.loads(run_provd("runs", "verify", "job-1", "--json", env=store).stdout)
    assert books["complete"] is True
    assert books["missing_ranks"] == []
    tasks = run_provd(
        "tasks", "--workflow-id", "job-1", "--limit", "1000", "--json", env=store
    ).stdout.splitlines()
    assert len(tasks) == 100
    assert not (kept / "redis").exists()
    assert list(tmp_path.glob("provd-1-*")) == [], "the scratch folder is still there"


def test_a_job_passes_on_the_status_of_its_ranks(tmp_path: Path) -> None:
    done = _run_job(tmp_path, sys.executable, "-c", _PROGRAM + "\nraise SystemExit(7)")

    assert done.returncode == 7, done.stdout + done.stderr
    assert (tmp_path / "provd-job-1" / "provd.db").exists()
