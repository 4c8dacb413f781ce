"""What capture costs real programs, whose tasks take 10 ms and more.

- Both kinds of pass run in one process, in turn, every other round the other way around: what the machine does besides
  hits both alike. The start of provd is measured elsewhere, and is not in it.
- CPU time is beside wall time: it is what is left of the difference on a machine that others use.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from benchmarks.figure import Figure, Form, Target
from benchmarks.runs import Program
from benchmarks.services import redis_server, scratch

_PASSES = {Form.QUICK: 2, Form.FULL: 20, Form.NIGHTLY: 40}

_MOST = 1.01

_SWEEP = Path(__file__).parents[1] / "examples" / "digits_sweep" / "sweep.py"

_KINDS = (
    ("sweep", "a scikit-learn sweep (examples/digits_sweep)"),
    ("training", "a training loop (scikit-learn's MLP on the digits, a task per epoch)"),
)

#: One thread each: a library with as many threads as cores is slower where it shares them, by more than is looked for.
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def measure(form: Form) -> Iterator[Figure]:
    """The rows on real workloads."""
    with redis_server() as server, scratch() as folder:
        env = {"PROVD_BROKER_URL": server.url, "PROVD_DATA_DIR": os.fspath(folder), **_ONE_THREAD}
        for kind, what in _KINDS:
            said = Program("workload_provd", (kind, str(_PASSES[form]), str(_SWEEP)), env).run()
            each_ms = median(cpu for _, cpu in said["without"]) / said["tasks"] * 1e3
            note = (
                f"{_PASSES[form]} passes of each kind in one process, {said['tasks']} tasks a pass, {each_ms:.0f} ms of CPU a "
                "task on average; online, all accepted by Redis at the end of a pass."
            )
            for index, unit, target in ((0, "wall", Target(most=_MOST)), (1, "CPU", None)):
                ours, theirs = (tuple(sample[index] for sample in said[name]) for name in ("with", "without"))
                yield Figure(f"{what} ({unit})", "s", ours, "without provd", theirs, target, note)
