"""`provd runs`: the latest ones, one in detail, and the open books of one."""

from __future__ import annotations

from typing import Annotated

import typer

from provd.cli.exits import FAILED
from provd.cli.options import CampaignOption, JsonOption, RunArgument, StoreOption, settings_of

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
    store: StoreOption = None,
    json: JsonOption = False,
) -> None:
    """List the latest runs: status, start, duration, tasks by status.

    DEGRADED means finished with failed tasks, LOST means running but silent for too long.
    """
    from provd.cli import human, output
    from provd.cli.run_tables import print_runs
    from provd.cli.services import open_store
    from provd.query.runs import list_runs

    settings = settings_of(context, store_url=store)
    with open_store(settings) as opened:
        runs = list_runs(opened, campaign_id=campaign_id, limit=limit, lost_after_s=settings.lost_after_s)
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
    else:
        output.say("no runs" + (f" in campaign {campaign_id}" if campaign_id else " yet"))


@app.command()
def show(
    context: typer.Context, run: RunArgument, store: StoreOption = None, json: JsonOption = False
) -> None:
    """Show one run: times, code, arguments, producers, activities, errors, and what verify says."""
    from provd.cli import output
    from provd.cli.run_page import print_run, run_document
    from provd.cli.services import open_store
    from provd.query.find import find_run
    from provd.query.summary import summarise_run

    settings = settings_of(context, store_url=store)
    with open_store(settings) as opened:
        summary = summarise_run(opened, find_run(opened, run), lost_after_s=settings.lost_after_s)
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
