"""What a run can be exported as. Each format is a function from a run to a stream or to a file.

To add one: a function of the same shape in a module of its own, and a line in `FORMATS`. A function of a stream writes
bytes as it goes and can write to standard output; one of a file is given an empty file, which takes its name when the
function has returned. It returns what there is to tell of it, such as `{"tasks": 17}`.
"""

from __future__ import annotations

import difflib
import io
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeAlias

from provd.common import names
from provd.common.errors import UsageError
from provd.common.record import Record
from provd.query.output_file import replaced
from provd.query.present import Silence
from provd.query.tasks import derived
from provd.store.interface import Store

#: Columns that every table of tasks has, also of a run without tasks.
TASK_COLUMNS = (
    "task_id", "workflow_id", "campaign_id", "activity_id", "status", "started_at", "ended_at", "duration",
)  # fmt: skip

#: Bookkeeping of the store, which a table has no use for.
_HIDDEN = "filled"


class Exported(NamedTuple):
    """The run to be exported."""

    store: Store
    workflow_id: str
    lost_after_s: float


StreamWriter: TypeAlias = Callable[[Exported, BinaryIO], Mapping[str, Any]]
FileWriter: TypeAlias = Callable[[Exported, Path], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Format:
    """Where the function is, which is loaded when it is used, and the file names that mean this format."""

    module: str
    function: str
    suffixes: tuple[str, ...]
    to_stream: bool

    def load(self) -> Callable[[Exported, Any], Mapping[str, Any]]:
        """The function."""
        loaded: Callable[[Exported, Any], Mapping[str, Any]] = getattr(
            import_module(self.module), self.function
        )
        return loaded


FORMATS: dict[str, Format] = {
    "csv": Format(__name__, "export_csv", (".csv",), to_stream=True),
    "parquet": Format(__name__, "export_parquet", (".parquet",), to_stream=False),
    "jsonl": Format(__name__, "export_jsonl", (".jsonl",), to_stream=True),
    "prov-json": Format("provd.query.prov_document", "export_prov_json", (".prov.json",), to_stream=True),
    "prov-n": Format("provd.query.prov_document", "export_prov_n", (".provn",), to_stream=True),
    "ro-crate": Format("provd.query.crate", "export_crate", (".crate.zip", ".zip"), to_stream=False),
    "openlineage": Format("provd.query.openlineage", "export_openlineage", (), to_stream=True),
}


def format_of(output: str, format: str | None) -> str:
    """The format's name: the one given, else what the file's name says. Raises `UsageError`."""
    known = ", ".join(FORMATS)
    if format is None:
        for name, one in FORMATS.items():
            if output.endswith(one.suffixes):
                return name
        raise UsageError(f"give the format: the name {output!r} does not say which of {known}")
    if format.lower() in FORMATS:
        return format.lower()
    near = difflib.get_close_matches(format.lower(), FORMATS, n=1)
    raise UsageError(
        f"unknown format {format!r}; " + (f"did you mean {near[0]}?" if near else f"there are {known}")
    )


def export_run(run: Exported, path: str | os.PathLike[str], format: str) -> Mapping[str, Any]:
    """Write a run to a file, whole or not at all."""
    way = FORMATS[format]
    write = way.load()
    with replaced(path) as temporary:
        if not way.to_stream:
            return write(run, temporary)
        with temporary.open("wb") as stream:
            return write(run, stream)


def export_csv(run: Exported, stream: BinaryIO) -> Mapping[str, Any]:
    """The run's tasks as a table."""
    from provd.query.tabular import write_csv

    text = io.TextIOWrapper(stream, encoding="utf-8", newline="", write_through=False)
    try:
        written = write_csv(task_rows(run), text, columns=TASK_COLUMNS, scratch=_folder_of(stream))
        text.flush()
    finally:
        text.detach()
    return {"tasks": written.rows, "columns": len(written.columns)}


def _folder_of(stream: BinaryIO) -> str | None:
    """Where a file is written to: what waits for it needs as much room. None for standard output."""
    name = getattr(stream, "name", None)
    return os.path.dirname(name) if isinstance(name, str) and os.path.isabs(name) else None


def export_parquet(run: Exported, path: Path) -> Mapping[str, Any]:
    """The run's tasks as a table with types."""
    from provd.query.tabular import fill_parquet

    written = fill_parquet(task_rows(run), path, columns=TASK_COLUMNS)
    return {"tasks": written.rows, "columns": len(written.columns)}


def export_jsonl(run: Exported, stream: BinaryIO) -> Mapping[str, Any]:
    """Everything of the run, for `provd import`."""
    from provd.store.run_file import write_run

    return write_run(run.store, run.workflow_id, stream)


def task_rows(run: Exported) -> Iterator[Record]:
    """A run's tasks with their statuses as they read, in the order in which the store has them."""
    found = run.store.find(names.TASKS, {"workflow_id": run.workflow_id})
    for task in derived(found, Silence(run.store, run.lost_after_s)):
        task.pop(_HIDDEN, None)
        yield task
