"""`provd replay`: spool files into the broker or straight into the store; safe to repeat."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Optional

import typer

from provd.cli import human, output
from provd.cli.exits import FAILED, INTERRUPTED
from provd.cli.options import BrokerOption, JsonOption, settings_of
from provd.cli.stopping import stopped_by_signals
from provd.common.errors import UsageError
from provd.common.record import Record
from provd.common.settings import Settings
from provd.common.spool import BadLine

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
    into = "broker" if store is None else "store"
    outcome = _into_broker(settings, paths) if store is None else _into_store(settings, paths)
    _report(outcome, into=into, json=json)
    if not outcome.complete:
        raise typer.Exit(INTERRUPTED)
    if outcome.bad_lines or outcome.refused:
        raise typer.Exit(FAILED)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a replay did, wherever it went to; `refused` messages are in the store's quarantine."""

    files: int
    messages: int
    bad_lines: Sequence[BadLine]
    refused: int = 0
    complete: bool = True


def _into_broker(settings: Settings, paths: Sequence[Path]) -> Outcome:
    from provd.producer.replay import replay_into_broker

    with _progress_bar(paths) as tell:
        report = replay_into_broker(paths, settings, progress=lambda _path, sent: tell(sent))
    return Outcome(report.files, report.messages, report.bad_lines)


def _into_store(settings: Settings, paths: Sequence[Path]) -> Outcome:
    from provd.consumer.replay import replay_into_store
    from provd.store.open import open_store

    stop = threading.Event()
    store = open_store(settings.resolved_store_url())
    try:
        store.migrate()
        with stopped_by_signals(stop.set), _progress_bar(paths) as tell:
            report = replay_into_store(
                paths, store, batch_messages=settings.batch_messages, on_progress=tell, stop=stop
            )
    finally:
        store.close()
    return Outcome(report.files, report.messages, report.bad_lines, report.refused, report.complete)


@contextmanager
def _progress_bar(paths: Sequence[Path]) -> Iterator[Callable[[int], None]]:
    """A bar over the messages on a terminal, nothing elsewhere; yields what is to be told the messages so far."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("replaying"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("", total=_count_lines(paths))
        yield lambda messages: progress.update(bar, completed=messages)


def _count_lines(paths: Sequence[Path]) -> int:
    """The messages there are to read, by the lines of the files; their headers are not messages."""
    from provd.common.spool import spool_files

    lines = 0
    for file in spool_files(paths, with_open=True):
        with file.open("rb") as stream:
            lines += sum(block.count(b"\n") for block in iter(lambda: stream.read(1 << 20), b"")) - 1
    return max(0, lines)


def _report(outcome: Outcome, *, into: str, json: bool) -> None:
    for bad in outcome.bad_lines[:_BAD_LINES_SHOWN]:
        output.say_error(f"{bad.path}:{bad.number}: {bad.error}")
    if len(outcome.bad_lines) > _BAD_LINES_SHOWN:
        output.say_error(
            f"and {len(outcome.bad_lines) - _BAD_LINES_SHOWN:,} more lines that could not be read"
        )
    if json:
        output.print_json(_document(outcome, into))
        return
    done = "replayed" if outcome.complete else "stopped after"
    parts = [
        f"{done} {human.many(outcome.messages, 'message')} of {human.many(outcome.files, 'file')} into the {into}"
    ]
    if outcome.bad_lines:
        parts.append(f"{human.many(len(outcome.bad_lines), 'line')} could not be read")
    if outcome.refused:
        parts.append(f"{human.many(outcome.refused, 'message')} refused and quarantined")
    output.say("; ".join(parts))


def _document(outcome: Outcome, into: str) -> Record:
    return {
        "into": into,
        "files": outcome.files,
        "messages": outcome.messages,
        "refused": outcome.refused,
        "bad_lines": [
            {"path": str(bad.path), "line": bad.number, "error": bad.error} for bad in outcome.bad_lines
        ],
        "complete": outcome.complete and not outcome.bad_lines and not outcome.refused,
    }
