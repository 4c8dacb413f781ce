"""`provd lineage`: what led to a task, and what came of it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from provd.cli.options import JsonOption, StoreOption, settings_of
from provd.common.errors import UsageError

if TYPE_CHECKING:
    from provd.query.lineage import Lineage, Stop

_FORMATS = ("tree", "json", "mermaid", "dot")


def lineage(
    context: typer.Context,
    task: Annotated[
        str,
        typer.Argument(
            metavar="TASK", help="A task's id, a unique prefix of it, or a file that it generated."
        ),
    ],
    up: Annotated[bool, typer.Option("--up", help="What led to it.")] = False,
    down: Annotated[bool, typer.Option("--down", help="What came of it.")] = False,
    depth: Annotated[
        int, typer.Option("--depth", metavar="N", min=0, help="How many hops away; 0 for all.")
    ] = 10,
    limit: Annotated[
        int,
        typer.Option(
            "--limit", "-n", metavar="N", min=0, help="How many tasks in each direction; 0 for all."
        ),
    ] = 1000,
    kind: Annotated[
        Optional[list[str]],
        typer.Option(
            "--kind",
            metavar="KIND",
            help="Only by value, dependency or call; repeat it for several.",
        ),
    ] = None,
    format: Annotated[
        Optional[str], typer.Option("--format", metavar="FORMAT", help="tree, json, mermaid or dot.")
    ] = None,
    store: StoreOption = None,
    json: JsonOption = False,
) -> None:
    """Show which tasks led to a task, and what came of it; both unless one is asked for."""
    from provd.cli import output
    from provd.cli.services import open_store
    from provd.query.lineage import DOWN, UP, find_task, follow, trace
    from provd.query.lineage_text import documents, dot, items, mermaid

    form = _format(format, json=json)
    kinds = _kinds(kind or ())
    directions = [name for name, asked in ((UP, up), (DOWN, down)) if asked] or [UP, DOWN]
    settings = settings_of(context, store_url=store)
    with open_store(settings) as opened:
        asked: dict[str, Any] = {
            "up": UP in directions,
            "down": DOWN in directions,
            "depth": depth,
            "limit": limit,
            "kinds": kinds,
            "lost_after_s": settings.lost_after_s,
        }
        task_id = find_task(opened, task)
        if form == "json" and limit == 0:
            for document in documents(follow(opened, task_id, **asked)):
                output.print_json(document)
            return
        found = trace(opened, task_id, **asked)
    if form == "json":
        for document in documents(items(found)):
            output.print_json(document)
        return
    if form == "tree":
        from provd.cli.lineage_tree import print_tree

        print_tree(found, directions)
    else:
        _write(mermaid(found) if form == "mermaid" else dot(found))
    _say_where_it_stopped(found, limit)


def _write(lines: Iterator[str]) -> None:
    sys.stdout.writelines(line + "\n" for line in lines)


def _say_where_it_stopped(found: Lineage, limit: int) -> None:
    from provd.cli import output

    for stop in found.stopped_at:
        output.say(_stopped(stop, limit))


def _stopped(stop: Stop, limit: int) -> str:
    from provd.query.lineage import BY_DEPTH

    if stop.reason == BY_DEPTH:
        return f"stopped at hop {stop.hop} {stop.direction}: there is more; --depth 0 for all"
    return (
        f"stopped after {limit:,} tasks {stop.direction}, at hop {stop.hop}: there is more; --limit 0 for all"
    )


def _format(asked: str | None, *, json: bool) -> str:
    if asked is not None and asked not in _FORMATS:
        raise UsageError(f"unknown format {asked!r}; one of {', '.join(_FORMATS)}")
    if json and asked not in (None, "json"):
        raise UsageError(f"--json and --format {asked} are two formats; give one of them")
    return "json" if json else asked or "tree"


def _kinds(asked: Sequence[str]) -> tuple[str, ...]:
    from provd.query.neighbours import KINDS

    for kind in asked:
        if kind not in KINDS:
            raise UsageError(f"unknown kind {kind!r}; one of {', '.join(reversed(KINDS))}")
    return tuple(asked) or KINDS
