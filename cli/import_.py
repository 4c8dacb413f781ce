"""`provd import`: exported runs into a store; safe to repeat."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from provd.cli.exits import FAILED
from provd.cli.options import JsonOption, StoreOption, settings_of
from provd.common.errors import Deleted

if TYPE_CHECKING:
    from provd.store.interface import Store


def import_runs(
    context: typer.Context,
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Files that `provd export --format jsonl` wrote.")
    ],
    undelete: Annotated[
        bool,
        typer.Option("--undelete", help="Bring back runs that have been deleted from this store."),
    ] = False,
    store: StoreOption = None,
    json: JsonOption = False,
) -> None:
    """Bring exported runs into a store: all of a run, its ledger included.

    Every file is read to its end first: one that was cut off or changed is named with its line, and nothing is written.
    A run that is there already is merged, and repeating it changes nothing. One that was deleted from this store is
    refused, unless it is to be brought back (--undelete). Exits 1 when the store refused a document.
    """
    from provd.cli import human, output
    from provd.consumer.importing import Imported, check_export, import_checked
    from provd.store.open import open_store

    settings = settings_of(context, store_url=store)
    workflow_ids = [workflow_id for file in files for workflow_id in check_export(file)]
    total = Imported()
    opened = open_store(settings.resolved_store_url())
    try:
        opened.migrate()
        _check_deleted(opened, workflow_ids, undelete=undelete)
        for file in files:
            total.add(import_checked(file, opened))
    finally:
        opened.close()
    if json:
        output.print_json(
            {
                "workflow_ids": total.workflow_ids,
                "documents": total.documents,
                "changed": total.changed,
                "unchanged": total.unchanged,
                "refused": total.refused,
                "of_deleted_runs": total.gone,
                "reasons": total.reasons,
            }
        )
    else:
        runs, documents = human.many(len(total.workflow_ids), "run"), human.many(total.documents, "document")
        output.say(f"{runs} imported: {documents}, {total.unchanged:,} of them there before")
        for reason in total.reasons:
            output.say(f"refused: {reason}")
        if total.gone:
            output.say(f"{human.many(total.gone, 'document')} refused: a run was deleted meanwhile")
    if total.refused or total.gone:
        raise typer.Exit(FAILED)


def _check_deleted(store: Store, workflow_ids: Sequence[str], *, undelete: bool) -> None:
    """Raise `Deleted` for runs that have been deleted, or bring them back."""
    from provd.store.tombstones import deleted_error, find_tombstone

    for workflow_id in sorted(store.deleted_among(workflow_ids)):
        tombstone = find_tombstone(store, workflow_id)
        if tombstone is None or (undelete and store.undelete_run(workflow_id)):
            continue
        error = deleted_error(tombstone)
        hint = "" if undelete else "; --undelete brings it back"
        raise Deleted(f"{error}{hint}", workflow_id=workflow_id, finished=error.finished)
