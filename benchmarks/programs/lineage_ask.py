"""Ask what led to, and what came of, tasks of a large workflow: the whole call of the query layer."""

from __future__ import annotations

import json
import random
import sys
import time
from typing import Any

from provd.common.ids import task_id
from provd.query.lineage import trace
from provd.store.open import open_store


def main() -> None:
    """Answer as many questions as asked, each about another task."""
    asked = json.loads(sys.argv[1])
    store = open_store(asked["url"])
    dice = random.Random(7)
    said: dict[str, list[dict[str, Any]]] = {"up": [], "down": []}
    for number in range(asked["rounds"] + 1):
        for direction, answers in said.items():
            layer = dice.randrange(asked["depth"] + 1, asked["layers"] - asked["depth"] - 1)
            place = dice.randrange(asked["per_layer"] - 1)
            asked_id = task_id(asked["producer"], layer * asked["per_layer"] + place)
            began = time.perf_counter()
            found = trace(
                store,
                asked_id,
                up=direction == "up",
                down=direction == "down",
                depth=asked["depth"],
                limit=asked["limit"],
            )
            seconds = time.perf_counter() - began
            if number:  # the first connects
                hops = max(abs(node.hop) for node in found.nodes)
                answers.append({"seconds": seconds, "tasks": len(found.nodes), "hops": hops})
    store.close()
    print(json.dumps(said))


if __name__ == "__main__":
    main()
