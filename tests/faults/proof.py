"""What "nothing lost, nothing twice" means, looked up in the store."""

from __future__ import annotations

from collections import Counter

from provd.common import names
from provd.store.books import read_books
from provd.store.interface import Store
from tests.integration.feeder import Feeder


def stored_epochs(store: Store, feeder: Feeder) -> list[int]:
    """`used.epochs` of every task document of a feeder's, which counts its tasks from 1."""
    found = store.find(names.TASKS, {"workflow_id": feeder.workflow_id}, fields=["used", "producer_id"])
    return sorted(task["used"]["epochs"] for task in found if task["producer_id"] == feeder.producer_id)


def assert_stored_once(store: Store, feeder: Feeder) -> None:
    """Every task of a feeder is one document, and the ledger has each of its numbers."""
    assert list(store.find(names.QUARANTINE, {"producer_id": feeder.producer_id})) == []
    counts = Counter(stored_epochs(store, feeder))
    assert sorted(counts) == list(range(1, feeder.tasks_made + 1))
    assert set(counts.values()) == {1}
    assert str(store.stored_ranges(feeder.workflow_id)[feeder.producer_id]) == f"1-{feeder.seq}"


def assert_whole(store: Store, feeder: Feeder) -> None:
    """`assert_stored_once`, the books are complete, and Redis holds nothing of it any more."""
    assert_stored_once(store, feeder)
    books = read_books(store, feeder.workflow_id)
    assert books.complete, books
    assert books.total("produced") == books.total("stored") == feeder.seq
    if feeder.client.exists(feeder.keys.stream):
        assert (feeder.length(), feeder.pending()) == (0, 0)
