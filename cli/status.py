"""`provd status`: what is under way, and where it waits."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from provd.cli.exits import UNREACHABLE
from provd.cli.options import BrokerOption, JsonOption, StoreOption, settings_of
from provd.common.errors import StoreUnavailable
from provd.common.ids import check_id
from provd.common.settings import Settings

if TYPE_CHECKING:
    from provd.consumer.broker import Broker
    from provd.consumer.overview import Overview, WorkflowView
    from provd.store.interface import Store

#: Seconds between two looks of `--watch`.
INTERVAL_S = 2.0

#: Seconds that the store gets to answer: whoever looks wants to know now.
_PATIENCE_S = 2.0

#: An id that no workflow has: no ids would mean all.
_NO_RUN = ""

_CLEAR = "\x1b[H\x1b[2J"


def status(
    context: typer.Context,
    workflow_id: Annotated[
        Optional[list[str]],
        typer.Option("--workflow-id", "-w", metavar="ID", help="Only this workflow; repeat it for several."),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Look again and again, until Ctrl-C.")] = False,
    interval: Annotated[
        float,
        typer.Option("--interval", metavar="SECONDS", min=0.2, help="With --watch: time between two looks."),
    ] = INTERVAL_S,
    limit: Annotated[
        int, typer.Option("--limit", "-n", metavar="N", min=0, help="How many workflows; 0 for all.")
    ] = 20,
    broker: BrokerOption = None,
    store: StoreOption = None,
    json: JsonOption = False,
) -> None:
    """Show what is under way: what waits in Redis and in spools, how old it is, what is missing, and who works on it.

    Runs that are over and wholly stored are counted, not listed. With one service away it shows what the other knows, and exits 3.
    """
    settings = settings_of(context, broker_url=broker, store_url=store)
    workflow_ids = [check_id(text, "--workflow-id") for text in workflow_id or ()]
    pause = threading.Event()
    with _broker(settings) as opened:
        while True:
            overview = _look(opened, settings, workflow_ids, limit)
            _show(overview, json=json, watch=watch)
            if not watch:
                break
            pause.wait(interval)
    if not overview.reachable:
        raise typer.Exit(UNREACHABLE)


@contextmanager
def _broker(settings: Settings) -> Iterator[Broker | None]:
    """Redis, not asked yet; None where the settings say spool only."""
    from provd.consumer.broker import Broker

    url = settings.resolved_broker_url()
    if not url:
        yield None
        return
    broker = Broker(url, connect_timeout_s=settings.connect_timeout_s)
    try:
        yield broker
    finally:
        broker.close()


@contextmanager
def _store(settings: Settings) -> Iterator[Store | StoreUnavailable]:
    """The store, or why it does not answer."""
    from provd.cli.services import embedded_file
    from provd.common.passwords import mask_url
    from provd.store.open import open_store

    url = settings.resolved_store_url()
    file = embedded_file(url)
    if file is not None and not file.is_file():
        yield StoreUnavailable(mask_url(url), f"there is no file {file}")
        return
    store = open_store(url, timeout_s=_PATIENCE_S)
    try:
        try:
            store.ping()
        except StoreUnavailable as error:
            yield error
        else:
            yield store
    finally:
        store.close()


def _look(broker: Broker | None, settings: Settings, workflow_ids: list[str], limit: int) -> Overview:
    from provd.common import clock
    from provd.consumer.overview import survey

    with _store(settings) as opened:
        store: Store | StoreUnavailable = opened
        only: list[str] | None = None
        if settings.tenant_id is not None:
            store, only = _of_tenant(opened, settings.tenant_id, workflow_ids)
            workflow_ids = workflow_ids and (only or [_NO_RUN])
        overview = survey(
            broker,
            store,
            at=clock.to_datetime(clock.now_ms()),
            namespace=settings.namespace,
            buckets=settings.buckets,
            workflow_ids=workflow_ids,
            only=only,
            limit=limit,
        )
        known = tuple(view for view in overview.workflows if view.workflow_id != _NO_RUN)
        return replace(overview, workflows=_with_statuses(store, known, settings.lost_after_s))


def _with_statuses(
    store: Store | StoreUnavailable, views: tuple[WorkflowView, ...], lost_after_s: float
) -> tuple[WorkflowView, ...]:
    """The views with how their runs read, where the store can say."""
    from provd.query.runs import read_statuses

    if isinstance(store, StoreUnavailable):
        return views
    try:
        statuses = read_statuses(store, [view.workflow_id for view in views], lost_after_s=lost_after_s)
    except StoreUnavailable:
        return views
    return tuple(replace(view, status=statuses.get(view.workflow_id)) for view in views)


def _of_tenant(
    store: Store | StoreUnavailable, tenant_id: str, workflow_ids: list[str]
) -> tuple[Store | StoreUnavailable, list[str]]:
    """The store as the tenant sees it, and its runs, of these if some are given: streams do not say whose they are, only
    the store does.
    """
    from provd.query.tenant import scoped

    if isinstance(store, StoreUnavailable):
        return store, []
    tenants = scoped(store, tenant_id)
    return tenants, tenants.run_ids(workflow_ids)


def _show(overview: Overview, *, json: bool, watch: bool) -> None:
    from provd.cli import output
    from provd.cli.status_page import overview_document, print_overview

    if json:
        output.print_json(overview_document(overview))
    else:
        if watch and sys.stdout.isatty():
            sys.stdout.write(_CLEAR)
        print_overview(overview, dated=watch)
    sys.stdout.flush()
