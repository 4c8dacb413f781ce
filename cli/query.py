"""`provd query`: any collection, by a MongoDB filter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Optional

import typer

from provd.cli.options import JsonOption, StoreOption, settings_of
from provd.common.record import Record

#: Columns of a table for which no fields were asked.
_COLUMNS = {
    "tasks": ("task_id", "activity_id", "status", "used", "generated"),
    "workflows": ("workflow_id", "campaign_id", "name", "status", "started_at", "duration"),
    "producers": ("producer_id", "workflow_id", "hostname", "rank", "status", "sent"),
    "samples": ("producer_id", "workflow_id", "seq"),
    "ledger": ("producer_id", "workflow_id", "first_seq", "last_seq"),
    "beats": ("producer_id", "workflow_id", "beat_at", "sent", "tasks_started", "tasks_ended"),
    "consumers": ("name", "hostname", "state", "since", "broker_at", "version"),
    "quarantine": ("workflow_id", "producer_id", "first_seq", "last_seq", "reason"),
}


def query(
    context: typer.Context,
    collection: Annotated[
        str,
        typer.Argument(
            metavar="COLLECTION",
            help="tasks, workflows, producers, samples, ledger, beats, consumers or quarantine.",
        ),
    ],
    filter: Annotated[
        str,
        typer.Argument(
            metavar="FILTER",
            help='A MongoDB filter in JSON, such as \'{"status": "ERROR"}\'; none means all.',
        ),
    ] = "{}",
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
    store: StoreOption = None,
    json: JsonOption = False,
) -> None:
    """Ask a collection with a MongoDB filter.

    Times are written as {"$date": "2026-11-20T14:00:00Z"}.
    """
    from provd.cli import output
    from provd.cli.rows import limited
    from provd.cli.services import open_store
    from provd.query.filters import check_collection, parse_fields, parse_filter, parse_sort

    name = check_collection(collection)
    wanted = parse_filter(filter)
    chosen = parse_fields(fields) if fields is not None else None
    order = parse_sort(sort) if sort is not None else []
    with open_store(settings_of(context, store_url=store)) as opened:
        rows = opened.find(name, wanted, fields=chosen, sort=order, limit=limit and limit + 1)
        found = limited(rows, limit)
        if json:
            for record in found:
                output.print_json(record)
            return
        records = list(found)
    if records:
        _print_records(records, chosen or _COLUMNS[name])
    else:
        output.say("nothing matches")


def _print_records(records: Sequence[Record], fields: Sequence[str]) -> None:
    from provd.cli import human, output
    from provd.cli.output import STATUS_STYLES, Column

    columns = [
        Column(field, right=_is_number(records, field), firm=field == "status" or field.endswith("_at"),
               folds=field.endswith("_id"),
               styles=STATUS_STYLES if field == "status" else None)
        for field in fields
    ]  # fmt: skip
    rows = []
    for record in records:
        values = (value_at(record, field) for field in fields)
        rows.append(
            [human.pairs(value) if isinstance(value, dict) else human.cell(value) for value in values]
        )
    if any(field.endswith("_at") for field in fields):
        output.say(f"times are in {human.zone()}")
    output.print_table(columns, rows)


def value_at(record: Record, path: str) -> Any:
    """The value at a dotted path, None where there is none; a key that holds the dots itself is found too."""
    if path in record:
        return record[path]
    head, dot, rest = path.partition(".")
    inner = record.get(head)
    return value_at(inner, rest) if dot and isinstance(inner, dict) else None


def _is_number(records: Sequence[Record], field: str) -> bool:
    values = [value_at(record, field) for record in records]
    return all(isinstance(value, (int, float)) or value is None for value in values)
