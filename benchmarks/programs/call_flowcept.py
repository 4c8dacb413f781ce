"""The same function in the same loop, captured by Flowcept.

Arguments: `task` or `light`, and how many calls. Prints microseconds a call: from the first call until its buffer has
been flushed to Redis.
"""

import json
import os
import sys
import time
from collections.abc import Callable

from flowcept import Flowcept, flowcept_task  # installed in its own environment
from flowcept.instrumentation.flowcept_task import (
    lightweight_flowcept_task,
)


def step(rate: float, epochs: int, optimizer: str, shuffle: bool) -> dict[str, float]:
    return {"loss": 0.25, "accuracy": 0.5}


def by_place(called: Callable[..., object], count: int) -> None:
    for number in range(count):
        called(0.1, number, "adam", True)


def by_name(called: Callable[..., object], count: int) -> None:
    for number in range(count):
        called(rate=0.1, epochs=number, optimizer="adam", shuffle=True)


what, count = sys.argv[1], int(sys.argv[2])
captured = lightweight_flowcept_task(step) if what == "light" else flowcept_task(step)
work = by_name if what == "light" else by_place
flowcept = Flowcept(workflow_name="calls", start_persistence=False, check_safe_stops=False)
flowcept.start()
work(captured, 1000)
started = time.perf_counter()
work(captured, count)
flowcept._interceptor_instances[
    0
]._mq_dao.buffer.stop()  # it has no flush; this is the part of `stop` that sends
figure = (time.perf_counter() - started) / count * 1e6
print(json.dumps({"microseconds": figure}))
sys.stdout.flush()
os._exit(0)  # the rest of its stop is not measured, and would wait
