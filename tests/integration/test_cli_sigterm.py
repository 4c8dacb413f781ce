"""SIGTERM, a scheduler's time limit: commands end in order, and leave nothing half done behind."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from provd.store.interface import Store
from provd.store.open import open_store
from tests.builders import finished_run
from tests.conftest import RunProvd
from tests.services.child import Child
from tests.services.waiting import wait_until

#: The command line with one more format, whose writer never comes to its end.
_ENDLESS = """
import sys, threading
from provd.cli.main import main
from provd.query import exports

def endless(run, target):
    with open(target, "wb") if not hasattr(target, "write") else target as stream:
        stream.write(b"half")
        stream.flush()
        print("begun", flush=True)
        threading.Event().wait()

exports.FORMATS["endless"] = exports.Format("__main__", "endless", (), to_stream=sys.argv.pop(1) == "stream")
main()
"""

#: The command line, which is told to end while SQLite is at work: there an exception goes nowhere.
_INSIDE_SQLITE = """
import os, signal
from provd.cli.main import main
from provd.store import time_limit

time_limit._STEPS = 1
time_limit.TimeLimit.is_over = lambda _: os.kill(os.getpid(), signal.SIGTERM)
main()
"""

#: Tells the handler of SIGTERM after the imports, and while a command runs.
_HANDLER = """
import signal, sys
import provd, provd.query
from provd.cli import main

def show():
    print(getattr(signal.getsignal(signal.SIGTERM), "name", "ours"))

if sys.argv.pop(1) == "ignored":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
show()
for command in main.app.registered_commands:
    command.callback = show
main.main()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "exports").mkdir()
    return tmp_path / "exports"


@pytest.fixture
def exporting(
    store: Store,
    store_url: str,
    clean_env: Path,
    tmp_path: Path,
    folder: Path,
    request: pytest.FixtureRequest,
) -> Iterator[Child]:
    """An export over a file that is there, in the middle of it."""
    finished_run(store, "alpha")
    (folder / "out").write_text("before")
    child = Child(
        [sys.executable, "-c", _ENDLESS, request.param,
         "export", "alpha", "--format", "endless", "--output", str(folder / "out")],
        log=tmp_path / "export.log", env={**os.environ, "PROVD_STORE_URL": store_url},
    )  # fmt: skip
    child.start()
    wait_until(lambda: "begun" in child.tail(), timeout=60)
    yield child
    child.kill()


@pytest.mark.parametrize("exporting", ["stream", "file"], indirect=True)
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_an_export_that_is_ended_leaves_the_folder_as_it_was(
    exporting: Child, folder: Path, number: signal.Signals, status: int
) -> None:
    assert len(os.listdir(folder)) == 2

    exporting.send(number)

    assert exporting.wait() == status
    assert os.listdir(folder) == ["out"]
    assert (folder / "out").read_text() == "before"
    assert exporting.tail() == "begun\n"


def test_sigterm_inside_of_a_question_to_sqlite_is_no_failure_of_the_store(
    clean_env: Path, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/provd.db"
    with closing(open_store(url)) as store:
        store.migrate()
        finished_run(store, "alpha")
    child = Child(
        [sys.executable, "-c", _INSIDE_SQLITE, "query", "tasks", "{}", "--store", url],
        log=tmp_path / "log", env=dict(os.environ),
    )  # fmt: skip

    child.start()

    assert child.wait() == 143
    assert child.tail() == ""


@pytest.mark.parametrize("exporting", ["stream"], indirect=True)
def test_what_a_killed_export_left_goes_when_the_same_file_is_written_a_day_later(
    exporting: Child, folder: Path, run_provd: RunProvd, store_url: str
) -> None:
    exporting.kill()
    [left] = [path for path in folder.iterdir() if path.name != "out"]
    others = [folder / name for name in (".out.part", ".out.0123456789ab.part2", ".other.0123456789ab.part")]
    for path in others:
        path.touch()
    young = folder / ".out.ba9876543210.part"
    young.touch()
    for path in [left, *others]:
        os.utime(path, (0, 0))

    ended = run_provd(
        "export",
        "alpha",
        "--format",
        "csv",
        "--output",
        str(folder / "out"),
        env={"PROVD_STORE_URL": store_url},
    )

    assert ended.returncode == 0, ended.stderr
    assert sorted(folder.iterdir()) == sorted([*others, young, folder / "out"])


@pytest.mark.parametrize(
    ("former", "command", "told"),
    [
        ("default", "doctor", ["SIG_DFL", "ours"]),
        ("default", "run", ["SIG_DFL", "SIG_DFL"]),
        ("ignored", "doctor", ["SIG_IGN", "SIG_IGN"]),
    ],
)
def test_sigterm_is_taken_over_by_the_command_line_alone_and_never_from_who_ignores_it(
    clean_env: Path, tmp_path: Path, former: str, command: str, told: list[str]
) -> None:
    """Not by importing anything, and not by `provd run`, which ends as its command does."""
    child = Child(
        [sys.executable, "-c", _HANDLER, former, command], log=tmp_path / "log", env=dict(os.environ)
    )

    child.start()

    assert child.wait() == 0, child.tail()
    assert child.tail().splitlines() == told
