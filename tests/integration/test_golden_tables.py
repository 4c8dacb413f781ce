"""The tables of the reading commands, character by character: wide, narrow, and where there is no terminal.

They are written anew by `WRITE_GOLDEN=1`, and looked at before they are committed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from provd.common.record import Status
from provd.store.interface import Store
from tests.builders import ProducerBuilder, finished_run
from tests.conftest import RunProvd
from tests.integration.commands import Provd

TABLES = Path(__file__).parents[1] / "golden" / "tables"

#: 2001-09-09T01:46:40Z: how a time is written depends on how long ago it was.
_LONG_AGO_MS = 1_000_000_000_000

_COMMANDS = {
    "runs-tail": ["runs", "tail"],
    "runs-tail-status": ["runs", "tail", "--status", "DEGRADED", "--status", "ERROR"],
    "runs-show": ["runs", "show", "older"],
    "runs-compare": ["runs", "compare", "older", "sweep000"],
    "runs-timeline": ["runs", "timeline", "sweep000"],
    "runs-timeline-status": ["runs", "timeline", "sweep000", "--by", "status"],
    "runs-graph": ["runs", "graph", "sweep000"],
    "runs-prune": ["runs", "prune", "--older-than", "2001-10-01", "--dry-run"],
    "tasks": ["tasks", "-w", "sweep000"],
    "tasks-where": ["tasks", "--where", "used.lr >= 0.2 and status != 'ERROR'", "--sort", "generated.acc"],
    "tasks-fields": ["tasks", "--fields", "activity_id,status,used.lr,generated,started_at", "-n", "4"],
    "query": ["query", "tasks", '{"duration": {"$gte": 2}}', "--sort", "duration"],
    "query-pipeline": [
        "query", "tasks", "--pipeline",
        '[{"$group": {"_id": "$activity_id", "n": {"$sum": 1}, "longest": {"$max": "$duration"}}}, {"$sort": {"_id": 1}}]',
    ],
    "where-mistake": ["tasks", "--where", "used.lr > 0.1 und status = 'ERROR'"],
}  # fmt: skip


@pytest.fixture
def filled(store: Store) -> Store:
    """Three runs, one of them with long names and values."""
    finished_run(store, "older00000000001", failing=2, started_at=_LONG_AGO_MS)
    part = ProducerBuilder("sweep000", "p1", "exp42", started_at=_LONG_AGO_MS + 3_600_000).open()
    for number in range(5):
        failed = number == 3
        part.task(
            "train" if number < 4 else "an activity with a rather long name",
            Status.ERROR if failed else Status.FINISHED,
            after_ms=number * 60_000,
            duration=float(number),
            used={"lr": number / 10, "model.pt": f"m{number}", "text": "words " * 12},
            generated=None if failed else {"acc": 1 - number / 10},
            stderr="ValueError: \x1b[31mloss\x1b[0m is nan" if failed else None,
        )
    part.workflow(Status.ERROR, name="a sweep").close(Status.ERROR).write(store)
    return store


@pytest.fixture(autouse=True)
def in_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tables have local times."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def check(name: str, said: str) -> None:
    """What was said, against the file."""
    file = TABLES / f"{name}.txt"
    if os.environ.get("WRITE_GOLDEN"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(said, encoding="utf-8")
    assert said == file.read_text(encoding="utf-8")
    assert "\x1b" not in said


@pytest.mark.parametrize(("form", "columns"), [("narrow", "80"), ("wide", "160")])
@pytest.mark.parametrize("name", sorted(_COMMANDS))
def test_a_table_is_what_it_was(
    filled: Store, provd: Provd, monkeypatch: pytest.MonkeyPatch, name: str, form: str, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)

    done = provd(*_COMMANDS[name])

    check(f"{name}-{form}", f"exit {done.exit_code}\n{done.stdout}--- stderr\n{done.stderr}")


@pytest.mark.parametrize("name", ["tasks", "runs-tail", "runs-compare", "runs-timeline"])
def test_a_table_in_a_pipe_is_what_it_was(
    filled: Store, store_url: str, run_provd: RunProvd, name: str
) -> None:
    done = run_provd(*_COMMANDS[name], "--store", store_url)

    check(f"{name}-pipe", f"exit {done.returncode}\n{done.stdout}--- stderr\n{done.stderr}")
