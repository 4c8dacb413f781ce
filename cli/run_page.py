"""The page of `provd runs show`, and the same as one JSON object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from provd.cli import human, output
from provd.cli.output import STATUS_STYLES, Column
from provd.cli.run_tables import count_columns, count_statuses, counts, print_runs
from provd.common.record import Record, Status
from provd.query.summary import ErrorGroup, RunSummary

#: Rows that the page shows of a long list; `--json` has them all.
_PRODUCERS_SHOWN = 20
_ERRORS_SHOWN = 5
_HOSTS_SHOWN = 8
_CHILDREN_SHOWN = 10

#: Lines of a traceback that the page shows, the last ones, and of the run's own message.
_TRACEBACK_LINES = 12
_MESSAGE_LINES = 12

#: Lines of the terminal that one such line may fill.
_LINES_OF_ONE = 4

#: Producers that need a look come first.
_TELLING = {"LOST": 0, "ERROR": 1, "CANCELLED": 2, "RUNNING": 3}


def run_document(summary: RunSummary) -> Record:
    """The summary as JSON has it: the run's record with what was derived on top."""
    document = {key: value for key, value in summary.workflow.items() if key != "filled"}
    document.update(summary.run.to_document())
    document["producers"] = [_present(asdict(producer)) for producer in summary.producers]
    document["activities"] = [_present(asdict(activity)) for activity in summary.activities]
    document["errors"] = [_present(asdict(error)) for error in summary.errors]
    document["other_errors"] = summary.other_errors
    document["children"] = [child.to_document() for child in summary.children]
    if summary.more_children:
        document["more_children"] = summary.more_children
    document["complete"] = summary.complete
    document["verdict"] = summary.verdict
    return document


def print_run(summary: RunSummary) -> None:
    """The page."""
    output.print_fields(_fields(summary), styles=STATUS_STYLES)
    _print_failure(summary.workflow)
    _print_activities(summary)
    _print_producers(summary)
    _print_children(summary)
    _print_errors(summary)
    style = "bold green" if summary.complete else "bold yellow"
    output.print_line(f"\nbooks  {summary.verdict}", style=style)
    for line in summary.hints:
        output.print_line(line, style="dim")


def _present(items: dict[str, Any]) -> Record:
    return {key: value for key, value in items.items() if value is not None}


def _fields(summary: RunSummary) -> list[tuple[str, str]]:
    run, record = summary.run, summary.workflow
    return [
        ("run", run.workflow_id),
        ("name", run.name or ""),
        ("campaign", run.campaign_id or ""),
        ("parent", record.get("parent_workflow_id", "")),
        ("status", run.status),
        ("unknown", _unknown(summary)),
        ("started", human.moment(run.started_at)),
        ("ended", human.moment(run.ended_at)),
        ("took", human.duration(run.duration)),
        ("user", _user(record)),
        ("hosts", _hosts(summary)),
        ("directory", record.get("cwd", "")),
        ("command", " ".join(str(part) for part in record.get("argv", ()))),
        ("code", _code(record.get("code") or {})),
        *_environment(record.get("environment") or {}),
        ("arguments", human.pairs(record.get("args"))),
        ("counts", ", ".join(f"{name} {_amount(amount)}" for name, amount in run.counts.items())),
        ("tags", ", ".join(str(tag) for tag in record.get("tags", ()))),
        ("input", _shown(record, "input_fingerprint")),
        ("code ref", "" if _is_commit(record) else _shown(record, "code_ref")),
        ("config", _shown(record, "config_hash")),
        ("trace", _shown(record, "trace_id")),
        ("tenant", _shown(record, "tenant_id")),
        ("attempt", human.cell(record.get("attempt"))),
        ("after", record.get("predecessor", "")),
    ]


def _amount(amount: float) -> str:
    return f"{amount:,}" if isinstance(amount, int) else human.cell(amount)


def _shown(record: Record, field: str) -> str:
    return human.cell(record.get(field))


def _is_commit(record: Record) -> bool:
    """Whether the reference says what the line of the code does."""
    code = record.get("code") or {}
    commit = code.get("commit")
    return bool(commit) and str(record.get("code_ref")).removesuffix("-dirty") == commit


def _unknown(summary: RunSummary) -> str:
    since = summary.run.unknown_since
    if since is None:
        return ""
    return (
        f"no consumer has looked since {human.moment(since)}: it may have ended, or fallen silent, since then"
    )


def _user(record: Record) -> str:
    """Who ran it and where; the record of a run without an owner names only the last process that joined."""
    user, host = record.get("user", ""), record.get("hostname", "")
    if record.get("status") == Status.SUBMITTED.value:
        host = ""
    return f"{user}@{host}" if user and host else user or host


def _hosts(summary: RunSummary) -> str:
    """Where its producers ran, where that is more than one place."""
    hosts = sorted({producer.hostname for producer in summary.producers if producer.hostname})
    if len(hosts) < 2:
        return ""
    more = f" and {len(hosts) - _HOSTS_SHOWN:,} more" if len(hosts) > _HOSTS_SHOWN else ""
    return f"{len(hosts):,}: {', '.join(hosts[:_HOSTS_SHOWN])}{more}"


