"""Who and where a process is, from its environment."""

from __future__ import annotations

import pytest

from provd.producer.identity import automatic_id, read_identity

SLURM = {"SLURM_JOB_ID": "77", "SLURM_CLUSTER_NAME": "big", "SLURM_PROCID": "3", "SLURM_NTASKS": "8"}


@pytest.mark.parametrize(
    ("environ", "rank", "world_size"),
    [
        ({}, None, None),
        ({"RANK": "1", "WORLD_SIZE": "4", **SLURM, "SLURM_STEP_ID": "0"}, 1, 4),
        ({"OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_SIZE": "3"}, 2, 3),
        ({**SLURM, "SLURM_STEP_ID": "0"}, 3, 8),
        (SLURM, None, None),
        ({"RANK": "first", "PMI_RANK": "0", "PMI_SIZE": "2"}, 0, 2),
        ({"RANK": "5", "WORLD_SIZE": "2"}, 5, None),
    ],
    ids=[
        "none",
        "torchrun-first",
        "openmpi",
        "slurm-step",
        "slurm-batch-script",
        "nonsense",
        "impossible-size",
    ],
)
def test_the_rank_is_that_of_the_launcher_that_comes_first(
    environ: dict[str, str], rank: int | None, world_size: int | None
) -> None:
    identity = read_identity(environ)

    assert (identity.rank, identity.world_size) == (rank, world_size)


@pytest.mark.parametrize(
    ("environ", "name", "job_id"),
    [
        (SLURM, "slurm", "77"),
        ({"PBS_JOBID": "12.server", "JOB_ID": "9"}, "pbs", "12.server"),
        ({"JOB_ID": "9", "SGE_ROOT": "/sge"}, "sge", "9"),
    ],
)
def test_the_job_is_that_of_the_scheduler(environ: dict[str, str], name: str, job_id: str) -> None:
    scheduler = read_identity(environ).scheduler

    assert (scheduler["name"], scheduler["job_id"]) == (name, job_id)


def test_a_job_id_of_unknown_make_is_no_job() -> None:
    assert read_identity({"JOB_ID": "9"}).scheduler == {}


def test_the_user_is_named_by_the_environment_or_by_this_host() -> None:
    assert read_identity({"USER": "ada"}).user == "ada"
    assert read_identity({}).user != ""


@pytest.mark.parametrize(
    ("environ", "workflow_id", "attempt", "predecessor"),
    [
        ({**SLURM, "SLURM_STEP_ID": "0"}, "big-77-0-r0", 1, None),
        ({**SLURM, "SLURM_STEP_ID": "0", "SLURM_RESTART_COUNT": "2"}, "big-77-0-r2", 3, "big-77-0-r1"),
        ({**SLURM, "SLURM_JOB_START_TIME": "1795"}, "big-77-r0-1795", 1, None),
        ({**SLURM, "SLURM_ARRAY_JOB_ID": "70", "SLURM_ARRAY_TASK_ID": "5"}, "big-70-5-r0", 1, None),
        ({"PBS_JOBID": "12[3].server"}, "pbs-12.3..server-r0", 1, None),
    ],
)
def test_every_rank_of_a_step_derives_the_same_id(
    environ: dict[str, str], workflow_id: str, attempt: int, predecessor: str | None
) -> None:
    found = automatic_id(environ)

    assert found is not None
    assert (found.workflow_id, found.attempt, found.predecessor) == (workflow_id, attempt, predecessor)


def test_outside_of_a_job_there_is_no_automatic_id() -> None:
    assert automatic_id({}) is None
