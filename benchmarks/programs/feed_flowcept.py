"""The same loop, captured by Flowcept, which gives what it captures to Redis and leaves storing to another process.

Argument: how many calls. It says `ready`, begins when it is given a line, and prints the seconds until it has stopped.
"""

import json
import os
import sys
import time

from flowcept import Flowcept, flowcept_task


@flowcept_task
def step(rate, epochs, optimizer, shuffle):
    return {"loss": 0.25, "accuracy": 0.5}


count = int(sys.argv[1])
flowcept = Flowcept(workflow_name="ingest", start_persistence=False, check_safe_stops=False)
flowcept.start()
print("ready", flush=True)
sys.stdin.readline()
started = time.perf_counter()
for number in range(count):
    step(0.1, number, "adam", True)
flowcept.stop()
print(json.dumps({"tasks": count, "seconds": time.perf_counter() - started}), flush=True)
os._exit(0)  # threads of its own may be left
