"""Tasks that a program asks for: nothing is fetched before somebody looks, and then one by one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from datetime import datetime
from typing import Any

from provd.common import names
from provd.common.errors import UsageError
from provd.common.record import Record
from provd.query import notebook
from provd.query.exports import TASK_COLUMNS
from provd.query.filters import parse_fields, parse_sort
from provd.query.frames import Frames
from provd.query.moments import parse_moment
from provd.query.present import Silence
from provd.query.tasks import TaskQuestion, derived, derived_filter, find_tasks, parse_status
from provd.query.where import parse_where
from provd.store.interface import Filter, Sort, Store

#: Columns in a notebook.
_SHOWN = ("task_id", "activity_id", "status", "started_at", "duration", "used", "generated")

#: Bookkeeping of the store.
_HIDDEN = "filled"


class Tasks(Frames):
    """Tasks, lazily: each loop over them, and each `to_…`, asks the store anew and holds one task at a time.

    Without `sort` they come as the store has them, which is the fastest.
    """

    def __init__(
        self,
        store: Store,
        question: TaskQuestion,
        *,
        sort: Sort = (),
        fields: Sequence[str] | None = None,
        limit: int = 0,
        lost_after_s: float,
    ) -> None:
        """Made by `Connection.tasks` and `RunView.tasks`."""
        self._store = store
        self._question = question
        self._sort = tuple(sort)
        self._fields = None if fields is None else tuple(fields)
        self._limit = limit
        self._lost_after_s = lost_after_s

    def __iter__(self) -> Iterator[Record]:
        return self._records()

    def _records(self) -> Iterator[Record]:
        found = self._sorted() if self._sort else self._unsorted()
        for task in found:
            task.pop(_HIDDEN, None)
            yield task

    def _sorted(self) -> Iterator[Record]:
        return find_tasks(
            self._store,
            self._question,
            sort=self._sort,
            fields=self._fields,
            limit=self._limit,
            lost_after_s=self._lost_after_s,
        )

    def _unsorted(self) -> Iterator[Record]:
        """As the store has them: an order would make it look at all of them before the first comes."""
        silence = Silence(self._store, self._lost_after_s)
        wanted = derived_filter(self._store, self._question, silence)
        if self._fields is None:
            return derived(self._store.find(names.TASKS, wanted, limit=self._limit), silence)
        if "status" not in self._fields:
            return self._store.find(names.TASKS, wanted, fields=self._fields, limit=self._limit)
        return find_tasks(
            self._store,
            self._question,
            sort=(("task_id", 1),),
            fields=self._fields,
            limit=self._limit,
            lost_after_s=self._lost_after_s,
        )

    def _first_columns(self) -> Sequence[str]:
        return TASK_COLUMNS if self._fields is None else ("task_id", *self._fields)

    def count(self) -> int:
        """How many there are."""
        wanted = derived_filter(self._store, self._question, Silence(self._store, self._lost_after_s))
        found = self._store.count(names.TASKS, wanted)
        return min(found, self._limit) if self._limit else found

    def first(self) -> Record | None:
        """The first of them, None where there is none."""
        return next(iter(self), None)

    def sorted(self, by: str) -> Tasks:
        """The same in another order: fields with commas between, a minus for falling, such as `-generated.acc`."""
        return self._with(sort=parse_sort(by))

    def limited(self, limit: int) -> Tasks:
        """The first so many of the same; 0 for all."""
        return self._with(limit=limit)

    def _with(self, *, sort: Sort | None = None, limit: int | None = None) -> Tasks:
        return Tasks(
            self._store,
            self._question,
            sort=self._sort if sort is None else sort,
            fields=self._fields,
            limit=self._limit if limit is None else limit,
            lost_after_s=self._lost_after_s,
        )

    def __repr__(self) -> str:
        return f"<{self._described()}>"

    def _described(self) -> str:
        said = [
            f"{field.name}={getattr(self._question, field.name)!r}"
            for field in fields(self._question)
            if getattr(self._question, field.name) not in (None, ())
        ]
        said += [f"sort={self._sort!r}"] if self._sort else []
        said += [f"limit={self._limit}"] if self._limit else []
        return "Tasks" + (f" of {', '.join(said)}" if said else "")

    def _repr_html_(self) -> str:
        wanted = notebook.SHOWN_ROWS + 1
        rows = list(self.limited(min(self._limit or wanted, wanted)))
        more = len(rows) > notebook.SHOWN_ROWS
        caption = f"{self._described()}: the first {notebook.SHOWN_ROWS}" if more else self._described()
        columns = _SHOWN if self._fields is None else ("task_id", *self._fields)
        return notebook.table(columns, [_row(row, columns) for row in rows[: notebook.SHOWN_ROWS]], caption)


def _row(record: Record, columns: Sequence[str]) -> Mapping[str, Any]:
    return {column: value_at(record, column) for column in columns}


def value_at(record: Any, path: str) -> Any:
    """The value at a dotted path, None where there is none."""
    for part in path.split("."):
        record = record.get(part) if isinstance(record, dict) else None
    return record


def tasks_of(
    store: Store,
    base: TaskQuestion,
    *,
    lost_after_s: float,
    where: str | Filter | None,
    activity: str | None,
    status: str | Sequence[str] | None,
    host: str | None,
    rank: int | None,
    tags: str | Sequence[str] | None,
    since: str | datetime | None,
    until: str | datetime | None,
    min_duration: float | None,
    max_duration: float | None,
    sort: str | Sort | None,
    fields: str | Sequence[str] | None,
    limit: int,
) -> Tasks:
    """The tasks that a program asks for, as the commands ask for them; raises `UsageError`."""
    question = replace(
        base,
        activity_id=activity,
        statuses=tuple(parse_status(one) for one in several(status)),
        hostname=host,
        rank=rank,
        tags=several(tags),
        since=parse_moment(since, "since") if isinstance(since, str) else since,
        until=parse_moment(until, "until") if isinstance(until, str) else until,
        min_duration=min_duration,
        max_duration=max_duration,
        where=parse_where(where) if isinstance(where, str) else where,
    )
    return Tasks(
        store,
        question,
        sort=_parsed_sort(sort),
        fields=_parsed_fields(fields),
        limit=check_limit(limit),
        lost_after_s=lost_after_s,
    )


def several(value: str | Sequence[str] | None) -> tuple[str, ...]:
    """One, several or none, as several."""
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else tuple(value)


def _parsed_sort(sort: str | Sort | None) -> Sort:
    """An order as text or as fields with directions."""
    if sort is None:
        return ()
    return parse_sort(sort) if isinstance(sort, str) else sort


def _parsed_fields(wanted: str | Sequence[str] | None) -> Sequence[str] | None:
    """Fields as text with commas, or one by one."""
    return parse_fields(wanted) if isinstance(wanted, str) else wanted


def check_limit(limit: int) -> int:
    """A number of rows; raises `UsageError` for one below 0."""
    if limit < 0:
        raise UsageError(f"limit is {limit}; give a number of rows, or 0 for all")
    return limit
