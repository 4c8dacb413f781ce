"""Spool files to be replayed, and whether what was in them has come in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from provd.common import names
from provd.common.record import Message
from provd.common.settings import load
from provd.common.spool import SpoolWriter
from provd.store.books import read_books
from provd.store.interface import Store
from tests.integration.feeder import Feeder
from tests.streams import Streams


def spool(folder: Path, messages: list[Message], *, name: str = "") -> Path:
    """Messages in a closed spool file, which is returned."""
    writer = SpoolWriter(
        folder, name or messages[0].producer_id, ceiling_bytes=1 << 30, free_floor=0, hostname="node1"
    )
    before = set(folder.rglob("*.jsonl"))
    writer.write(messages)
    writer.close()
    (file,) = set(folder.rglob("*.jsonl")) - before
    return file


def whole_run(feeder: Feeder, tasks: int) -> list[Message]:
    return [feeder.hello(), *feeder.tasks(tasks), feeder.goodbye()]


def brought_in(store: Store, feeder: Feeder) -> bool:
    """Whether the run is in the store: every number once, and not one document more."""
    books = read_books(store, feeder.workflow_id)
    return books.complete and store.count(names.TASKS, {}) == feeder.tasks_made


def settings_of(streams: Streams) -> Any:
    return load(overrides={"broker_url": streams.url, "namespace": streams.namespace}, environ={})
