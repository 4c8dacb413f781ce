"""`provd export`: a run as a file, in one of several formats; whole or not at all."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from provd.cli.options import JsonOption, RunArgument, StoreOption, settings_of
from provd.common.errors import UsageError

if TYPE_CHECKING:
    from provd.query.exports import Exported

_STDOUT = "-"


def export(
    context: typer.Context,
    run: RunArgument,
    format: Annotated[
        Optional[str],
        typer.Option(
            "--format",
            "-f",
            metavar="NAME",
            help="csv, parquet, jsonl, prov-json, prov-n, ro-crate or openlineage; else what the file's name says.",
        ),
    ] = None,
    output: Annotated[
        str,
        typer.Option("--output", "-o", metavar="PATH", help="The file to write; - for standard output."),
    ] = _STDOUT,
    store: StoreOption = None,
    json: JsonOption = False,
) -> None:
    """Write a run to a file: its tasks as a table, all of it for `provd import`, or as a standard says it.

    The file appears when all of it is written, and is left as it was when something goes wrong before.
    """
    from provd.cli import human
    from provd.cli import output as screen
    from provd.cli.services import open_store
    from provd.query.exports import Exported, format_of
    from provd.query.find import find_run

    name = format_of(output, format)
    if output == _STDOUT:
        _check_stdout(name, json=json)
    else:
        from provd.query.output_file import check_output

        check_output(output)
    settings = settings_of(context, store_url=store)
    with open_store(settings) as opened:
        exported = Exported(opened, find_run(opened, run), settings.lost_after_s)
        told = _write(name, exported, output)
    if json:
        document = {"workflow_id": exported.workflow_id, "format": name, "output": output}
        screen.print_json({**document, "bytes": Path(output).stat().st_size, **told})
        return
    counts = ", ".join(human.many(count, key.removesuffix("s")) for key, count in told.items() if count)
    screen.say(f"{exported.workflow_id} as {name}: {counts or 'nothing'}")


def _check_stdout(name: str, *, json: bool) -> None:
    from provd.query.exports import FORMATS

    if not FORMATS[name].to_stream:
        raise UsageError(f"{name} needs a file: give --output PATH")
    if json:
        raise UsageError("--json tells on standard output what was written: give --output PATH")


def _write(name: str, exported: Exported, output: str) -> Mapping[str, Any]:
    from provd.query.exports import FORMATS, export_run

    if output == _STDOUT:
        return FORMATS[name].load()(exported, sys.stdout.buffer)
    return export_run(exported, output, name)
