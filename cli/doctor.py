"""`provd doctor`: is everything reachable and set up safely."""

from __future__ import annotations

from collections.abc import Sequence

import typer

from provd.cli.checks import Check, exit_status_of
from provd.cli.options import BrokerOption, JsonOption, StoreOption, settings_file_of, settings_of

_STYLES = {"ok": "green", "warning": "yellow", "failed": "bold red", "unreachable": "bold red"}


def doctor(
    context: typer.Context,
    broker: BrokerOption = None,
    store: StoreOption = None,
    json: JsonOption = False,
) -> None:
    """Check that broker, store, spool and this machine are reachable and set up safely.

    Exits 1 when something failed, 3 when a service cannot be reached.
    """
    from provd.cli import output
    from provd.cli.check_broker import check_broker
    from provd.cli.check_machine import check_machine
    from provd.cli.check_secrets import check_secrets
    from provd.cli.check_store import check_store

    settings = settings_of(context, broker_url=broker, store_url=store)
    checks = [
        *check_broker(settings),
        *check_store(settings),
        *check_machine(settings),
        *check_secrets(settings_file_of(context)),
    ]
    if json:
        for check in checks:
            output.print_json(check.to_document())
    else:
        _print_checks(checks)
    status = exit_status_of(checks)
    if status:
        raise typer.Exit(status)


def _print_checks(checks: Sequence[Check]) -> None:
    from provd.cli import output
    from provd.cli.output import Column

    rows = []
    for check in checks:
        rows.append([check.level.value, check.subject, check.finding])
        if check.fix:
            rows.append(["", "", f"fix: {check.fix}"])
    output.print_table(
        [
            Column("result", firm=True, styles=_STYLES),
            Column("check", firm=True),
            Column("finding", folds=True),
        ],
        rows,
    )
