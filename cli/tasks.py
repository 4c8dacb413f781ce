"""`provd tasks`: tasks by the questions people ask most."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from provd.cli.following import INTERVAL_S
from provd.cli.options import CampaignOption, JsonOption, StoreOption, settings_of
from provd.common.errors import UsageError

if TYPE_CHECKING:
    from provd.cli.rows import Seen
    from provd.common.record import Record
    from provd.query.tasks import TaskQuestion
    from provd.store.interface import Sort, Store

_FORMATS = ("table", "json", "csv", "parquet")


def tasks(
    context: typer.Context,
    workflow_id: Annotated[
        Optional[str],
        typer.Option(
            "--workflow-id", "-w", metavar="RUN", help="Of this run: id, unique prefix, name or `last`."
        ),
    ] = None,
    campaign_id: CampaignOption = None,
    activity: Annotated[
        Optional[str], typer.Option("--activity", "-a", metavar="NAME", help="Of this activity.")
    ] = None,
    status: Annotated[
        Optional[list[str]],
        typer.Option(
            "--status",
            "-s",
            metavar="STATUS",
            help="With this status, such as ERROR; repeat it for any of several.",
        ),
    ] = None,
    host: Annotated[Optional[str], typer.Option("--host", metavar="NAME", help="Of this host.")] = None,
    rank: Annotated[Optional[int], typer.Option("--rank", metavar="N", help="Of this rank.")] = None,
    tag: Annotated[
        Optional[list[str]],
        typer.Option("--tag", metavar="TAG", help="With this tag; repeat it for all of several."),
    ] = None,
    since: Annotated[
        Optional[str],
        typer.Option("--since", metavar="TIME", help="Started then or later: 2h (ago), or 2026-11-20T14:00."),
    ] = None,
    until: Annotated[
        Optional[str], typer.Option("--until", metavar="TIME", help="Started before then.")
    ] = None,
    min_duration: Annotated[
        Optional[str],
        typer.Option("--min-duration", metavar="SPAN", help="Took this or longer, such as 1m30s."),
    ] = None,
    max_duration: Annotated[
        Optional[str], typer.Option("--max-duration", metavar="SPAN", help="Took this or less.")
    ] = None,
    where: Annotated[
        Optional[list[str]],
        typer.Option(
            "--where",
            metavar="CONDITION",
            help="For which this holds, such as 'used.lr > 0.01 and generated.acc >= 0.9'; repeat it for all of several.",
        ),
    ] = None,
    sort: Annotated[
        Optional[str],
        typer.Option("--sort", metavar="A,-B", help="Sort by these fields; a minus for falling."),
    ] = None,
    fields: Annotated[
        Optional[str], typer.Option("--fields", metavar="A,B.C", help="Only these fields; dots reach inside.")
    ] = None,
    limit: Annotated[
        Optional[str],
        typer.Option(
            "--limit", "-n", metavar="N", help="How many, or 1%; 0 for all. 50, or all into a file."
        ),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what is new or changes, until Ctrl-C.")
    ] = False,
    interval: Annotated[
        float,
        typer.Option("--interval", metavar="SECONDS", min=0.1, help="With --follow: time between two looks."),
    ] = INTERVAL_S,
    format: Annotated[
        Optional[str], typer.Option("--format", metavar="FORMAT", help="table, json, csv or parquet.")
    ] = None,
    to: Annotated[
        Optional[str], typer.Option("--output", "-o", metavar="PATH", help="Write into this file.")
    ] = None,
    store: StoreOption = None,
    json: JsonOption = False,
) -> None:
    """List tasks, the one that started last first."""
    from provd.cli.rows import Seen
    from provd.cli.services import open_store
    from provd.query.filters import parse_fields, parse_sort
    from provd.query.latest import LATEST_FIRST
    from provd.query.tasks import find_tasks, share_of

    form = _format(format, json=json, to=to, follow=follow)
    if follow and (sort is not None or fields is not None or until is not None):
        raise UsageError("--follow tells whole tasks as they come: leave out --sort, --fields and --until")
    order = parse_sort(sort) if sort is not None else LATEST_FIRST
    chosen = parse_fields(fields) if fields is not None else None
    conditions = _conditions(
        status=status or (), since=since, until=until, min_duration=min_duration, max_duration=max_duration,
        where=where or (),
    )  # fmt: skip
    conditions |= {
        "campaign_id": campaign_id, "activity_id": activity, "hostname": host, "rank": rank, "tags": tuple(tag or ()),
    }  # fmt: skip
    settings = settings_of(context, store_url=store)
    number, percent = _limit(limit, 50 if to is None else 0)
    if follow and percent is not None:
        raise UsageError("--follow goes on: a part of all makes no sense as its --limit")
    with open_store(settings) as opened:
        question = _question(opened, workflow_id, conditions)
        if follow:
            _follow(opened, question, number, interval, settings.lost_after_s, json=form == "json")
            return
        if percent is not None:
            number = share_of(opened, question, percent, lost_after_s=settings.lost_after_s)
        found = find_tasks(
            opened,
            question,
            sort=order,
            fields=chosen,
            limit=number if percent is not None else number and number + 1,
            lost_after_s=settings.lost_after_s,
        )
        seen = Seen()
        _give(seen.watching(found), number, form, chosen, to)
        _say_unknown(opened, question, order, seen)


def _format(format: str | None, *, json: bool, to: str | None, follow: bool) -> str:
    from provd.cli.formats import suffix_format

    if format is not None and json and format.lower() != "json":
        raise UsageError(f"--json and --format {format} are two formats: leave one out")
    if json:
        form = "json"
    else:
        form = format.lower() if format is not None else suffix_format(to, _FORMATS) or "table"
    if form not in _FORMATS:
        raise UsageError(f"no format {format!r}; there are {', '.join(_FORMATS)}")
    if form == "parquet" and to is None:
        raise UsageError("Parquet is no text: name a file by --output")
    if form == "table" and to is not None:
        raise UsageError("--output takes json, csv or parquet: add --format, or end the file's name so")
    if follow and (form in ("csv", "parquet") or to is not None):
        raise UsageError("--follow prints a table or json, and into no file")
    return form


def _limit(text: str | None, default: int) -> tuple[int, float | None]:
    """How many, or how many of a hundred."""
    if text is None:
        return default, None
    written, sign, rest = text.strip().partition("%")
    try:
        if sign and not rest and 0 < float(written) <= 100:
            return 0, float(written)
        if not sign and int(written) >= 0:
            return int(written), None
    except ValueError:
        pass
    raise UsageError(f"--limit {text!r} is neither a number, 0 for all, nor a part such as 1%")


def _conditions(
    *,
    status: Any,
    since: str | None,
    until: str | None,
    min_duration: str | None,
    max_duration: str | None,
    where: Any,
) -> dict[str, Any]:
    from provd.query.moments import parse_moment, parse_span
    from provd.query.tasks import parse_status
    from provd.query.where import parse_where

    wheres = [parse_where(text) for text in where]
    return {
        "statuses": tuple(parse_status(text) for text in status),
        "since": parse_moment(since, "--since") if since is not None else None,
        "until": parse_moment(until, "--until") if until is not None else None,
        "min_duration": parse_span(min_duration, "--min-duration") if min_duration is not None else None,
        "max_duration": parse_span(max_duration, "--max-duration") if max_duration is not None else None,
        "where": {"$and": wheres} if len(wheres) > 1 else wheres[0] if wheres else None,
    }


def _question(store: Store, run: str | None, conditions: dict[str, Any]) -> TaskQuestion:
    from provd.query.find import find_run
    from provd.query.tasks import TaskQuestion

    return TaskQuestion(workflow_id=find_run(store, run) if run is not None else None, **conditions)


def _give(found: Iterator[Record], limit: int, form: str, fields: list[str] | None, to: str | None) -> None:
    from provd.cli import output
    from provd.cli.formats import write_records
    from provd.cli.record_table import print_records, say_absent
    from provd.cli.rows import limited
    from provd.cli.task_table import print_tasks

    records = limited(found, limit)
    if form != "table":
        write_records(records, form, to, fields or ())
        return
    rows = list(records)
    if not rows:
        output.say("no such tasks")
    elif fields is not None:
        say_absent(rows, fields)
        print_records(rows, fields)
    else:
        print_tasks(rows)


def _say_unknown(store: Store, question: TaskQuestion, order: Sort, seen: Seen) -> None:
    """Say which names of the question no task has: where nothing was found, and where a field put nothing in order."""
    from provd.cli import output
    from provd.common import names
    from provd.query.unknown_names import named_fields, unknown_activity, unknown_fields

    asked = [field for field, _ in order]
    if not seen.rows:
        asked = [*named_fields(question.where or {}), *asked]
        if question.workflow_id is not None and question.activity_id is not None:
            said = unknown_activity(store, question.workflow_id, question.activity_id)
            if said is not None:
                output.say(said)
    for line in unknown_fields(names.TASKS, asked, seen.fields):
        output.say(line)


def _follow(
    store: Store, question: TaskQuestion, limit: int, interval: float, lost_after_s: float, *, json: bool
) -> None:
    from provd.cli import output
    from provd.cli.following import follow
    from provd.cli.task_table import TaskLines
    from provd.query.follow import TaskFollower

    lines = TaskLines()

    def show(tasks: list[Record]) -> None:
        if not json:
            lines.show(tasks)
            return
        for task in tasks:
            output.print_json(task)
        sys.stdout.flush()

    follower = TaskFollower(store, question, lost_after_s=lost_after_s)
    show(follower.begin(limit))
    follow(lambda: show(follower.look()), interval)
