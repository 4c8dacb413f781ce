"""`provd quarantine`: what could not be stored, one piece in detail, and another try."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from provd.cli.exits import FAILED
from provd.cli.options import JsonOption, StoreOption, settings_of
from provd.common.errors import UsageError

if TYPE_CHECKING:
    from provd.consumer.quarantine import Retried
    from provd.query.quarantine import Piece
    from provd.store.interface import Store

app = typer.Typer(no_args_is_help=True, help="What could not be stored: list it, look at it, try it again.")

#: Reasons whose counts the list names; the rest is summed up.
_REASONS_SHOWN = 5

WorkflowOption = Annotated[
    Optional[str],
    typer.Option(
        "--workflow-id", "-w", metavar="RUN", help="Of this run: id, unique prefix, name or `last`."
    ),
]
ReasonOption = Annotated[
    Optional[str], typer.Option("--reason", "-r", metavar="TEXT", help="Whose reason has this text in it.")
]


@app.command("list")
def list_(
    context: typer.Context,
    workflow_id: WorkflowOption = None,
    reason: ReasonOption = None,
    limit: Annotated[
        int, typer.Option("--limit", "-n", metavar="N", min=0, help="How many; 0 for all.")
    ] = 50,
    store: StoreOption = None,
    json: JsonOption = False,
) -> None:
    """List what is in quarantine, the newest first, and how much of it there is by reason."""
    from provd.cli import output
    from provd.cli.quarantine_page import print_pieces
    from provd.cli.services import open_store
    from provd.query.quarantine import count_reasons, find_pieces

    with open_store(settings_of(context, store_url=store)) as opened:
        run = _run_id(opened, workflow_id)
        pieces = list(find_pieces(opened, workflow_id=run, reason=reason, limit=limit and limit + 1))
        counts = count_reasons(opened, workflow_id=run, reason=reason) if pieces else {}
    shown = pieces[:limit] if limit else pieces
    if json:
        for piece in shown:
            output.print_json(piece.to_document())
    elif shown:
        print_pieces(shown)
    if len(shown) < len(pieces):
        output.say(f"only the newest {limit:,} of {sum(counts.values()):,} shown (--limit 0 for all)")
    _say_counts(counts)


def _say_counts(counts: dict[str, int]) -> None:
    from provd.cli import human, output

    total = sum(counts.values())
    if not total:
        output.say("nothing is in quarantine")
        return
    parts = [f"{count:,} {reason}" for reason, count in list(counts.items())[:_REASONS_SHOWN]]
    rest = total - sum(list(counts.values())[:_REASONS_SHOWN])
    if rest:
        parts.append(f"{rest:,} for other reasons")
    output.say(f"{human.many(total, 'piece')} in quarantine: {'; '.join(parts)}")


@app.command()
def show(
    context: typer.Context,
    piece: Annotated[str, typer.Argument(metavar="ID", help="A piece's id, or a unique prefix of it.")],
    store: StoreOption = None,
    json: JsonOption = False,
) -> None:
    """Show one piece: why it is there, where it came from, its bytes, and what of it can be read."""
    from provd.cli import output
    from provd.cli.quarantine_page import piece_document, print_piece
    from provd.cli.services import open_store
    from provd.query.quarantine import read_piece

    with open_store(settings_of(context, store_url=store)) as opened:
        found = read_piece(opened, piece)
    if json:
        output.print_json(piece_document(found))
    else:
        print_piece(found)


@app.command()
def retry(
    context: typer.Context,
    pieces: Annotated[
        Optional[list[str]], typer.Argument(metavar="[ID]...", help="Pieces, by id or a unique prefix of it.")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Try all, or all that the filters choose.")
    ] = False,
    workflow_id: WorkflowOption = None,
    reason: ReasonOption = None,
    store: StoreOption = None,
    json: JsonOption = False,
) -> None:
    """Read pieces again with this version, and store what can be stored.

    A piece leaves quarantine only when the store has confirmed all of it; one that still cannot be read stays, with
    the new reason. Exits 1 if any stays.
    """
    from provd.cli import output
    from provd.cli.services import open_store

    if bool(pieces) == everything:
        raise UsageError("name the pieces to try again, or give --all (see `provd quarantine list`)")
    if pieces and (workflow_id is not None or reason is not None):
        raise UsageError("--workflow-id and --reason choose among --all; leave out the ids")
    with open_store(settings_of(context, store_url=store)) as opened:
        ids = _ids(opened, pieces or (), _run_id(opened, workflow_id), reason)
        results = []
        for result in _retried(opened, ids):
            results.append(result)
            if json:
                output.print_json(result.to_document())
            else:
                _print_result(result)
    _finish(results)


def _run_id(store: Store, text: str | None) -> str | None:
    """The run that `text` means; a whole id of a run of which nothing but pieces has arrived is taken, too."""
    from provd.query.find import find_run
    from provd.query.quarantine import find_pieces

    if text is None or next(find_pieces(store, workflow_id=text, limit=1), None) is not None:
        return text
    return find_run(store, text)


def _ids(store: Store, texts: Sequence[str], workflow_id: str | None, reason: str | None) -> list[str]:
    from provd.query.quarantine import find_pieces, resolve_piece

    if texts:
        return list(dict.fromkeys(resolve_piece(store, text) for text in texts))
    return [piece.piece_id for piece in find_pieces(store, workflow_id=workflow_id, reason=reason)]


def _retried(store: Store, ids: Sequence[str]) -> Iterator[Retried]:
    from provd.common import clock
    from provd.common.errors import NotFound
    from provd.consumer.quarantine import retry_piece
    from provd.query.quarantine import load_piece

    for piece_id in ids:
        try:
            piece: Piece = load_piece(store, piece_id)
        except NotFound:
            continue  # somebody else was faster
        yield retry_piece(store, piece_id, piece.document, piece.raw or b"", now=clock.now_ms)


def _print_result(result: Retried) -> None:
    from provd.cli import human, output
    from provd.consumer.quarantine import Fate

    messages = human.many(result.messages, "message")
    text, style = {
        Fate.STORED: (f"stored, {messages}", "green"),
        Fate.ARRIVED: ("removed, all of it had reached the store by another way", "green"),
        Fate.GONE: ("removed: its run has been deleted", "yellow"),
        Fate.PARTLY: (f"{messages} stored, the rest stays: {result.reason}", "yellow"),
        Fate.STAYS: (f"stays: {result.reason}", "red"),
    }[result.fate]
    output.print_line(f"{result.piece_id[:12]}  {text}", style=style)


def _finish(results: Sequence[Retried]) -> None:
    from provd.cli import human, output
    from provd.consumer.quarantine import Fate

    left = sum(1 for result in results if result.fate in (Fate.PARTLY, Fate.STAYS))
    stored = sum(result.messages for result in results)
    if not results:
        output.say("nothing to try again")
        return
    output.say(
        f"{human.many(len(results), 'piece')} tried again: {human.many(stored, 'message')} stored, "
        f"{human.many(left, 'piece')} left in quarantine"
    )
    if left:
        raise typer.Exit(FAILED)
