"""The same script with Flowcept: its messages are published when the workflow ends."""

import sys
import time

bare = len(sys.modules)
started = time.perf_counter()

from flowcept import Flowcept, flowcept_task  # noqa: E402 - this is what is measured


@flowcept_task
def train(rate: float, epochs: int) -> dict[str, float]:
    return {"loss": 0.1 / rate, "epochs": epochs}


with Flowcept(workflow_name="first", campaign_id="start", start_persistence=False, check_safe_stops=False):
    train(0.1, epochs=3)
    returned = time.perf_counter() - started
accepted = time.perf_counter() - started

import json  # noqa: E402

print(
    json.dumps(
        {"returned_ms": returned * 1e3, "accepted_ms": accepted * 1e3, "modules": len(sys.modules) - bare}
    )
)
