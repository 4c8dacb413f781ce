"""`provd runs delete` and `provd runs prune`: runs out of the store, archived before."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from provd.cli.options import CampaignOption, JsonOption, RunArgument, StoreOption, settings_of
from provd.common.errors import Deleted, UsageError

if TYPE_CHECKING:
    from provd.common.record import Record
    from provd.common.settings import Settings
    from provd.query.pruning import Age, Candidates
    from provd.query.runs import Run
    from provd.store.interface import Store

YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def delete(
    context: typer.Context,
    run: RunArgument,
    yes: YesOption = False,
    force: Annotated[
        bool, typer.Option("--force", help="Also while it runs, or is LOST: what still comes is refused.")
    ] = False,
    store: StoreOption = None,
    json: JsonOption = False,
) -> None:
    """Delete a run: all of it, for good. It leaves a tombstone, and what still comes of it is refused.

    Asks first on a terminal; elsewhere it needs --yes. One that was cut off goes on when it is given again.
    """
    from provd.cli import output
    from provd.cli.progress import progress_bar
    from provd.query.archive import remove_run
    from provd.query.find import find_run

    settings = settings_of(context, store_url=store)
    with _open(settings) as opened:
        try:
            workflow_id = find_run(opened, run)
            what = _checked(opened, workflow_id, settings, force=force)
        except Deleted as error:
            if error.finished:
                raise
            workflow_id, what = error.workflow_id, f"the rest of run {error.workflow_id}"
        _ask(f"delete {what}, for good", yes=yes)
        with progress_bar("deleting documents") as progress:
            tombstone = remove_run(opened, workflow_id, on_progress=progress)
    if json:
        output.print_json(_document(tombstone))
    else:
        output.say(f"deleted {workflow_id}: {_counted(tombstone)}")


def prune(
    context: typer.Context,
    older_than: Annotated[
        str, typer.Option("--older-than", metavar="TIME", help="Ended before: 30d (ago), or 2026-11-20.")
    ],
    campaign_id: CampaignOption = None,
    archive: Annotated[
        Optional[Path],
        typer.Option("--archive", metavar="DIR", help="First write each run into a file in this folder."),
    ] = None,
    format: Annotated[
        str,
        typer.Option(
            "--format",
            "-f",
            metavar="NAME",
            help="With --archive: jsonl (all of a run), or parquet (its tasks as a table beside that).",
        ),
    ] = "jsonl",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be deleted.")] = False,
    yes: YesOption = False,
    force: Annotated[
        bool, typer.Option("--force", help="Also runs that are LOST, or were never begun.")
    ] = False,
    store: StoreOption = None,
    json: JsonOption = False,
) -> None:
    """Delete the runs that ended before a moment, each archived before, if a folder is named.

    Nothing is deleted of a run that is not wholly in its archive. Cut off anywhere, it goes on when it is given again.
    """
    from provd.cli import output
    from provd.query.moments import parse_moment
    from provd.query.pruning import Age, find_candidates

    before = parse_moment(older_than, "--older-than")
    _check_format(format, archive)
    settings = settings_of(context, store_url=store)
    with _open(settings) as opened:
        age = Age(before, campaign_id, force, settings.lost_after_s)
        found = find_candidates(opened, age)
        if dry_run:
            _show(found, json=json)
            return
        if not found.going and not found.unfinished:
            output.say("no runs to delete" + _kept(found))
            return
        if not yes and sys.stdin.isatty():
            _show(found, json=False)
        _ask(_question(found, archive), yes=yes)
        for tombstone in _removed(opened, found, archive, format, age):
            if json:
                output.print_json(_document(tombstone))
                sys.stdout.flush()
            else:
                place = f", archived in {tombstone['archive']}" if "archive" in tombstone else ""
                output.say(f"deleted {tombstone['workflow_id']}: {_counted(tombstone)}{place}")
        if _kept(found):
            output.say(_kept(found).removeprefix("; "))


def _check_format(format: str, archive: Path | None) -> None:
    from provd.query.archive import FORMATS

    if format not in FORMATS:
        raise UsageError(f"unknown format {format!r}; there are {', '.join(FORMATS)}")
    if format != "jsonl" and archive is None:
        raise UsageError("--format is that of the archive: give --archive DIR")
    if archive is not None and archive.exists() and not archive.is_dir():
        raise UsageError(f"{archive} is no folder")


def _removed(
    store: Store, found: Candidates, archive: Path | None, format: str, age: Age
) -> Iterator[Record]:
    from provd.cli import output
    from provd.cli.progress import progress_bar
    from provd.query.archive import Archiving, remove_run
    from provd.query.pruning import still_goes

    archiving = None if archive is None else Archiving(archive, format, age.lost_after_s)
    for workflow_id in (*found.unfinished, *(run.workflow_id for run in found.going)):
        if not still_goes(store, workflow_id, age):
            output.say(
                f"{workflow_id} stays: it goes on, or somebody has deleted it or brought it back meanwhile"
            )
            continue
        with progress_bar(f"deleting {workflow_id}") as progress:
            tombstone = remove_run(store, workflow_id, archiving=archiving, on_progress=progress)
        yield tombstone


@contextmanager
def _open(settings: Settings) -> Iterator[Store]:
    """The store as everybody has it, of this version's schema."""
    from provd.cli.services import open_store

    if settings.tenant_id is not None:
        raise UsageError("runs are deleted for everybody: leave tenant_id (PROVD_TENANT_ID) out")
    with open_store(settings) as opened:
        yield opened.upkeep().exact(opened)  # whether a run has ended is not asked of a secondary


