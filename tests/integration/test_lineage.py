"""Lineage from the program to the answer: real producers, a real consumer, both stores."""

from __future__ import annotations

from collections.abc import Callable

from provd.common import names
from provd.query.lineage import Lineage, trace
from provd.store.interface import Store
from tests.streams import Script

Collect = Callable[[], None]


def task_of(store: Store, activity: str, **fields: object) -> str:
    """The id of the one task of an activity."""
    (found,) = store.find(names.TASKS, {"activity_id": activity, **fields})
    return str(found["task_id"])


def ways(lineage: Lineage) -> set[tuple[str, str, str]]:
    """Edges by the activities at their ends, and their kinds."""
    activities = {node.task_id: node.activity_id for node in lineage.nodes}
    return {(activities[edge.source], activities[edge.target], edge.kind) for edge in lineage.edges}


IN_MEMORY = """
    import numpy, provd

    class Model:
        def __init__(self):
            self.steps = 0

    @provd.task
    def make():
        return Model()

    @provd.task
    def first(model):
        model.steps += 1
        return model

    @provd.task(light=True)
    def second(model):
        return {"trained": [model]}

    @provd.task
    def predict(model, data):
        return numpy.ones(3)

    @provd.task
    def third(model):
        return model

    @provd.task
    def score(prediction):
        return 0.5

    @provd.task
    def unrelated(data):
        return 1

    with provd.workflow("memory"):
        data = numpy.zeros(4)
        model = third(second(first(make()))["trained"][0])
        score(predict(model, data))
        unrelated(data)
        third(model)
"""


def test_objects_and_arrays_are_followed_from_result_to_argument(
    script: Script, collect: Collect, store: Store
) -> None:
    """A model that each step changes and hands on: each step came of the one before it, and of no later one."""
    script.run(IN_MEMORY)
    collect()

    up = trace(store, task_of(store, "score"))
    down = trace(store, task_of(store, "second"), up=False, down=True)

    assert ways(up) == {
        ("predict", "score", "value"),
        ("third", "predict", "value"),
        ("second", "third", "value"),
        ("first", "second", "value"),
        ("make", "first", "value"),
    }
    assert all(edge.candidates == 1 for edge in up.edges)
    assert len(up.nodes) == 6
    assert ("second", "third", "value") in ways(down)
    assert "unrelated" not in {node.activity_id for node in down.nodes}


FILES = """
    import os, sys, provd

    @provd.task
    def convert(raw: provd.File) -> provd.File:
        table = provd.File("table.csv")
        with open(raw) as source, open(table, "w") as target:
            target.write(source.read().upper())
        return table

    def train(table):
        with provd.Task("train", used={"table": provd.File(table)}) as t:
            with open("model.bin", "wb") as file:
                file.write(b"weights")
            t.generated(model=provd.File("model.bin"), score=provd.Key("score/1", 0.9))

    with open("raw.dat", "w") as file:
        file.write("a,b\\n")
    with provd.workflow("prepare", campaign_id="exp"):
        train(convert(provd.File("raw.dat")))
"""

READERS = """
    import pathlib, provd

    @provd.task
    def deploy(model):
        pass

    @provd.task
    def report(score):
        pass

    @provd.task
    def overwrite(path):
        pathlib.Path(path).write_bytes(b"other weights")

    @provd.task
    def too_late(model):
        pass

    with provd.workflow("use", campaign_id="exp"):
        deploy(provd.File(pathlib.Path("model.bin")))
        report(provd.Key("score/1"))
        overwrite("model.bin")
        too_late(provd.File("model.bin"))
"""


def test_files_and_keys_are_followed_across_processes_and_workflows(
    script: Script, collect: Collect, store: Store
) -> None:
    script.run(FILES)
    script.run(READERS)
    collect()

    down = trace(store, task_of(store, "convert"), up=False, down=True)

    assert ways(down) == {
        ("convert", "train", "value"),
        ("train", "deploy", "value"),
        ("train", "report", "value"),
    }
    (made,) = store.find(names.TASKS, {"activity_id": "train"})
    model = made["generated"]["model"]
    assert {name: model[name] for name in ("type", "path", "size")} == {
        "type": "provd.File",
        "path": str(script.folder / "model.bin"),
        "size": 7,
    }
    assert made["generated"]["score"] == {"type": "provd.Key", "key": "score/1", "value": 0.9}


STATED = """
    import provd

    @provd.task
    def part(number):
        return provd.current_task_id()

    @provd.task
    def merge(ids):
        provd.depends_on(ids[0], ids[1:])
        return finish()

    @provd.task
    def finish():
        return 1

    with provd.workflow("stated"):
        merge([part(number) for number in range(3)])
        setup = provd.Task("setup")
        setup.end()
        with provd.Task("main", depends_on=[setup, "elsewhere"]):
            pass
    assert provd.current_task_id() is None
    provd.depends_on("nothing")
"""


def test_what_a_program_states_and_who_called_whom_are_kept_apart(
    script: Script, collect: Collect, store: Store
) -> None:
    script.run(STATED)
    collect()

    finish = trace(store, task_of(store, "finish"))
    main = trace(store, task_of(store, "main"))

    assert ways(finish) == {("merge", "finish", "call"), ("part", "merge", "dependency")}
    assert len(finish.nodes) == 5
    assert ways(main) == {("setup", "main", "dependency"), ("", "main", "dependency")}
