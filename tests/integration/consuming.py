"""Consumers for tests, put together from settings as the command does it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from provd.common.settings import Settings
from provd.consumer.broker import Broker
from provd.consumer.identity import Identity
from provd.consumer.service import Consumer
from provd.store.interface import Store
from provd.store.open import open_store

MakeConsumer = Callable[..., Consumer]


@contextmanager
def opened_store(url: str) -> Iterator[Store]:
    """A store for looking, closed at the end."""
    store = open_store(url, timeout_s=2)
    try:
        yield store
    finally:
        store.close()


def make_consumers(settings: Settings, folder: Path, stack: ExitStack) -> MakeConsumer:
    """A maker of consumers that are closed with `stack`; options are settings, `workflow_ids` and `on_progress`."""

    def make(*, workflow_ids: tuple[str, ...] = (), on_progress: Any = None, **changes: Any) -> Consumer:
        own = replace(settings, **changes)
        consumer = Consumer(
            own,
            broker=Broker(own.resolved_broker_url(), connect_timeout_s=1),
            store=open_store(own.resolved_store_url(), timeout_s=1),
            identity=Identity(folder, hostname="head"),
            workflow_ids=workflow_ids,
            on_progress=on_progress,
        )
        return stack.enter_context(consumer)

    return make


def plain_settings(redis_url: str, store_url: str, namespace: str, folder: Path) -> Settings:
    """Settings of a test: everything below `folder`, short times."""
    return Settings(
        broker_url=redis_url,
        store_url=store_url,
        namespace=namespace,
        data_dir=str(folder),
        batch_wait_s=0.01,
        claim_after_s=60.0,
    )


def consume(redis_url: str, store_url: str, namespace: str, folder: Path, slots: Path) -> None:
    """Have one consumer bring all that waits in Redis into the store."""
    with ExitStack() as stack:
        make_consumers(
            plain_settings(redis_url, store_url, namespace, folder), slots, stack
        )().run_until_empty()


@contextmanager
def running(consumer: Consumer) -> Iterator[None]:
    """The consumer at work in a thread of its own."""
    worker = threading.Thread(target=consumer.run)
    worker.start()
    try:
        yield
    finally:
        consumer.stop()
        worker.join()
