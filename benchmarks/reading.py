"""How long people wait for an answer while millions of tasks are stored.

- The store has the schema and indexes of production, and documents made by the store's own code; only the way in is a
  shorter one (`programs/read_load.py`), and indexes are built when all is there.
- What is timed is what a command asks: all questions to the store, and beside them the whole call of the query layer.
- Which indexes the server used is asked of its profiler, for every question of every command.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import quantiles
from typing import Any

import pymongo

from benchmarks.figure import Figure, Form, Target
from benchmarks.runs import Program
from benchmarks.services import mongo_server, scratch
from provd.common import names
from provd.store.open import open_store

_TASKS_PER_RUN = 10_000


@dataclass(frozen=True, slots=True)
class _Size:
    """Runs of 10,000 tasks in MongoDB and in the embedded store, the tasks of one large run, and how often to ask."""

    runs: int
    embedded_runs: int
    large: int
    rounds: int


_SIZES = {
    Form.QUICK: _Size(runs=20, embedded_runs=4, large=200_000, rounds=20),
    Form.FULL: _Size(runs=100, embedded_runs=20, large=500_000, rounds=100),
    Form.NIGHTLY: _Size(runs=500, embedded_runs=100, large=5_000_000, rounds=200),
}

_COMMANDS = {
    "show": "provd runs show RUN",
    "verify": "provd runs verify RUN",
    "tail": "provd runs tail",
    "tasks of a run": "provd tasks -w RUN",
    "tasks by status": "provd tasks -w RUN -s ERROR",
    "tasks by activity": "provd tasks -w RUN -a ACTIVITY",
    "tasks of a campaign": "provd tasks --campaign-id ID -s ERROR",
}

#: What must answer within a tenth of a second; the others are given to be compared with.
_JUDGED = frozenset(_COMMANDS) - {"tail", "tasks of a campaign"}
_TARGET_MS = 100.0
_LARGE_TARGET_S = 15.0
_LARGE_TARGET_TASKS = 5_000_000


def measure(form: Form) -> Iterator[Figure]:
    """Both stores: each command, and one large run."""
    size = _SIZES[form]
    with mongo_server() as server:
        url = server.database_url("reading")
        _fill_mongo(url, runs=size.runs, tasks=_TASKS_PER_RUN)
        yield from _figures("MongoDB", url, size.runs, size.rounds, server.child.pid)
        large = server.database_url("large")
        _fill_mongo(large, runs=1, tasks=size.large)
        yield _large("MongoDB", large, size.large, server.child.pid)
    with scratch() as folder:
        url = f"sqlite:///{folder / 'reading.db'}"
        _fill_embedded(url, runs=size.embedded_runs, tasks=_TASKS_PER_RUN)
        yield from _figures("embedded", url, size.embedded_runs, size.rounds)


def _fill_mongo(url: str, *, runs: int, tasks: int) -> None:
    """Load by two processes without secondary indexes on tasks, then build those that the migrations made."""
    store = open_store(url)
    store.migrate()
    store.close()
    client: pymongo.MongoClient[dict[str, Any]] = pymongo.MongoClient(url)
    with client:
        collection = client.get_default_database()[names.TASKS]
        indexes = {name: facts for name, facts in collection.index_information().items() if name != "_id_"}
        collection.drop_indexes()
        middle = (runs + 1) // 2
        parts = [
            _loading(url, first, last, tasks) for first, last in ((0, middle), (middle, runs)) if first < last
        ]
        loaders = [part.start() for part in parts]
        for loader in loaders:
            loader.communicate()
            if loader.returncode != 0:
                raise RuntimeError("loading failed")
        for name, facts in indexes.items():
            options = {key: value for key, value in facts.items() if key == "partialFilterExpression"}
            collection.create_index(facts["key"], name=name, **options)


def _fill_embedded(url: str, *, runs: int, tasks: int) -> None:
    store = open_store(url)
    store.migrate()
    store.close()
    _loading(url, 0, runs, tasks).run()


def _loading(url: str, first: int, last: int, tasks: int) -> Program:
    return Program("read_load", (json.dumps({"url": url, "runs": [first, last], "tasks": tasks}),))


def _figures(where: str, url: str, runs: int, rounds: int, server: int | None = None) -> Iterator[Figure]:
    said = Program("read_ask", (json.dumps({"url": url, "rounds": rounds, "server": server}),)).run()
    for command, samples in said["commands"].items():
        note = (
            f"p95 of {rounds} calls over {runs} runs of {_TASKS_PER_RUN:,} tasks, all questions to the store together;"
            f" medians are {_middle(samples['store']):.3g} ms, and with the query layer {_middle(samples['whole']):.3g} ms"
            f" (p95 {_p95(samples['whole']):.3g} ms); CPU of client and server {samples['cpu']:.3g} ms a call"
        )
        plans = said["plans"].get(command)
        if plans:
            scanned = ", ".join(plans["scanned"]) or "none"
            note += (
                f"; {plans['questions']} questions, collections read without an index: {scanned};"
                f" {plans['keys']:,} keys and {plans['documents']:,} documents examined for {plans['returned']:,} returned"
            )
        yield Figure(
            what=f"{_COMMANDS[command]}, {where}, {runs * _TASKS_PER_RUN:,} tasks stored",
            unit="ms",
            ours=(_p95(samples["store"]),),
            target=Target(most=_TARGET_MS) if command in _JUDGED else None,
            note=note,
        )


def _large(where: str, url: str, tasks: int, server: int | None) -> Figure:
    given = {"url": url, "rounds": 3, "only": "show", "server": server}
    said = Program("read_ask", (json.dumps(given),)).run()
    samples = said["commands"]["show"]
    return Figure(
        what=f"provd runs show of a run of {tasks:,} tasks, {where}",
        unit="s",
        ours=tuple(each / 1000 for each in samples["whole"]),
        target=Target(most=_LARGE_TARGET_S) if tasks >= _LARGE_TARGET_TASKS else None,
        note=(
            "the whole call of the query layer, exact quantiles; the target is for 5,000,000 tasks (nightly);"
            f" CPU of client and server {samples['cpu'] / 1000:.3g} s; {samples['steps']} pieces, each of which moves the"
            f" progress bar; {samples['mib']:.0f} MiB of memory"
        ),
    )


def _p95(samples: list[float]) -> float:
    return quantiles(samples, n=20, method="inclusive")[-1] if len(samples) > 1 else samples[0]


def _middle(samples: list[float]) -> float:
    return sorted(samples)[len(samples) // 2]
