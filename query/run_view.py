"""A run as a program sees it, and lists of runs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, overload

from provd.common import names
from provd.common.record import Record
from provd.query import notebook
from provd.query.find import find_run
from provd.query.frames import Frames
from provd.query.run_books import RunBooks
from provd.query.runs import Run, read_children
from provd.query.task_table import Tasks, tasks_of
from provd.query.tasks import TaskQuestion
from provd.store.books import read_books
from provd.store.interface import Filter, Sort, Store

if TYPE_CHECKING:
    from provd.query.compare import Comparison
    from provd.query.lineage import Lineage
    from provd.query.run_graph import RunGraph
    from provd.query.summary import RunSummary

_RUN_COLUMNS = (
    "workflow_id", "campaign_id", "name", "status", "started_at", "ended_at", "duration", "tasks", "producers",
)  # fmt: skip


class RunView:
    """A run: what is known of it at the time of asking, and everything that can be asked about it."""

    def __init__(self, store: Store, run: Run, lost_after_s: float) -> None:
        """Made by `Connection.run` and `Connection.runs`."""
        self._store = store
        self._run = run
        self._lost_after_s = lost_after_s
        self._record: Record | None = None

    # --- facts ---------------------------------------------------------------------------------------------------

    @property
    def workflow_id(self) -> str:
        """The id."""
        return self._run.workflow_id

    @property
    def campaign_id(self) -> str | None:
        """The campaign it belongs to."""
        return self._run.campaign_id

    @property
    def name(self) -> str | None:
        """Its name."""
        return self._run.name

    @property
    def status(self) -> str:
        """Its status as `provd runs tail` shows it, DEGRADED and LOST included."""
        return self._run.status

    @property
    def started_at(self) -> datetime | None:
        """When it started, UTC."""
        return self._run.started_at

    @property
    def ended_at(self) -> datetime | None:
        """When it ended, UTC; None while it runs."""
        return self._run.ended_at

    @property
    def duration(self) -> float | None:
        """Seconds; so far, while it runs."""
        return self._run.duration

    @property
    def task_counts(self) -> Mapping[str, int]:
        """Tasks by status."""
        return dict(self._run.tasks)

    @property
    def counts(self) -> Mapping[str, int | float]:
        """What the program counted by `provd.count`, summed over its processes."""
        return dict(self._run.counts)

    @property
    def record(self) -> Record:
        """The workflow's whole record: `args`, `code`, `environment`, `argv`, `user` and so on; empty where none came."""
        if self._record is None:
            found = self._store.find(names.WORKFLOWS, {"workflow_id": self.workflow_id}, limit=1)
            self._record = next(iter(found), {})
            self._record.pop("filled", None)
        return self._record

    @property
    def parent_workflow_id(self) -> str | None:
        """The run that started it; None where none did."""
        return self.record.get("parent_workflow_id")

    @property
    def args(self) -> Any:
        """The arguments that the run was started with."""
        return self.record.get("args")

    @property
    def code(self) -> Any:
        """The code it ran: repository, commit, branch, whether there were changes."""
        return self.record.get("code")

    @property
    def environment(self) -> Any:
        """Python, packages and the scheduler's job."""
        return self.record.get("environment")

    # --- questions -----------------------------------------------------------------------------------------------

    def tasks(
        self,
        where: str | Filter | None = None,
        *,
        activity: str | None = None,
        status: str | Sequence[str] | None = None,
        host: str | None = None,
        rank: int | None = None,
        tags: str | Sequence[str] | None = None,
        since: str | datetime | None = None,
        until: str | datetime | None = None,
        min_duration: float | None = None,
        max_duration: float | None = None,
        sort: str | Sort | None = None,
        fields: str | Sequence[str] | None = None,
        limit: int = 0,
    ) -> Tasks:
        """The run's tasks, lazily; every condition given must hold.

        `where` is an expression such as `"used.lr > 0.01 and generated.acc >= 0.9"`, or a MongoDB filter. Raises
        `UsageError` that points at what is wrong in it.
        """
        return tasks_of(
            self._store,
            TaskQuestion(workflow_id=self.workflow_id),
            lost_after_s=self._lost_after_s,
            where=where,
            activity=activity,
            status=status,
            host=host,
            rank=rank,
            tags=tags,
            since=since,
            until=until,
            min_duration=min_duration,
            max_duration=max_duration,
            sort=sort,
            fields=fields,
            limit=limit,
        )

    def children(self) -> Runs:
        """The runs that it started, the latest first."""
        found = read_children(self._store, self.workflow_id, lost_after_s=self._lost_after_s)
        return Runs(self._store, found, self._lost_after_s)

    def summary(self) -> RunSummary:
        """What `provd runs show` shows: producers, activities with durations, errors in groups."""
        from provd.query.summary import summarise_run

        return summarise_run(self._store, self.workflow_id, lost_after_s=self._lost_after_s)

    def verify(self) -> RunBooks:
        """The open books: where every message of every producer is; `.complete` says whether all is stored."""
        return RunBooks.of(read_books(self._store, self.workflow_id))

    def lineage(
        self, task: str, *, up: bool = True, down: bool = False, depth: int = 10, limit: int = 1000
    ) -> Lineage:
        """The tasks that led to a task (`up`), and those that came of it (`down`); `task` is an id or a file of its."""
        from provd.query.lineage import find_task, trace

        task_id = find_task(self._store, task)
        return trace(
            self._store, task_id, up=up, down=down, depth=depth, limit=limit, lost_after_s=self._lost_after_s
        )

    def compare(self, other: RunView | str) -> Comparison:
        """What differs between this run and another, which is given as such, or by id, unique prefix or name."""
        from provd.query.compare import compare_runs

        other_id = other.workflow_id if isinstance(other, RunView) else find_run(self._store, other)
        return compare_runs(self._store, self.workflow_id, other_id, lost_after_s=self._lost_after_s)

    def graph(self) -> RunGraph:
        """The activities, and how often one called, or made what was used by, another."""
        from provd.query.run_graph import read_graph

        return read_graph(self._store, self.workflow_id)

    def export(self, path: str | os.PathLike[str], format: str | None = None) -> Mapping[str, Any]:
        """Write the run to a file as `provd export` does, whole or not at all; the name says the format, or `format`."""
        from provd.query.exports import Exported, export_run, format_of

        name = format_of(os.fspath(path), format)
        return export_run(Exported(self._store, self.workflow_id, self._lost_after_s), path, name)

    # --- display -------------------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        name = f" {notebook.short(self.name)!r}" if self.name else ""
        counts = ", ".join(f"{count:,} {status}" for status, count in self._run.tasks.items())
        return f"<Run {self.workflow_id}{name}: {self.status}; {counts or 'no tasks'}>"

    def _repr_html_(self) -> str:
        document = self._run.to_document()
        return notebook.facts(document.items(), f"Run {self.workflow_id}")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RunView) and self._run == other._run

    def __hash__(self) -> int:
        return hash(self.workflow_id)


