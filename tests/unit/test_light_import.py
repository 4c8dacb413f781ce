"""`import provd` is the first thing ten thousand ranks do at once on a shared file system: it stays light."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

#: Modules that using the public names may load beyond what a bare interpreter has.
MODULE_LIMIT = 60

#: Packages that importing must not load. (`inspect` comes with `dataclasses`, before any line of ours uses it.)
HEAVY = [
    "asyncio", "bson", "click", "importlib.metadata", "multiprocessing", "numpy", "prometheus_client", "pydantic",
    "pydantic_settings", "pymongo", "redis", "rich", "socket", "sqlite3", "ssl", "subprocess", "typer", "yaml",
]  # fmt: skip

USE = """
import sys
bare = set(sys.modules)
import provd
provd.task
provd.workflow
provd.Task
print(*sorted(set(sys.modules) - bare))
"""


@pytest.fixture(scope="module")
def loaded() -> list[str]:
    """Names of the modules that `import provd` and its main names load."""
    # -I keeps the folder the tests run in off the path, and -S would hide the installed package.
    done = subprocess.run(
        [sys.executable, "-I", "-c", USE], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize("package", HEAVY)
def test_importing_provd_does_not_load(loaded: list[str], package: str) -> None:
    assert [name for name in loaded if name == package or name.startswith(f"{package}.")] == []


def test_importing_provd_loads_no_third_party_package_but_msgpack(loaded: list[str]) -> None:
    tops = {name.partition(".")[0] for name in loaded}

    assert tops - sys.stdlib_module_names == {"provd", "msgpack"}


def test_importing_provd_loads_few_modules(loaded: list[str]) -> None:
    assert len(loaded) <= MODULE_LIMIT, f"{len(loaded)} modules: {' '.join(loaded)}"


def test_importing_provd_starts_no_thread_and_writes_nothing(tmp_path: Path) -> None:
    script = "import threading, provd; provd.task; print(threading.active_count())"

    done = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, cwd=tmp_path)

    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")
    assert [path.name for path in tmp_path.iterdir() if path.name != "home"] == []
