"""`provd store`: what a store takes, its disk back, and its schema."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from provd.cli.backup import whole_store_settings
from provd.cli.exits import FAILED
from provd.cli.options import JsonOption, StoreOption

if TYPE_CHECKING:
    from provd.store.interface import Store
    from provd.store.upkeep import Size

app = typer.Typer(
    no_args_is_help=True, help="Look after a store: its size, its room on the disk, its schema."
)


@app.command("stats")
def stats(context: typer.Context, store: StoreOption = None, json: JsonOption = False) -> None:
    """Show what a store holds and takes: documents, sizes and indexes by collection, schema, identity."""
    from provd.cli import human, output
    from provd.common import names
    from provd.common.passwords import mask_url

    with _opened(context, store, "what is told here is") as opened:
        upkeep = opened.upkeep()
        sizes, changes, store_id = upkeep.sizes(), upkeep.changes(), upkeep.store_id()
        oldest, newest = _started(opened, 1), _started(opened, -1)
    if json:
        output.print_json(
            {
                "store": mask_url(opened.url),
                "kind": upkeep.kind,
                "store_id": store_id,
                "schema": {"version": len(changes.made), "made": changes.made, "pending": changes.pending},
                "disk_bytes": sizes.disk_bytes,
                "free_bytes": sizes.free_bytes,
                "oldest_run": oldest,
                "newest_run": newest,
                "collections": {name: _told(size) for name, size in sizes.collections.items()},
            }
        )
        return
    free = "" if sizes.free_bytes is None else f", {human.size(sizes.free_bytes)} of it free"
    disk = "this user may not see it" if sizes.disk_bytes is None else human.size(sizes.disk_bytes)
    output.print_fields(
        [
            ("store", mask_url(opened.url)),
            ("identity", store_id or "none yet"),
            (
                "schema",
                f"version {len(changes.made)}"
                + (f", {len(changes.pending)} to be made" if changes.pending else ""),
            ),
            ("on disk", f"{disk}{free}"),
            ("oldest run", human.moment(oldest)),
            ("newest run", human.moment(newest)),
        ]
    )
    columns = [
        output.Column("collection", firm=True),
        *(output.Column(header, right=True, firm=True) for header in ("documents", "size", "indexes")),
    ]
    rows = [
        (name, f"{sizes.collections[name].documents:,}", *_shown(sizes.collections[name]))
        for name in names.COLLECTIONS
    ]
    output.print_table(columns, rows, title="Collections")


def _started(store: Store, direction: int) -> datetime | None:
    """When the first or the last run began."""
    from provd.common import names

    found = store.find(
        names.WORKFLOWS,
        {"started_at": {"$exists": True}},
        fields=["started_at"],
        sort=[("started_at", direction)],
        limit=1,
    )
    return next((record["started_at"] for record in found), None)


def _told(size: Size) -> dict[str, Any]:
    return {"documents": size.documents, "bytes": size.bytes, "indexes": dict(size.indexes)}


def _shown(size: Size) -> tuple[str, str]:
    from provd.cli import human

    if size.bytes is None:
        return "?", "?"
    return human.size(size.bytes), human.size(sum(taken or 0 for taken in size.indexes.values()))


@app.command("compact")
def compact(context: typer.Context, store: StoreOption = None, json: JsonOption = False) -> None:
    """Make a store smaller without losing anything: ledgers of ended runs, and what deleted documents took.

    Embedded: VACUUM, which needs twice the file's size free. MongoDB: the command `compact`, where the server allows it.
    """
    from provd.cli import human, output
    from provd.cli.progress import progress_bar
    from provd.store.upkeep import compact_ledgers

    with _opened(context, store, "what is compacted is") as opened:
        with progress_bar("ledgers") as tell:
            runs, before, after = compact_ledgers(opened, tell)
        with progress_bar("collections") as tell:
            reclaimed = opened.upkeep().reclaim(tell)
    if json:
        output.print_json(
            {
                "runs": runs,
                "ranges": {"before": before, "after": after},
                "disk_bytes": {"before": reclaimed.before, "after": reclaimed.after},
                "done": reclaimed.done,
                "refused": reclaimed.refused,
            }
        )
        return
    output.say(f"ledgers of {human.many(runs, 'ended run')}: {before:,} ranges before, {after:,} now")
    won = ""
    if reclaimed.before is not None and reclaimed.after is not None:
        won = f": {human.size(max(0, reclaimed.before - reclaimed.after))} won, {human.size(reclaimed.after)} now"
    output.say(f"{', '.join(reclaimed.done) or 'nothing else was done'}{won}")
    for reason in reclaimed.refused:
        output.say(f"not done: {reason}")


@app.command("migrate")
def migrate(
    context: typer.Context,
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; exit 1 when there is something to be done.")
    ] = False,
    store: StoreOption = None,
    json: JsonOption = False,
) -> None:
    """Bring a store's schema up to this version; makes a store that is not there.

    Consumers do it themselves when they start; of a large store it may take minutes, which are better chosen than met.
    """
    from provd.cli import output
    from provd.cli.progress import progress_bar
    from provd.store.open import open_store

    settings = whole_store_settings(context, store, "a schema is")
    opened = open_store(settings.resolved_store_url())
    applied: list[str] = []
    try:
        if not check:
            with progress_bar("index") as tell:
                applied = opened.upkeep().migrate(tell)
        changes = opened.upkeep().changes()
    finally:
        opened.close()
    if json:
        output.print_json(
            {
                "version": len(changes.made),
                "made": changes.made,
                "applied": applied,
                "pending": changes.pending,
            }
        )
    elif check:
        output.say(
            f"to be made: {', '.join(changes.pending)}" if changes.pending else "nothing is to be made"
        )
    else:
        output.say(f"made: {', '.join(applied)}" if applied else "nothing was to be made")
    if changes.pending:
        raise typer.Exit(FAILED)


@contextmanager
def _opened(context: typer.Context, store: str | None, what: str) -> Iterator[Store]:
    from provd.cli.services import open_store

    with open_store(whole_store_settings(context, store, what)) as opened:
        yield opened
