"""Links in both stores: written with their tasks, and read only while their message stands."""

from __future__ import annotations

from typing import Any

import pytest

from provd.common.record import Message
from provd.query.lineage import trace
from provd.store.interface import Store
from tests.contract.messages import START_MS, task

NOW_MS = START_MS + 1_000_000


def file(name: str, content: int = 1) -> dict[str, Any]:
    """A file as it is recorded."""
    return {"type": "provd.File", "path": f"/data/{name}", "size": 1, "sha256": f"{content:064x}"}


def links(store: Store) -> list[tuple[str, str, str]]:
    """All links of a store."""
    found = store.find("links", {}, sort=[("_id", 1)])
    return [(link["task_id"], link["direction"], link["key"]) for link in found]


def pair() -> list[Message]:
    """A task that makes a file, and one that reads it."""
    return [task(1, generated={"out": file("a")}), task(2, used={"in": file("a")})]


def test_a_tasks_links_are_stored_with_it(store: Store) -> None:
    store.write(pair(), received_at=NOW_MS)

    key = f"file:{1:064x}:/data/a"
    assert sorted(links(store)) == [("w1-00000001", "generated", key), ("w1-00000002", "used", key)]


def test_a_task_without_what_can_be_followed_has_none(store: Store) -> None:
    store.write([task(1, used={"lr": 0.1, "layers": [1, {"type": "dense"}]})], received_at=NOW_MS)

    assert links(store) == []


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_replay_changes_no_link_whatever_the_order(store: Store, order: tuple[int, int]) -> None:
    messages = pair()
    store.write(messages, received_at=NOW_MS)
    before = links(store)

    store.write([messages[place] for place in order], received_at=NOW_MS + 1)

    assert links(store) == before


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
@pytest.mark.parametrize("together", [True, False])
def test_a_link_of_a_message_that_another_replaced_is_not_read(
    store: Store, order: tuple[int, ...], together: bool
) -> None:
    """G3: what readers see is a function of the set of messages."""
    messages = [
        task(1, generated={"old": file("old")}),
        task(2, number=2, status="RUNNING", used={"in": file("old")}, ended_at=None),
        task(3, number=2, used={"in": file("new")}, announced=True),
    ]

    if together:
        store.write([messages[place] for place in order], received_at=NOW_MS)
    else:
        for place in order:
            store.write([messages[place]], received_at=NOW_MS)

    assert trace(store, "w1-00000002").edges == ()
    assert trace(store, "w1-00000001", down=True).edges == ()


def test_links_of_a_task_that_the_store_does_not_hold_are_not_read(store: Store) -> None:
    """As a crash leaves it between links and tasks, until the frame comes again."""
    refused = task(2, used={"in": file("a"), "bad": object()})
    wrong = task(3, used={"in": file("a")}, task_id="w1-00000001", workflow="w2")

    store.write([pair()[0]], received_at=NOW_MS)
    written = store.write([refused, wrong], received_at=NOW_MS)

    assert len(written.refused) == 2
    assert [node.task_id for node in trace(store, "w1-00000001", down=True).nodes] == ["w1-00000001"]


def test_odd_paths_and_keys_are_followed_as_any(store: Store) -> None:
    values = [
        {"type": "provd.Key", "key": "file-\udcff"},
        {"type": "provd.Key", "key": "x" * 10_000},
        {"type": "provd.Key", "key": "$a~\0"},
        {**file("a"), "path": "/data/\udcff"},
    ]
    store.write([task(1, generated={"out": values}), task(2, used={"in": values})], received_at=NOW_MS)

    assert len(trace(store, "w1-00000002").edges) == len(values)


def test_each_of_twenty_thousand_files_of_one_task_is_followed(store: Store) -> None:
    many = [file(f"{number}") for number in range(20_000)]
    store.write([task(1, generated={"all": many}), task(2, used={"in": many[17]})], received_at=NOW_MS)

    (edge,) = trace(store, "w1-00000002").edges
    assert edge.source == "w1-00000001"
