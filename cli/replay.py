"""`provd replay`: spool files into the broker or straight into the store; safe to repeat."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Optional

import typer

from provd.cli import human, output
from provd.cli.exits import FAILED, INTERRUPTED
from provd.cli.options import BrokerOption, JsonOption, settings_of
from provd.cli.stopping import stopped_by_signals
from provd.common.errors import BrokerFull, ServiceUnavailable, UsageError
from provd.common.record import Record
from provd.common.sealing import Sealed, seal_abandoned
from provd.common.settings import Settings
from provd.common.spool import BadLine
from provd.common.spool_reader import SpoolReader

#: Bad lines, and files left open, that are named one by one; the rest is counted.
_SHOWN = 20


def replay(
    context: typer.Context,
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Spool files, or folders of them.")],
    broker: BrokerOption = None,
    store: Annotated[
        Optional[str],
        typer.Option("--store", metavar="URL", help="Write straight into this store instead of the broker."),
    ] = None,
    recover: Annotated[
        bool,
        typer.Option("--recover", help="First seal the open files of processes that have ended."),
    ] = False,
    remove: Annotated[
        bool,
        typer.Option("--remove", help="With --store: remove each file once the store has all of it."),
    ] = False,
    json: JsonOption = False,
) -> None:
    """Bring spool files in: into the broker, or straight into a store, also where the settings name only that.

    Repeating it changes nothing. Files that are still open are read as far as they go, and left. --recover seals
    those whose process has provably ended, or of which nothing is known and that were silent for an hour.

    A Redis without room is waited for while a consumer empties it. Exits 1 when a line or file could not be read, 3
    when the broker or store went away, or nothing fitted for a minute: then repeat it.
    """
    if broker is not None and store is not None:
        raise UsageError("give --broker or --store, not both")
    missing = [str(path) for path in paths if not path.exists() and not path.is_symlink()]
    if missing:
        raise UsageError(f"there is no {', no '.join(missing)}")
    settings = settings_of(context, broker_url=broker, store_url=store)
    into = "store" if store is not None or _has_only_a_store(settings, broker) else "broker"
    if remove and into == "broker":
        raise UsageError("--remove needs --store: only the store can say that it has all of a file")
    sealed = seal_abandoned(SpoolReader().find(paths)) if recover else Sealed()
    # A file that was named is now to be found under its new name.
    now = [path if path.exists() else path.with_name(path.name.removesuffix(".open")) for path in paths]
    outcome = _into_broker(settings, now) if into == "broker" else _into_store(settings, now, remove=remove)
    outcome.sealed = sealed
    _report(outcome, into=into, json=json)
    if outcome.stopped:
        raise typer.Exit(INTERRUPTED)
    if outcome.bad_count or outcome.refused:
        raise typer.Exit(FAILED)


def _has_only_a_store(settings: Settings, broker: str | None) -> bool:
    """Whether there is no broker but a store by the settings. Raises `UsageError` where there is neither."""
    if settings.resolved_broker_url():
        return False
    if broker is None and settings.store_url is not None:
        return True
    told = settings.broker_url or "an empty broker_url"
    raise UsageError(
        f"{told} means spool files only: name a Redis by --broker, or the store to write into by --store"
    )


@dataclass(slots=True)
class Outcome:
    """What a replay did, wherever it went to; `refused` messages are in the store's quarantine."""

    files: int
    messages: int
    bad_lines: Sequence[BadLine]
    bad_count: int
    #: Files that were still open when they were read, and that were gone when their turn came.
    open: int
    gone: int
    refused: int = 0
    removed: int = 0
    #: Messages of deleted runs, which are not kept.
    of_deleted_runs: int = 0
    stopped: bool = False
    sealed: Sealed = field(default_factory=Sealed)

    @property
    def complete(self) -> bool:
        """Whether all that was found has been brought in."""
        return not (self.stopped or self.bad_count or self.refused)


def _into_broker(settings: Settings, paths: Sequence[Path]) -> Outcome:
    from provd.producer.replay import PATIENCE_S, replay_into_broker

    def say_full(error: BrokerFull) -> None:
        output.say(
            f"{error.url} is full: waiting for a consumer to make room, up to {PATIENCE_S:g} s without any progress"
        )

    with _progress_bar(paths) as bar, _repeatable(bar) as tell:
        report = replay_into_broker(
            paths, settings, progress=lambda _path, sent: tell(sent), on_full=say_full
        )
    return Outcome(
        report.files, report.messages, report.bad_lines, report.bad_count, report.open, report.gone
    )


