"""The import that a script needs for Flowcept, in a fresh process."""

import sys
import time

bare = len(sys.modules)
cpu, wall = time.process_time(), time.perf_counter()

from flowcept import Flowcept, flowcept_task  # noqa: E402, F401 - this is what is measured

wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
modules = len(sys.modules) - bare

import json  # noqa: E402

print(json.dumps({"wall_ms": wall * 1e3, "cpu_ms": cpu * 1e3, "modules": modules}))
sys.stdout.flush()
