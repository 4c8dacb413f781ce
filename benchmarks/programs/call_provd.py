"""A function that does nothing, called in a saturating loop, captured by provd; the bare call and loops beside it.

Arguments: what is called (`task`, `light`, `outside`, `bare`, `loop`, `light-loop`, `bare-loop`), and how often. Prints
microseconds a call: from the first call until Redis, or the disk, has accepted the last.
"""

import json
import sys
import time
from collections.abc import Callable, Iterable

import provd


def step(rate: float, epochs: int, optimizer: str, shuffle: bool) -> dict[str, float]:
    return {"loss": 0.25, "accuracy": 0.5}


def by_place(called: Callable[..., object], count: int) -> None:
    for number in range(count):
        called(0.1, number, "adam", True)


def by_name(called: Callable[..., object], count: int) -> None:
    for number in range(count):
        called(rate=0.1, epochs=number, optimizer="adam", shuffle=True)


def over(items: Iterable[object]) -> None:
    for _ in items:
        pass


def work(what: str, count: int) -> None:
    if what == "bare-loop":
        over(range(count))
    elif what in ("loop", "light-loop"):
        over(provd.loop(count, light=what == "light-loop"))
    elif what == "light":
        by_name(provd.task(light=True)(step), count)
    else:
        by_place(step if what == "bare" else provd.task(step), count)


def microseconds(what: str, count: int) -> float:
    started = time.perf_counter()
    work(what, count)
    if what not in ("bare", "bare-loop", "outside"):
        accepted = provd.flush(60)
        assert accepted, "not all was accepted in time"
    return (time.perf_counter() - started) / count * 1e6


what, count = sys.argv[1], int(sys.argv[2])
if what in ("bare", "bare-loop", "outside"):
    work(what, 1000)
    figure = microseconds(what, count)
else:
    with provd.workflow("calls"):
        work(what, 1000)
        provd.flush(60)
        figure = microseconds(what, count)
print(json.dumps({"microseconds": figure}))
