"""Ledger, beats and quarantine, on both stores."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone

from provd.common.ranges import Ranges
from provd.store.interface import Beat, Quarantined, Store, Stored
from provd.store.open import open_store
from tests.contract.messages import START_MS


class TestBooks:
    """Ledger, beats and quarantine."""

    def test_the_ledger_is_idempotent_and_compacting_it_says_the_same(self, store: Store) -> None:
        ranges = [
            Stored("p1", "w1", 1, 10),
            Stored("p1", "w1", 11, 20),
            Stored("p1", "w1", 5, 15),
            Stored("p1", "w1", 30, 30),
            Stored("p2", "w1", 1, 3),
            Stored("p1", "w2", 1, 1),
        ]
        store.add_stored(ranges)
        store.add_stored(ranges)
        expected = {"p1": Ranges(((1, 20), (30, 30))), "p2": Ranges(((1, 3),))}

        assert store.stored_ranges("w1") == expected
        store.compact_ledger("w1")
        store.compact_ledger("w1")
        store.add_stored(ranges[:2])

        assert store.stored_ranges("w1") == expected
        assert store.stored_ranges("w2") == {"p1": Ranges(((1, 1),))}
        assert store.stored_ranges("none") == {}
        store.compact_ledger("w1")
        assert store.count("ledger", {"workflow_id": "w1"}) == 3

    def test_a_reader_never_sees_less_while_the_ledger_is_compacted(
        self, store_url: str, store: Store
    ) -> None:
        """A thread reads all the time while parts are added and compacted; what was there once stays."""

        def compact_all() -> None:
            for start in range(1, 2000, 40):
                store.add_stored(
                    [Stored("p1", "w1", first, first + 1) for first in range(start, start + 40, 2)]
                )
                store.compact_ledger("w1")

        reader = open_store(store_url)
        seen = [0]
        with ThreadPoolExecutor(1) as pool:
            compacting = pool.submit(compact_all)
            while not compacting.done():
                seen.append(len(reader.stored_ranges("w1").get("p1", Ranges())))
            compacting.result()
        reader.close()

        assert seen == sorted(seen)
        assert store.stored_ranges("w1") == {"p1": Ranges(((1, 2000),))}

    def test_the_latest_beat_is_kept(self, store: Store) -> None:
        def beat(at: int, sent: int) -> Beat:
            return Beat("p1", "w1", at, sent, 1, 1, Ranges(((3, 4),)), Ranges())

        store.put_beats([beat(START_MS + 5, 50)])
        store.put_beats([beat(START_MS, 10), beat(START_MS + 9, 90), beat(START_MS + 7, 70)])
        store.put_beats([])

        (found,) = store.find("beats", {"workflow_id": "w1"})
        assert found == {
            "producer_id": "p1",
            "workflow_id": "w1",
            "beat_at": datetime.fromtimestamp(START_MS // 1000, timezone.utc) + timedelta(milliseconds=9),
            "sent": 90,
            "tasks_started": 1,
            "tasks_ended": 1,
            "spooled": [[3, 4]],
            "dropped": [],
        }

    def test_the_same_piece_is_quarantined_once(self, store: Store) -> None:
        piece = Quarantined("damaged: \udcff", b"\x00$raw", "stream", "1-1", "p1", "w1", 3, 4)

        store.add_quarantined([piece, piece])
        store.add_quarantined([piece, Quarantined("damaged", b"\x00$raw", "stream", "1-2")])

        (found,) = store.find("quarantine", {"workflow_id": "w1"})
        assert (found["raw"], found["reason"], found["first_seq"]) == (piece.raw, piece.reason, 3)
        assert "_id" in found
        assert store.count("quarantine", {}) == 2

    def test_a_quarantined_piece_of_any_size_is_kept_whole(self, store: Store) -> None:
        raw = bytes(range(256)) * (80 << 10)

        store.add_quarantined([Quarantined("too large", raw, "stream", "1-1", "p1", "w1", 3, 4)])

        parts = sorted(store.find("quarantine", {"workflow_id": "w1"}), key=lambda found: found["part"])
        assert b"".join(part["raw"] for part in parts) == raw
