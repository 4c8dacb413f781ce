"""Which runs are not known to be over and whole, on both stores."""

from __future__ import annotations

from typing import Any

import pytest

from provd.common.record import Status
from provd.store.books import read_books, read_several_books
from provd.store.interface import Quarantined, Store
from provd.store.unfinished import read_unfinished
from tests.builders import START_MS, ProducerBuilder, finished_run


def _run(workflow_id: str, started_at: int = START_MS, *, ranks: int | None = None) -> ProducerBuilder:
    owner = ProducerBuilder(
        workflow_id,
        f"p-{workflow_id}",
        rank=0 if ranks else None,
        world_size=ranks,
        started_at=started_at,
    ).open()
    owner.workflow(Status.RUNNING)
    owner.task()
    owner.task()
    return owner


def _ended(workflow_id: str, started_at: int = START_MS, *, ranks: int | None = None) -> ProducerBuilder:
    return _run(workflow_id, started_at, ranks=ranks).workflow().close()


def _listed(store: Store, among: int = 100) -> list[str]:
    return [books.workflow_id for books in read_unfinished(store, among=among).books]


def test_a_run_is_whole_when_it_is_over_and_every_message_of_every_producer_is_stored(store: Store) -> None:
    finished_run(store, "whole")
    _ended("failed").write(store)

    found = read_unfinished(store, among=100)

    assert (found.books, found.whole, found.unseen) == ((), 2, 0)


def test_whatever_is_not_in_order_is_listed_the_latest_run_first(store: Store) -> None:
    finished_run(store, "whole", started_at=START_MS + 99)
    _ended("gap", START_MS + 4).write(store, without=[3])
    _run("running", START_MS + 3).write(store)
    _ended("killed worker", START_MS + 2).write(store)
    ProducerBuilder("killed worker", "p-worker", None).open().write(store)
    _ended("rank away", START_MS + 1, ranks=2).write(store)
    _ended("no record", START_MS).write(store, without=[2, 5])
    store.add_quarantined([Quarantined("damaged", b"x", workflow_id="ruined")])

    listed = _listed(store)

    assert listed[:4] == ["gap", "running", "killed worker", "rank away"]
    assert sorted(listed[4:]) == ["no record", "ruined"]


def test_a_run_without_an_owner_is_over_when_all_its_producers_have_closed(store: Store) -> None:
    for workflow_id in ("closed", "open"):
        joined = ProducerBuilder(workflow_id, f"p-{workflow_id}").open().workflow(Status.SUBMITTED)
        (joined.close() if workflow_id == "closed" else joined).write(store)

    assert _listed(store) == ["open"]


def test_older_runs_are_not_looked_at_and_counted_but_for_those_that_something_is_quarantined_of(
    store: Store,
) -> None:
    for number in range(6):
        finished_run(store, f"run{number}", started_at=START_MS + number)
    store.add_quarantined([Quarantined("damaged", b"x", workflow_id="run0")])

    some, all_ = read_unfinished(store, among=2), read_unfinished(store, among=0)

    assert [books.workflow_id for books in some.books] == ["run0"]
    assert (some.whole, some.unseen) == (2, 3)
    assert (all_.whole, all_.unseen) == (5, 0)


def test_an_older_run_is_listed_when_a_producers_last_word_is_that_it_dropped_something(store: Store) -> None:
    """It came by the spool: there is no heartbeat of it."""
    _run("dropped").workflow().close(dropped=[[3, 3]]).write(store, without=[3])
    for number in range(3):
        finished_run(store, f"run{number}", started_at=START_MS + 1 + number)

    assert _listed(store, among=2) == ["dropped"]


@pytest.mark.parametrize(
    "odd", [{"world_size": "8"}, {"world_size": 10**12}, {"rank": [1]}, {"rank": None}], ids=str
)
def test_an_odd_record_of_one_producer_hides_no_run(store: Store, odd: dict[str, Any]) -> None:
    _ended("gap").write(store, without=[3])
    _run("odd").workflow().close(**odd).write(store)

    assert _listed(store) == ["gap"]


def test_the_books_of_several_runs_are_those_of_each(store: Store) -> None:
    _ended("gap").write(store, without=[3]).beat(store, START_MS)
    finished_run(store, "whole")
    _ended("rank away", ranks=3).write(store)
    store.add_quarantined([Quarantined("damaged", b"x", "s", "1-1", "p-gap", "gap", 3, 3)])

    several = read_several_books(store, ["gap", "whole", "rank away", "none"])

    assert several == {
        name: read_books(store, name, count_tasks=False) for name in ("gap", "whole", "rank away", "none")
    }
