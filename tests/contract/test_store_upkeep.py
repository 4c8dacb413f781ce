"""What a store takes, its disk back, and its schema; of either kind."""

from __future__ import annotations

import os
import shutil
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pytest

from provd.common import names
from provd.common.errors import StoreError
from provd.common.ranges import Ranges
from provd.common.record import Status
from provd.store import migrations
from provd.store.books import read_books
from provd.store.interface import Store
from provd.store.open import open_store
from provd.store.upkeep import compact_ledgers
from tests.builders import ProducerBuilder, finished_run
from tests.contract.whole_life import a_whole_life
from tests.services.mongo_server import MongoServer


def tell_nobody(done: int, total: int) -> None:
    """Nobody watches."""


def test_sizes_count_what_is_there(store: Store) -> None:
    a_whole_life(store)
    finished_run(store, "beta")

    sizes = store.upkeep().sizes()

    assert sizes.collections.keys() == set(names.COLLECTIONS)
    for name, size in sizes.collections.items():
        assert size.documents == store.count(name, {})
    assert (sizes.collections[names.TASKS].bytes or 0) > 0
    assert {"by_status", "by_producer", "by_parent"} <= sizes.collections[names.TASKS].indexes.keys()
    assert sum(size.bytes or 0 for size in sizes.collections.values()) <= (sizes.disk_bytes or 0)


def test_ledgers_of_ended_runs_are_compacted_and_say_the_same(store: Store) -> None:
    ended = ProducerBuilder("ended", "p1").open().workflow()
    goes_on = ProducerBuilder("goes-on", "p2").open().workflow(Status.RUNNING)
    for part in (ended, goes_on):
        for _ in range(20):
            part.task()
            part.write(store)
    ended.close().write(store)
    before = store.count(names.LEDGER, {"workflow_id": "goes-on"})

    runs, ranges_before, ranges_after = compact_ledgers(store, tell_nobody)

    assert (runs, ranges_before - ranges_after) == (1, 20)
    assert store.count(names.LEDGER, {"workflow_id": "ended"}) == 1
    assert store.count(names.LEDGER, {"workflow_id": "goes-on"}) == before
    assert store.stored_ranges("ended") == {"p1": Ranges.of([(1, 23)])}
    assert read_books(store, "ended").complete


def test_reclaiming_loses_nothing_and_gives_an_embedded_stores_disk_back(
    store: Store, store_url: str
) -> None:
    for number in range(20):
        part = ProducerBuilder(f"w{number}", f"p{number}").open().workflow()
        for _ in range(20):
            part.task(used={"text": "x" * 2000})
        part.close().write(store)
    for number in range(1, 20):
        store.begin_deletion(f"w{number}", by="ada@login1")
        store.delete_run(f"w{number}")

    reclaimed = store.upkeep().reclaim(tell_nobody)

    assert read_books(store, "w0").complete
    assert reclaimed.done
    if store_url.startswith("sqlite"):
        assert reclaimed.done == ("VACUUM",)
        assert reclaimed.before
        assert reclaimed.after
        assert reclaimed.after < reclaimed.before / 4
        path = store_url.removeprefix("sqlite:///")
        assert os.stat(path).st_size <= reclaimed.after
    assert finished_run(store, "afterwards")
    assert read_books(store, "afterwards").complete


def test_an_embedded_store_is_not_compacted_where_there_is_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(f"sqlite:///{tmp_path}/provd.db")
    store.migrate()
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage(1 << 40, 1 << 40, 1 << 20))

    with pytest.raises(StoreError, match="make room first; nothing was done"):
        store.upkeep().reclaim(tell_nobody)

    store.close()


def test_what_mongodb_refuses_to_compact_is_told_with_its_reason(
    private_mongo: Callable[..., MongoServer],
) -> None:
    server = private_mongo(parameters={"enableTestCommands": "1"})
    store = open_store(server.database_url("provd"))
    store.migrate()
    refused = {"failCommands": ["compact"], "errorCode": 13}
    with server.client() as client:
        client.admin.command({"configureFailPoint": "failCommand", "mode": {"times": 1}, "data": refused})

        reclaimed = store.upkeep().reclaim(tell_nobody)

    (told,) = reclaimed.refused
    assert told.startswith("compact tasks: ")
    assert "compact links" in reclaimed.done
    store.close()


def test_changes_are_told_before_and_after_they_are_made(store_url: str) -> None:
    all_names = tuple(
        change.__name__ for change in (migrations.SQLITE if "sqlite" in store_url else migrations.MONGO)
    )
    store = open_store(store_url)
    if not store_url.startswith("sqlite"):
        assert store.upkeep().changes().pending == all_names

    assert store.upkeep().migrate(tell_nobody) == list(all_names)

    changes = store.upkeep().changes()
    assert (changes.made, changes.pending) == (all_names, ())
    assert store.upkeep().migrate(tell_nobody) == []
    store.close()


def test_the_identity_is_read_and_none_is_given(store: Store) -> None:
    assert store.upkeep().store_id() is None

    assert store.identity() == store.upkeep().store_id()
