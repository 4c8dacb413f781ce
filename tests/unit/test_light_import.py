"""`import provd` is the first thing ten thousand ranks do at once on a shared file system: it stays light."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

#: Files that using the public names may read beyond what a bare interpreter reads, provd's own aside. On a shared file
#: system each is a handful of round trips. (`dataclasses` alone is some thirty, msgpack three.)
FILE_LIMIT = 60

#: Packages that importing must not load. (`inspect` comes with `dataclasses`, before any line of ours uses it.)
HEAVY = [
    "asyncio", "bson", "click", "importlib.metadata", "multiprocessing", "numpy", "prometheus_client", "pydantic",
    "pydantic_settings", "pymongo", "redis", "rich", "socket", "sqlite3", "ssl", "subprocess", "typer", "yaml",
]  # fmt: skip

#: Prints each module that was loaded, and its file or "-".
USE = """
import sys
bare = set(sys.modules)
import provd
provd.task
provd.workflow
provd.Task
for name in sorted(set(sys.modules) - bare):
    print(name, getattr(sys.modules[name], "__file__", None) or "-", sep="\\t")
"""

#: Modules that compiled extensions make up in memory.
MADE_UP = re.compile(r"_?cython_.*")


@pytest.fixture(scope="module")
def loaded() -> dict[str, str]:
    """Modules, with their files, that `import provd` and its main names load."""
    # -I keeps the folder the tests run in off the path, and -S would hide the installed package.
    done = subprocess.run(
        [sys.executable, "-I", "-c", USE],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    return dict(line.split("\t") for line in done.stdout.splitlines())


@pytest.mark.parametrize("package", HEAVY)
def test_importing_provd_does_not_load(loaded: dict[str, str], package: str) -> None:
    assert [name for name in loaded if name == package or name.startswith(f"{package}.")] == []


def test_importing_provd_loads_no_third_party_package_but_msgpack(loaded: dict[str, str]) -> None:
    tops = {name.partition(".")[0] for name in loaded if not MADE_UP.fullmatch(name)}

    assert tops - sys.stdlib_module_names == {"provd", "msgpack"}


def test_importing_provd_reads_few_files(loaded: dict[str, str]) -> None:
    read = [name for name, file in loaded.items() if file != "-" and name.partition(".")[0] != "provd"]

    assert len(read) <= FILE_LIMIT, f"{len(read)} modules: {' '.join(read)}"


def test_importing_provd_starts_no_thread_and_writes_nothing(tmp_path: Path) -> None:
    script = "import threading, provd; provd.task; print(threading.active_count())"

    done = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, cwd=tmp_path)

    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")
    assert [path.name for path in tmp_path.iterdir() if path.name != "home"] == []
