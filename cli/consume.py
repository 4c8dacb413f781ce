"""`provd consume`: move messages from the broker into the store, until told to stop."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from provd.cli import output
from provd.cli.exits import FAILED
from provd.cli.options import BrokerOption, SettingsOption, settings_file_of
from provd.cli.stopping import stopped_by_signals
from provd.cli.workers import run_workers
from provd.common.errors import UsageError
from provd.common.ids import check_id
from provd.common.settings import Settings

if TYPE_CHECKING:
    from provd.consumer.service import Consumer

#: Seconds without any progress after which `--exit-when-done` gives up, unless told otherwise.
GRACE_S = 60.0

#: Objects that are made and not let go again before cycles among them are searched for: about a batch of messages.
_COLLECT_EVERY = 10_000


def consume(
    context: typer.Context,
    embedded: Annotated[
        bool,
        typer.Option(
            "--embedded", help="Start a private Redis and use the embedded store: no services needed."
        ),
    ] = False,
    broker: BrokerOption = None,
    store: Annotated[
        Optional[str],
        typer.Option(
            "--store", metavar="URL", help="Store to fill: mongodb://, mongodb+srv:// or sqlite:///PATH."
        ),
    ] = None,
    workflow_id: Annotated[
        Optional[list[str]],
        typer.Option("--workflow-id", "-w", metavar="ID", help="Only this workflow; repeat it for several."),
    ] = None,
    exit_when_done: Annotated[
        bool, typer.Option("--exit-when-done", help="End when the named workflows are complete.")
    ] = False,
    grace: Annotated[
        float,
        typer.Option(
            "--grace", metavar="SECONDS", min=0, help="With --exit-when-done: give up after this silence."
        ),
    ] = GRACE_S,
    metrics_port: Annotated[
        Optional[int],
        typer.Option(
            "--metrics-port",
            metavar="PORT",
            min=1,
            max=65535,
            help="Serve Prometheus metrics on this loopback port.",
        ),
    ] = None,
    workers: Annotated[
        int,
        typer.Option(
            "--workers", min=1, max=256, help="Processes on this host; their metrics take successive ports."
        ),
    ] = 1,
    settings_file: SettingsOption = None,
) -> None:
    """Move captured messages from the broker into the store, until told to stop.

    SIGTERM or Ctrl-C finishes the batch in hand; a second one stops at once.

    With --exit-when-done it exits 0 when all is stored, 1 when nothing has happened for --grace seconds, and 3 when a
    service did not answer once in that time.
    """
    workflow_ids = [check_id(text, "--workflow-id") for text in workflow_id or ()]
    if exit_when_done and not workflow_ids:
        raise UsageError("--exit-when-done needs to know what is to be done: name workflows by --workflow-id")
    if embedded and (broker is not None or store is not None):
        raise UsageError("--embedded brings its own broker and store; leave out --broker and --store")
    overrides: dict[str, object] = {"broker_url": broker, "store_url": store, "metrics_port": metrics_port}
    file = settings_file or settings_file_of(context)
    from provd.cli.consume_status import open_status
    from provd.consumer.service import Consumer
    from provd.consumer.settings import load

    with ExitStack() as stack:
        status = stack.enter_context(open_status())
        # Before anything is started: a signal in between must not leave the embedded Redis behind.
        wish = _WishToStop()
        stack.enter_context(stopped_by_signals(wish))
        settings = load(overrides=overrides, settings_file=file)
        if embedded:
            overrides |= stack.enter_context(_embedded_services(settings))
            settings = load(overrides=overrides, settings_file=file)
        _check_broker_named(settings)
        if workers > 1:
            raise typer.Exit(
                _run_workers(workers, settings, workflow_ids, file, grace if exit_when_done else None)
            )
        consumer = stack.enter_context(
            Consumer.open(settings, workflow_ids=workflow_ids, on_progress=status.on_progress)
        )
        wish.reaches(consumer)
        _spare_the_collector()
        complete = _run(consumer, grace_s=grace if exit_when_done else None, say=status.say)
        status.finish(consumer.progress)
    if not complete:
        raise typer.Exit(FAILED)


def _spare_the_collector() -> None:
    """What start-up has made stays to the end, and a batch makes no cycles: looking through both for some, every few
    hundred messages, costs a tenth of the consumer's time.
    """
    gc.freeze()
    gc.set_threshold(_COLLECT_EVERY, *gc.get_threshold()[1:])


def _run_workers(
    count: int, settings: Settings, workflow_ids: Sequence[str], file: str | None, grace_s: float | None
) -> int:
    """Run several consumers with these options; the worst exit status."""
    arguments = [part for workflow_id in workflow_ids for part in ("--workflow-id", workflow_id)]
    if file is not None:
        arguments += ["--settings", file]
    if grace_s is not None:
        arguments += ["--exit-when-done", "--grace", str(grace_s)]
    services = {
        "PROVD_BROKER_URL": settings.resolved_broker_url(),
        "PROVD_STORE_URL": settings.resolved_store_url(),
    }
    return run_workers(count, arguments, services, say=output.say, metrics_port=settings.metrics_port)


class _WishToStop:
    """What signals ask for; kept until there is a consumer that can be told."""

    def __init__(self) -> None:
        self._consumer: Consumer | None = None
        self._waiting = False

    def __call__(self) -> None:
        """Stop the consumer; asked twice, end at once."""
        if self._consumer is not None:
            self._consumer.stop()
        elif self._waiting:
            raise KeyboardInterrupt
        else:
            self._waiting = True

    def reaches(self, consumer: Consumer) -> None:
        """There is one now."""
        self._consumer = consumer
        if self._waiting:
            consumer.stop()


def _run(consumer: Consumer, *, grace_s: float | None, say: Callable[[str], None]) -> bool:
    """Run to the end; says what is missing, and whether nothing is."""
    if grace_s is None:
        consumer.run()
        return True
    outcome = consumer.run_until_done(grace_s=grace_s)
    for gap in outcome.gaps:
        say(f"incomplete: {gap}")
    return outcome.complete


@contextmanager
def _embedded_services(settings: Settings) -> Iterator[dict[str, object]]:
    """A private Redis for as long as the consumer runs, and the settings that lead to it and to the embedded store."""
    from provd.consumer.embedded import EmbeddedRedis

    with EmbeddedRedis(settings.embedded_socket, settings.data_path / "redis") as server:
        yield {"broker_url": server.url, "store_url": f"sqlite:///{settings.embedded_store}"}


def _check_broker_named(settings: Settings) -> None:
    if not settings.resolved_broker_url():
        raise UsageError(
            "there is no broker to consume from: the settings say spool only; `provd replay` reads a spool"
        )
