"""The invariants of `provd.store.interface`, on both stores."""

from __future__ import annotations

import itertools
import math
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from provd.common.errors import StoreUnavailable, UnsupportedQuery
from provd.common.record import Message, Record, to_document
from provd.store.interface import Store
from provd.store.open import open_store
from tests.contract.messages import START_MS, producer_message, task, without, workflow_message

NOW_MS = START_MS + 1_000_000

#: Every example of a property has a workflow of its own.
_fresh = itertools.count()

ODD_VALUES = {
    "a variable": "$HOME/data",
    "an aggregation variable": "$$x",
    "a home folder": "~/data",
    "a dotted key": {"model.pt": 1},
    "a key like an operator": {"$lr": 0.1},
    "an empty key": {"": {"": 1}},
    "a long path": {"a.b": {"c.d": {"$e": {"f": 1}}}},
    "a key like a tag": {"~int": "0x1f"},
    "a real tag": {"~map": [["a", 1]]},
    "a reference": {"$ref": "tasks", "$id": 1, "$db": "x"},
    "a date tag": {"$date": "2026-11-20T14:03:00.250Z"},
    "an operator": {"$where": "sleep(1000)"},
    "2**63": 2**63,
    "2**63 - 1": 2**63 - 1,
    "-2**63": -(2**63),
    "2**64": 2**64,
    "2**80": [2**80],
    "-2**70": -(2**70),
    "2**31": 2**31,
    "infinity": math.inf,
    "minus infinity": [-math.inf],
    "bytes": b"\x00\xff~$",
    "a lone surrogate": "file-\udcff.dat",
    "a lone surrogate in a key": {"file-\udcff": "\ud800"},
    "a NUL": "a\0b",
    "a NUL in a key": {"a\0b": 1},
    "int keys": {1: "one", -(2**70): "huge"},
    "mixed keys": {None: 1, True: 2, 2.5: 3, b"x": 4},
    "tuple keys": {(1, 2): "pair", (1, ("a", b"b")): "nested"},
    "a date": datetime(2026, 11, 20, 14, 3, 0, 250_000, tzinfo=timezone.utc),
    "an early date": datetime(1, 1, 1, tzinfo=timezone.utc),
    "nothing": None,
    "booleans": [True, False, 1, 0, 1.0, 0.0],
    "empty": [[], {}, "", b""],
    "text": "é漢字🎉",
}


def stored_task(store: Store, message: Message) -> Record:
    (found,) = store.find("tasks", {"task_id": message.record["task_id"]})
    return found


