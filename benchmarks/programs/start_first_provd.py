"""A script of one workflow and one task: from the import until Redis has accepted its messages, and to its end."""

import sys
import time

bare = len(sys.modules)
started = time.perf_counter()

import provd  # noqa: E402 - this is what is measured


@provd.task
def train(rate: float, epochs: int) -> dict[str, float]:
    return {"loss": 0.1 / rate, "epochs": epochs}


with provd.workflow("first", campaign_id="start"):
    train(0.1, epochs=3)
    returned = time.perf_counter() - started
    assert provd.flush(10.0)
    accepted = time.perf_counter() - started

import json  # noqa: E402

print(
    json.dumps(
        {"returned_ms": returned * 1e3, "accepted_ms": accepted * 1e3, "modules": len(sys.modules) - bare}
    )
)
