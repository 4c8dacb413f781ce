"""What it takes to make a table of a run of a million tasks.

- The tasks are written to a Parquet file by the Python interface, whose columns are known only after the last of them.
- Memory is what the process has beyond itself with all libraries loaded, at most; it must not grow with the tasks.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from benchmarks.figure import Figure, Form, Target
from benchmarks.runs import Program
from benchmarks.services import mongo_server, scratch
from provd.store.open import open_store

_TASKS = {Form.QUICK: 20_000, Form.FULL: 1_000_000, Form.NIGHTLY: 1_000_000}
_TARGET_MIB = 300.0
_MIB = 1 << 20


def measure(form: Form) -> Iterator[Figure]:
    """Both stores."""
    with scratch() as folder:
        yield from _figures("embedded", f"sqlite:///{folder / 'export.db'}", folder, _TASKS[form])
    with mongo_server() as server, scratch() as folder:
        yield from _figures("MongoDB", server.database_url("export"), folder, _TASKS[form])


def _figures(where: str, url: str, folder: Path, tasks: int) -> Iterator[Figure]:
    store = open_store(url)
    store.migrate()
    store.close()
    Program("read_load", (json.dumps({"url": url, "runs": [0, 1], "tasks": tasks}),)).run()
    path = folder / "tasks.parquet"
    said = Program("export_table", (json.dumps({"url": url, "path": str(path)}),)).run()
    if said["rows"] != tasks:
        raise RuntimeError(f"{said['rows']:,} rows of {tasks:,} tasks")
    size = path.stat().st_size / _MIB
    yield Figure(
        what=f"memory to write {tasks:,} tasks to Parquet, {where}",
        unit="MiB",
        ours=((said["peak"] - said["floor"]) / _MIB,),
        target=Target(most=_TARGET_MIB),
        note=(
            f"at most, beyond the {said['floor'] / _MIB:.0f} MiB of the process with its libraries;"
            f" {said['columns']} columns, a file of {size:.1f} MiB"
        ),
    )
    yield Figure(
        what=f"tasks written to Parquet, {where}",
        unit="tasks/s",
        ours=(said["rows"] / said["seconds"],),
        note=f"{said['seconds']:.1f} s, of which {said['cpu']:.1f} s were the process' own work",
    )
