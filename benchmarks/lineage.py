"""How long a question of lineage takes in a workflow of a million tasks.

- The tasks have files, declared keys, stated dependencies and callers, and their links are derived by the store as it
  writes them.
- Each question is about another task, ten hops far, with several hundred tasks in its answer. What is timed is the
  whole call of the query layer.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from statistics import median, quantiles
from typing import Any

import pymongo

from benchmarks.figure import Figure, Form, Target
from benchmarks.runs import Program
from benchmarks.services import mongo_server, scratch
from provd.common import names
from provd.store.open import open_store

#: As `programs/lineage_load.py` has them.
_PRODUCER = "01m7zh4mhr95hy0g0q1gnk"
_PER_LAYER = 101

_LAYERS = {Form.QUICK: 200, Form.FULL: 9_901, Form.NIGHTLY: 9_901}
_ROUNDS = {Form.QUICK: 10, Form.FULL: 100, Form.NIGHTLY: 200}

_DEPTH = 10
_LIMIT = 1_000
_TARGET_S = 1.0


def measure(form: Form) -> Iterator[Figure]:
    """Both stores, up and down."""
    with mongo_server() as server:
        url = server.database_url("lineage")
        _fill_mongo(url, _LAYERS[form])
        yield from _figures("MongoDB", url, form)
    with scratch() as folder:
        url = f"sqlite:///{folder / 'lineage.db'}"
        store = open_store(url)
        store.migrate()
        store.close()
        _loading(url, 0, _LAYERS[form]).run()
        yield from _figures("embedded", url, form)


def _fill_mongo(url: str, layers: int) -> None:
    """Load by two processes without secondary indexes, then build those that the migrations made."""
    store = open_store(url)
    store.migrate()
    store.close()
    client: pymongo.MongoClient[dict[str, Any]] = pymongo.MongoClient(url)
    with client:
        database = client.get_default_database()
        collections = [database[name] for name in (names.TASKS, names.LINKS)]
        made = [collection.index_information() for collection in collections]
        for collection in collections:
            collection.drop_indexes()
        middle = layers // 2
        loaders = [_loading(url, *part).start() for part in ((0, middle), (middle, layers))]
        for loader in loaders:
            loader.communicate()
            if loader.returncode != 0:
                raise RuntimeError("loading failed")
        for collection, indexes in zip(collections, made):
            for name, facts in indexes.items():
                options = {key: value for key, value in facts.items() if key == "partialFilterExpression"}
                if name != "_id_":
                    collection.create_index(facts["key"], name=name, **options)


def _loading(url: str, first: int, last: int) -> Program:
    return Program("lineage_load", (json.dumps({"url": url, "layers": [first, last]}),))


def _figures(where: str, url: str, form: Form) -> Iterator[Figure]:
    layers, rounds = _LAYERS[form], _ROUNDS[form]
    asked = {
        "url": url,
        "rounds": rounds,
        "producer": _PRODUCER,
        "layers": layers,
        "per_layer": _PER_LAYER,
        "depth": _DEPTH,
        "limit": _LIMIT,
    }
    said = Program("lineage_ask", (json.dumps(asked),)).run()
    for direction, answers in said.items():
        seconds = [answer["seconds"] for answer in answers]
        tasks = [answer["tasks"] for answer in answers]
        yield Figure(
            what=f"provd lineage TASK --{direction} --depth {_DEPTH}, {where}, {layers * _PER_LAYER:,} tasks",
            unit="s",
            ours=(quantiles(seconds, n=20)[-1],),
            target=Target(most=_TARGET_S),
            note=(
                f"p95 of {rounds} questions of the query layer, median {median(seconds):.3g} s; the answers have"
                f" {min(tasks)} to {max(tasks)} tasks and reach {min(answer['hops'] for answer in answers)} hops"
            ),
        )
