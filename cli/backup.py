"""`provd backup` and `provd restore`: a whole store as a folder, and back."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from provd.cli.exits import FAILED
from provd.cli.options import JsonOption, StoreOption, settings_of
from provd.common.errors import UsageError
from provd.common.settings import Settings


def backup(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder to make; none, or an empty one.")],
    store: StoreOption = None,
    json: JsonOption = False,
) -> None:
    """Copy a whole store into a folder, while consumers go on.

    The folder appears when all of it is written. The copy never claims more than it holds.
    """
    from importlib.metadata import version

    from provd.cli import human, output
    from provd.cli.progress import progress_bar
    from provd.cli.services import open_store
    from provd.query.backup import back_up
    from provd.store.backup_folder import check_new

    settings = whole_store_settings(context, store, "a backup is")
    check_new(folder)
    with open_store(settings) as opened, progress_bar("documents") as tell:
        manifest = back_up(opened, folder, version=version("provd"), on_progress=tell)
    if json:
        output.print_json(
            {
                "folder": str(folder),
                "backup_id": manifest.backup_id,
                "store": manifest.origin.url,
                "store_id": manifest.origin.store_id,
                "started_at": manifest.started_at,
                "ended_at": manifest.ended_at,
                "documents": manifest.documents,
                "bytes": manifest.bytes,
            }
        )
        return
    documents = human.many(sum(manifest.documents.values()), "document")
    output.say(f"{folder}: {documents}, {human.size(manifest.bytes)}, of {manifest.origin.url}")


def restore(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder that `provd backup` made.")],
    store: StoreOption = None,
    merge: Annotated[
        bool, typer.Option("--merge", help="Into a store that has records: merge with what is there.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Bring a backup into an empty store, of either kind; safe to repeat.

    All files are checked before anything is written. Stop consumers before, and start them afterwards: the store has a
    new identity then, so that producers with `durability: disk` send again what they still have and it may lack.
    """
    from provd.cli import human, output
    from provd.cli.progress import progress_bar
    from provd.consumer.restoring import check_backup
    from provd.consumer.restoring import restore as bring_in
    from provd.store.open import open_store

    settings = whole_store_settings(context, store, "a restored backup is")
    with progress_bar("checked") as tell:
        manifest = check_backup(folder, tell)
    opened = open_store(settings.resolved_store_url())
    try:
        opened.migrate()
        with progress_bar("documents") as tell:
            done = bring_in(folder, manifest, opened, merge=merge, on_progress=tell)
    finally:
        opened.close()
    if json:
        output.print_json(asdict(done))
    else:
        told = [
            human.many(done.documents, "document") + " restored",
            # Of the books only the store knows what they said before: ranges of numbers are joined with others.
            f"{done.unchanged:,} of {human.many(done.changed + done.unchanged, 'record')} there before",
        ]
        if done.deleted:
            told.append(f"{done.deleted:,} of deleted runs left out")
        output.say(f"{opened.url}: {', '.join(told)}")
        for reason in done.reasons:
            output.say(f"refused: {reason}")
    if done.refused:
        raise typer.Exit(FAILED)


def whole_store_settings(context: typer.Context, store: str | None, what: str) -> Settings:
    """The settings of a command about a store as a whole. Raises `UsageError` where a tenant is set."""
    settings = settings_of(context, store_url=store)
    if settings.tenant_id is not None:
        raise UsageError(
            f"{what} of the whole store, and tenant_id is set to {settings.tenant_id!r}: leave tenant_id"
            " (PROVD_TENANT_ID) out"
        )
    return settings
