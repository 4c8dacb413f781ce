"""`provd runs graph`: activities, and what led from one to the other."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from provd.cli.options import JsonOption, RunArgument, StoreOption, settings_of
from provd.common.errors import UsageError

if TYPE_CHECKING:
    from provd.query.run_graph import RunGraph

_FORMATS = ("mermaid", "dot", "svg", "json")
_SUFFIXES = {
    ".svg": "svg",
    ".dot": "dot",
    ".gv": "dot",
    ".mmd": "mermaid",
    ".mermaid": "mermaid",
    ".json": "json",
}


def graph(
    context: typer.Context,
    run: RunArgument,
    format: Annotated[
        Optional[str],
        typer.Option(
            "--format", metavar="FORMAT", help="mermaid, dot, svg or json; else what the file's name says."
        ),
    ] = None,
    output: Annotated[
        Optional[str],
        typer.Option("--output", "-o", metavar="FILE", help="Write to a file, whole or not at all."),
    ] = None,
    store: StoreOption = None,
    json: JsonOption = False,
) -> None:
    """Draw the activities of a run with their tasks, and how often one called, or made what was used by, another."""
    from provd.cli import output as screen
    from provd.cli.progress import progress_bar
    from provd.cli.run_timeline import write_text
    from provd.cli.services import open_store
    from provd.query.find import find_run
    from provd.query.output_file import check_output
    from provd.query.run_graph import read_graph

    form = _format(format, output, json=json)
    if output is not None:
        check_output(output)
    settings = settings_of(context, store_url=store)
    with open_store(settings) as opened, progress_bar("reading tasks") as progress:
        found = read_graph(opened, find_run(opened, run), progress=progress)
    text = _text(found, form)
    if output is not None:
        write_text(output, text)
    else:
        sys.stdout.write(text)
    if not found.complete:
        screen.say("there is too much to count: arrows are those of the first tasks")


def _text(found: RunGraph, form: str) -> str:
    from provd.cli import output
    from provd.query import graph_text

    if form == "json":
        return output.json_line(found.to_document()) + "\n"
    if form == "svg":
        return graph_text.svg(found)
    lines = graph_text.mermaid(found) if form == "mermaid" else graph_text.dot(found)
    return "".join(line + "\n" for line in lines)


def _format(asked: str | None, output: str | None, *, json: bool) -> str:
    if asked is not None and asked not in _FORMATS:
        raise UsageError(f"unknown format {asked!r}; one of {', '.join(_FORMATS)}")
    if json and asked not in (None, "json"):
        raise UsageError(f"--json and --format {asked} are two formats; give one of them")
    if json or asked is not None:
        return "json" if json else str(asked)
    if output is None:
        return "mermaid"
    for suffix, form in _SUFFIXES.items():
        if output.lower().endswith(suffix):
            return form
    raise UsageError(
        f"{output!r} does not say the format: end its name with {', '.join(_SUFFIXES)}, or give"
        f" --format {', '.join(_FORMATS[:-1])} or {_FORMATS[-1]}"
    )
