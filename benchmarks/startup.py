"""What a process pays before its first task: the import, and the way to the first message in Redis.

- Each sample is a process of its own; the page cache is warm, and both sides have their compiled bytecode.
- Nothing is subtracted: a whole process is from its spawn to its exit, the interpreter's own start included.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.figure import Figure, Form, Target
from benchmarks.peers import FLOWCEPT, Peer, flowcept_settings
from benchmarks.runs import Program, interleaved
from benchmarks.services import redis_server, scratch
from tests.services.redis_server import RedisServer

_ROUNDS = {Form.QUICK: 9, Form.FULL: 31, Form.NIGHTLY: 31}

_IMPORT_MOST = 0.15
_MODULES_MOST = 60
_FIRST_MOST = 0.5

#: Flowcept as a compute node has it: it imports pandas when that is there, which its store needs and its producer does not.
_PRODUCER = Peer("Flowcept-producer", FLOWCEPT.version, ("flowcept==1.0.3", "redis", "pymongo", "psutil"))


class _Runs:
    """The samples of one program: what it said of itself each time, and what the whole process took."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._said: list[dict[str, Any]] = []

    def sample(self) -> float:
        """Run it once more; milliseconds from spawn to exit."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        started = time.perf_counter()
        said = self._program.run()
        wall = time.perf_counter() - started
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        self._said.append({**said, "process_ms": wall * 1e3, "process_cpu_ms": cpu * 1e3})
        return wall * 1e3

    def all(self, name: str) -> tuple[float, ...]:
        """One figure of every run."""
        return tuple(said[name] for said in self._said)


def measure(form: Form) -> Iterator[Figure]:
    """The rows on starting."""
    with redis_server() as server, scratch() as folder:
        settings = folder / "flowcept.yaml"
        settings.write_text(flowcept_settings(server.port))
        ours = {"PROVD_BROKER_URL": server.url, "PROVD_DATA_DIR": str(folder / "provd")}
        theirs = {"FLOWCEPT_SETTINGS_PATH": str(settings)}
        yield from _imports(_ROUNDS[form], theirs)
        yield from _first_message(_ROUNDS[form], ours, theirs, server, folder)


def _imports(rounds: int, configured: dict[str, str]) -> Iterator[Figure]:
    provd = _Runs(Program("start_import_provd"))
    flowcept = _Runs(Program("start_import_flowcept", env=configured, python=_PRODUCER.python()))
    for each in (provd, flowcept):
        each.sample()  # compiles and warms what is not: not counted
    interleaved(rounds, provd.sample, flowcept.sample)
    what = "`import provd`, touching `task`, `workflow`, `loop`, `Task`"
    note = (
        "Inside a fresh process, page cache warm, bytecode compiled; nothing subtracted. Flowcept: `from flowcept import "
        "Flowcept, flowcept_task`."
    )
    for name, unit in (("wall_ms", "wall"), ("cpu_ms", "CPU")):
        yield Figure(
            f"{what} ({unit})",
            "ms",
            provd.all(name)[1:],
            str(FLOWCEPT),
            flowcept.all(name)[1:],
            Target(most=_IMPORT_MOST),
            note,
        )
    yield Figure(
        "modules that this loads beyond a bare interpreter's",
        "",
        provd.all("modules")[1:],
        target=Target(most=_MODULES_MOST),
        note=(
            "All of them: the standard library's, built-in ones among them, and provd's own. "
            f"{median(provd.all('decorated')):.0f} once a function is decorated. {FLOWCEPT}: "
            f"{median(flowcept.all('modules')):.0f}."
        ),
    )


def _first_message(
    rounds: int, ours: dict[str, str], theirs: dict[str, str], server: RedisServer, folder: Path
) -> Iterator[Figure]:
    provd = _Runs(Program("start_first_provd", env={**ours, "HOME": str(folder)}))
    flowcept = _Runs(
        Program("start_first_flowcept", env={**theirs, "HOME": str(folder)}, python=_PRODUCER.python())
    )
    for each in (provd, flowcept):
        each.sample()
    interleaved(rounds, provd.sample, flowcept.sample)
    _check_arrived(server, rounds + 1)
    note = (
        "A script of one workflow and one task, the same Redis; Flowcept with `start_persistence=False` and telemetry "
        f"off publishes at the end of the workflow. Modules at the end: {median(provd.all('modules')):.0f}, "
        f"{median(flowcept.all('modules')):.0f} of Flowcept."
    )
    rows = (
        ("first message accepted by Redis, whole process (wall)", "process_ms", True),
        ("first message accepted by Redis, whole process (CPU)", "process_cpu_ms", False),
        ("first message accepted by Redis, from the import on", "accepted_ms", True),
        ("first task returned, from the import on", "returned_ms", False),
    )
    for what, name, is_judged in rows:
        yield Figure(
            what,
            "ms",
            provd.all(name)[1:],
            str(FLOWCEPT),
            flowcept.all(name)[1:],
            Target(most=_FIRST_MOST) if is_judged else None,
            note,
        )


def _check_arrived(server: RedisServer, runs: int) -> None:
    """A figure of messages that were never sent would be a fine one."""
    with server.client() as client:
        stats = client.info("commandstats")
    for command in ("xadd", "publish"):
        calls = stats.get(f"cmdstat_{command}", {}).get("calls", 0)
        if calls < runs:
            raise RuntimeError(
                f"{calls} {command.upper()} of {runs} runs: not every run has sent its messages"
            )
