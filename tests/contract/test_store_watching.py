"""Marks of consumers, and quarantined pieces that are tried again, on both stores."""

from __future__ import annotations

from contextlib import closing
from datetime import datetime, timedelta

import pytest

from provd.common import clock
from provd.common.ranges import Ranges
from provd.store.interface import Beat, ConsumerMark, Quarantined, Store
from provd.store.open import open_store
from tests.contract.messages import START_MS


def mark(name: str = "head-0", *, broker_at: int = START_MS, state: str = "running") -> ConsumerMark:
    """What a consumer says."""
    figures = {"stored": 7, "rate": 1.5}
    return ConsumerMark(name, "head", 42, "0.1", state, START_MS, broker_at, ("w1",), figures)


class TestIdentity:
    """Which store this is."""

    def test_a_store_keeps_its_identity_and_another_has_another(self, store: Store, store_url: str) -> None:
        assert store.identity()

        with closing(open_store(store_url)) as again:
            again.migrate()
            assert again.identity() == store.identity()

    def test_two_stores_are_told_apart(self, both: tuple[Store, Store]) -> None:
        one, other = both

        assert one.identity() != other.identity()


class TestConsumers:
    """What consumers say of themselves."""

    def test_the_latest_mark_of_each_consumer_is_kept_the_newest_first(self, store: Store) -> None:
        store.put_consumer(mark())
        store.put_consumer(mark("head-1", broker_at=START_MS + 500))
        store.put_consumer(mark(broker_at=START_MS + 900, state="stopped"))

        first, second = store.consumers()

        assert (first["name"], first["state"], first["broker_at"]) == (
            "head-0",
            "stopped",
            clock.to_datetime(START_MS + 900),
        )
        assert second["name"] == "head-1"
        assert (first["workflow_ids"], first["figures"]) == (["w1"], {"stored": 7, "rate": 1.5})
        assert store.count("consumers", {"state": "running"}) == 1

    def test_the_stores_own_clock_stands_beside_a_mark_and_its_reading(self, store: Store) -> None:
        before = datetime.now().astimezone() - timedelta(milliseconds=2)
        store.put_consumer(mark())
        (found,) = store.consumers()
        after = datetime.now().astimezone() + timedelta(milliseconds=2)

        assert before <= found["store_at"] <= found["now"] <= after

    def test_without_consumers_there_are_no_marks(self, store: Store) -> None:
        assert store.consumers() == []

    def test_a_consumer_not_seen_for_a_week_is_forgotten_when_a_new_one_comes(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("provd.store.documents.FORGET_CONSUMER_MS", -1000)

        store.put_consumer(mark())

        assert store.consumers() == []


class TestBeats:
    """What a beat says beyond its ranges."""

    def test_a_beat_keeps_what_a_consumer_holds_and_why_messages_were_dropped(self, store: Store) -> None:
        spooled, held, dropped = Ranges(((3, 9),)), Ranges(((3, 4),)), Ranges(((10, 12),))

        store.put_beats([Beat("p1", "w1", START_MS, 12, 1, 1, spooled, dropped, held, {"spool ceiling": 3})])

        (found,) = store.find("beats", {})
        assert (found["held"], found["dropped_reasons"]) == ([[3, 4]], {"spool ceiling": 3})


class TestQuarantine:
    """Pieces that are tried again."""

    @pytest.mark.parametrize("size", [3, 9 << 20])
    def test_a_piece_gets_a_new_reason_in_all_its_parts_and_others_keep_theirs(
        self, store: Store, size: int
    ) -> None:
        store.add_quarantined(
            [
                Quarantined("first \udcff", b"x" * size, "s", "1-1"),
                Quarantined("other", b"y" * size, "s", "1-2"),
            ]
        )
        piece_id = _piece_id(store, "first \udcff")

        store.note_quarantined(piece_id, "second \udcff")

        reasons = [found["reason"] for found in store.find("quarantine", {})]
        assert sorted(set(reasons)) == ["other", "second \udcff"]
        assert len(reasons) == (2 if size == 3 else 4)

    @pytest.mark.parametrize("size", [3, 9 << 20])
    def test_a_piece_is_removed_with_all_its_parts(self, store: Store, size: int) -> None:
        store.add_quarantined(
            [Quarantined("first", b"x" * size, "s", "1-1"), Quarantined("other", b"y" * size, "s", "1-2")]
        )

        store.drop_quarantined([_piece_id(store, "first"), "none"])
        store.drop_quarantined([])

        assert {found["reason"] for found in store.find("quarantine", {})} == {"other"}

    def test_a_piece_keeps_the_context_that_it_is_read_in(self, store: Store) -> None:
        store.add_quarantined(
            [
                Quarantined("whole", b"hhbbb", "s", "1-1", header_bytes=2),
                Quarantined("part", b"bbb", "s", "1-2", "p1", "w1", 3, 4, header=b"hh", table=b"tt"),
            ]
        )

        whole, part = store.find("quarantine", {}, sort=[("entry_id", 1)])
        assert (whole["header_bytes"], whole["size"], "header" in whole) == (2, 5, False)
        assert (part["header"], part["table"], part["size"]) == (b"hh", b"tt", 3)


def _piece_id(store: Store, reason: str) -> str:
    found = next(item for item in store.find("quarantine", {}) if item["reason"] == reason)
    return str(found["_id"])[:32]
