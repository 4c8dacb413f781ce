"""`provd demo`: a real campaign on this machine, without any service installed, and what was captured of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from provd.cli.exits import FAILED
from provd.cli.options import settings_of
from provd.common import clock, names
from provd.common.errors import MissingExtra, NotFound, StoreError
from provd.common.record import Record
from provd.common.settings import Settings

if TYPE_CHECKING:
    from provd.store.interface import Store

#: Seconds between two looks at the store while the sweep runs.
_LOOK_S = 0.25

#: Seconds for the last records to arrive once the sweep has ended.
_SETTLE_S = 30.0

_BEST = 5

_SWEEP = Path("examples", "digits_sweep", "sweep.py")


@dataclass(frozen=True, slots=True)
class Share:
    """One worker's part of the sweep."""

    producer_id: str
    pid: int
    tasks: int
    seconds: float


def demo(
    context: typer.Context,
    workers: Annotated[
        int, typer.Option("--workers", min=4, max=64, help="Processes that share the sweep.")
    ] = 4,
    folder: Annotated[
        Optional[Path],
        typer.Option(
            "--folder", metavar="DIR", help="Where the demo keeps its records; else `demo` in data_dir."
        ),
    ] = None,
) -> None:
    """Run a hyper-parameter sweep on real data, capture it, and show what was captured.

    It needs no service: a private Redis and a store file in a folder of its own, both left there to be asked again.
    """
    settings = settings_of(context)
    home = (folder or settings.data_path / "demo").absolute()
    settings = replace(settings, data_dir=str(home), spool_dir=None, broker_url=None, store_url=None)
    _check_installed()
    from provd.consumer.embedded import EmbeddedRedis
    from provd.store.open import open_store

    store_url = f"sqlite:///{settings.embedded_store}"
    with EmbeddedRedis(settings.embedded_socket, settings.data_path / "redis") as server:
        environment = _environment(home, server.url, store_url)
        store = open_store(store_url)
        store.migrate()
        with _consuming(environment, home / "consume.log"):
            workflow_id = _sweep(store, environment, workers)
            _settle(store, workflow_id)
        complete = _show(store, workflow_id, settings)
        store.close()
    _say_how_to_go_on(store_url, workflow_id)
    if not complete:
        raise typer.Exit(FAILED)


def _check_installed() -> None:
    from importlib.util import find_spec

    if find_spec("sklearn") is None:
        raise MissingExtra("the demo's sweep (scikit-learn)", "demo")
    if find_spec("pymongo") is None or find_spec("mongomock") is None:
        raise MissingExtra("the embedded store", "embedded")


def _environment(home: Path, broker_url: str, store_url: str) -> dict[str, str]:
    others = {name: value for name, value in os.environ.items() if not name.startswith("PROVD_")}
    return {
        **others,
        "PROVD_DATA_DIR": str(home),
        "PROVD_BROKER_URL": broker_url,
        "PROVD_STORE_URL": store_url,
    }


@contextmanager
def _consuming(environment: dict[str, str], log: Path) -> Iterator[None]:
    """`provd consume`, as on a head node: a process of its own, ended by SIGTERM."""
    with log.open("ab") as output:
        consumer = subprocess.Popen(
            [sys.executable, "-m", "provd", "consume"],
            env=environment,
            stderr=output,
            stdin=subprocess.DEVNULL,
        )
    try:
        yield
    finally:
        consumer.terminate()
        consumer.wait(_SETTLE_S)


