"""Tasks at a steady rate, and among them probes: each is told on standard output with the moment when it had ended.

Arguments: workflow id, tasks a second (0: probes only), seconds between two probes, seconds. The moments are those of
the clock that all processes of a machine share. The last line has the rate that was reached.
"""

import json
import sys
import time

import provd

#: Seconds between two looks at the clock, while tasks run.
TICK_S = 0.005
#: Probes come a little irregularly: in step with a timer of ours they would all wait as long.
UNEVEN = 0.618


@provd.task
def step(lr: float, epochs: int, optimizer: str, rate: int) -> dict[str, float]:
    """Do nothing."""
    return {"loss": 0.1, "steps": epochs}


@provd.task
def probe(number: int) -> dict[str, int]:
    """Do nothing, and be looked for."""
    return {"number": number}


def main() -> None:
    """Work, and tell."""
    workflow_id, rate, gap_s, seconds = sys.argv[1], *map(float, sys.argv[2:5])
    with provd.workflow("load", workflow_id=workflow_id):
        step(0.1, 0, "adam", 7)
        provd.flush()
        begun, done, number, next_probe = time.monotonic(), 0, 0, 0.0
        while (now := time.monotonic() - begun) < seconds:
            for _ in range(int(now * rate) - done):
                step(0.1, done, "adam", 7)
                done += 1
            if now >= next_probe:
                probe(number)
                print(number, time.monotonic(), flush=True)
                number += 1
                next_probe = now + gap_s * (0.5 + number * UNEVEN % 1)
            time.sleep(TICK_S)  # noqa: TID251 - as a user's program computes
        print(json.dumps({"rate": done / (time.monotonic() - begun), "probes": number}), flush=True)


main()