def _checked(store: Store, workflow_id: str, settings: Settings, *, force: bool) -> str:
    """The run in some words. Raises `UsageError` for one that has not ended."""
    from provd.query.pruning import UNENDED, as_they_live
    from provd.query.runs import read_run

    run = read_run(store, workflow_id, lost_after_s=settings.lost_after_s)
    (run,) = as_they_live(store, [run], settings.lost_after_s)
    if run.status in UNENDED and not force:
        raise UsageError(
            f"run {workflow_id} is {run.status}: what still comes of it would be refused; --force deletes it"
        )
    return _words(run)


def _words(run: Run) -> str:
    from provd.cli import human

    named = f" {run.name!r}" if run.name else ""
    tasks = human.many(sum(run.tasks.values()), "task")
    started = f", started {human.moment(run.started_at)}" if run.started_at else ""
    return f"run {run.workflow_id}{named} ({run.status}{started}, {tasks})"


def _ask(what: str, *, yes: bool) -> None:
    from provd.cli import output

    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(f"to {what} without being asked, give --yes")
    sys.stderr.write(output.printable(f"{what}? [y/N] "))
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        output.say("nothing was deleted")
        raise typer.Exit(1)


def _question(found: Candidates, archive: Path | None) -> str:
    from provd.cli import human

    parts = [human.many(len(found.going), "run")] if found.going else []
    if found.unfinished:
        parts.append(f"the rest of {human.many(len(found.unfinished), 'run')} that was cut off")
    return f"delete {' and '.join(parts)}, " + (f"archived in {archive}" if archive else "for good")


def _show(found: Candidates, *, json: bool) -> None:
    from provd.cli import output
    from provd.cli.run_tables import print_runs

    if json:
        for workflow_id in found.unfinished:
            output.print_json({"workflow_id": workflow_id, "fate": "unfinished"})
        for fate, runs in (("delete", found.going), ("stays", (*found.staying, *found.shared))):
            for run in runs:
                output.print_json({**run.to_document(), "fate": fate})
        return
    if found.going:
        print_runs(found.going)
    else:
        output.say("no runs to delete")
    for workflow_id in found.unfinished:
        output.say(f"{workflow_id}: its deletion was cut off, and would be finished")
    if _kept(found):
        output.say(_kept(found).removeprefix("; "))


def _kept(found: Candidates) -> str:
    return _staying(found.staying, "having not ended") + _staying(
        found.shared, "having tasks of other campaigns"
    )


def _staying(runs: Sequence[Run], why: str) -> str:
    from provd.cli import human

    if not runs:
        return ""
    named = ", ".join(f"{run.workflow_id} ({run.status})" for run in runs[:5])
    more = ", …" if len(runs) > 5 else ""
    stay = "stays" if len(runs) == 1 else "stay"
    return f"; {human.many(len(runs), 'run')} of that age {stay}, {why}: {named}{more}"


def _counted(tombstone: Record) -> str:
    from provd.cli import human

    told = [human.many(count, name.removesuffix("s")) for name, count in _kinds(tombstone)]
    return ", ".join(told) or "nothing was left of it"


def _kinds(tombstone: Record) -> Iterator[tuple[str, int]]:
    for name in ("tasks", "producers", "samples"):
        if tombstone["counts"].get(name):
            yield name, tombstone["counts"][name]


def _document(tombstone: Record) -> Record:
    return {name: value for name, value in tombstone.items() if name != "_id"}
