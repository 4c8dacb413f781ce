"""A whole store in a folder, from either store into either: the copy equals the original, and never claims more."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from provd.common import names
from provd.common.errors import BadBackup, StoreError, StoreUnavailable, UsageError
from provd.common.ranges import Ranges
from provd.common.record import Kind
from provd.consumer.restoring import Restored, check_backup, restore
from provd.query.backup import back_up
from provd.query.tenant import scoped
from provd.store.backup_folder import MANIFEST, Manifest
from provd.store.books import read_books
from provd.store.interface import ConsumerMark, Store
from provd.store.open import open_store
from tests.builders import START_MS, ProducerBuilder, finished_run
from tests.contract.whole_life import a_whole_life, canonical_record, everything
from tests.services.mongo_server import MongoServer

MARK = ConsumerMark("c1", "node01", 77, "1.0", "running", START_MS, START_MS + 500, ("alpha",), {"stored": 3})


@pytest.fixture
def third(tmp_path: Path) -> Iterator[Store]:
    """One more."""
    opened = open_store(f"sqlite:///{tmp_path}/third.db")
    opened.migrate()
    yield opened
    opened.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder for backups, with nothing in it."""
    (tmp_path / "backups").mkdir()
    return tmp_path / "backups"


def backed_up(store: Store, folder: Path, **options: Any) -> Manifest:
    return back_up(store, folder, version="1.0", **options)


def brought_in(folder: Path, store: Store, **options: Any) -> Restored:
    return restore(folder, check_backup(folder), store, **options)


def all_of(store: Store) -> dict[str, Any]:
    """Everything that readers of a store see."""
    return {
        name: sorted((canonical_record(one) for one in store.find(name, {})), key=repr)
        for name in names.COLLECTIONS
        if name != names.LINKS  # those of messages that another has replaced stay behind
    }


def a_used_store(store: Store) -> None:
    a_whole_life(store)
    finished_run(store, "beta", campaign_id=None)
    node = ProducerBuilder("beta", "p-node")
    for number in range(3):
        node._add(
            Kind.SAMPLE, {"started_at": START_MS + number, "telemetry": {"cpu": {"percent": 50.0 + number}}}
        )
    node.write(store)
    store.put_consumer(MARK)
    finished_run(store, "gone")
    store.begin_deletion("gone", by="ada@login1", archive="/archive/gone.jsonl")
    store.delete_run("gone")


def test_a_restored_store_equals_the_one_that_was_backed_up(store: Store, copy: Store, folder: Path) -> None:
    a_used_store(store)

    manifest = backed_up(store, folder)
    done = brought_in(folder, copy)

    assert all(manifest.documents.values())  # something of every kind
    assert (done.documents, done.refused, done.unchanged) == (sum(manifest.documents.values()), 0, 0)
    assert all_of(copy) == all_of(store)
    for workflow_id in ("alpha", "beta"):
        assert everything(copy, workflow_id) == everything(store, workflow_id)
        assert read_books(copy, workflow_id) == read_books(store, workflow_id)
    assert copy.deleted_among(["gone", "alpha"]) == {"gone"}


def test_a_restored_store_is_another_store(store: Store, copy: Store, folder: Path) -> None:
    """A receipt is worth what its store is worth: what the old store confirmed, the copy may lack."""
    finished_run(store, "alpha")
    before = {store.identity(), copy.identity()}

    backed_up(store, folder)
    done = brought_in(folder, copy)

    copy.migrate()
    assert copy.identity() == done.store_id
    assert done.store_id not in before


def test_a_large_collection_is_several_files(store: Store, copy: Store, folder: Path) -> None:
    a_whole_life(store)

    manifest = backed_up(store, folder, part_bytes=500)
    brought_in(folder, copy)

    assert len(manifest.collections[names.TASKS]) > 1
    assert sorted(os.listdir(folder)) == sorted(
        [MANIFEST, *(part.name for parts in manifest.collections.values() for part in parts)]
    )
    assert all_of(copy) == all_of(store)


