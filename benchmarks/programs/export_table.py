"""Write all tasks of the store's one run to a file, and print what that took.

The argument is one JSON object: `url` of the store, and the `path`, whose name says the format. `floor` is the memory of
the process with everything imported and the store open, `peak` the most it has had.
"""

from __future__ import annotations

import json
import resource
import sys
import time

import pyarrow.parquet as pq  # part of the floor

from provd.query import arrow, connect  # noqa: F401 - the same


def resident() -> int:
    """The memory of this process now, in bytes."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def main() -> None:
    """Write, and print."""
    asked = json.loads(sys.argv[1])
    with connect(asked["url"]) as books:
        run = books.run("last")
        tasks = run.tasks()
        next(iter(tasks))
        floor = resident()
        begun, worked = time.perf_counter(), time.process_time()
        written = tasks.to_parquet(asked["path"])
        seconds, worked = time.perf_counter() - begun, time.process_time() - worked
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    read = pq.ParquetFile(asked["path"]).metadata
    said = {"floor": floor, "peak": peak, "seconds": seconds, "cpu": worked, "rows": read.num_rows}
    print(json.dumps({**said, "columns": len(written.columns)}))


main()
