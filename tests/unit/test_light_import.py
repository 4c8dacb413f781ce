"""`import provd` is the first thing ten thousand ranks do at once on a shared file system: it stays light."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

#: Modules that the public names may load beyond a bare interpreter's, the standard library's and provd's own together. On
#: a shared file system most of them are a handful of round trips. (`dataclasses` alone is some fifteen, for `inspect`.)
MODULE_LIMIT = 60

#: The same when a function is decorated: what a call needs besides its producer.
DECORATED_LIMIT = 85

#: Packages that importing must not load.
HEAVY = [
    "asyncio", "bson", "click", "dataclasses", "importlib.metadata", "inspect", "logging", "msgpack", "multiprocessing",
    "numpy", "pathlib", "prometheus_client", "pydantic", "pydantic_settings", "pymongo", "redis", "rich", "socket",
    "sqlite3", "ssl", "subprocess", "typer", "urllib.parse", "yaml",
]  # fmt: skip

#: Prints each module that was loaded, and its file or "-".
USE = """
import sys
bare = set(sys.modules)
import provd
provd.task
provd.workflow
provd.loop
provd.Task
{more}
for name in sorted(set(sys.modules) - bare):
    print(name, getattr(sys.modules[name], "__file__", None) or "-", sep="\\t")
"""

DECORATE = """
@provd.task
def train(rate): ...
"""

#: Modules that compiled extensions make up in memory.
MADE_UP = re.compile(r"_?cython_.*")


def modules_of(more: str) -> dict[str, str]:
    """Modules, with their files, that `import provd`, its main names and what else is done load."""
    # -I keeps the folder the tests run in off the path, and -S would hide the installed package.
    done = subprocess.run(
        [sys.executable, "-I", "-c", USE.format(more=more)],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    return dict(line.split("\t") for line in done.stdout.splitlines())


@pytest.fixture(scope="module")
def loaded() -> dict[str, str]:
    return modules_of("")


@pytest.mark.parametrize("package", HEAVY)
def test_importing_provd_does_not_load(loaded: dict[str, str], package: str) -> None:
    assert [name for name in loaded if name == package or name.startswith(f"{package}.")] == []


def test_importing_provd_loads_no_third_party_package(loaded: dict[str, str]) -> None:
    tops = {name.partition(".")[0] for name in loaded if not MADE_UP.fullmatch(name)}

    assert tops - sys.stdlib_module_names == {"provd"}


def test_importing_provd_loads_few_modules(loaded: dict[str, str]) -> None:
    assert len(loaded) <= MODULE_LIMIT, f"{len(loaded)} modules: {' '.join(loaded)}"


def test_decorating_a_function_loads_few_modules_more_and_msgpack() -> None:
    loaded = modules_of(DECORATE)

    assert len(loaded) <= DECORATED_LIMIT, f"{len(loaded)} modules: {' '.join(loaded)}"
    tops = {name.partition(".")[0] for name in loaded if not MADE_UP.fullmatch(name)}
    assert tops - sys.stdlib_module_names == {"provd", "msgpack"}


def test_importing_provd_starts_no_thread_and_writes_nothing(tmp_path: Path) -> None:
    script = "import threading, provd; provd.task; print(threading.active_count())"

    done = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, cwd=tmp_path)

    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")
    assert [path.name for path in tmp_path.iterdir() if path.name != "home"] == []
