"""Deleted runs: nothing of them is left, nothing of them comes back, and all of it is counted."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pymongo import monitoring

from provd.common import names
from provd.common.errors import BadExport, NotFound, StoreError
from provd.common.ranges import Ranges
from provd.common.record import Record, Status
from provd.consumer.batch import keep_books
from provd.consumer.importing import import_runs
from provd.query.find import find_run
from provd.query.tenant import scoped
from provd.store.interface import Beat, Quarantined, Store, Stored
from provd.store.open import open_store
from provd.store.run_file import write_run
from provd.store.tombstones import RUN_COLLECTIONS, find_tombstone
from tests.builders import START_MS, ProducerBuilder, finished_run


def a_full_run(store: Store, workflow_id: str = "alpha") -> ProducerBuilder:
    """A run with something in every collection."""
    part = finished_run(store, workflow_id)
    part.task(used={"file": {"type": "provd.Key", "key": "best"}})
    part.write(store).beat(store, START_MS)
    store.compact_ledger(workflow_id)
    store.add_quarantined([Quarantined("odd", b"raw", workflow_id=workflow_id)])
    return part


def left_of(store: Store, workflow_id: str = "alpha") -> dict[str, int]:
    counts = {name: store.count(name, {"workflow_id": workflow_id}) for name in RUN_COLLECTIONS}
    return {name: count for name, count in counts.items() if count}


def delete(store: Store, workflow_id: str = "alpha", archive: str | None = None) -> None:
    store.begin_deletion(workflow_id, by="ada@login1", archive=archive)
    store.delete_run(workflow_id)


def tombstone_of(store: Store, workflow_id: str = "alpha") -> Record:
    found = find_tombstone(store, workflow_id)
    assert found is not None
    return found


def test_a_deleted_run_leaves_nothing_but_its_tombstone(store: Store) -> None:
    a_full_run(store)
    a_full_run(store, "beta")
    before, others = left_of(store), left_of(store, "beta")
    assert len(before) == len(RUN_COLLECTIONS) - 1  # all but node samples

    delete(store, archive="/archive/alpha.jsonl")

    assert left_of(store) == {}
    assert left_of(store, "beta") == others
    tombstone = tombstone_of(store)
    assert {name: count for name, count in tombstone["counts"].items() if count} == before
    assert (tombstone["by"], tombstone["archive"], tombstone["name"], tombstone["campaign_id"]) == ("ada@login1", "/archive/alpha.jsonl", "sweep", "exp42")  # fmt: skip
    assert tombstone["finished_at"] >= tombstone["deleted_at"]


def test_late_messages_of_a_deleted_run_are_counted_and_not_kept_and_the_others_of_their_batch_are(
    store: Store,
) -> None:
    part = a_full_run(store)
    delete(store)
    other = ProducerBuilder("beta", "p-beta").open()

    written = store.write([*part.messages, *other.messages], received_at=START_MS)

    assert written.gone == {"alpha": len(part.messages)}
    assert (written.stored, written.refused) == (1, ())
    assert left_of(store) == {}
    assert tombstone_of(store)["refused"] == len(part.messages)


def test_the_books_of_a_deleted_run_stay_closed(store: Store) -> None:
    part = a_full_run(store)
    delete(store)
    written = store.write(part.messages, received_at=START_MS)

    _, entered = keep_books(store, part.messages, [Quarantined("odd", b"?", workflow_id="alpha")], written)
    store.add_stored([Stored("p1", "alpha", 1, 5), Stored("p1", "beta", 1, 5)])
    store.add_quarantined([Quarantined("odd", b"?", workflow_id="alpha"), Quarantined("whose", b"?")])
    store.put_beats([Beat("p1", "alpha", START_MS, 1, 0, 0, Ranges(), Ranges())])
    store.compact_ledger("alpha")

    assert entered == []
    assert left_of(store) == {}
    assert store.stored_ranges("beta") == {"p1": Ranges.of([(1, 5)])}
    assert store.count(names.QUARANTINE, {}) == 1


def test_documents_left_by_a_writer_that_was_killed_go_when_its_messages_come_again(store: Store) -> None:
    """It wrote after the deletion was over, and was killed before it could ask."""
    part = a_full_run(store)
    delete(store)
    database: Any = getattr(store, "_database", None)
    if database is None:
        pytest.skip("a batch of the embedded store is one transaction")
    task_id = next(one.record["task_id"] for one in part.messages if "task_id" in one.record)
    database[names.TASKS].insert_one({"_id": task_id, "task_id": task_id, "workflow_id": "alpha"})

    store.write(part.messages, received_at=START_MS)

    assert left_of(store) == {}


def test_a_deletion_that_was_cut_off_refuses_at_once_and_is_finished_by_doing_it_again(store: Store) -> None:
    part = a_full_run(store)
    store.begin_deletion("alpha", by="ada@login1")

    assert store.write(part.messages, received_at=START_MS).gone == {"alpha": len(part.messages)}
    assert store.deleted_among(["alpha", "beta"]) == {"alpha"}
    assert "finished_at" not in tombstone_of(store)
    with pytest.raises(NotFound, match=r"is being deleted since .* `provd runs delete alpha` goes on"):
        find_run(store, "alpha")
    assert not store.undelete_run("alpha")  # it has refused something, which is nowhere else

    delete(store)

    assert left_of(store) == {}
    assert tombstone_of(store)["by"] == "ada@login1"
    with pytest.raises(NotFound, match=r"was deleted on .* by ada@login1"):
        find_run(store, "alpha")


def test_a_deletion_that_has_done_nothing_yet_can_be_given_up(store: Store) -> None:
    a_full_run(store)
    before = left_of(store)
    store.begin_deletion("alpha", by="ada@login1")

    assert store.undelete_run("alpha")

    assert left_of(store) == before
    assert find_run(store, "alpha") == "alpha"


def test_nothing_is_deleted_of_a_run_without_a_tombstone(store: Store) -> None:
    a_full_run(store)
    before = left_of(store)

    store.delete_run("alpha")

    assert left_of(store) == before


def test_a_run_that_was_brought_back_takes_messages_again(store: Store) -> None:
    part = a_full_run(store)
    delete(store)

    assert store.undelete_run("alpha")
    written = store.write(part.messages, received_at=START_MS)

    assert written.gone == {}
    assert written.stored > 0
    assert not store.undelete_run("alpha")


def test_an_archive_of_a_deleted_run_is_refused_unless_it_was_brought_back(
    store: Store, tmp_path: Path
) -> None:
    a_full_run(store)
    before = left_of(store)
    file = tmp_path / "alpha.jsonl"
    with file.open("wb") as stream:
        write_run(store, "alpha", stream)
    delete(store)

    refused = import_runs(file, store)

    assert refused.changed == 0
    assert refused.gone > 0
    assert left_of(store) == {}

    store.undelete_run("alpha")
    import_runs(file, store)

    assert left_of(store) == before


def test_many_writers_and_a_deletion_at_once_leave_nothing(store_url: str, store: Store) -> None:
    """Each message was stored before the deletion, and is deleted, or is refused, and counted."""
    begun = threading.Event()
    gone = []

    def write(number: int) -> None:
        part = ProducerBuilder("alpha", f"p{number}").open()
        mine = open_store(store_url, timeout_s=60)
        try:
            for _ in range(15):
                first = len(part.messages)
                for _ in range(20):
                    part.task(used={"k": {"type": "provd.Key", "key": "x"}})
                new = part.messages[first:]
                written = mine.write(new, received_at=START_MS)
                keep_books(mine, new, (), written)
                mine.compact_ledger("alpha")
                gone.append(sum(written.gone.values()))
                begun.set()
        finally:
            mine.close()

    writers = [threading.Thread(target=write, args=(number,)) for number in range(3)]
    for writer in writers:
        writer.start()
    assert begun.wait(60)
    with closing(open_store(store_url, timeout_s=60)) as deleting:  # as patient as the writers
        delete(deleting)
    for writer in writers:
        writer.join()

    assert left_of(store) == {}
    assert tombstone_of(store)["refused"] == sum(gone)


class _After(monitoring.CommandListener):
    """Does something once, when a command on a collection has succeeded."""

    def __init__(self, command: str, collection: str, act: Callable[[], None]) -> None:
        self._wanted = command, collection
        self._act: Callable[[], None] | None = act
        self._waiting: set[int] = set()

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        if (event.command_name, event.command.get(event.command_name)) == self._wanted:
            self._waiting.add(event.request_id)

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        act = self._act
        if event.request_id in self._waiting and act is not None:
            self._act = None
            act()

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        """Nothing."""


@pytest.mark.parametrize(
    ("command", "collection", "refused"),
    [("insert", names.TASKS, 8), ("insert", names.LINKS, 8), ("insert", names.LEDGER, 0)],
)
def test_a_deletion_between_any_two_steps_of_a_write_leaves_nothing(
    mongo_url: str, command: str, collection: str, refused: int
) -> None:
    """A batch is no transaction in MongoDB: what was written before the tombstone was seen is taken back."""
    deleting = open_store(mongo_url)
    deleting.migrate()
    part = ProducerBuilder("alpha", "p1").open()
    for _ in range(7):
        part.task(used={"k": {"type": "provd.Key", "key": "x"}})
    monitoring.register(_After(command, collection, lambda: delete(deleting)))  # of clients made from now on
    writing = open_store(mongo_url)

    written = writing.write(part.messages, received_at=START_MS)
    keep_books(writing, part.messages, (), written)

    assert left_of(deleting) == {}
    assert tombstone_of(deleting)["refused"] == refused
    assert sum(written.gone.values()) == refused
    writing.close()
    deleting.close()


def test_a_file_that_is_no_export_is_refused_before_a_run_is_brought_back(
    store: Store, tmp_path: Path
) -> None:
    a_full_run(store)
    delete(store)
    file = tmp_path / "bad.jsonl"
    file.write_text("{}\n")

    with pytest.raises(BadExport):
        import_runs(file, store)

    assert store.deleted_among(["alpha"]) == {"alpha"}


def test_deleted_runs_are_a_collection_to_ask(store: Store) -> None:
    finished_run(store, "alpha", name="a \ud800 name")
    ProducerBuilder("beta", "p1").open().workflow(Status.RUNNING).write(store)
    delete(store)

    (found,) = store.find(names.TOMBSTONES, {"counts.tasks": {"$gt": 1}}, sort=[("deleted_at", -1)])

    assert (found["workflow_id"], found["name"]) == ("alpha", "a \ud800 name")


def test_a_tenant_sees_its_own_deleted_runs_alone_and_deletes_none(store: Store) -> None:
    for name, tenant in (("alpha", "ours"), ("beta", "theirs")):
        part = ProducerBuilder(name, f"p-{name}").open().workflow()
        for message in part.messages:
            message.record["tenant_id"] = tenant
        part.write(store)
        delete(store, name)

    ours = scoped(store, "ours")

    assert [one["workflow_id"] for one in ours.find(names.TOMBSTONES, {})] == ["alpha"]
    assert ours.deleted_among(["alpha", "beta"]) == {"alpha"}
    with pytest.raises(NotFound, match="was deleted"):
        find_run(ours, "alpha")
    with pytest.raises(NotFound, match="no run"):
        find_run(ours, "beta")
    for change in (ours.begin_deletion, ours.delete_run, ours.undelete_run):
        with pytest.raises(StoreError, match="for everybody"):
            change("beta")


def test_what_was_stored_before_stays_for_the_archive_when_it_comes_again(store: Store) -> None:
    """Between the tombstone and the deletion the archive is compared with the store: nothing may leave it."""
    part = a_full_run(store)
    before = left_of(store)
    store.begin_deletion("alpha", by="ada@login1")

    written = store.write(part.messages, received_at=START_MS)
    keep_books(store, part.messages, (), written)
    store.add_stored([Stored(part.producer_id, "alpha", 1, len(part.messages))])
    store.put_beats([Beat(part.producer_id, "alpha", START_MS, 1, 0, 0, Ranges(), Ranges())])

    assert left_of(store) == before
    assert written.gone == {"alpha": len(part.messages)}


def test_an_import_into_a_run_whose_deletion_has_only_begun_enters_no_ledger_of_what_was_refused(
    store: Store, tmp_path: Path
) -> None:
    """Its archive is still to be made: that would claim what neither the store nor it holds."""
    part = a_full_run(store)
    more = ProducerBuilder("alpha", "p-more").open()
    more.task()
    more.write(store)
    with (tmp_path / "alpha.jsonl").open("wb") as stream:
        write_run(store, "alpha", stream)
    delete(store)
    store.undelete_run("alpha")
    part.write(store)
    store.begin_deletion("alpha", by="ada@login1")

    done = import_runs(tmp_path / "alpha.jsonl", store)

    assert done.gone > 0
    assert store.count(names.TASKS, {"workflow_id": "alpha", "producer_id": "p-more"}) == 0
    assert set(store.stored_ranges("alpha")) == {part.producer_id}


def test_a_message_of_a_run_that_no_store_can_be_asked_for_spoils_no_other(store: Store) -> None:
    part = ProducerBuilder("alpha", "p1").open()
    odd = ProducerBuilder("\ud800", "p2").open()

    written = store.write([*odd.messages, *part.messages], received_at=START_MS)

    assert store.count(names.PRODUCERS, {"workflow_id": "alpha"}) == 1
    assert written.gone == {}


def test_any_text_is_no_run_in_words(store: Store) -> None:
    a_full_run(store)
    for text in ("\U0010ffff", "\ud7ff", "\udcff", "a\0b", "", "$where", "*"):
        with pytest.raises(NotFound):
            find_run(store, text)
