"""Ask what commands ask, again and again, and say how long the store took and how long the whole call.

The argument is one JSON object: `url`, `rounds`, `server` (its process id, where there is one), and `only` where one
command is enough. With MongoDB every command is
then run once more under the server's profiler, which says what indexes were used and how much was looked at.
"""

from __future__ import annotations

import json
import os
import random
import resource
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from provd.common import names
from provd.query.find import find_run
from provd.query.runs import list_runs
from provd.query.summary import summarise_run
from provd.query.tasks import TaskQuestion, find_tasks
from provd.store.books import read_books
from provd.store.open import open_store

_LIMIT = 51


class Timed:
    """A store that sums up how long its answers take."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.seconds = 0.0

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        if not callable(method):
            return method

        def timed(*args: Any, **options: Any) -> Any:
            began = time.perf_counter()
            answer = method(*args, **options)
            self.seconds += time.perf_counter() - began
            return self._streamed(answer) if isinstance(answer, Iterator) else answer

        return timed

    def _streamed(self, answer: Iterator[Any]) -> Iterator[Any]:
        while True:
            began = time.perf_counter()
            try:
                item = next(answer)
            except StopIteration:
                return
            finally:
                self.seconds += time.perf_counter() - began
            yield item


def cpu_seconds(server: int | None) -> float:
    """What this process and the server have computed so far: other programs on the machine do not count."""
    mine = time.process_time()
    if server is None:
        return mine
    fields = Path(f"/proc/{server}/stat").read_text().rpartition(")")[2].split()
    return mine + (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Steps:
    """How often progress was told."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, _done: int, _total: int) -> None:
        self.count += 1


def commands(store: Any, steps: Steps) -> dict[str, Callable[[str], Any]]:
    """What each command asks of a store, given a run."""

    def tasks(**conditions: Any) -> Any:
        return list(find_tasks(store, TaskQuestion(**conditions), limit=_LIMIT))

    return {
        "show": lambda run: summarise_run(store, find_run(store, run), progress=steps),
        "verify": lambda run: read_books(store, find_run(store, run)),
        "tail": lambda _run: list_runs(store),
        "tasks of a run": lambda run: tasks(workflow_id=find_run(store, run)),
        "tasks by status": lambda run: tasks(workflow_id=find_run(store, run), statuses=("ERROR",)),
        "tasks by activity": lambda run: tasks(workflow_id=find_run(store, run), activity_id="train_step"),
        "tasks of a campaign": lambda _run: tasks(campaign_id="campaign00", statuses=("ERROR",)),
    }


def profiled(store: Any, ask: Callable[[], Any]) -> dict[str, Any]:
    """What the server did for one command."""
    database = store._database
    database.drop_collection("system.profile")
    database.command("profile", 2)
    ask()
    database.command("profile", 0)
    seen = list(
        database["system.profile"].find(
            {"ns": {"$not": {"$regex": "system"}}, "op": {"$in": ["query", "command"]}}
        )
    )
    asked = [one for one in seen if "planSummary" in one]
    return {
        "questions": len(seen),
        "keys": sum(one.get("keysExamined", 0) for one in asked),
        "documents": sum(one.get("docsExamined", 0) for one in asked),
        "returned": sum(one.get("nreturned", 0) for one in asked),
        "scanned": sorted({one["ns"].partition(".")[2] for one in asked if "COLLSCAN" in one["planSummary"]}),
    }


def main() -> None:
    """Ask, and print the samples in milliseconds."""
    given = json.loads(sys.argv[1])
    opened = open_store(given["url"])
    store, steps = Timed(opened), Steps()
    runs = [record["workflow_id"] for record in opened.find(names.WORKFLOWS, {}, fields=["workflow_id"])]
    chance = random.Random(1)
    asked: dict[str, Any] = {}
    plans: dict[str, Any] = {}
    for name, ask in commands(store, steps).items():
        if given.get("only") not in (None, name):
            continue
        samples: dict[str, Any] = {"store": [], "whole": []}
        computed = cpu_seconds(given.get("server"))
        for _ in range(given["rounds"]):
            run = chance.choice(runs)
            store.seconds, steps.count, began = 0.0, 0, time.perf_counter()
            ask(run)
            samples["whole"].append((time.perf_counter() - began) * 1000)
            samples["store"].append(store.seconds * 1000)
        computed = (cpu_seconds(given.get("server")) - computed) * 1000 / given["rounds"]
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        asked[name] = samples | {"cpu": computed, "steps": steps.count, "mib": peak}
        if hasattr(opened, "_database"):
            plans[name] = profiled(opened, partial(ask, runs[0]))
    opened.close()
    print(json.dumps({"commands": asked, "plans": plans}))


if __name__ == "__main__":
    main()