def _code(code: Record) -> str:
    commit = str(code.get("commit") or "")[:12]
    dirty = " (with uncommitted changes)" if code.get("dirty") else ""
    parts = [code.get("repository"), code.get("branch"), commit + dirty if commit else None]
    file = code.get("file")
    if file and code.get("sha256"):
        file = f"{file} (sha256 {str(code['sha256'])[:12]})"
    return " ".join(str(part) for part in (*parts, file) if part)


def _environment(environment: Record) -> list[tuple[str, str]]:
    fields = []
    scheduler = environment.get("scheduler")
    if isinstance(scheduler, dict):
        fields.append(("scheduler", human.pairs(scheduler)))
    rest = {
        key: value for key, value in environment.items() if key != "scheduler" or not isinstance(value, dict)
    }
    return [("environment", human.pairs(rest)), *fields]


def _print_failure(record: Record) -> None:
    message = str(record.get("stderr") or "").strip()
    if message:
        output.print_line("\nerror", style="bold")
        lines = message.splitlines()
        more = len(lines) - _MESSAGE_LINES
        if more > 0:
            lines[_MESSAGE_LINES:] = [f"… {human.many(more, 'line')} more: --json has all"]
        _print_lines(lines, style="red")
    if record.get("traceback"):
        _print_traceback(str(record["traceback"]))


def _print_activities(summary: RunSummary) -> None:
    if not summary.activities:
        return
    statuses = count_statuses(activity.tasks for activity in summary.activities)
    figures = ("mean", "median", "p95", "max")
    columns = [
        Column("activity"),
        *count_columns(statuses),
        *(Column(figure, right=True, firm=True) for figure in figures),
    ]
    rows = [
        [
            activity.activity_id,
            *counts(activity.tasks, statuses),
            *(human.duration(getattr(activity.durations, figure, None)) for figure in figures),
        ]
        for activity in summary.activities
    ]
    output.print_table(columns, rows, title="activities")


def _print_producers(summary: RunSummary) -> None:
    if not summary.producers:
        return
    ordered = sorted(summary.producers, key=lambda producer: _TELLING.get(producer.status, 9))
    shown = ordered[:_PRODUCERS_SHOWN]
    ranked = any(producer.rank is not None for producer in shown)
    columns = [
        Column("producer", folds=True),
        Column("host"),
        Column("pid", right=True, firm=True),
        *([Column("rank", right=True, firm=True)] if ranked else []),
        Column("status", firm=True, styles=STATUS_STYLES),
        Column("messages", right=True, firm=True),
        Column("tasks", right=True, firm=True),
    ]
    rows = [
        [
            producer.producer_id,
            producer.hostname or "",
            human.cell(producer.pid),
            *([human.cell(producer.rank)] if ranked else []),
            producer.status,
            f"{producer.messages:,}",
            f"{producer.tasks:,}",
        ]
        for producer in shown
    ]
    output.print_table(columns, rows, title="producers")
    if len(shown) < len(ordered):
        output.print_line(f"and {human.many(len(ordered) - len(shown), 'producer')} more: --json lists all")


def _print_children(summary: RunSummary) -> None:
    if not summary.children:
        return
    shown = summary.children[:_CHILDREN_SHOWN]
    print_runs(shown, title="child runs")
    more = len(summary.children) - len(shown) + summary.more_children
    if more > 0:
        condition = f"parent_workflow_id = '{summary.run.workflow_id}'"
        output.print_line(f'and {more:,} more: `provd runs tail -n 0 --where "{condition}"` lists all')


def _print_errors(summary: RunSummary) -> None:
    if not summary.errors:
        return
    output.print_line("\nerrors", style="bold")
    for error in summary.errors[:_ERRORS_SHOWN]:
        _print_error(error)
    more = len(summary.errors) - _ERRORS_SHOWN
    if more > 0:
        output.print_line(f"and {human.many(more, 'kind')} more: --json lists all")
    if summary.other_errors:
        output.print_line(f"and {human.many(summary.other_errors, 'task')} that failed in other ways")


def _print_error(error: ErrorGroup) -> None:
    times = f"{error.count:,} times " if error.count > 1 else ""
    output.print_line(f"{times}{human.cell(error.activity_id)}: {error.message}", style="red")
    output.print_line(f"task {error.task_id}", indent=2)
    if error.traceback:
        _print_traceback(error.traceback)


def _print_traceback(text: str) -> None:
    lines = text.rstrip().splitlines()
    cut = len(lines) - _TRACEBACK_LINES
    if cut > 0:
        lines = [f"… {human.many(cut, 'line')} before", *lines[cut:]]
    _print_lines(lines, style="dim")


def _print_lines(lines: Sequence[str], *, style: str) -> None:
    """Lines one below the other; a very long one is cut."""
    room = output.width() - 2
    for line in lines:
        output.print_line(output.within(line, room, lines=_LINES_OF_ONE), style=style, indent=2)