def test_the_same_documents_are_the_same_files(store: Store, tmp_path: Path) -> None:
    a_whole_life(store)

    first, second = (backed_up(store, tmp_path / name) for name in ("first", "second"))

    assert first.collections == second.collections
    assert first.backup_id != second.backup_id


class Meanwhile:
    """The store, in which something happens just before a collection is read."""

    def __init__(self, store: Store, collection: str, deed: Callable[[], Any]) -> None:
        self._store, self._collection, self._deed = store, collection, deed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def find(self, collection: str, *arguments: Any, **options: Any) -> Any:
        if collection == self._collection:
            self._deed()
        return self._store.find(collection, *arguments, **options)


def meanwhile(store: Store, collection: str, deed: Callable[[], Any]) -> Any:
    """It passes for a store: what it does not have, the store has."""
    return Meanwhile(store, collection, deed)


@pytest.mark.parametrize("moment", [names.BEATS, names.LEDGER, names.WORKFLOWS, names.TASKS, names.CONSUMERS])
def test_what_is_written_meanwhile_is_never_claimed_without_being_there(
    store: Store, copy: Store, folder: Path, moment: str
) -> None:
    """The copy never claims more than it holds."""
    part = ProducerBuilder("alpha", "p1").open().workflow()
    part.task()
    part.write(store)

    def go_on() -> None:
        for _ in range(5):
            part.task()
        part.close().write(store)

    backed_up(meanwhile(store, moment, go_on), folder)
    brought_in(folder, copy)

    assert read_books(store, "alpha").complete
    (books,) = read_books(copy, "alpha").producers
    held = {
        one["seq"] for name in (names.TASKS, names.WORKFLOWS, names.PRODUCERS) for one in copy.find(name, {})
    }
    closing = len(part.messages)
    replaced = {1} if closing in held else set()  # the producer's hello, by its goodbye
    assert {number for first, last in books.stored for number in range(first, last + 1)} <= held | replaced
    assert books.tasks_stored >= 1


@pytest.mark.parametrize("moment", [names.LEDGER, names.WORKFLOWS, names.TASKS, names.TOMBSTONES])
def test_a_run_that_is_deleted_meanwhile_is_deleted_in_the_copy(
    store: Store, copy: Store, folder: Path, moment: str
) -> None:
    a_whole_life(store)
    finished_run(store, "beta")

    def delete() -> None:
        store.begin_deletion("alpha", by="ada@login1")
        store.delete_run("alpha")

    backed_up(meanwhile(store, moment, delete), folder)
    brought_in(folder, copy)

    assert all_of(copy) == all_of(store)
    assert copy.deleted_among(["alpha"]) == {"alpha"}
    assert read_books(copy, "alpha").producers == ()


@pytest.mark.parametrize("moment", [names.QUARANTINE, names.LEDGER, names.WORKFLOWS])
def test_what_leaves_the_quarantine_meanwhile_is_not_missing_in_the_copy(
    store: Store, copy: Store, folder: Path, moment: str
) -> None:
    a_whole_life(store)
    before = read_books(store, "alpha")
    pieces = [piece["_id"] for piece in store.find(names.QUARANTINE, {"producer_id": "p-gone"})]

    def retry() -> None:
        ended = ProducerBuilder("alpha", "p-gone")
        for _ in range(7):
            ended.task()
        ended.write(store, without=range(1, 6))
        store.drop_quarantined(pieces)

    backed_up(meanwhile(store, moment, retry), folder)
    brought_in(folder, copy)

    after = read_books(copy, "alpha")
    assert after.total("missing") == before.total("missing")
    assert after.total("stored") + after.total("quarantined") == (
        before.total("stored") + before.total("quarantined")
    )