def _sweep(store: Store, environment: dict[str, str], workers: int) -> str:
    """Run the sweep to its end, showing progress as the store has it; the id of its workflow."""
    import provd

    script = Path(provd.__file__).parent / _SWEEP
    process = subprocess.Popen(
        [sys.executable, str(script), "--workers", str(workers)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        workflow_id = process.stdout.readline().removeprefix("workflow ").strip()
        ended = threading.Event()
        reader = threading.Thread(target=_await, args=(process, ended), name="provd-demo", daemon=True)
        reader.start()
        _show_progress(store, workflow_id, ended)
        reader.join()
    finally:
        process.terminate()  # where it has not ended, the demo is being stopped
    if process.returncode != 0 or not workflow_id:
        raise StoreError(f"the sweep {script} ended with exit status {process.returncode}")
    return workflow_id


def _await(process: subprocess.Popen[str], ended: threading.Event) -> None:
    process.communicate()
    ended.set()


def _show_progress(store: Store, workflow_id: str, ended: threading.Event) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("configurations stored", total=None)
        while True:
            last = ended.wait(_LOOK_S)
            total = _workflow(store, workflow_id).get("args", {}).get("configurations")
            done = store.count(names.TASKS, {**_evaluations(workflow_id), "status": {"$ne": "RUNNING"}})
            progress.update(bar, total=total, completed=done)
            if last:
                return


def _settle(store: Store, workflow_id: str) -> None:
    """Wait until the books are complete, or it takes too long: `verify` then says what is missing."""
    from provd.store.books import read_books

    deadline = clock.monotonic() + _SETTLE_S
    pause = threading.Event()
    while not read_books(store, workflow_id).complete and clock.monotonic() < deadline:
        pause.wait(_LOOK_S)


def _evaluations(workflow_id: str) -> Record:
    return {"workflow_id": workflow_id, "activity_id": "evaluate"}


def _workflow(store: Store, workflow_id: str) -> Record:
    return next(iter(store.find(names.WORKFLOWS, {"workflow_id": workflow_id}, limit=1)), {})


# --- what was captured -----------------------------------------------------------------------------------------


def _show(store: Store, workflow_id: str, settings: Settings) -> bool:
    from provd.cli import human, output
    from provd.query.summary import summarise_run

    summary = summarise_run(store, workflow_id, lost_after_s=settings.lost_after_s)
    run = summary.run
    output.print_line(
        f"Captured: run {workflow_id} ({run.name}) of campaign {run.campaign_id}: {run.status} after"
        f" {human.duration(run.duration)}"
    )
    _print_best(store, workflow_id)
    _print_shares(_shares(store, workflow_id))
    output.print_table(
        [output.Column("activity", firm=True), *(output.Column(name, right=True, firm=True) for name in _DURATIONS)],
        [
            [activity.activity_id, str(sum(activity.tasks.values())),
             *(human.duration(getattr(activity.durations, name, None)) for name in _DURATIONS[1:])]
            for activity in summary.activities
        ],
        title="How long they took",
    )  # fmt: skip
    _print_failures(store, workflow_id)
    output.print_line(f"\nverify: {summary.verdict}", style="green" if summary.complete else "red")
    return summary.complete


_DURATIONS = ("tasks", "median", "p95", "max")


def _best(store: Store, workflow_id: str) -> Sequence[Record]:
    """The best configurations, sorted by the store."""
    return list(
        store.find(
            names.TASKS,
            {**_evaluations(workflow_id), "status": "FINISHED"},
            fields=["used", "generated", "duration"],
            sort=[("generated.accuracy", -1), ("task_id", 1)],
            limit=_BEST,
        )
    )


def _print_best(store: Store, workflow_id: str) -> None:
    from provd.cli import human, output

    rows = []
    for task in _best(store, workflow_id):
        parameters = {name: value for name, value in task["used"].items() if name != "model"}
        generated = task["generated"]
        rows.append(
            [
                f"{generated['accuracy']:.4f}",
                f"{generated['worst']:.4f}",
                task["used"]["model"],
                human.pairs(parameters),
                human.duration(task["duration"]),
            ]
        )
    columns = [
        output.Column("accuracy", right=True, firm=True),
        output.Column("worst fold", right=True, firm=True),
        output.Column("model", firm=True),
        output.Column("parameters"),
        output.Column("took", right=True, firm=True),
    ]
    output.print_table(columns, rows, title="The best configurations")


def _shares(store: Store, workflow_id: str) -> list[Share]:
    """Tasks and seconds per worker, added up by the store."""
    pipeline = [
        {"$match": _evaluations(workflow_id)},
        {"$group": {"_id": "$producer_id", "tasks": {"$sum": 1}, "seconds": {"$sum": "$duration"}}},
        {"$sort": {"_id": 1}},
    ]
    producers = {
        record["producer_id"]: record for record in store.find(names.PRODUCERS, {"workflow_id": workflow_id})
    }
    return [
        Share(row["_id"], producers.get(row["_id"], {}).get("pid", 0), row["tasks"], row["seconds"])
        for row in store.aggregate(names.TASKS, pipeline)
    ]


def _print_shares(shares: Sequence[Share]) -> None:
    from provd.cli import human, output

    columns = [
        output.Column("producer", firm=True),
        output.Column("pid", right=True, firm=True),
        output.Column("configurations", right=True, firm=True),
        output.Column("busy", right=True, firm=True),
    ]
    rows = [
        [part.producer_id, str(part.pid), str(part.tasks), human.duration(part.seconds)] for part in shares
    ]
    output.print_table(columns, rows, title="Who did the work")


def _print_failures(store: Store, workflow_id: str) -> None:
    from provd.cli import human, output

    columns = [output.Column("status", firm=True, styles=output.STATUS_STYLES), output.Column("used", firm=True),
               output.Column("message", firm=True)]  # fmt: skip
    failed = store.find(
        names.TASKS, {**_evaluations(workflow_id), "status": "ERROR"}, sort=[("started_at", 1)]
    )
    rows = [[task["status"], human.pairs(task["used"]), task.get("stderr", "")] for task in failed]
    if not rows:
        raise NotFound("the task that fails on purpose is not in the store")
    output.print_table(columns, rows, title="What failed (one configuration is wrong on purpose)")


def _say_how_to_go_on(store_url: str, workflow_id: str) -> None:
    from provd.cli import output

    output.print_line("\nAsk it yourself:")
    # Not wrapped: it is there to be copied.
    sys.stdout.write(f"  export PROVD_STORE_URL={store_url}\n")
    for command in (f"runs show {workflow_id[:6]}", "tasks --status ERROR", "runs tail"):
        sys.stdout.write(f"  {_program()} {command}\n")


def _program() -> str:
    """How `provd` is called here: it need not be on `PATH`."""
    called = sys.argv[0]
    if Path(called).name != "provd":
        return f"{sys.executable} -m provd"
    return "provd" if shutil.which("provd") == str(Path(called).absolute()) else called
