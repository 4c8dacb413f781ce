"""From the end of a task to the moment when readers find it: at half of what the consumer can take, and at rest.

- A reader asks the store what `provd tasks --activity probe` asks it, again and again; the real command is tried, too.
- Both ends read the one clock that processes of a machine share.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from statistics import quantiles

from benchmarks.draining import DATABASE, Stage
from benchmarks.figure import Figure, Form, Target
from benchmarks.runs import Program, clean_environment
from provd.query.tasks import TaskQuestion, find_tasks
from provd.store.interface import Store
from provd.store.open import open_store

#: Seconds of load; tasks in the backlog that gives the full rate.
_SECONDS = {Form.QUICK: 8.0, Form.FULL: 40.0, Form.NIGHTLY: 40.0}
_BACKLOG = {Form.QUICK: 60_000, Form.FULL: 200_000, Form.NIGHTLY: 200_000}

#: Seconds between two probes, under load and at rest, and between those that the command looks for.
_GAP_S = 0.05
_REST_GAP_S = 0.4
_COMMAND_GAP_S = 4.0
_COMMANDS = 4

#: Seconds between two questions of the reader, and probes that one question asks for.
_ASK_S = 0.004
_NEWEST = 60

#: Seconds after the last probe in which all of them must have been seen.
_LATE_S = 30.0

_TARGET = Target(most=1.0)


def measure(form: Form) -> Iterator[Figure]:
    """Its figures."""
    with Stage.set_up(appendonly="yes") as stage, closing(_store(stage)) as store:
        full = stage.drain_new(_BACKLOG[form]).rate
        seconds = _SECONDS[form]
        waits, reached = _watch(stage, store, "loaded", full / 2, _GAP_S, seconds)
        yield _figure(
            "end of a task to visible, at half load, 95 of 100",
            waits,
            f"{reached:,.0f} tasks/s of {full:,.0f} that this consumer stores from a backlog",
        )
        waits, _ = _watch(stage, store, "rested", 0.0, _REST_GAP_S, seconds / 2)
        yield _figure("the same, nothing else going on", waits, "")
        commands = 1 if form is Form.QUICK else _COMMANDS
        yield Figure(
            "end of a task to printed by `provd tasks`, nothing else going on",
            "s",
            tuple(_command_waits(stage, commands)),
            note="with the start of the command, which is begun when the task has ended",
        )


def _store(stage: Stage) -> Store:
    return open_store(stage.mongo.database_url(DATABASE))


def _figure(what: str, waits: list[float], note: str) -> Figure:
    cuts = quantiles(waits, n=100)
    middle = f"median {cuts[49]:.3f} s, longest {max(waits):.3f} s, {len(waits)} tasks"
    return Figure(what, "s", (cuts[94],), target=_TARGET, note=f"{middle}; {note}" if note else middle)


def _load(stage: Stage, workflow_id: str, rate: float, gap_s: float, seconds: float) -> Program:
    return Program(
        "visible_load",
        (workflow_id, str(rate), str(gap_s), str(seconds)),
        {"PROVD_BROKER_URL": stage.redis.url},
    )


def _watch(
    stage: Stage, store: Store, workflow_id: str, rate: float, gap_s: float, seconds: float
) -> tuple[list[float], float]:
    """The waits of all probes, and the rate that was reached."""
    ended: dict[int, float] = {}
    said: list[dict[str, float]] = []
    process = _load(stage, workflow_id, rate, gap_s, seconds).start()
    assert process.stdout is not None

    def listen(lines: Iterator[str]) -> None:
        for line in lines:
            if line.startswith("{"):
                said.append(json.loads(line))
            else:
                number, moment = line.split()
                ended[int(number)] = float(moment)

    listener = threading.Thread(target=listen, args=(process.stdout,))
    listener.start()
    seen: dict[int, float] = {}
    question = TaskQuestion(workflow_id=workflow_id, activity_id="probe")
    pause, over_at = threading.Event(), 0.0
    while not said or len(seen) < len(ended):
        for task in find_tasks(store, question, limit=_NEWEST):
            seen.setdefault(task["used"]["number"], time.monotonic())
        pause.wait(_ASK_S)
        if not listener.is_alive():
            over_at = over_at or time.monotonic()
            if not said or time.monotonic() - over_at > _LATE_S:
                raise RuntimeError(
                    f"{len(ended) - len(seen)} probes were never seen; {stage.consumer.tail()}"
                )
    listener.join()
    process.communicate()
    return [seen[number] - moment for number, moment in ended.items()], said[0]["rate"]


def _command_waits(stage: Stage, count: int) -> Iterator[float]:
    """Seconds from the end of a probe until the command has printed it, tried again until it does."""
    seconds = _COMMAND_GAP_S * (count + 0.5)
    process = _load(stage, "asked", 0.0, _COMMAND_GAP_S, seconds).start()
    assert process.stdout is not None
    command = [
        *(sys.executable, "-m", "provd", "tasks", "--json", "--workflow-id", "asked", "--activity", "probe"),
        *("--limit", "1", "--store", stage.mongo.database_url(DATABASE)),
    ]
    for line in process.stdout:
        if line.startswith("{"):
            break
        number, moment = line.split()
        wanted = {"number": int(number)}
        while True:
            printed = subprocess.run(
                command,
                env=clean_environment(),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
            ).stdout
            if printed and json.loads(printed)["generated"] == wanted:
                break
            if time.monotonic() - float(moment) > _LATE_S:
                raise RuntimeError(f"`provd tasks` never printed probe {number}: {printed}")
        yield time.monotonic() - float(moment)
    process.communicate()
