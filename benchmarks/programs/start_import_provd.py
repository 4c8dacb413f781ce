"""`import provd` and the first touch of its names, in a fresh process."""

import sys
import time

bare = len(sys.modules)
cpu, wall = time.process_time(), time.perf_counter()

import provd  # noqa: E402 - this is what is measured

provd.task, provd.workflow, provd.loop, provd.Task  # noqa: B018 - each is loaded when it is first touched
wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
touched = len(sys.modules) - bare


@provd.task
def train(rate: float, epochs: int) -> dict[str, float]:
    return {"loss": 0.1 / rate, "epochs": epochs}


decorated = len(sys.modules) - bare

import json  # noqa: E402

print(json.dumps({"wall_ms": wall * 1e3, "cpu_ms": cpu * 1e3, "modules": touched, "decorated": decorated}))
