"""CPU time for a task, as everything else grows: tasks, streams, producers.

- What is compared is CPU time after start-up, of the consumer and of a producer: not wall time, so that a busy machine
  matters less. Redis' and MongoDB's are in the notes.
- Streams and producers of a backlog are alive, each with its heartbeat; all backlogs of one comparison have the same
  number of tasks in frames of the same size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from os import cpu_count
from statistics import median

from benchmarks.draining import SMALLEST, Drained, Stage, long_backlog
from benchmarks.figure import Figure, Form, Target
from benchmarks.memory import BACKLOG, emptied
from benchmarks.runs import Program, interleaved
from benchmarks.services import redis_server

_TARGET = Target(most=1.2)

#: Frames of so many tasks, where streams or producers are many: none of them has more.
_FRAME = 100

#: Tasks of one of many producers before and while it is measured.
_BEFORE = 20_000
_BEFORE_BRIEF = 2_000
_BRIEF = 5_000


@dataclass(frozen=True, slots=True)
class _Size:
    """How much is measured."""

    rounds: int
    #: Tasks of the backlogs besides the smallest and the longest, and of one producer.
    backlogs: tuple[int, ...]
    produced: tuple[int, ...]
    #: Streams, and producers in one stream; tasks in each of those backlogs.
    streams: tuple[int, ...]
    in_streams: int
    producers: int
    of_producers: int
    #: Processes that each are a producer.
    processes: int
    #: Workflows that are open in one producer.
    workflows: tuple[int, ...]
    in_workflows: int


_SIZES = {
    Form.QUICK: _Size(
        1, (100_000,), (100_000,), (1, 100, 2_000), 200_000, 100, 100_000, 10, (1, 100), 100_000
    ),
    Form.FULL: _Size(
        1, (100_000,), (100_000, 1_000_000), (1, 100, 10_000), 1_000_000, 500, 200_000, 50, (1, 100), 400_000
    ),
    Form.NIGHTLY: _Size(
        2,
        (100_000, 1_000_000),
        (100_000, 1_000_000, 10_000_000),
        (1, 100, 10_000),
        1_000_000,
        500,
        400_000,
        500,
        (1, 100, 10_000),
        1_000_000,
    ),
}


def measure(form: Form) -> Iterator[Figure]:
    """Its figures."""
    size = _SIZES[form]
    yield _longest(BACKLOG[form])
    yield from _backlogs(size)
    yield from _streams(size)
    yield from _producers(size)
    with redis_server(appendonly="no") as server, emptied(server.url):
        yield from _produced(server.url, size)
        yield from _workflows(server.url, size)
        yield _processes(server.url, size)


# --- the consumer ------------------------------------------------------------------------------------------------


def _longest(tasks: int) -> Figure:
    """The drain that `memory` watched."""
    done = long_backlog(tasks)
    return Figure(
        f"consumer's CPU for a task, {tasks:,} tasks",
        "us",
        (done.long.cpu_us,),
        f"{SMALLEST:,} tasks",
        (median(each.cpu_us for each in done.small),),
        _TARGET,
        _services([done.long], done.small),
    )


def _backlogs(size: _Size) -> Iterator[Figure]:
    rounds = max(3, size.rounds)
    with Stage.set_up() as stage:
        yield from _compared(
            rounds,
            {f"{tasks:,} tasks": _drain(stage, tasks) for tasks in (SMALLEST, *size.backlogs)},
        )


def _streams(size: _Size) -> Iterator[Figure]:
    with Stage.set_up() as stage:
        yield from _compared(
            size.rounds,
            {
                f"{streams:,} streams": _drain(stage, size.in_streams, streams=streams, frame=_FRAME)
                for streams in size.streams
            },
        )


def _producers(size: _Size) -> Iterator[Figure]:
    with Stage.set_up() as stage:
        yield from _compared(
            size.rounds,
            {
                f"{producers:,} producers": _drain(
                    stage, size.of_producers, producers=producers, frame=_FRAME
                )
                for producers in (1, size.producers)
            },
        )


def _drain(
    stage: Stage, tasks: int, *, streams: int = 1, producers: int = 1, frame: int = 500
) -> Callable[[], Drained]:
    return lambda: stage.drain_new(tasks, streams=streams, producers=producers, frame=frame)


def _compared(rounds: int, subjects: dict[str, Callable[[], Drained]]) -> Iterator[Figure]:
    """Each of them beside the first."""
    done: dict[str, list[Drained]] = {name: [] for name in subjects}

    def sample(name: str) -> float:
        done[name].append(subjects[name]())
        return done[name][-1].cpu_us

    samples = interleaved(rounds, *(partial(sample, name) for name in subjects))
    (base, of_base), *others = zip(subjects, samples, strict=True)
    for name, found in others:
        note = _services(done[name], done[base])
        yield Figure(f"consumer's CPU for a task, {name}", "us", found, base, of_base, _TARGET, note)


def _services(ours: Sequence[Drained], theirs: Sequence[Drained]) -> str:
    def both(what: str) -> str:
        values = [median(getattr(one, what) for one in each) for each in (ours, theirs)]
        return f"{values[0]:.2f} us ({values[1]:.2f})"

    return f"Redis' own {both('redis_us')}, MongoDB's {both('mongod_us')}"


# --- the producer ------------------------------------------------------------------------------------------------


def _produced(url: str, size: _Size) -> Iterator[Figure]:
    small = _produce(url, SMALLEST)
    for tasks in size.produced:
        rounds = 1 if tasks > 1_000_000 else max(3, size.rounds)
        ours, theirs = interleaved(rounds, _produce(url, tasks), small)
        yield Figure(
            f"producer's CPU for a task, {tasks:,} tasks", "us", ours, f"{SMALLEST:,} tasks", theirs, _TARGET
        )


def _workflows(url: str, size: _Size) -> Iterator[Figure]:
    one, *more = size.workflows
    for workflows in more:
        ours, theirs = interleaved(
            size.rounds,
            _produce(url, size.in_workflows, workflows=workflows, frame=_FRAME),
            _produce(url, size.in_workflows, workflows=one, frame=_FRAME),
        )
        yield Figure(
            f"producer's CPU for a task, {workflows:,} streams at once",
            "us",
            ours,
            "1 stream",
            theirs,
            _TARGET,
            f"{_FRAME} tasks in one workflow, then in the next",
        )


def _processes(url: str, size: _Size) -> Figure:
    """Real processes, as many at a time as there are cores, beside one that does as much as each of them."""
    brief = _produce(url, _BRIEF, before=_BEFORE_BRIEF)
    alone = [brief() for _ in range(5)]
    with ThreadPoolExecutor(cpu_count() or 1) as pool:
        crowd = list(pool.map(lambda _: brief(), range(size.processes)))
    return Figure(
        f"producer's CPU for a task, {size.processes} producers",
        "us",
        (median(crowd),),
        "1 producer",
        (median(alone),),
        _TARGET,
        f"processes one after the other on every core, {_BRIEF:,} tasks each",
    )


def _produce(
    url: str, tasks: int, *, workflows: int = 1, before: int = _BEFORE, frame: int = 500
) -> Callable[[], float]:
    program = Program(
        "scale_producer",
        (str(tasks), str(workflows), str(_FRAME), str(before)),
        {"PROVD_BROKER_URL": url, "PROVD_FRAME_MESSAGES": str(frame)},
    )
    return lambda: float(program.run()["microseconds"])