def test_ranges_that_are_compacted_while_the_ledger_is_read_are_all_in_the_copy(
    store: Store, copy: Store, folder: Path
) -> None:
    part = ProducerBuilder("alpha", "p1").open()
    for _ in range(50):
        part.task()
        part.write(store)

    backed_up(meanwhile(store, names.LEDGER, lambda: store.compact_ledger("alpha")), folder)
    brought_in(folder, copy)

    assert copy.stored_ranges("alpha") == {"p1": Ranges.of([(1, 51)])}


def test_a_store_with_records_is_refused_and_left_alone_unless_they_are_to_be_merged(
    store: Store, copy: Store, folder: Path
) -> None:
    """G3: the document is a function of the set of messages, in whatever order they come."""
    part = ProducerBuilder("alpha", "p1").open().workflow()
    part.task()
    part.write(store)
    part.write(copy)
    backed_up(store, folder)
    part.task()
    part.close().write(copy)
    before, identity = all_of(copy), copy.identity()

    with pytest.raises(UsageError, match="--merge"):
        brought_in(folder, copy)
    assert all_of(copy) == before

    done = brought_in(folder, copy, merge=True)
    assert done.changed == 0
    assert all_of(copy) == before
    copy.migrate()
    assert copy.identity() == identity  # it has lost nothing: what producers were told still holds


def test_a_restore_that_was_cut_off_is_done_again_and_ends_the_same(
    store: Store, copy: Store, third: Store, folder: Path, tmp_path: Path
) -> None:
    a_used_store(store)
    backed_up(store, folder)
    manifest = check_backup(folder)

    class CutOff(Exception):
        pass

    def stop(done: int, _total: int) -> None:
        if done >= stop_at:
            raise CutOff

    before_the_ledger = sum(manifest.documents.values()) - manifest.documents[names.LEDGER]
    for stop_at in range(1, before_the_ledger, 3):
        with pytest.raises(CutOff):
            restore(folder, manifest, copy, on_progress=stop)
        assert not read_books(copy, "beta").complete
        other = tmp_path / f"other-{stop_at}"
        backed_up(third, other)
        if copy.count(names.WORKFLOWS, {}):
            with pytest.raises(UsageError, match="--merge"):
                brought_in(other, copy)

    brought_in(folder, copy)
    assert all_of(copy) == all_of(store)

    again = brought_in(folder, copy)  # and once more, after it has ended
    assert again.changed == 0
    assert all_of(copy) == all_of(store)


def test_a_run_that_is_alive_in_the_store_is_not_buried_by_a_backup(
    store: Store, copy: Store, folder: Path
) -> None:
    a_used_store(store)
    finished_run(copy, "gone")
    backed_up(store, folder)

    brought_in(folder, copy, merge=True)

    assert read_books(copy, "gone").complete
    assert copy.deleted_among(["gone"]) == frozenset()


def test_a_run_that_was_deleted_in_the_store_does_not_come_back_with_a_backup(
    store: Store, copy: Store, folder: Path
) -> None:
    finished_run(store, "alpha")
    finished_run(copy, "alpha")
    backed_up(store, folder)
    copy.begin_deletion("alpha", by="ada@login1")
    copy.delete_run("alpha")

    done = brought_in(folder, copy, merge=True)

    assert done.deleted > 0
    assert copy.count(names.TASKS, {}) == 0
    assert copy.stored_ranges("alpha") == {}


def test_the_ledger_of_a_run_of_which_something_was_refused_is_not_entered(
    store: Store, copy: Store, folder: Path
) -> None:
    finished_run(store, "alpha")
    finished_run(store, "beta")
    (taken,) = list(store.find(names.TASKS, {"workflow_id": "alpha"}, limit=1))
    other = ProducerBuilder("gamma", "p9")
    other.task(task_id=taken["task_id"])
    other.write(copy)
    backed_up(store, folder)

    done = brought_in(folder, copy, merge=True)

    assert done.refused == 1
    assert taken["task_id"] in done.reasons[0]
    assert copy.stored_ranges("alpha") == {}
    assert read_books(copy, "beta").complete


