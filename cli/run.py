"""`provd run -- CMD`: any command as a recorded workflow."""

from __future__ import annotations

import os
from typing import Annotated, Optional

import typer

from provd.cli.options import settings_file_of, settings_of


def run(
    context: typer.Context,
    command: Annotated[
        list[str], typer.Argument(metavar="-- CMD ...", help="The command and its arguments.")
    ],
    workflow_id: Annotated[
        Optional[str],
        typer.Option(
            "--workflow-id",
            metavar="ID",
            help="Join this workflow; `auto`: one for all ranks of the job step.",
        ),
    ] = None,
    campaign_id: Annotated[
        Optional[str],
        typer.Option("--campaign-id", metavar="ID", help="The campaign the workflow belongs to."),
    ] = None,
    name: Annotated[
        Optional[str],
        typer.Option("--name", metavar="NAME", help="Name of the workflow; else the command's."),
    ] = None,
) -> None:
    """Run a command as a recorded workflow, and exit with its status.

    Instrumented programs inside it join the workflow. Everything after `--` is the command.
    """
    from provd.cli import output
    from provd.producer.command import die_by, run_command

    named = settings_file_of(context)
    if named is not None:
        os.environ["PROVD_SETTINGS"] = os.path.abspath(named)  # the command and its children read it too
    settings_of(
        context, workflow_id=workflow_id, campaign_id=campaign_id
    )  # refuses what is wrong before it runs
    end = run_command(command, name=name, workflow_id=workflow_id, campaign_id=campaign_id)
    if end.failure is not None:
        output.say_error(end.failure)
    if end.signal_number is not None:
        die_by(end.signal_number)
    raise typer.Exit(end.status)
