"""`provd.query.connect`: a store, open for a program's questions."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING

from provd.common import settings as common_settings
from provd.common.settings import Settings
from provd.query import notebook
from provd.query.find import LAST, find_run
from provd.query.moments import parse_moment
from provd.query.reading import open_reading
from provd.query.run_search import RUN_STATUSES, RunQuestion, find_runs, parse_run_where
from provd.query.run_view import Runs, RunView
from provd.query.runs import read_run
from provd.query.task_table import Tasks, check_limit, several, tasks_of
from provd.query.tasks import TaskQuestion, parse_status
from provd.store.interface import Filter, Sort, Store

if TYPE_CHECKING:
    from provd.query.lineage import Lineage


def connect(
    url: str | None = None,
    *,
    tenant_id: str | None = None,
    settings_file: str | os.PathLike[str] | None = None,
) -> Connection:
    """Open a store to read: `mongodb://HOST/DATABASE`, `sqlite:///PATH`, or the one in the settings, as the commands do.

    `tenant_id` shows that tenant's documents alone, as `PROVD_TENANT_ID` does.
    Raises `StoreUnavailable`, `SettingsError` and `MissingExtra`. Close it, or use it as a context manager.
    """
    named = None if settings_file is None else os.fspath(settings_file)
    settings = common_settings.load(overrides={"store_url": url, "tenant_id": tenant_id}, settings_file=named)
    return Connection(open_reading(settings), settings)


class Connection:
    """A store, open for reading. Safe for threads."""

    def __init__(self, store: Store, settings: Settings) -> None:
        """Made by `connect`."""
        self._store = store
        self._lost_after_s = settings.lost_after_s

    @property
    def url(self) -> str:
        """The store's URL, its password masked."""
        return self._store.url

    @property
    def store(self) -> Store:
        """The store itself: any collection, filter and aggregation."""
        return self._store

    def runs(
        self,
        where: str | Filter | None = None,
        *,
        campaign_id: str | None = None,
        status: str | Sequence[str] | None = None,
        since: str | datetime | None = None,
        limit: int = 20,
    ) -> Runs:
        """The latest runs, the one that started last first; `limit` 0 means all.

        `where` is of the workflow's record, such as `"code.commit ~ '9fceb02'"`, or a MongoDB filter. `status` is one or
        several, LOST and DEGRADED included; `since` is a time, or text such as `"2h"` (ago).
        """
        question = RunQuestion(
            campaign_id=campaign_id,
            statuses=tuple(parse_status(one, RUN_STATUSES, "run") for one in several(status)),
            since=parse_moment(since, "since") if isinstance(since, str) else since,
            where=parse_run_where(where) if where is not None else None,
        )
        found = find_runs(self._store, question, limit=check_limit(limit), lost_after_s=self._lost_after_s)
        return Runs(self._store, found, self._lost_after_s)

    def run(self, run: str = LAST) -> RunView:
        """One run, by its id, a unique prefix of it, its name, or `"last"`. Raises `NotFound` and `Ambiguous`."""
        found = read_run(self._store, find_run(self._store, run), lost_after_s=self._lost_after_s)
        return RunView(self._store, found, self._lost_after_s)

    def tasks(
        self,
        where: str | Filter | None = None,
        *,
        campaign_id: str | None = None,
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
        """Tasks of all runs, or of a campaign's; else as `RunView.tasks`."""
        return tasks_of(
            self._store,
            TaskQuestion(campaign_id=campaign_id),
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

    def lineage(
        self, task: str, *, up: bool = True, down: bool = False, depth: int = 10, limit: int = 1000
    ) -> Lineage:
        """The tasks that led to a task (`up`), and those that came of it (`down`), of whichever run.

        `task` is an id, a unique prefix of one, or a file that the task generated. Raises `NotFound` and `Ambiguous`.
        """
        from provd.query.lineage import find_task, trace

        task_id = find_task(self._store, task)
        return trace(
            self._store, task_id, up=up, down=down, depth=depth, limit=limit, lost_after_s=self._lost_after_s
        )

    def close(self) -> None:
        """Close it; calling it twice is harmless."""
        self._store.close()

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Connection to {self.url}>"

    def _repr_html_(self) -> str:
        return f"<p>{notebook.escaped(f'Connection to {self.url}')}</p>{self.runs()._repr_html_()}"
