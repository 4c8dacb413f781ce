"""`provd replay`: spool files into the broker or straight into the store; safe to repeat."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Optional

import typer

from provd.cli.exits import FAILED, INTERRUPTED
from provd.cli.options import BrokerOption, JsonOption, settings_of
from provd.common.errors import BrokerUnavailable, UsageError
from provd.common.settings import Settings

#: Bad lines that are named one by one; the rest is counted.
_BAD_LINES_SHOWN = 20


def replay(
    context: typer.Context,
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Spool files, or folders of them.")],
    broker: BrokerOption = None,
    store: Annotated[
        Optional[str],
        typer.Option("--store", metavar="URL", help="Write straight into this store instead of the broker."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Bring spool files in: into the broker, or straight into a store.

    Repeating it changes nothing. Exits 1 when a line could not be read.
    """
    if broker is not None and store is not None:
        raise UsageError("give --broker or --store, not both")
    missing = [str(path) for path in paths if not path.exists()]
    if missing:
        raise UsageError(f"there is no {', no '.join(missing)}")
    settings = settings_of(context, broker_url=broker, store_url=store)
    with _stopping() as stop:
        report = _into_store(settings, paths, stop) if store is not None else _into_broker(settings, paths, stop)
    _print_report(report, into="store" if store is not None else "broker", json=json)
    if not report.complete:
        raise typer.Exit(INTERRUPTED)
    if report.bad_lines or report.refused:
        raise typer.Exit(FAILED)


def _into_store(settings, paths, stop): ...
def _into_broker(settings, paths, stop): ...
