"""Write layers of one large workflow into a store, as a consumer does: batches of finished tasks with links.

A layer is a hundred tasks under one that called them. Each reads two files and a declared key of tasks of the layer
before, which ones is drawn with a fixed seed, and builds on one more of them without any value showing it.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator
from itertools import islice
from typing import Any

from provd.common.ids import task_id
from provd.common.record import Kind, Message
from provd.store.open import open_store

WORKFLOW = "lineage-workflow"
PRODUCER = "01m7zh4mhr95hy0g0q1gnk"
PER_LAYER = 100
_START_MS = 1_795_183_200_000
_BATCH = 2_000


def id_of(layer: int, place: int) -> str:
    """The id of a task; place `PER_LAYER` is the one that called the layer."""
    return task_id(PRODUCER, layer * (PER_LAYER + 1) + place)


def _file(layer: int, place: int) -> dict[str, Any]:
    number = layer * PER_LAYER + place
    return {
        "type": "provd.File",
        "path": f"/scratch/exp/step-{layer:05d}/part-{place:03d}.npy",
        "size": 1_048_576,
        "sha256": f"{number * 0x9E3779B97F4A7C15:064x}"[-64:],
    }


def _key(layer: int, place: int) -> dict[str, Any]:
    return {"type": "provd.Key", "key": f"state/{layer}/{place}"}


def _message(layer: int, place: int, fields: dict[str, Any]) -> Message:
    seq = layer * (PER_LAYER + 1) + place + 1
    record = {
        "task_id": id_of(layer, place),
        "workflow_id": WORKFLOW,
        "campaign_id": "exp42",
        "activity_id": "advance",
        "status": "FINISHED",
        "started_at": _START_MS + seq,
        "ended_at": _START_MS + seq + 250,
        "duration": 0.25,
        "producer_id": PRODUCER,
        "seq": seq,
        "hostname": "node01",
        "pid": 4242,
        "schema_version": 1,
    }
    return Message(Kind.TASK, PRODUCER, WORKFLOW, seq, record | fields)


def _messages(first: int, last: int) -> Iterator[Message]:
    for layer in range(first, last):
        dice = random.Random(layer)
        yield _message(layer, PER_LAYER, {"activity_id": "step", "used": {"layer": layer}})
        for place in range(PER_LAYER):
            before = [dice.randrange(PER_LAYER) for _ in range(4)]
            fields: dict[str, Any] = {
                "parent_task_id": id_of(layer, PER_LAYER),
                "used": {"dt": 0.01, "order": 4},
                "generated": {"part": _file(layer, place), "state": _key(layer, place), "energy": 1.5},
            }
            if layer:
                fields["used"] |= {
                    "left": _file(layer - 1, before[0]),
                    "right": _file(layer - 1, before[1]),
                    "state": _key(layer - 1, before[2]),
                }
                fields["depends_on"] = [id_of(layer - 1, before[3])]
            yield _message(layer, place, fields)


def main() -> None:
    """Load the layers that the arguments name."""
    asked: dict[str, Any] = json.loads(sys.argv[1])
    store = open_store(asked["url"])
    flow = _messages(*asked["layers"])
    while batch := list(islice(flow, _BATCH)):
        written = store.write(batch, received_at=_START_MS)
        if written.refused:
            raise RuntimeError(written.refused[0].reason)
    store.close()
    print(json.dumps({"layers": asked["layers"]}))


if __name__ == "__main__":
    main()
