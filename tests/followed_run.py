"""A run whose tasks hand on files, keys and objects, with something of everything that exports tell."""

from __future__ import annotations

from typing import Any

from provd.common.record import Status
from provd.store.interface import Store
from tests.builders import ProducerBuilder

RAW, TABLE, MODEL = "a" * 64, "b" * 64, "c" * 64


def file(path: str, sha256: str) -> dict[str, Any]:
    """A file as a task records it."""
    return {"type": "provd.File", "path": path, "size": 12, "sha256": sha256}


def followed_run(store: Store, workflow_id: str = "alpha") -> dict[str, str]:
    """The run of `p1` and `p2`, by ada; gives the ids of its tasks by activity."""
    owner = ProducerBuilder(workflow_id, f"p1-{workflow_id}", "exp42", rank=0).open()
    owner.workflow(Status.RUNNING, name="sweep")
    ids = {}
    ids["convert"] = owner.task(
        "convert",
        used={"raw": file("/data/raw é.csv", RAW), "rows": 3},
        generated={"table": file("/data/table.csv", TABLE)},
        tags=["first", "second"],
    )
    ids["train"] = owner.task(
        "train",
        after_ms=300,
        used={"table": file("/data/table.csv", TABLE), "lr": 0.1},
        generated={
            "model": file("/data/model.pt", MODEL),
            "state": {"type": "provd.Key", "key": "state/1"},
            "net": {"type": "app.Net", "object": "0123456789abcdefghijkl#7", "version": 2},
        },
        depends_on=[ids["convert"]],
        agent_id="tuner",
    )
    ids["step"] = owner.task("step", after_ms=310, parent_task_id=ids["train"])
    other = ProducerBuilder(workflow_id, f"p2-{workflow_id}", "exp42", hostname="node02", rank=1).open()
    ids["again"] = other.task(
        "again", after_ms=400, used={"lr": 0.2}, generated={"model": file("/data/model.pt", MODEL)}
    )
    ids["evaluate"] = other.task(
        "evaluate",
        Status.ERROR,
        after_ms=500,
        used={"model": file("/data/model.pt", MODEL)},
        stderr="ValueError: nan",
        traceback="Traceback (most recent call last):\nValueError: nan\n",
    )
    ids["sleep"] = other.task("sleep", Status.RUNNING, after_ms=600, used={})
    owner.workflow(
        name="sweep",
        user="ada",
        args={"lr": 0.1},
        code={"repository": "https://host.example/ada/exp.git", "commit": "0123abc", "dirty": True},
    )
    owner.close().write(store)
    other.close().write(store)
    return ids
