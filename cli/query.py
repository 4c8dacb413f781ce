"""`provd query`: any collection, by a MongoDB filter or an aggregation."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from provd.cli.options import JsonOption, StoreOption, settings_of

#: Columns of a table for which no fields were asked.
_COLUMNS = {
    "tasks": ("task_id", "activity_id", "status", "used", "generated"),
    "workflows": ("workflow_id", "campaign_id", "name", "status", "started_at", "duration"),
    "producers": ("producer_id", "workflow_id", "hostname", "rank", "status", "sent"),
    "samples": ("producer_id", "workflow_id", "seq"),
    "ledger": ("producer_id", "workflow_id", "first_seq", "last_seq"),
    "beats": ("producer_id", "workflow_id", "beat_at", "sent", "tasks_started", "tasks_ended"),
    "consumers": ("name", "hostname", "state", "since", "broker_at", "version"),
    "tombstones": ("workflow_id", "name", "deleted_at", "by", "refused", "archive"),
    "quarantine": ("workflow_id", "producer_id", "first_seq", "last_seq", "reason"),
}

#: Seconds that a store may work on a question; MongoDB's driver waits a minute for an answer.
_TIMEOUT_S = 30.0
_TIMEOUT_MAX_S = 55.0


def query(
    context: typer.Context,
    collection: Annotated[
        str,
        typer.Argument(
            metavar="COLLECTION",
            help="tasks, links, workflows, producers, samples, ledger, beats, consumers, quarantine or tombstones.",
        ),
    ],
    filter: Annotated[
        str,
        typer.Argument(
            metavar="FILTER",
            help='A MongoDB filter in JSON, such as \'{"status": "ERROR"}\'; none means all.',
        ),
    ] = "{}",
    pipeline: Annotated[
        Optional[str],
        typer.Option("--pipeline", metavar="JSON", help="An aggregation instead: a list of stages in JSON."),
    ] = None,
    fields: Annotated[
        Optional[str], typer.Option("--fields", metavar="A,B.C", help="Only these fields; dots reach inside.")
    ] = None,
    sort: Annotated[
        Optional[str],
        typer.Option("--sort", metavar="A,-B", help="Sort by these fields; a minus for falling."),
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", "-n", metavar="N", min=0, help="How many; 0 for all.")
    ] = 100,
    timeout: Annotated[
        float,
        typer.Option(
            "--timeout",
            metavar="SECONDS",
            min=0.01,
            max=_TIMEOUT_MAX_S,
            help="How long the store may work on it.",
        ),
    ] = _TIMEOUT_S,
    store: StoreOption = None,
    json: JsonOption = False,
) -> None:
    """Ask a collection with a MongoDB filter, or with an aggregation.

    Only reads: operators that write, run code or look at the server are refused. Times are written as
    {"$date": "2026-11-20T14:00:00Z"}.
    """
    from provd.cli import output
    from provd.cli.record_table import fields_of, print_records, say_absent
    from provd.cli.rows import limited
    from provd.cli.services import open_store
    from provd.common.errors import UsageError
    from provd.query.filters import (
        check_collection,
        parse_fields,
        parse_filter,
        parse_pipeline,
        parse_sort,
    )
    from provd.query.readonly import check_filter, check_pipeline

    name = check_collection(collection)
    if pipeline is not None and (filter != "{}" or sort is not None or fields is not None):
        raise UsageError("--pipeline has stages for that: $match, $sort and $project")
    wanted = parse_filter(filter)
    stages = parse_pipeline(pipeline) if pipeline is not None else None
    if stages is None:
        check_filter(wanted)
    else:
        check_pipeline(stages)
    chosen = parse_fields(fields) if fields is not None else None
    order = parse_sort(sort) if sort is not None else []
    with open_store(settings_of(context, store_url=store)) as opened:
        if stages is not None:
            cut = [{"$limit": limit + 1}] if limit else []
            rows = opened.aggregate(name, [*stages, *cut], timeout_s=timeout)
        else:
            rows = opened.find(
                name, wanted, fields=chosen, sort=order, limit=limit and limit + 1, timeout_s=timeout
            )
        found = limited(rows, limit)
        if json:
            for record in found:
                output.print_json(record)
            return
        records = list(found)
    if not records:
        output.say("nothing matches")
        return
    default = fields_of(records) if stages is not None or name not in _COLUMNS else _COLUMNS[name]
    say_absent(records, chosen or ())
    print_records(records, chosen or default)
