"""A producer in a saturating loop: a task of four arguments and two results that does nothing, captured by provd.

Arguments: the workflow, how many calls, and how many a second where that is not as many as can be. It says `ready`,
begins when it is given a line, and prints the seconds until Redis, or the disk, has accepted all of it.
"""

import json
import sys
import time

import provd


@provd.task
def step(rate, epochs, optimizer, shuffle):
    return {"loss": 0.25, "accuracy": 0.5}


workflow_id, count = sys.argv[1], int(sys.argv[2])
pause = 1 / rate if (rate := float("".join(sys.argv[3:4]) or 0)) else 0.0
with provd.workflow("ingest", workflow_id=workflow_id):
    provd.flush(60)
    print("ready", flush=True)
    sys.stdin.readline()
    started = time.perf_counter()
    for number in range(count):
        step(0.1, number, "adam", True)
        if pause:
            time.sleep(pause)  # noqa: TID251 - work that takes its time
    accepted = provd.flush(600)
    assert accepted, "not all was accepted in time"
    seconds = time.perf_counter() - started
print(json.dumps({"tasks": count, "seconds": seconds}), flush=True)
