"""What an idle producer does to its node: how often it wakes, and for how long.

- A wake-up is a moment at which any thread of the process began to run after a rest of `_LOOK_S` at least. What follows
  at once (a reply that is waited for) is part of the same one; the context switches are reported beside it.
- Threads are watched from outside, in `/proc`: looking does not wake them.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.figure import Figure, Form, Target
from benchmarks.runs import Program
from benchmarks.services import redis_server, scratch

#: Heartbeats that are watched, and seconds between two of them: the default.
_BEATS = {Form.QUICK: 2, Form.FULL: 4, Form.NIGHTLY: 12}
_HEARTBEAT_S = 10.0

#: Seconds between two looks, and before the first: what follows the last message slows down by steps.
_LOOK_S = 0.05
_SETTLE_S = 25.0

#: Name, the argument of the program, its environment.
_KINDS: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("an idle producer", "plain", {}),
    ("the same with a task that stays open", "open", {}),
    ("the same with `durability: disk`, nothing confirmed yet", "plain", {"PROVD_DURABILITY": "disk"}),
)


@dataclass
class _Watch:
    """One process, and what its threads have done since the watch began."""

    pid: int
    wakeups: int = 0
    _ran: bool = False
    _first: tuple[int, int] = (0, 0)
    _last: tuple[int, int] = (0, 0)
    _folder: Path = field(init=False)

    def __post_init__(self) -> None:
        self._folder = Path(f"/proc/{self.pid}/task")

    def begin(self) -> None:
        """What happens from here on counts."""
        self._first = self._last = self._look()

    def look(self) -> None:
        """See whether anything ran since the last look."""
        now = self._look()
        ran = now != self._last
        self.wakeups += ran and not self._ran
        self._ran, self._last = ran, now

    @property
    def switches(self) -> int:
        """Voluntary context switches: each is a thread that waits for something once more."""
        return self._last[0] - self._first[0]

    @property
    def cpu_s(self) -> float:
        """Seconds of CPU."""
        return (self._last[1] - self._first[1]) / 1e9

    def _look(self) -> tuple[int, int]:
        switches = nanoseconds = 0
        for thread in self._folder.iterdir():
            for line in (thread / "status").read_text().splitlines():
                if line.startswith("voluntary_ctxt_switches"):
                    switches += int(line.split()[1])
            nanoseconds += int((thread / "schedstat").read_text().split()[0])
        return switches, nanoseconds


def measure(form: Form) -> Iterator[Figure]:
    """The rows on idle producers, watched side by side."""
    beats = _BEATS[form]
    with ExitStack() as stack:
        server, folder = stack.enter_context(redis_server()), stack.enter_context(scratch())
        watches = []
        for number, (_, argument, env) in enumerate(_KINDS):
            program = Program(
                "idle_provd",
                (argument,),
                {
                    "PROVD_BROKER_URL": server.url,
                    "PROVD_DATA_DIR": str(folder / str(number)),
                    "PROVD_HEARTBEAT_S": str(_HEARTBEAT_S),
                    **env,
                },
            )
            process = program.start()
            stack.callback(_end, process)
            watches.append(_started(process))
        time.sleep(_SETTLE_S)  # noqa: TID251 - nothing tells from outside that a producer is at rest
        for watch in watches:
            watch.begin()
        until = time.monotonic() + beats * _HEARTBEAT_S
        while time.monotonic() < until:
            for watch in watches:
                watch.look()
            time.sleep(_LOOK_S)  # noqa: TID251 - the interval between two looks
    for (what, _, _), watch in zip(_KINDS, watches):
        yield Figure(
            f"wake-ups a heartbeat, {what}",
            "",
            (watch.wakeups / beats,),
            target=Target(most=1),
            note=(
                f"Moments at which any of its threads ran, in {beats} heartbeats of {_HEARTBEAT_S:g} s; what runs within "
                f"{_LOOK_S * 1e3:g} ms counts once. The main thread waits for input. There is no consumer."
            ),
        )
        yield Figure(f"voluntary context switches a heartbeat, {what}", "", (watch.switches / beats,))
        yield Figure(
            f"CPU an hour, {what}",
            "ms",
            (watch.cpu_s / (beats * _HEARTBEAT_S) * 3600 * 1e3,),
            note="Extrapolated.",
        )


def _started(process: subprocess.Popen[str]) -> _Watch:
    assert process.stdout is not None
    if not process.stdout.readline():
        raise RuntimeError(f"the idle program ended with {process.wait()}")
    return _Watch(process.pid)


def _end(process: subprocess.Popen[str]) -> None:
    try:
        process.communicate("\n", timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
