"""A run with everything that a store can hold of one, and all that a store says of a run."""

from __future__ import annotations

from typing import Any

from provd.common import names
from provd.common.ranges import Ranges
from provd.common.record import Record, Status
from provd.store.interface import Beat, Quarantined, Store
from provd.store.run_file import ORDER
from tests.builders import START_MS, ProducerBuilder, finished_run
from tests.record_values import canonical


def everything(store: Store, workflow_id: str) -> dict[str, Any]:
    """All documents of a run, comparable, and its ledger."""
    found: dict[str, Any] = {}
    for collection in (*ORDER[:-1], names.LINKS):
        documents = [canonical_record(one) for one in store.find(collection, {"workflow_id": workflow_id})]
        found[collection] = sorted(documents, key=repr)
    found[names.LEDGER] = store.stored_ranges(workflow_id)
    return found


def canonical_record(record: Record) -> Any:
    return canonical(dict(sorted(record.items())))


def a_whole_life(store: Store, workflow_id: str = "alpha") -> None:
    """A run with everything that a store can hold of one."""
    finished_run(store, workflow_id)
    late = ProducerBuilder(workflow_id, "p-late", rank=1, world_size=3).open()
    late.task(
        used={"model.pt": 1, "ckpt": {"type": "provd.Key", "key": "best"}, 3: b"\0", "~map": "\ud800"},
        generated={"loss": float("nan"), "steps": 1 << 80},
    )
    late.task(status=Status.RUNNING)
    first = late.messages[-1]
    # An end that lacks its start, which the message before lends it: `filled` says whose it is.
    end = {name: value for name, value in first.record.items() if name != "started_at"}
    late._add(first.kind, end | {"status": "FINISHED"})
    late.write(store, without=[2])
    late.beat(store, START_MS + 5000)
    store.put_beats(
        [Beat("p-gone", workflow_id, START_MS, 9, 4, 3, Ranges.of([(2, 3)]), Ranges.of([(5, 5)]), Ranges.of([(2, 2)]), {"full": 1})]
    )  # fmt: skip
    store.add_quarantined(
        [Quarantined("torn", b"\xffraw", "s", "1-1", "p-gone", workflow_id, 6, 7), Quarantined("odd", b"?", workflow_id=workflow_id)]
    )  # fmt: skip
