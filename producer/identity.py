"""Who and where this process is: host, user, scheduler job and rank.

Read from the environment and `/proc`; nothing is run and no name is resolved, because forking after `MPI_Init`
breaks jobs and ten thousand ranks asking the resolver break a site.

Rank: the first of the launchers' variables that is set. `SLURM_PROCID` comes last: Slurm sets it also where it does
not start the ranks.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

#: (rank, world size) by launcher, in order of precedence.
_RANK_VARIABLES = (
    ("RANK", "WORLD_SIZE"),
    ("PALS_RANKID", "PMI_SIZE"),
    ("PMIX_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE"),
    ("PMI_RANK", "PMI_SIZE"),
    ("FLUX_TASK_RANK", "FLUX_JOB_SIZE"),
    ("JSM_NAMESPACE_RANK", "JSM_NAMESPACE_SIZE"),
    ("SLURM_PROCID", "SLURM_NTASKS"),
)

#: Scheduler, and its variable with the job's id; SGE's is the most ambiguous and comes last.
_JOB_VARIABLES = (
    ("slurm", "SLURM_JOB_ID"),
    ("pbs", "PBS_JOBID"),
    ("lsf", "LSB_JOBID"),
    ("cobalt", "COBALT_JOBID"),
    ("flux", "FLUX_JOB_ID"),
    ("sge", "JOB_ID"),
)

#: Facts of the job that are kept, by the name they get.
_JOB_FACTS = {
    "slurm": {
        "cluster": "SLURM_CLUSTER_NAME",
        "array_job_id": "SLURM_ARRAY_JOB_ID",
        "array_task_id": "SLURM_ARRAY_TASK_ID",
        "step_id": "SLURM_STEP_ID",
        "restart_count": "SLURM_RESTART_COUNT",
        "start_time": "SLURM_JOB_START_TIME",
        "job_name": "SLURM_JOB_NAME",
        "account": "SLURM_JOB_ACCOUNT",
        "partition": "SLURM_JOB_PARTITION",
        "nodes": "SLURM_JOB_NUM_NODES",
        "node_list": "SLURM_JOB_NODELIST",
    },
    "pbs": {"array_task_id": "PBS_ARRAY_INDEX", "job_name": "PBS_JOBNAME", "queue": "PBS_QUEUE"},
    "lsf": {"array_task_id": "LSB_JOBINDEX", "job_name": "LSB_JOBNAME", "queue": "LSB_QUEUE"},
    "cobalt": {"job_name": "COBALT_JOBNAME"},
    "flux": {},
    "sge": {"array_task_id": "SGE_TASK_ID", "job_name": "JOB_NAME", "queue": "QUEUE"},
}


@dataclass(frozen=True, slots=True)
class Identity:
    """The facts of this process that its records carry."""

    hostname: str
    user: str
    rank: int | None
    world_size: int | None
    scheduler: dict[str, str]


def read_identity(environ: Mapping[str, str] | None = None) -> Identity:
    """The identity of this process. A nonsensical variable is passed over."""
    environ = os.environ if environ is None else environ
    rank, world_size = _rank(environ)
    return Identity(os.uname().nodename, _user(environ), rank, world_size, read_scheduler(environ))


def _user(environ: Mapping[str, str]) -> str:
    for variable in ("USER", "LOGNAME", "SLURM_JOB_USER"):
        if environ.get(variable):
            return environ[variable]
    return _local_name(os.getuid()) or str(os.getuid())


def _local_name(uid: int) -> str | None:
    """The user's name if this host's own file has it; the network's directory is not asked."""
    try:
        with open("/etc/passwd", encoding="utf-8", errors="replace") as stream:
            for line in stream:
                fields = line.split(":")
                if len(fields) > 2 and fields[2] == str(uid):
                    return fields[0]
    except OSError:
        pass
    return None


def _rank(environ: Mapping[str, str]) -> tuple[int | None, int | None]:
    for rank_variable, size_variable in _RANK_VARIABLES:
        if rank_variable == "SLURM_PROCID" and "SLURM_STEP_ID" not in environ:
            continue  # a batch script: Slurm calls it rank 0 of all, and starts no others
        rank = _number(environ.get(rank_variable))
        if rank is not None:
            size = _number(environ.get(size_variable))
            return rank, size if size is not None and size > rank else None
    return None, None


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() else None


def read_scheduler(environ: Mapping[str, str]) -> dict[str, str]:
    """The scheduler job this process runs in: `name`, `job_id` and what else is known; empty outside of one."""
    for name, variable in _JOB_VARIABLES:
        job_id = environ.get(variable)
        if job_id and (name != "sge" or "SGE_ROOT" in environ):
            facts = {key: environ[source] for key, source in _JOB_FACTS[name].items() if environ.get(source)}
            return {"name": name, "job_id": job_id} | facts
    return {}


@dataclass(frozen=True, slots=True)
class AutomaticId:
    """The workflow id that every rank of a job step derives alike, and where it stands among its restarts."""

    workflow_id: str
    attempt: int
    predecessor: str | None


def automatic_id(environ: Mapping[str, str] | None = None) -> AutomaticId | None:
    """The id for `--workflow-id auto`, or None outside of a scheduler's job.

    It is made of the cluster, the job, its array index, step and restart, and, where the scheduler tells it, the
    job's start, because job numbers wrap. A requeue is a new attempt with the one before as predecessor; when that
    one started is not known here, so its id without the start stands for it, which is a prefix of it.
    """
    job = read_scheduler(os.environ if environ is None else environ)
    if not job:
        return None
    restart = _number(job.get("restart_count")) or 0
    stem = [job.get("cluster") or job["name"], job.get("array_job_id") or job["job_id"]]
    stem += [job[key] for key in ("array_task_id", "step_id") if key in job]
    head = "-".join(re.sub(r"[^A-Za-z0-9._]+", ".", part) for part in stem)[:96]
    start = f"-{job['start_time']}" if "start_time" in job else ""
    predecessor = f"{head}-r{restart - 1}" if restart else None
    return AutomaticId(f"{head}-r{restart}{start}"[:128], restart + 1, predecessor)
