"""A campaign as people run it, made with real producers and a real consumer: what docs/query.md asks about.

| run | |
|---|---|
| `prepare` | makes `table.csv` of `raw.csv` |
| `night1` | a sweep of one rank, by an earlier commit |
| `night2` | the same of four ranks on three hosts, with two kinds of failures |
| `slurm-7002-r0`, `slurm-7002-r1` | a job that ran out of its time, and was requeued |
| `long` | still running: its task began two hours ago |
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from provd.common.record import Kind
from tests.integration.consuming import consume
from tests.services.waiting import wait_until
from tests.streams import Streams

#: What `.git` says in the two checkouts.
FIRST_COMMIT = "1a2b3c4d" * 5
SECOND_COMMIT = "9fceb02d" * 5

#: A host by environment: `provd` takes the name from the system.
_HOST = """
import os

system = list(os.uname())
system[1] = os.environ["NODE"]
os.uname = lambda: os.uname_result(system)
"""

_PREPARE = """
import provd

@provd.task(outputs="table")
def convert(raw):
    with open(raw) as source, open("table.csv", "w") as table:
        table.write(source.read().upper())
    return provd.File("table.csv")

with provd.workflow("prepare", workflow_id="prepare", own=True, campaign_id="crystals"):
    convert(provd.File("raw.csv"))
"""

_SWEEP = """
import math, os, sys, time
import provd

run, seed, rank, host = sys.argv[1], int(sys.argv[2]), int(os.environ["RANK"]), os.environ["NODE"]

def steps(count):
    began = round(time.time() * 1000) - 60_000
    for step in range(count):
        slow = 900 if host == "node03" and step % 25 == 24 else 0
        provd.Task("train_step", used={"step": step}, started_at=began).end(ended_at=began + 10 + step % 5 + slow)

@provd.task(outputs="checkpoint")
def train(lr, layers, table):
    loop = provd.loop(range(3), name="epoch", item="epoch")
    for epoch in loop:
        loop.record(loss=math.nan if lr == 1.0 and epoch else 1 / (1 + epoch + layers))
    steps(50)
    path = f"{run}-{lr}-{layers}.pt"
    with open(path, "w") as file:
        file.write(f"{seed} {lr} {layers}")
    return provd.File(path)

@provd.task(tags=["score"])
def evaluate(lr, layers, checkpoint):
    provd.count(tokens=1000, llm_calls=2)
    if lr == 1.0:
        raise ValueError("the loss is not a number")
    if host == "node02" and layers == 4:
        raise OSError(28, "No space left on device")
    return {"acc": round(0.9 - abs(lr - 0.01) + layers / 100, 4)}

with provd.workflow(
    "sweep", workflow_id=run, own=rank == 0, campaign_id="crystals", args={"seed": seed, "layers": [2, 4]}
):
    lr = (0.01, 0.001, 0.1, 1.0)[rank]
    for layers in (2, 4):
        checkpoint = train(lr, layers, provd.File("table.csv"))
        try:
            evaluate(lr, layers, checkpoint)
        except (ValueError, OSError):
            pass
"""

_JOB = """
import os
import provd

with provd.workflow("relax", workflow_id="auto", own=True, campaign_id="crystals"):
    with provd.Task("relax", used={"structure": "NaCl"}) as task:
        if os.environ["SLURM_RESTART_COUNT"] == "0":
            raise TimeoutError("the job's time is over")
        task.generated(energy=-8.1)
"""

_LONG = """
import sys, time
import provd

with provd.workflow("long", workflow_id="long", own=True, campaign_id="crystals"):
    with provd.Task("simulate", used={"atoms": 4096}, started_at=round(time.time() * 1000) - 7_200_000):
        sys.stdin.read()
"""


@dataclass(frozen=True, slots=True)
class _Site:
    """Where the campaign runs: a folder for its files, beside two checkouts of its code."""

    folder: Path
    environment: Mapping[str, str]

    def checkout(self, name: str, commit: str) -> Path:
        place = self.folder / name
        (place / ".git").mkdir(parents=True)
        (place / ".git" / "HEAD").write_text(f"{commit}\n")
        (place / ".git" / "config").write_text("")
        for program, text in (
            ("prepare", _PREPARE), ("sweep", _SWEEP), ("job", _JOB), ("long", _LONG),
        ):  # fmt: skip
            (place / f"{program}.py").write_text(textwrap.dedent(_HOST + text))
        return place

    def run(self, program: Path, *args: str, node: str = "node01", ends: int = 0, **environ: str) -> None:
        self.wait(self.start(program, *args, node=node, **environ), ends)

    def start(self, program: Path, *args: str, node: str = "node01", **environ: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, str(program), *args], cwd=self.folder, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**self.environment, "NODE": node, **environ},
        )  # fmt: skip

    def wait(self, process: subprocess.Popen[str], ends: int = 0) -> None:
        out, errors = process.communicate(timeout=120)
        assert process.returncode == ends, out + errors


def _run_until_said(process: subprocess.Popen[str], streams: Streams) -> None:
    """End a program once it has said that its task runs: whoever reads then knows no more."""
    try:
        wait_until(lambda: any(task["activity_id"] == "simulate" for task in streams.records(Kind.TASK)), 30)
    finally:
        process.kill()
        process.communicate()


def run_campaign(folder: Path, *, redis_url: str, store_url: str, namespace: str) -> None:
    """Run it below `folder`, and have a consumer bring it into the store."""
    plain = {
        name: value for name, value in os.environ.items() if not name.startswith(("PROVD_", "SLURM_", "PMI"))
    }
    here = {"PROVD_BROKER_URL": redis_url, "PROVD_NAMESPACE": namespace, "PROVD_DATA_DIR": f"{folder}/provd"}
    site = _Site(folder, {**plain, **here, "HOME": str(folder), "USER": "ada"})
    earlier, later = site.checkout("earlier", FIRST_COMMIT), site.checkout("later", SECOND_COMMIT)
    (folder / "raw.csv").write_text("na,cl\n")

    site.run(earlier / "prepare.py")
    site.run(earlier / "sweep.py", "night1", "1", RANK="0", WORLD_SIZE="1", SLURM_JOB_ID="6990")
    ranks = enumerate(("node01", "node01", "node02", "node03"))
    parts = [
        site.start(
            later / "sweep.py", "night2", "2", node=node, RANK=str(rank), WORLD_SIZE="4", SLURM_JOB_ID="7001"
        )
        for rank, node in ranks
    ]
    for part in parts:
        site.wait(part)
    site.run(later / "job.py", ends=1, SLURM_JOB_ID="7002", SLURM_RESTART_COUNT="0")
    site.run(later / "job.py", SLURM_JOB_ID="7002", SLURM_RESTART_COUNT="1")
    _run_until_said(site.start(later / "long.py", node="node04"), Streams(redis_url, namespace))
    slots = folder / "slots"
    slots.mkdir()
    consume(redis_url, store_url, namespace, folder, slots)
