"""`provd tasks`: tasks by the questions people ask most."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Optional

import typer

from provd.cli.options import CampaignOption, JsonOption, StoreOption, settings_of
from provd.common.record import Record


def tasks(
    context: typer.Context,
    workflow_id: Annotated[
        Optional[str],
        typer.Option(
            "--workflow-id", "-w", metavar="RUN", help="Of this run: id, unique prefix, name or `last`."
        ),
    ] = None,
    campaign_id: CampaignOption = None,
    activity: Annotated[
        Optional[str], typer.Option("--activity", "-a", metavar="NAME", help="Of this activity.")
    ] = None,
    status: Annotated[
        Optional[list[str]],
        typer.Option(
            "--status",
            "-s",
            metavar="STATUS",
            help="With this status, such as ERROR; repeat it for any of several.",
        ),
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", "-n", metavar="N", min=0, help="How many; 0 for all.")
    ] = 50,
    store: StoreOption = None,
    json: JsonOption = False,
) -> None:
    """List tasks, the one that started last first."""
    from provd.cli import output
    from provd.cli.rows import limited
    from provd.cli.services import open_store
    from provd.query.find import find_run
    from provd.query.tasks import TaskQuestion, find_tasks, parse_status

    statuses = tuple(parse_status(text) for text in status or ())
    settings = settings_of(context, store_url=store)
    with open_store(settings) as opened:
        question = TaskQuestion(
            workflow_id=find_run(opened, workflow_id) if workflow_id is not None else None,
            campaign_id=campaign_id,
            activity_id=activity,
            statuses=statuses,
        )
        tasks = find_tasks(opened, question, limit=limit and limit + 1, lost_after_s=settings.lost_after_s)
        found = limited(tasks, limit)
        if json:
            for task in found:
                output.print_json(task)
            return
        rows = list(found)
    if rows:
        _print_tasks(rows)
    else:
        output.say("no such tasks")


def _print_tasks(tasks: Sequence[Record]) -> None:
    from provd.cli import human, output
    from provd.cli.output import STATUS_STYLES, Column

    wide = output.width() >= output.WIDE
    columns = [
        Column("task", folds=True),
        Column("activity"),
        Column("status", firm=True, styles=STATUS_STYLES),
        Column(f"started ({human.zone()})" if wide else human.zone(), firm=True),
        Column("took", right=True, firm=True),
        *([Column("used"), Column("generated")] if wide else []),
    ]
    rows = []
    for task, started in zip(tasks, human.moments(task.get("started_at") for task in tasks)):
        row = [
            task["task_id"],
            task.get("activity_id", ""),
            task.get("status", ""),
            started,
            human.duration(task.get("duration")),
        ]
        rows.append(row + ([human.pairs(task.get("used")), _outcome(task)] if wide else []))
    output.print_table(columns, rows)
    failed = [task for task in tasks if task.get("stderr")]
    if failed and not wide:
        messages = [[task["task_id"], _outcome(task)] for task in failed]
        output.print_table(
            [Column("task", firm=True), Column("message", folds=True)], messages, title="What failed"
        )


def _outcome(task: Record) -> str:
    """What the task made, or how it failed."""
    from provd.cli import human

    if task.get("stderr") and not task.get("generated"):
        return str(task["stderr"]).strip().splitlines()[-1]
    return human.pairs(task.get("generated"))