class Runs(Frames, Sequence[RunView]):
    """Runs, the one that started last first."""

    def __init__(self, store: Store, runs: Sequence[Run], lost_after_s: float) -> None:
        """Made by `Connection.runs`."""
        self._store = store
        self._runs = tuple(runs)
        self._lost_after_s = lost_after_s

    @overload
    def __getitem__(self, place: int) -> RunView: ...
    @overload
    def __getitem__(self, place: slice) -> Runs: ...
    def __getitem__(self, place: int | slice) -> RunView | Runs:
        """A run, or several."""
        if isinstance(place, slice):
            return Runs(self._store, self._runs[place], self._lost_after_s)
        return RunView(self._store, self._runs[place], self._lost_after_s)

    def __len__(self) -> int:
        return len(self._runs)

    def _records(self) -> Iterator[Record]:
        return (run.to_document() for run in self._runs)

    def _first_columns(self) -> Sequence[str]:
        return _RUN_COLUMNS

    def __repr__(self) -> str:
        lines = [f"  {view!r}" for view in self[: notebook.SHOWN_ROWS]]
        if len(self) > notebook.SHOWN_ROWS:
            lines.append(f"  and {len(self) - notebook.SHOWN_ROWS:,} more")
        return "\n".join([f"<{self._counted()}>", *lines])

    def _repr_html_(self) -> str:
        shown = [run.to_document() for run in self._runs[: notebook.SHOWN_ROWS]]
        more = f", the latest {notebook.SHOWN_ROWS}" if len(self) > notebook.SHOWN_ROWS else ""
        return notebook.table(_RUN_COLUMNS, shown, self._counted() + more)

    def _counted(self) -> str:
        return notebook.many(self, "run")
