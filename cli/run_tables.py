"""The tables of `provd runs tail` and `provd runs verify`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from provd.cli import human, output
from provd.cli.lines import Lines
from provd.cli.output import STATUS_STYLES, Column
from provd.common.ranges import Ranges
from provd.query.runs import Run
from provd.query.verify import GAPS, counts_agree, hints, spooled_where, verdict
from provd.store.books import ProducerBooks, WorkflowBooks

#: Headers of task counts; the first two stand in every table, the others where there is something to count.
_COUNT_HEADERS = {
    "FINISHED": "done",
    "ERROR": "failed",
    "RUNNING": "running",
    "LOST": "lost",
    "CANCELLED": "cancelled",
    "SKIPPED": "skipped",
    "SUBMITTED": "waiting",
}
_ALWAYS = ("FINISHED", "ERROR")
_NARROW = ("FINISHED", "ERROR", "RUNNING")

#: Producers that a table of books lists before it keeps to those with something to tell.
_ALL_PRODUCERS_UP_TO = 20


def print_runs(runs: Sequence[Run], *, title: str | None = None) -> None:
    """The list of runs; a narrow one sums up the rarer statuses and joins campaign and name."""
    wide = output.width() >= output.WIDE
    statuses = count_statuses(run.tasks for run in runs) if wide else list(_NARROW)
    rare = any(_others(run, statuses) for run in runs)
    columns = [
        Column("run", folds=True),
        Column("status", firm=True, styles=STATUS_STYLES),
        Column(f"started ({human.zone()})" if wide else human.zone(), firm=True),
        Column("took", right=True, firm=True),
        *count_columns(statuses),
        *([Column("campaign")] if wide else []),
        *([Column("other", right=True, firm=True)] if rare else []),
        Column("name"),
    ]
    rows = []
    for run, started in zip(runs, human.moments(run.started_at for run in runs)):
        row = [
            run.workflow_id,
            run.status,
            started,
            human.duration(run.duration),
            *counts(run.tasks, statuses),
        ]
        names = [run.campaign_id or "", run.name or ""]
        if rare:
            row.append(f"{_others(run, statuses):,}")
        rows.append(row + (names if wide else ["/".join(name for name in names if name)]))
    output.print_table(columns, rows, title=title)


class RunLines:
    """One line a run, as they begin and change: when it began, and how it stands."""

    def __init__(self) -> None:
        self._lines = Lines()

    def show(self, runs: Sequence[Run]) -> None:
        """Print some more."""
        self._lines.show([_line(run) for run in runs])


def _line(run: Run) -> list[str]:
    counted = [f"{count:,} {_COUNT_HEADERS.get(status, status)}" for status, count in run.tasks.items()]
    names = "/".join(name for name in (run.campaign_id, run.name) if name)
    started = run.started_at.astimezone().strftime("%m-%d %H:%M:%S") if run.started_at else ""
    return [started, run.status, run.workflow_id, human.duration(run.duration), names, ", ".join(counted)]


def _others(run: Run, statuses: Sequence[str]) -> int:
    return sum(count for status, count in run.tasks.items() if status not in statuses)


def count_statuses(tasks: Iterable[Mapping[str, int]]) -> list[str]:
    """The statuses that a table of these counts has columns for."""
    seen = {status for one in tasks for status in one}
    return [status for status in _COUNT_HEADERS if status in _ALWAYS or status in seen]


def count_columns(statuses: Sequence[str]) -> list[Column]:
    """Their columns."""
    return [Column(_COUNT_HEADERS[status], right=True, firm=True) for status in statuses]


def counts(tasks: Mapping[str, int], statuses: Sequence[str]) -> list[str]:
    """One row's cells of them."""
    return [f"{tasks.get(status, 0):,}" for status in statuses]


def print_books(books: WorkflowBooks, *, gaps_shown: int) -> None:
    """The books: a line a producer, the gaps as ranges, the verdict."""
    told = [part for part in books.producers if not part.complete]
    listed = (
        list(books.producers) if len(books.producers) <= _ALL_PRODUCERS_UP_TO else told[:_ALL_PRODUCERS_UP_TO]
    )
    if listed:
        _print_producers(books, listed)
        if len(listed) < len(books.producers):
            output.print_line(
                f"and {human.many(len(books.producers) - len(listed), 'producer')} more: --json lists all"
            )
    for part in listed:
        for line in _gap_lines(part, gaps_shown):
            output.print_line(f"{part.producer_id}: {line}", style="yellow")
    if books.missing_ranks:
        output.print_line(f"ranks never seen: {Ranges.of_numbers(books.missing_ranks)}", style="yellow")
    output.print_line(
        f"{books.workflow_id}: {verdict(books)}", style="bold green" if books.complete else "bold red"
    )
    for line in hints(books):
        output.print_line(line, style="dim")


def _print_producers(books: WorkflowBooks, listed: Sequence[ProducerBooks]) -> None:
    gaps = [bucket for bucket in GAPS if books.total(bucket)]
    ranked = any(part.rank is not None for part in listed)
    columns = [
        Column("producer", folds=True),
        Column("host"),
        *([Column("rank", right=True, firm=True)] if ranked else []),
        Column("produced", right=True, firm=True),
        Column("stored", right=True, firm=True),
        *(Column(bucket, right=True, firm=True) for bucket in gaps),
        Column("tasks", right=True, firm=True),
        Column("closed", firm=True, styles={"no": "bold red"}),
    ]
    output.print_table(
        columns,
        [
            [
                part.producer_id,
                part.hostname or "",
                *(["" if part.rank is None else str(part.rank)] if ranked else []),
                f"{part.produced:,}",
                f"{len(part.stored):,}",
                *(f"{len(getattr(part, bucket)):,}" for bucket in gaps),
                f"{part.tasks_stored:,}",
                "yes" if part.closed else "no",
            ]
            for part in listed
        ],
    )


def _gap_lines(part: ProducerBooks, gaps_shown: int) -> list[str]:
    lines = []
    for bucket in GAPS:
        ranges: Ranges = getattr(part, bucket)
        if bucket == "spooled":
            places = spooled_where(part).items()
            lines += [f"spooled {_some(held, gaps_shown)} {place}" for place, held in places]
        elif ranges:
            why = ", ".join(f"{count:,} {reason}" for reason, count in part.dropped_reasons.items())
            lines.append(
                f"{bucket} {_some(ranges, gaps_shown)}" + (f": {why}" if bucket == "dropped" and why else "")
            )
    if not counts_agree(part):
        lines.append(f"counted {part.tasks_ended:,} ended tasks, the store has {part.tasks_stored:,}")
    return lines


def _some(ranges: Ranges, shown: int) -> str:
    """The first ranges, and how many more there are."""
    more = len(ranges.spans) - shown
    return f"{Ranges(ranges.spans[:shown])}" + (f" and {more} more" if more > 0 else "")
