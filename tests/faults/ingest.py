"""What the scale-out tests ingest: producers in processes of their own, that work a part at a time when told to.

A part ends with a flush: all of it is then accepted, by Redis or by the disk.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from provd.common.spool import spool_files
from tests.conftest import RunProvd

_PRODUCER = """
import sys, time
import provd

workflow_id, number = sys.argv[1], int(sys.argv[2])

@provd.task
def step(producer, index):
    return {"product": producer * index}

done = 0
with provd.workflow("part", workflow_id=workflow_id):
    for line in sys.stdin:
        count, pause = line.split()
        for index in range(done, done + int(count)):
            step(number, index)
            if index % 50 == 49:
                time.sleep(float(pause))
        done += int(count)
        provd.flush(60)
        print(done, flush=True)
"""


class Ingest:
    """Some producers in each of some workflows, in step."""

    def __init__(
        self, folder: Path, services: Mapping[str, str], workflows: Sequence[str], *, each: int
    ) -> None:
        """`each` is the number of producers of a workflow; they start and wait for the first part."""
        folder.mkdir(parents=True, exist_ok=True)
        script = folder / "part.py"
        script.write_text(_PRODUCER)
        self.workflows = tuple(workflows)
        self.each = each
        #: Tasks of each producer so far.
        self.tasks = 0
        self._producers = [
            subprocess.Popen(
                [sys.executable, str(script), workflow, str(number)],
                env={**os.environ, **services},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for workflow in self.workflows
            for number in range(each)
        ]

    def begin(self, count: int, *, pause_s: float = 0.0) -> None:
        """Have each producer do `count` more tasks, with a pause after every fifty."""
        self.tasks += count
        for producer in self._producers:
            assert producer.stdin is not None
            producer.stdin.write(f"{count} {pause_s}\n")
            producer.stdin.flush()

    def finish(self) -> None:
        """Wait until all have done their part, and flushed it."""
        for producer in self._producers:
            assert producer.stdout is not None
            assert producer.stdout.readline() == f"{self.tasks}\n"

    def part(self, count: int, *, pause_s: float = 0.0) -> None:
        """A part from its beginning to its end."""
        self.begin(count, pause_s=pause_s)
        self.finish()

    def end(self) -> None:
        """Let the producers end their workflow, and wait for that."""
        for producer in self._producers:
            producer.communicate(timeout=60)
        assert [producer.returncode for producer in self._producers] == [0] * len(self._producers)

    def kill(self) -> None:
        """End what still runs."""
        for producer in self._producers:
            producer.kill()
            producer.communicate()

    def assert_every_task_is_stored_once(self, tasks: Any) -> None:
        """Nothing lost, nothing twice, nothing wrong, in this collection."""
        for workflow in self.workflows:
            assert self.stored(tasks, workflow) == [
                (number, index) for number in range(self.each) for index in range(self.tasks)
            ]
        assert tasks.count_documents({"status": {"$ne": "FINISHED"}}) == 0

    @staticmethod
    def stored(tasks: Any, workflow: str) -> list[tuple[int, int]]:
        """Producer and index of every task document of a workflow."""
        found = tasks.find({"workflow_id": workflow}, {"used": 1, "generated": 1})
        pairs = []
        for task in found:
            used = task["used"]
            assert task["generated"]["product"] == used["producer"] * used["index"]
            pairs.append((used["producer"], used["index"]))
        return sorted(pairs)


def bring_in_what_is_spooled(run_provd: RunProvd, services: Mapping[str, str]) -> None:
    """Replay what producers have not shipped by themselves before they ended."""
    folder = Path(services["PROVD_SPOOL_DIR"])
    if folder.is_dir() and spool_files([folder]):
        replayed = run_provd("replay", str(folder), env=services)
        assert replayed.returncode == 0, replayed.stderr


def verify(run_provd: RunProvd, workflow: str, services: Mapping[str, str]) -> dict[str, Any]:
    """What `provd runs verify` says of a workflow; its exit status agrees with it."""
    done = run_provd("runs", "verify", workflow, "--json", env=services)
    books: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == (0 if books["complete"] else 1)
    return books


def assert_complete(books: Mapping[str, Any]) -> None:
    """Every number is stored, and no producer is unclosed."""
    assert books["complete"] is True, books
    assert books["produced"] == books["stored"]
    assert (books["missing"], books["dropped"], books["spooled"], books["quarantined"]) == (0, 0, 0, 0)
    assert books["unclosed"] == []
