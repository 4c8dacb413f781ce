"""A program with an open workflow that says nothing: it waits for its standard input, as one that waits for data would.

Arguments: `plain`, or `open` for one with an open task. It says when its start is over; then its threads are watched
from outside.
"""

import json
import sys
import time

import provd

with provd.workflow("idle"):
    provd.Task("said").end(value=1)
    if sys.argv[1] == "open":
        task = provd.Task("waits")
    provd.flush(10.0)
    time.sleep(2.0)  # noqa: TID251 - as a program would: what goes on for longer than a second is told once
    provd.flush(10.0)
    print(json.dumps({"ready": True}), flush=True)
    sys.stdin.readline()