class TestWriting:
    """`write` and what it reports."""

    def test_a_message_reads_back_as_it_was_recorded(self, store: Store) -> None:
        message = task(1, tags=["a"], stdout="hello", attempt=2)

        written = store.write([message], received_at=NOW_MS)

        assert (written.stored, written.duplicates, written.refused) == (1, 0, ())
        assert to_document({**message.record, "received_at": NOW_MS}) == stored_task(store, message)

    def test_every_kind_has_its_collection_and_no_redundant_id(self, store: Store) -> None:
        messages = [workflow_message(1, status="RUNNING"), producer_message(2, status="RUNNING"), task(3)]

        written = store.write(messages, received_at=NOW_MS)

        assert written.stored == 3
        for collection in ("workflows", "producers", "tasks"):
            (found,) = store.find(collection, {})
            assert "_id" not in found
            assert found["workflow_id"] == "w1"

    def test_an_empty_batch_is_nothing(self, store: Store) -> None:
        assert store.write([], received_at=NOW_MS).stored == 0

    def test_announced_is_not_stored(self, store: Store) -> None:
        message = task(2, announced=True)

        store.write([message], received_at=NOW_MS)

        assert "announced" not in stored_task(store, message)

    def test_an_announced_final_is_stored_where_its_announcement_never_came(self, store: Store) -> None:
        message = task(2, announced=True)

        written = store.write([message], received_at=NOW_MS)

        assert (written.stored, written.duplicates) == (1, 0)
        assert stored_task(store, message)["status"] == "FINISHED"

    def test_a_replay_changes_nothing(self, store: Store) -> None:
        messages = [task(number, announced=number % 3 == 0 or None) for number in range(1, 51)]
        messages += [
            task(51, number=60, status="RUNNING", ended_at=None),
            task(52, number=60, announced=True),
        ]
        store.write(messages, received_at=NOW_MS)
        before = list(store.find("tasks", {}, sort=[("task_id", 1)]))

        written = store.write(messages, received_at=NOW_MS + 5000)

        assert (written.stored, written.duplicates, written.refused) == (0, 52, ())
        assert list(store.find("tasks", {}, sort=[("task_id", 1)])) == before

    def test_a_higher_message_marks_when_it_was_received_and_a_lower_one_does_not(self, store: Store) -> None:
        running = task(1, number=1, status="RUNNING", ended_at=None)
        final = task(3, number=1, announced=True)
        late = task(2, number=1, status="RUNNING", ended_at=None)

        store.write([running], received_at=NOW_MS)
        store.write([final], received_at=NOW_MS + 1)
        written = store.write([late], received_at=NOW_MS + 2)

        assert (written.stored, written.duplicates) == (0, 1)
        assert stored_task(store, final) == to_document(
            {**without(final.record, "announced"), "received_at": NOW_MS + 1}
        )

    def test_several_messages_about_one_task_in_one_batch_are_merged(self, store: Store) -> None:
        messages = [
            task(1, number=7, status="SUBMITTED", submitted_at=START_MS, started_at=None, ended_at=None),
            task(2, number=7, status="RUNNING", ended_at=None),
            task(3, number=7, status="ERROR", started_at=None, announced=True),
        ]

        store.write(messages, received_at=NOW_MS)

        found = stored_task(store, messages[0])
        assert found["status"] == "ERROR"
        assert found["started_at"] == to_document(messages[1].record)["started_at"]
        assert found["submitted_at"] == to_document(messages[0].record)["submitted_at"]
        assert found["filled"] == {"submitted_at": [0, "p1", 1], "started_at": [1, "p1", 2]}

    def test_a_large_batch_is_one_as_a_small_one_is(self, store: Store) -> None:
        """More than is encoded at once, with announcements and repetitions far from what they belong to."""
        announced = [
            task(seq, number=seq, status="RUNNING", ended_at=None, duration=None) for seq in range(1, 41)
        ]
        others = [workflow_message(41), *(task(seq) for seq in range(42, 1900))]
        ends = [task(1900 + number, number=number) for number in range(1, 41)]
        batch = [*announced, *others, *ends, *others[-40:]]

        first, again = (store.write(batch, received_at=NOW_MS) for _ in range(2))

        assert (first.stored, first.duplicates, first.refused) == (len(batch) - 40, 40, ())
        assert (again.stored, again.duplicates, again.refused) == (0, len(batch), ())
        assert store.count("tasks", {"status": "FINISHED"}) == store.count("tasks", {}) == 1898
        assert store.count("workflows", {}) == 1


class TestValues:
    """Values are data: nothing in a record is evaluated, and what was written reads back equal."""

    @pytest.mark.parametrize("path", ["inserted", "merged over", "merged under"])
    def test_odd_values_come_back_equal(self, store: Store, path: str) -> None:
        announced: dict[str, Any] = {"announced": True} if path != "inserted" else {}
        message = task(
            2, number=1, used=dict(ODD_VALUES), generated={"x": list(ODD_VALUES.values())}, **announced
        )
        before = task(1, number=1, status="RUNNING", used={"old": 1}, generated=None)
        if path == "merged over":
            store.write([before], received_at=NOW_MS)

        written = store.write([message], received_at=NOW_MS)
        if path == "merged under":
            store.write([before], received_at=NOW_MS)

        found = stored_task(store, message)
        assert written.refused == ()
        assert found["used"] == ODD_VALUES
        assert found["generated"] == {"x": list(ODD_VALUES.values())}
        assert [type(value) for value in found["used"].values()] == [
            type(value) for value in ODD_VALUES.values()
        ]

    def test_not_a_number_comes_back(self, store: Store) -> None:
        message = task(1, generated={"loss": math.nan})

        store.write([message], received_at=NOW_MS)
        written = store.write([message], received_at=NOW_MS)

        assert math.isnan(stored_task(store, message)["generated"]["loss"])
        assert written.duplicates == 1

    def test_a_record_a_hundred_levels_deep_comes_back(self, store: Store) -> None:
        value: Any = "bottom"
        for level in range(95):
            value = {"down": value} if level % 2 else [value]
        message = task(1, used={"deep": value})

        store.write([message, task(2, number=1, used={"deep": value}, status="ERROR")], received_at=NOW_MS)

        assert stored_task(store, message)["used"] == {"deep": value}

    @settings(
        max_examples=40,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
        derandomize=True,
    )
    @given(
        value=st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.text("$~.ab\0", max_size=3), inner, max_size=3)
            ),
            max_leaves=8,
        )
    )
    def test_any_value_comes_back_equal(self, store: Store, value: Any) -> None:
        workflow = f"w-{next(_fresh)}"
        first = task(1, workflow=workflow, used={"value": value})
        second = task(2, number=1, workflow=workflow, status="ERROR", used={"again": value})

        store.write([first], received_at=NOW_MS)
        assert stored_task(store, first)["used"] == {"value": value}
        store.write([second], received_at=NOW_MS)

        assert stored_task(store, first)["used"] == {"again": value}


