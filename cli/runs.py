"""`provd runs`: the latest ones, one in detail, and the open books of one."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, NoReturn, Optional

import typer

from provd.cli import run_compare, run_delete, run_graph, run_timeline
from provd.cli.exits import FAILED
from provd.cli.following import INTERVAL_S
from provd.cli.options import CampaignOption, JsonOption, RunArgument, StoreOption, settings_of

if TYPE_CHECKING:
    from provd.query.run_search import RunFollower, RunQuestion
    from provd.query.runs import Run

app = typer.Typer(no_args_is_help=True, help="Runs: the latest, one in detail, the open books of one.")

#: Gaps (runs of sequence numbers) that a table names per producer and bucket; `--json` has them all.
_GAPS_SHOWN = 8


@app.command()
def tail(
    context: typer.Context,
    limit: Annotated[
        int, typer.Option("--limit", "-n", metavar="N", min=0, help="How many; 0 for all.")
    ] = 20,
    campaign_id: CampaignOption = None,
    status: Annotated[
        Optional[list[str]],
        typer.Option(
            "--status",
            "-s",
            metavar="STATUS",
            help="With this status, such as LOST; repeat it for any of several.",
        ),
    ] = None,
    since: Annotated[
        Optional[str],
        typer.Option("--since", metavar="TIME", help="Started then or later: 2h (ago), or 2026-11-20T14:00."),
    ] = None,
    where: Annotated[
        Optional[str],
        typer.Option(
            "--where",
            metavar="CONDITION",
            help="Whose record this holds of, such as \"code.commit ~ '9fceb02'\".",
        ),
    ] = None,
    follow: Annotated[
        bool,
        typer.Option(
            "--follow", "-f", help="Go on with runs that begin or change their status, until Ctrl-C."
        ),
    ] = False,
    interval: Annotated[
        float,
        typer.Option("--interval", metavar="SECONDS", min=0.1, help="With --follow: time between two looks."),
    ] = INTERVAL_S,
    store: StoreOption = None,
    json: JsonOption = False,
) -> None:
    """List the latest runs: status, start, duration, tasks by status.

    DEGRADED means finished with failed tasks, LOST means running but silent for too long.
    """
    from provd.cli.services import open_store
    from provd.query.moments import parse_moment
    from provd.query.run_search import RUN_STATUSES, RunFollower, RunQuestion, find_runs, parse_run_where
    from provd.query.tasks import parse_status

    question = RunQuestion(
        campaign_id=campaign_id,
        statuses=tuple(parse_status(text, RUN_STATUSES, "run") for text in status or ()),
        since=parse_moment(since, "--since") if since is not None else None,
        where=parse_run_where(where) if where is not None else None,
    )
    settings = settings_of(context, store_url=store)
    with open_store(settings) as opened:
        if follow:
            follower = RunFollower(opened, question, limit=limit, lost_after_s=settings.lost_after_s)
            _follow(follower, interval, json=json)
        runs = find_runs(opened, question, limit=limit, lost_after_s=settings.lost_after_s)
    _print_runs(runs, question, json=json)


def _follow(follower: RunFollower, interval: float, *, json: bool) -> NoReturn:
    from provd.cli import output
    from provd.cli.following import follow
    from provd.cli.run_tables import RunLines

    lines = RunLines()

    def show(runs: Sequence[Run]) -> None:
        if not json:
            lines.show(runs)
            return
        for run in runs:
            output.print_json(run.to_document())
        sys.stdout.flush()

    show(follower.begin())
    follow(lambda: show(follower.look()), interval)


def _print_runs(runs: Sequence[Run], question: RunQuestion, *, json: bool) -> None:
    from provd.cli import human, output
    from provd.cli.run_tables import print_runs
    from provd.common import names
    from provd.query.unknown_names import named_fields, unknown_fields

    if json:
        for run in runs:
            output.print_json(run.to_document())
    elif runs:
        print_runs(runs)
        unknown = [run.unknown_since for run in runs if run.unknown_since is not None]
        if unknown:
            output.say(
                f"no consumer has looked since {human.moment(max(unknown))}:"
                " what reads as running may have ended, or fallen silent, since then"
            )
    elif question.statuses or question.since is not None or question.where is not None:
        output.say("no such runs" + (f" in campaign {question.campaign_id}" if question.campaign_id else ""))
        for line in unknown_fields(names.WORKFLOWS, named_fields(question.where or {})):
            output.say(line)
    else:
        output.say("no runs" + (f" in campaign {question.campaign_id}" if question.campaign_id else " yet"))


@app.command()
def show(
    context: typer.Context, run: RunArgument, store: StoreOption = None, json: JsonOption = False
) -> None:
    """Show one run: times, code, arguments, producers, activities, errors, and what verify says."""
    from provd.cli import output
    from provd.cli.progress import progress_bar
    from provd.cli.run_page import print_run, run_document
    from provd.cli.services import open_store
    from provd.query.find import find_run
    from provd.query.summary import summarise_run

    settings = settings_of(context, store_url=store)
    with open_store(settings) as opened, progress_bar("reading tasks") as progress:
        workflow_id = find_run(opened, run)
        summary = summarise_run(opened, workflow_id, lost_after_s=settings.lost_after_s, progress=progress)
    if json:
        output.print_json(run_document(summary))
    else:
        print_run(summary)


@app.command()
def verify(
    context: typer.Context, run: RunArgument, store: StoreOption = None, json: JsonOption = False
) -> None:
    """Prove that all of a run is stored, or name the gaps; exits 1 unless it is complete."""
    from provd.cli import output
    from provd.cli.run_tables import print_books
    from provd.cli.services import open_store
    from provd.query.find import find_run
    from provd.query.verify import books_document
    from provd.store.books import read_books

    with open_store(settings_of(context, store_url=store)) as opened:
        books = read_books(opened, find_run(opened, run))
    if json:
        output.print_json(books_document(books))
    else:
        print_books(books, gaps_shown=_GAPS_SHOWN)
    if not books.complete:
        raise typer.Exit(FAILED)


app.command()(run_compare.compare)
app.command()(run_timeline.timeline)
app.command()(run_graph.graph)
app.command()(run_delete.delete)
app.command()(run_delete.prune)
