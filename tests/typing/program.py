"""A user's program: type checkers see the real signatures through every decorator. It is checked, and never run."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import provd

if TYPE_CHECKING:
    from typing_extensions import assert_type


@provd.task
def train(lr: float, epochs: int = 3) -> dict[str, float]:
    """A bare decorator."""
    return {"loss": lr * epochs}


@provd.task(outputs=("loss", "steps"), tags=["fast"], metadata={"owner": "ada"}, subtype="training")
def step(n: int, *, name: str) -> tuple[float, int]:
    """A decorator with options."""
    return float(n), len(name)


@provd.task
async def fetch(url: str) -> bytes:
    """A coroutine function."""
    return url.encode()


@provd.workflow("nightly")
def main(argv: list[str]) -> int:
    """A workflow as a decorator."""
    return len(argv)


def use(parser: argparse.ArgumentParser) -> None:
    """Every public name, as it is meant to be used."""
    provd.add_arguments(parser)
    with provd.workflow("sweep", campaign_id="exp42", args={"lr": 0.1}) as workflow:
        assert_type(workflow.workflow_id, str | None)
        assert_type(train(0.1, epochs=2), dict[str, float])
        assert_type(step(1, name="a"), tuple[float, int])
        assert_type(main([]), int)
        assert_type(provd.wrap(train)(0.1), dict[str, float])
        assert_type(provd.flush(timeout=1.0), bool)
        provd.count(rows_in=150, seconds=0.5)
    with provd.workflow("etl", input_fingerprint=[provd.File("a"), "b"], code_ref="r1", config_hash="x"):
        pass
    with provd.workflow("etl", input_fingerprint={"train": provd.File("a")}):
        pass
    for epoch in provd.loop(range(3), name="epoch", item="epoch"):
        assert_type(epoch, int)
    for turn in provd.loop(3, light=True):
        assert_type(turn, int)
    with provd.loop(["a", "b"]) as letters:
        for letter in letters:
            assert_type(letter, str)
            letters.record(loss=0.5)
        assert_type(len(letters), int)
    with provd.Task("download", used={"url": "u"}) as task:
        task.generated(bytes=4)
    provd.Task("event").send()

    train("fast")  # type: ignore[arg-type]
    step(1, "a")  # type: ignore[call-arg]
    provd.loop(3.5)  # type: ignore[call-overload]
    provd.task(outputs=3)(use)  # type: ignore[call-overload]


def ask() -> None:
    """What a program asks of a store."""
    with provd.query.connect("sqlite:///provd.db") as books:
        assert_type(books, provd.query.Connection)
        run = books.run("last")
        assert_type(run, provd.query.RunView)
        assert_type(run.status, str)
        assert_type(run.task_counts, Mapping[str, int])
        assert_type(run.verify().complete, bool)
        tasks = run.tasks(
            "used.lr > 0.01", status=["ERROR", "LOST"], sort="-duration", fields="used", limit=3
        )
        assert_type(tasks, provd.query.Tasks)
        assert_type(tasks.count(), int)
        for task in tasks:
            assert_type(task, dict[str, Any])
        for other in books.runs(campaign_id="exp42", limit=5):
            assert_type(other, provd.query.RunView)
        assert_type(books.runs()[0], provd.query.RunView)
        assert_type(books.runs()[:2], provd.query.Runs)
        assert_type([node.task_id for node in run.lineage("t", down=True).nodes], list[str])

        books.run(3)  # type: ignore[arg-type]
        run.tasks(limits=3)  # type: ignore[call-arg]


async def wait() -> None:
    """A captured coroutine is awaited as before."""
    assert_type(await fetch("u"), bytes)


handler: Callable[[float, int], dict[str, float]] = train