class TestRefusals:
    """One message the store refuses harms no other."""

    @pytest.mark.parametrize(
        "fields",
        [
            {"used": {"x": object()}},
            {"started_at": 10**17},
            {"started_at": "yesterday"},
            {"status": ["FINISHED"]},
            {"$set": 1},
            {"a.b": 1},
            {"task_id": ""},
            {"task_id": 5},
            {"task_id": "x\udcff"},
        ],
        ids=str,
    )
    def test_what_is_no_record_is_refused_and_its_neighbours_are_stored(
        self, store: Store, fields: dict[str, Any]
    ) -> None:
        bad = task(2, **fields)

        written = store.write([task(1), bad, task(3)], received_at=NOW_MS)

        assert written.stored == 2
        assert [refusal.message for refusal in written.refused] == [bad]
        assert written.refused[0].reason
        assert store.count("tasks", {}) == 2

    def test_a_message_too_large_for_mongodb_harms_no_other(self, store: Store) -> None:
        """MongoDB refuses it; the embedded store, which has no such limit, keeps it."""
        large = task(2, used={"blob": b"x" * (17 << 20)})

        written = store.write([task(1), large, task(3)], received_at=NOW_MS)

        is_mongo = store.url.startswith("mongodb")
        assert [refusal.message for refusal in written.refused] == ([large] if is_mongo else [])
        assert store.count("tasks", {"task_id": {"$ne": large.record["task_id"]}}) == 2

    @pytest.mark.parametrize("depth", [190, 300, 5000])
    @pytest.mark.parametrize("announced", [None, True])
    def test_a_message_too_deep_harms_no_other(
        self, store: Store, depth: int, announced: bool | None
    ) -> None:
        value: Any = 1
        for _ in range(depth):
            value = [value]
        deep = task(4, used={"deep": value}, announced=announced)
        neighbours = [task(number, announced=announced) for number in (1, 2, 3, 5, 6)]

        written = store.write([*neighbours[:3], deep, *neighbours[3:]], received_at=NOW_MS)

        assert {refusal.message.seq for refusal in written.refused} <= {4}
        assert written.stored + len(written.refused) == 6
        assert store.count("tasks", {"task_id": {"$ne": deep.record["task_id"]}}) == 5

    def test_refusals_anywhere_in_a_large_batch_harm_no_other(self, store: Store) -> None:
        store.write([task(1, workflow="w2")], received_at=NOW_MS)
        batch = [task(seq) for seq in range(1, 1701)]
        taken = "w2-00000001"
        bad = [task(2000 + number, task_id=taken) for number in range(3)]
        for number, message in enumerate(bad):
            batch.insert(600 * number, message)

        written = store.write(batch, received_at=NOW_MS)

        assert [refusal.message for refusal in written.refused] == bad
        assert (written.stored, written.duplicates) == (1700, 0)
        assert store.count("tasks", {"workflow_id": "w1"}) == 1700

    def test_an_id_of_another_workflow_is_refused(self, store: Store) -> None:
        store.write([task(1, workflow="w1", task_id="same")], received_at=NOW_MS)

        written = store.write([task(1, workflow="w2", task_id="same", status="ERROR")], received_at=NOW_MS)

        (found,) = store.find("tasks", {})
        assert (written.stored, written.duplicates, len(written.refused)) == (0, 0, 1)
        assert found["workflow_id"] == "w1"