def _into_store(settings: Settings, paths: Sequence[Path], *, remove: bool) -> Outcome:
    from provd.consumer.replay import replay_into_store
    from provd.store.open import open_store

    stop = threading.Event()
    store = open_store(settings.resolved_store_url())
    try:
        store.migrate()
        with stopped_by_signals(stop.set), _progress_bar(paths) as bar, _repeatable(bar) as tell:
            report = replay_into_store(
                paths,
                store,
                batch_messages=settings.batch_messages,
                on_progress=tell,
                stop=stop,
                remove=remove,
            )
    finally:
        store.close()
    return Outcome(
        report.files, report.messages, report.bad_lines, report.bad_count, report.open, report.gone,
        report.refused, report.removed, report.of_deleted_runs, stopped=not report.complete,
    )  # fmt: skip


@contextmanager
def _repeatable(tell: Callable[[int], None]) -> Iterator[Callable[[int], None]]:
    """Say of a service that went away in the middle how far it went, and that repeating goes on; yields what is to be
    told the messages so far, and passes it on to `tell`.
    """
    done = 0

    def count(messages: int) -> None:
        nonlocal done
        done = messages
        tell(messages)

    try:
        yield count
    except ServiceUnavailable as error:
        if not done:
            raise
        went = f"{human.many(done, 'message')} went in before; repeat the command to bring in the rest"
        raise type(error)(error.url, f"{error.reason}; {went}") from error


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
    lines = 0
    for file in SpoolReader().read(paths):
        try:
            with file.path.open("rb") as stream:
                lines += sum(block.count(b"\n") for block in iter(lambda: stream.read(1 << 20), b"")) - 1
        except OSError:
            continue  # it is told when its turn comes
    return max(0, lines)


def _report(outcome: Outcome, *, into: str, json: bool) -> None:
    for bad in outcome.bad_lines[:_SHOWN]:
        output.say_error(f"{_place(bad)}: {bad.error}")
    if outcome.bad_count > _SHOWN:
        output.say_error(f"and {outcome.bad_count - _SHOWN:,} more that could not be read")
    for left in outcome.sealed.left[:_SHOWN]:
        output.say(f"left open: {left.path}: {left.reason}")
    if json:
        output.print_json(_document(outcome, into))
        return
    output.say("; ".join(_sentences(outcome, into)))


def _place(bad: BadLine) -> str:
    return f"{bad.path}:{bad.number}" if bad.number else str(bad.path)


def _sentences(outcome: Outcome, into: str) -> Iterator[str]:
    if outcome.sealed.sealed:
        yield f"sealed {human.many(len(outcome.sealed.sealed), 'file')}"
    done = "stopped after" if outcome.stopped else "replayed"
    files = human.many(outcome.files, "file")
    yield f"{done} {human.many(outcome.messages, 'message')} of {files} into the {into}"
    if outcome.open:
        yield f"{human.many(outcome.open, 'file')} still open: repeat it when written"
    if outcome.gone:
        yield f"{human.many(outcome.gone, 'file')} removed meanwhile by others"
    if outcome.removed:
        yield f"{human.many(outcome.removed, 'file')} removed, being stored"
    if outcome.bad_count:
        yield f"{human.many(outcome.bad_count, 'line')} could not be read"
    if outcome.of_deleted_runs:
        yield f"{human.many(outcome.of_deleted_runs, 'message')} of deleted runs refused"
    if outcome.refused:
        yield f"{human.many(outcome.refused, 'message')} refused and quarantined"


def _document(outcome: Outcome, into: str) -> Record:
    return {
        "into": into,
        "files": outcome.files,
        "messages": outcome.messages,
        "refused": outcome.refused,
        "of_deleted_runs": outcome.of_deleted_runs,
        "bad_lines": [
            {"path": str(bad.path), "line": bad.number, "error": bad.error} for bad in outcome.bad_lines
        ],
        "bad_count": outcome.bad_count,
        "sealed": [str(path) for path in outcome.sealed.sealed],
        "left_open": [{"path": str(left.path), "reason": left.reason} for left in outcome.sealed.left],
        "open": outcome.open,
        "gone": outcome.gone,
        "removed": outcome.removed,
        "complete": outcome.complete,
    }
