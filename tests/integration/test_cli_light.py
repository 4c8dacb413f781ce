"""What the base install can do, and how quickly the command starts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

#: What the extras bring, and the base install has not.
_EXTRAS = ("pymongo", "bson", "pydantic_settings", "prometheus_client", "mongomock", "lark")

_WITHOUT = f"""
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {_EXTRAS!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
from provd.cli.main import main
main()
"""


def run_without_extras(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """Run `provd` in a process that cannot import what the extras bring."""
    return subprocess.run(
        [sys.executable, "-c", _WITHOUT, *args],
        capture_output=True, text=True, timeout=60, check=False, cwd=folder, env=dict(os.environ), stdin=subprocess.DEVNULL,
    )  # fmt: skip


@pytest.mark.parametrize(
    "args", [["--help"], ["--version"], ["config", "show"], ["runs", "--help"], ["replay", "-h"]]
)
def test_the_base_install_runs_what_needs_no_extra(tmp_path: Path, args: list[str]) -> None:
    done = run_without_extras(tmp_path, *args)

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "args",
    [
        ["consume"],
        ["runs", "tail", "--store", "mongodb://127.0.0.1:1/x"],
        ["tasks", "--store", "mongodb://h/x"],
    ],
)
def test_a_missing_extra_is_named_with_the_line_that_installs_it(tmp_path: Path, args: list[str]) -> None:
    done = run_without_extras(tmp_path, *args)

    assert done.returncode == 1
    assert 'pip install "provd[consumer]"' in done.stderr
    assert "Traceback" not in done.stderr


def test_the_command_line_loads_nothing_heavy_before_it_is_needed() -> None:
    code = "import sys, provd.cli.main; print(*(name for name in sys.modules if '.' not in name))"

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )

    assert set(done.stdout.split()) & {"rich", "redis", "yaml", *_EXTRAS} == set()


#: Tells of every thread of MongoDB's driver that is waited for.
_WITNESS = """
from pymongo.periodic_executor import PeriodicExecutor

PeriodicExecutor.join = lambda *_: print("waited")
from provd.cli.main import main
main()
"""


def test_a_command_waits_for_no_thread_of_the_mongodb_driver_at_its_end(
    clean_env: Path, mongo_url: str
) -> None:
    command = [sys.executable, "-c", _WITNESS, "runs", "tail", "--store", mongo_url]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    assert (done.returncode, done.stdout) == (0, "")