class TestReading:
    """Find, count, aggregate."""

    def test_reading_streams_while_others_write(self, store: Store) -> None:
        store.write([task(number) for number in range(1, 501)], received_at=NOW_MS)

        reading = store.find("tasks", {}, sort=[("task_id", 1)])
        first = next(reading)
        store.write([task(number) for number in range(501, 601)], received_at=NOW_MS)
        rest = list(reading)

        assert first["seq"] == 1
        assert len(rest) >= 499
        assert store.count("tasks", {}) == 600

    def test_fields_keep_the_id_and_no_more(self, store: Store) -> None:
        store.write([task(1, used={"lr": 0.1, "layers": [{"n": 1, "m": 2}, 3]})], received_at=NOW_MS)

        (found,) = store.find("tasks", {}, fields=["status", "used.lr", "used.layers.n", "none"])

        expected = {"task_id": "w1-00000001", "status": "FINISHED", "used": {"lr": 0.1, "layers": [{"n": 1}]}}
        assert found == expected

    @pytest.mark.parametrize("operator", ["$where", "$function", "$accumulator"])
    def test_an_operator_that_runs_code_is_refused_by_name(self, store: Store, operator: str) -> None:
        store.write([task(1)], received_at=NOW_MS)

        queries: list[dict[str, Any]] = [
            {operator: "true"},
            {"$or": [{"status": {operator: "x"}}]},
            {"$expr": {operator: {}}},
        ]
        for query in queries:
            with pytest.raises(UnsupportedQuery, match=rf"\{operator}"):
                list(store.find("tasks", query))
            with pytest.raises(UnsupportedQuery, match=rf"\{operator}"):
                list(store.aggregate("tasks", [{"$match": query}]))

    @pytest.mark.parametrize("stage", ["$out", "$merge", "$nonsense"])
    def test_a_stage_that_writes_or_is_none_is_refused_by_name(self, store: Store, stage: str) -> None:
        with pytest.raises(UnsupportedQuery, match=rf"\{stage}"):
            list(store.aggregate("tasks", [{stage: "elsewhere"}]))

    @pytest.mark.parametrize(
        "query",
        [
            {"status": {"$nonsense": 1}},
            {"$nonsense": 1},
            {"status": {"$in": "x"}},
            {"$and": []},
            {"stdout": {"$regex": "("}},
            {"used": {"$size": -1}},
        ],
        ids=str,
    )
    def test_a_filter_that_makes_no_sense_is_refused(self, store: Store, query: dict[str, Any]) -> None:
        store.write([task(1)], received_at=NOW_MS)

        with pytest.raises(UnsupportedQuery):
            list(store.find("tasks", query))
        with pytest.raises(UnsupportedQuery):
            store.count("tasks", query)

    def test_an_unknown_collection_is_refused(self, store: Store) -> None:
        with pytest.raises(UnsupportedQuery, match="workflow_s"):
            store.find("workflow_s", {})

    def test_ints_of_any_size_can_be_searched_for(self, store: Store) -> None:
        store.write([task(1, used={"x": 2**80}), task(2, used={"x": 5})], received_at=NOW_MS)

        assert store.count("tasks", {"used.x": 2**80}) == 1
        assert store.count("tasks", {"used.x": {"$in": [2**81, 5]}}) == 1


class TestLifeCycle:
    """Migrating, closing, and a store that is away."""

    def test_migrating_twice_and_by_several_at_once_applies_each_change_once(self, store_url: str) -> None:
        stores = [open_store(store_url, timeout_s=30.0) for _ in range(4)]
        with ThreadPoolExecutor(4) as pool:
            applied = list(pool.map(lambda one: one.migrate(), stores))

        again = stores[0].migrate()
        recorded = {document["_id"] for document in stores[0].find("migrations", {})}
        for one in stores:
            one.close()

        names = [name for some in applied for name in some]
        assert sorted(names) == sorted(recorded)
        assert all(name.startswith("m00") for name in names)
        assert again == []

    def test_closing_twice_is_harmless_and_a_closed_store_is_unavailable(self, store: Store) -> None:
        store.ping()
        store.close()
        store.close()

        with pytest.raises(StoreUnavailable):
            store.ping()
        with pytest.raises(StoreUnavailable):
            store.write([task(1)], received_at=NOW_MS)
