"""Values that can be followed: objects, files, declared keys, and what a program states."""

import tempfile
from pathlib import Path

import provd


class Model:
    def __init__(self):
        self.weights = [0.0]


@provd.task
def fit(model, table):
    model.weights.append(1.0)
    return model


@provd.task
def convert(raw: provd.File) -> provd.File:
    table = provd.File(Path(raw).with_suffix(".csv"))
    with open(raw) as source, open(table, "w") as target:
        target.write(source.read().upper())
    return table


@provd.task
def check():
    return provd.current_task_id()


with tempfile.TemporaryDirectory() as folder, provd.workflow("lineage"):
    raw = Path(folder) / "raw.dat"
    raw.write_text("a,b\n")
    table = convert(provd.File(raw))
    model = fit(fit(Model(), table), table)
    with provd.Task("publish", used={"model": model}, depends_on=check()) as task:
        task.generated(version=provd.Key("model/1", len(model.weights)))
