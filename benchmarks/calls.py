"""What a captured call costs, beside Flowcept, the bare call, and the least that recording it can cost.

- A sample is a process of its own that makes all its calls in one loop; its time ends when Redis (or the disk) has
  accepted the last of them, so that the sender's part is in it. Connecting, and a thousand calls to warm up, are not.
- All of one table's subjects take turns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import redis

from benchmarks.figure import Figure, Form, Target
from benchmarks.peers import FLOWCEPT, flowcept_settings
from benchmarks.runs import Program, interleaved
from benchmarks.services import redis_server, scratch
from tests.services.ports import free_port
from tests.services.redis_server import RedisServer

_CALL = "four small arguments, a result of two keys, the call itself does nothing; time until Redis has accepted all"
_FLOWCEPT = f"{_CALL}; Flowcept with buffer_size 50 as in its sample, without telemetry, enriching, subscribers and stores"
_LIGHT = (
    "the same call with its arguments by name, for Flowcept's light form records no others, and neither times nor status"
    " nor ids"
)
_FLOOR = (
    "the floor is the loop of the bare call with two readings of the clock, and one reused msgpack.Packer that packs the"
    " whole record; it sends nothing"
)
_DISK = "durability: disk; each call writes its line before it returns"
_AWAY = "nothing listens at the address of the broker; time until the spool has all"
_NOTHING = "the price of the decorator where nothing is captured"
_LOOP = "an iteration that does nothing"


@dataclass(frozen=True, slots=True)
class _Size:
    """Rounds, and calls in each sample."""

    rounds: int
    ours: int
    flowcept: int
    slow: int


_SIZES = {
    Form.QUICK: _Size(5, 60_000, 15_000, 15_000),
    Form.FULL: _Size(15, 300_000, 60_000, 60_000),
    Form.NIGHTLY: _Size(31, 1_000_000, 100_000, 200_000),
}


def measure(form: Form) -> Iterator[Figure]:
    """The rows on calls."""
    with redis_server() as server, scratch() as folder:
        settings = folder / "flowcept.yaml"
        settings.write_text(flowcept_settings(server.port))
        subjects = _Subjects(server, str(folder), str(settings), _SIZES[form])
        yield from _beside_flowcept(subjects)
        yield from _beside_nothing(subjects)


class _Subjects:
    """Whatever is called, ready to be sampled."""

    def __init__(self, server: RedisServer, folder: str, flowcept: str, size: _Size) -> None:
        self.size = size
        self._client = redis.Redis.from_url(server.url)
        self._ours = {"PROVD_BROKER_URL": server.url, "PROVD_DATA_DIR": folder}
        self._flowcept = {"FLOWCEPT_SETTINGS_PATH": flowcept}

    def provd(self, what: str, count: int = 0, **settings: str) -> Callable[[], float]:
        """Microseconds a call of ours."""
        program = Program("call_provd", (what, str(count or self.size.ours)), {**self._ours, **settings})
        return lambda: self._sample(program)

    def flowcept(self, what: str) -> Callable[[], float]:
        """Microseconds a call of Flowcept's."""
        program = Program(
            "call_flowcept", (what, str(self.size.flowcept)), self._flowcept, python=FLOWCEPT.python()
        )
        return lambda: self._sample(program)

    def floor(self) -> Callable[[], float]:
        """Microseconds of the least."""
        program = Program("call_floor", (str(self.size.ours),))
        return lambda: self._sample(program)

    def _sample(self, program: Program) -> float:
        self._client.flushall()  # every run meets the same Redis
        said = program.run()
        return float(said["microseconds"])


def _beside_flowcept(subjects: _Subjects) -> Iterator[Figure]:
    task, flowcept, floor, light, flowcept_light = interleaved(
        subjects.size.rounds,
        subjects.provd("task"),
        subjects.flowcept("task"),
        subjects.floor(),
        subjects.provd("light"),
        subjects.flowcept("light"),
    )
    peer = str(FLOWCEPT)
    yield Figure(
        "a captured call", "us", task, f"{peer} @flowcept_task", flowcept, Target(most=0.10), _FLOWCEPT
    )
    yield Figure(
        "a captured call, light",
        "us",
        light,
        f"{peer} @lightweight_flowcept_task",
        flowcept_light,
        Target(most=0.60),
        _LIGHT,
    )
    yield Figure("a captured call", "us", task, "the floor", floor, Target(most=2.0), _FLOOR)


def _beside_nothing(subjects: _Subjects) -> Iterator[Figure]:
    size = subjects.size
    away = f"redis://127.0.0.1:{free_port()}/0"
    disk, spooled, outside, off, bare, loop, light_loop, bare_loop = interleaved(
        max(3, size.rounds // 2),
        subjects.provd("task", size.slow, PROVD_DURABILITY="disk"),
        subjects.provd("task", size.slow, PROVD_BROKER_URL=away),
        subjects.provd("outside", 4 * size.ours),
        subjects.provd("outside", 4 * size.ours, PROVD_ENABLED="0"),
        subjects.provd("bare", 4 * size.ours),
        subjects.provd("loop"),
        subjects.provd("light-loop"),
        subjects.provd("bare-loop", 4 * size.ours),
    )
    yield Figure("a captured call, durable on disk", "us", disk, note=_DISK)
    yield Figure("a captured call, Redis away", "us", spooled, note=_AWAY)
    yield Figure(
        "a decorated call outside of a workflow", "us", outside, "the bare call", bare, note=_NOTHING
    )
    yield Figure("a decorated call, PROVD_ENABLED=0", "us", off, "the bare call", bare, note=_NOTHING)
    yield Figure("an iteration of provd.loop", "us", loop, "the bare loop", bare_loop, note=_LOOP)
    yield Figure("an iteration, light", "us", light_loop, "the bare loop", bare_loop, note=_LOOP)
