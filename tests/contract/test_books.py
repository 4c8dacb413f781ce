"""The open books (`provd.store.books`), computed from either store."""

from __future__ import annotations

from provd.common.ranges import Ranges
from provd.common.record import Status
from provd.store.books import ProducerBooks, read_books
from provd.store.interface import Beat, Quarantined, Store
from tests.builders import START_MS, ProducerBuilder


def producer(number: int = 1, *, rank: int | None = None, world_size: int | None = None) -> ProducerBuilder:
    """A producer of workflow `w` that has said hello."""
    return ProducerBuilder("w", f"p{number}", rank=rank, world_size=world_size).open()


def only(store: Store) -> ProducerBooks:
    """The books of the one producer of `w`."""
    (books,) = read_books(store, "w").producers
    return books


def test_a_closed_producer_whose_messages_are_all_stored_is_complete(store: Store) -> None:
    one = producer()
    one.task()
    one.close().write(store)

    books = read_books(store, "w")

    assert books.complete
    assert (books.total("produced"), books.total("stored"), books.total("missing")) == (3, 3, 0)


def test_nothing_known_is_not_complete(store: Store) -> None:
    assert not read_books(store, "w").complete


def test_a_producer_that_has_not_said_goodbye_is_unclosed(store: Store) -> None:
    producer().write(store)

    books = read_books(store, "w")

    assert not books.complete
    assert books.unclosed == ("p1",)


def test_a_number_that_never_came_is_missing(store: Store) -> None:
    one = producer()
    for _ in range(5):
        one.task()
    one.close().write(store, without=[3, 4])

    assert only(store).missing == Ranges(((3, 4),))
    assert not read_books(store, "w").complete


def test_what_a_producer_said_last_is_known_from_its_heartbeat(store: Store) -> None:
    one = producer()
    one.write(store)
    store.put_beats([Beat("p1", "w", START_MS, 9, 8, 8, Ranges(), Ranges())])

    assert (only(store).produced, only(store).missing) == (9, Ranges(((2, 9),)))


def test_each_number_is_in_exactly_one_bucket_the_first_that_applies(store: Store) -> None:
    """Invariant: stored, quarantined, spooled, dropped, missing; the first that applies."""
    # Given books in which every bucket overlaps the one before
    one = producer()
    for _ in range(18):
        one.task()
    one.close().write(store, without=range(3, 20))
    store.add_quarantined(
        [Quarantined("bad", b"x", producer_id="p1", workflow_id="w", first_seq=2, last_seq=5)]
    )
    store.put_beats([Beat("p1", "w", START_MS, 20, 0, 0, Ranges.of([(4, 9)]), Ranges.of([(8, 12)]))])

    # Then the buckets are disjoint and together are all numbers
    books = only(store)
    assert books.stored == Ranges(((1, 2), (20, 20)))
    assert books.quarantined == Ranges(((3, 5),))
    assert books.spooled == Ranges(((6, 9),))
    assert books.dropped == Ranges(((10, 12),))
    assert books.missing == Ranges(((13, 19),))
    buckets = (books.stored, books.quarantined, books.spooled, books.dropped, books.missing)
    assert sum(map(len, buckets)) == books.produced == 20


def test_ranks_that_never_appeared_are_named(store: Store) -> None:
    for number, rank in ((1, 0), (2, 2)):
        producer(number, rank=rank, world_size=4).close().write(store)

    books = read_books(store, "w")

    assert books.missing_ranks == (1, 3)
    assert not books.complete


def test_a_task_that_is_not_in_the_collection_is_noticed_by_the_producers_own_count(store: Store) -> None:
    one = producer()
    one.task()
    one.close(tasks_ended=2).write(store)

    books = read_books(store, "w")

    assert (books.total("missing"), books.complete) == (0, False)
    assert (only(store).tasks_ended, only(store).tasks_stored) == (2, 1)


def test_a_running_task_is_not_counted_as_ended(store: Store) -> None:
    one = producer()
    one.task(status=Status.RUNNING)
    one.close().write(store)

    assert read_books(store, "w").complete


def test_a_piece_too_ruined_to_attribute_keeps_the_books_open(store: Store) -> None:
    producer().close().write(store)
    store.add_quarantined([Quarantined("ruined", b"?", workflow_id="w")])

    assert read_books(store, "w").unattributed == 1
    assert not read_books(store, "w").complete
