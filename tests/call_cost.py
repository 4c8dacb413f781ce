"""What the call path costs, as counts: executed bytecode instructions, and calls of Python and C functions.

`python -m tests.call_cost` prints them; `--write` makes them the baseline of this version of Python, in
`tests/unit/call_cost.json`. Counts do not depend on the machine or its load: only the calling thread is counted, and the
sender's thread has nothing to do meanwhile.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from types import FrameType
from typing import Any, TypeAlias

BASELINES = Path(__file__).parent / "unit" / "call_cost.json"
VERSION = f"{sys.version_info[0]}.{sys.version_info[1]}"

#: Instructions and calls, by what was counted.
Counts: TypeAlias = dict[str, dict[str, float]]

#: What is counted, and what it is called in messages.
MEASURES = ("instructions", "calls")

_WARM = 300
_REPEATS = 15
_ITERATIONS = 40
#: Twice as many are fewer than a caller cuts by itself.
_ROWS = 200


def step(rate: float, epochs: int, optimizer: str, shuffle: bool) -> dict[str, float]:
    """The function that is called."""
    return {"loss": 0.25, "accuracy": 0.5}


def count() -> Counts:
    """The counts of this process, which must not have captured anything yet."""
    import provd

    plain, light = provd.task(step), provd.task(light=True)(step)

    def of_call(called: Callable[..., Any]) -> dict[str, float]:
        for number in range(_WARM):
            called(0.1, number, "adam", True)
        return _typical(lambda: called(0.1, 7, "adam", True))

    def over(loop: Any) -> None:
        for _ in loop:
            pass

    def of_iteration(light: bool) -> dict[str, float]:
        over(provd.loop(_WARM, light=light))
        few = _typical(lambda: over(provd.loop(_ITERATIONS, light=light)))
        many = _typical(lambda: over(provd.loop(2 * _ITERATIONS, light=light)))
        return {name: (many[name] - few[name]) / _ITERATIONS for name in MEASURES}

    counts = {"a call outside of a workflow": of_call(plain)}
    with provd.workflow("counts") as workflow:
        channel = workflow.channel
        assert channel is not None

        def of_cut(called: Callable[..., Any]) -> dict[str, float]:
            def say(rows: int) -> None:
                channel.cut(_keep)
                for number in range(rows):
                    called(0.1, number, "adam", True)

            few, many = (
                _counted(lambda: channel.cut(_keep), before=lambda rows=rows: say(rows))  # type: ignore[misc]
                for rows in (_ROWS, 2 * _ROWS)
            )
            return {name: (many[name] - few[name]) / _ROWS for name in MEASURES}

        counts["a call"] = of_call(plain)
        counts["a light call"] = of_call(light)
        counts["an iteration"] = of_iteration(light=False)
        counts["a light iteration"] = of_iteration(light=True)
        counts["cutting a row"] = of_cut(plain)
        counts["cutting a light row"] = of_cut(light)
    return counts


def _keep(frame: object) -> None:
    """Where cut frames go."""


def _typical(work: Callable[[], object]) -> dict[str, float]:
    found = [_counted(work) for _ in range(_REPEATS)]
    return {name: median(one[name] for one in found) for name in MEASURES}


def _counted(work: Callable[[], object], before: Callable[[], object] = int) -> dict[str, float]:
    """What runs inside of `work`, itself included. It runs twice, each time with `before` before it."""
    instructions = calls = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal instructions
        if event == "opcode":
            instructions += 1
        else:
            frame.f_trace_lines, frame.f_trace_opcodes = False, True
        return trace

    def profile(frame: FrameType, event: str, _: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    before()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(None)
    before()
    sys.setprofile(profile)
    try:
        work()
    finally:
        sys.setprofile(None)
    return {"instructions": instructions, "calls": calls}


def main() -> None:
    """Print the counts, or make them the baseline."""
    from provd.producer.process import producer

    with tempfile.TemporaryDirectory() as folder:
        quiet = {"BROKER_URL": "", "DATA_DIR": folder, "FLUSH_INTERVAL_S": "60", "HEARTBEAT_S": "300"}
        os.environ.update({f"PROVD_{name}": value for name, value in quiet.items()})
        counts = {
            what: {name: round(number, 1) for name, number in found.items()}
            for what, found in count().items()
        }
        if "--write" in sys.argv:
            baselines = json.loads(BASELINES.read_text()) if BASELINES.exists() else {}
            baselines[VERSION] = counts
            BASELINES.write_text(json.dumps(dict(sorted(baselines.items())), indent=2) + "\n")
        producer().close()  # before its folder goes
        print(json.dumps(counts))


if __name__ == "__main__":
    main()