@pytest.mark.parametrize(
    "damage",
    ["flip", "cut", "remove", "no manifest", "manifest cut", "later format", "later schema", "climb"],
)
def test_a_backup_that_is_not_as_it_was_written_is_refused_before_anything_is_written(
    store: Store, copy: Store, folder: Path, damage: str
) -> None:
    a_whole_life(store)
    backed_up(store, folder)
    tasks, manifest = folder / "tasks-000001.jsonl.gz", folder / MANIFEST
    said = json.loads(manifest.read_text())
    if damage == "flip":
        data = bytearray(tasks.read_bytes())
        data[len(data) // 2] ^= 1
        tasks.write_bytes(data)
    elif damage == "cut":
        tasks.write_bytes(tasks.read_bytes()[:-1])
    elif damage == "remove":
        tasks.unlink()
    elif damage == "no manifest":
        manifest.unlink()
    elif damage == "manifest cut":
        manifest.write_text(manifest.read_text()[:-10])
    elif damage == "later format":
        manifest.write_text(json.dumps(said | {"provd_backup": 2}))
    elif damage == "later schema":
        said["origin"]["changes"].append("m999_later")
        manifest.write_text(json.dumps(said))
    else:
        said["collections"]["tasks"][0]["name"] = "../tasks"
        manifest.write_text(json.dumps(said))

    with pytest.raises(BadBackup, match="backups"):
        brought_in(folder, copy)

    assert not any(copy.count(name, {}) for name in names.COLLECTIONS)


def test_the_lines_are_json_that_any_program_can_read(store: Store, folder: Path) -> None:
    a_whole_life(store)
    manifest = backed_up(store, folder)

    with gzip.open(folder / "tasks-000001.jsonl.gz", "rt", encoding="utf-8") as lines:
        tasks = [json.loads(line) for line in lines]

    assert len(tasks) == manifest.documents["tasks"] == store.count(names.TASKS, {})
    assert {task["workflow_id"] for task in tasks} == {"alpha"}


def test_a_folder_with_something_in_it_is_refused_and_one_that_fails_is_not_there(
    store: Store, tmp_path: Path
) -> None:
    finished_run(store, "alpha")
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine").write_text("x")
    before = set(os.listdir(tmp_path))

    with pytest.raises(UsageError, match="not empty"):
        backed_up(store, full)
    with pytest.raises(UsageError, match="no folder"):
        backed_up(store, tmp_path / "nowhere" / "b")

    def fail() -> None:
        raise StoreError("away")

    with pytest.raises(StoreError, match="away"):
        backed_up(meanwhile(store, names.TASKS, fail), tmp_path / "half")
    assert set(os.listdir(tmp_path)) == before
    assert os.listdir(full) == ["mine"]


def test_a_backup_is_read_where_nothing_is_late(
    private_mongo: Callable[..., MongoServer], folder: Path, third: Store
) -> None:
    """Of two secondaries one may have the ledger and the other not yet the records."""
    server = private_mongo(replica_set=True)
    url = server.database_url("provd")
    writing = open_store(url)
    writing.migrate()
    finished_run(writing, "alpha")
    writing.close()
    elsewhere = f"{url}{'&' if '?' in url else '?'}readPreference=secondary"
    impatient, reading = open_store(elsewhere, timeout_s=1), open_store(elsewhere, timeout_s=10)
    with pytest.raises(StoreUnavailable):  # there is no secondary
        list(impatient.find(names.TASKS, {}))
    impatient.close()

    backed_up(reading, folder)
    brought_in(folder, third)

    assert read_books(third, "alpha").complete
    reading.close()


def test_a_tenant_has_no_backup(store: Store, folder: Path) -> None:
    with pytest.raises(StoreError, match="PROVD_TENANT_ID"):
        backed_up(scoped(store, "acme"), folder)
