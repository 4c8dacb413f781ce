"""A saturating loop of captured calls, and what its process holds meanwhile.

Argument: seconds. Prints, for about every second, the calls so far, memory in MiB and the number of open files.
"""

import json
import os
import sys
import time

import provd

#: Calls between two looks at the clock.
CALLS = 20_000


@provd.task
def step(lr: float, epochs: int, optimizer: str, rate: int) -> dict[str, float]:
    """Do nothing."""
    return {"loss": 0.1, "steps": epochs}


def resident() -> float:
    """MiB that this process holds."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def main() -> None:
    """Call, and look now and then."""
    seconds = float(sys.argv[1])
    looks = []
    with provd.workflow("load", workflow_id="memory"):
        begun, calls, next_look = time.monotonic(), 0, 1.0
        while (now := time.monotonic() - begun) < seconds:
            for number in range(calls, calls + CALLS):
                step(0.1, number, "adam", 7)
            calls += CALLS
            if now >= next_look:
                looks.append([calls, resident(), len(os.listdir("/proc/self/fd"))])
                next_look += 1.0
    print(json.dumps({"looks": looks}))


main()
