"""A soak, from the first process to the last question asked of the store."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.faults.soak import books
from tests.faults.soak.diaries import Stint
from tests.faults.soak.lanes import Workload
from tests.faults.soak.nemesis import Nemesis
from tests.faults.soak.plan import make_plan
from tests.faults.soak.report import Report
from tests.faults.soak.scale import Scale
from tests.faults.soak.stage import DATABASE, Stage
from tests.faults.soak.truth import Truth, read_tasks
from tests.faults.soak.watch import Watch, bytes_below

_STEADY_CONSUMER = "the steady consumer"
_STEADY_PRODUCER = "the steady producer"


class Soak:
    """One run of a seed."""

    def __init__(self, seed: int, scale: Scale, folder: Path, say: Callable[[str], None]) -> None:
        self._seed = seed
        self._scale = scale
        self._say = say
        self._stage = Stage(scale, folder)
        self._workload = Workload(scale, folder / "lanes", self._stage.env)
        self._nemesis = Nemesis(scale, self._stage, self._workload)
        self._failures: list[str] = []
        self._tasks = 0
        self._recovered = 0
        self._spool_left = 0

    def run(self) -> Report:
        """Do it all; everything started has ended on return."""
        with closing(self._stage), closing(self._workload):
            self._stage.start()
            self._workload.start()
            watch = self._watch()
            watch.start()
            try:
                began = time.monotonic()
                self._work(watch)
                worked = time.monotonic()
                self._bring_in()
                drained = time.monotonic()
            finally:
                watch.stop()
            self._check()
            self._end_consumers()
        self._judge(watch)
        workload = self._workload
        return Report(
            seed=self._seed,
            scale=self._scale,
            faults={kind.value: count for kind, count in self._nemesis.carried_out.items()},
            by_the_clock=self._nemesis.by_the_clock,
            tasks=self._tasks,
            producers=len(workload.stints()),
            interrupted=sum(len(lane.interrupted) for lane in workload.lanes.values()),
            working_s=worked - began,
            draining_s=drained - worked,
            recovered_messages=self._recovered,
            highest_spool_bytes=watch.highest_spool,
            left_spool_bytes=self._spool_left,
            memories=tuple(watch.memories()),
            standstill=watch.standstill,
            failures=tuple(self._failures),
        )

    def _watch(self) -> Watch:
        pids = {_STEADY_CONSUMER: self._stage.steady.pid, _STEADY_PRODUCER: self._workload.steady.pid}
        return Watch(
            self._stage,
            pids,
            produced=self._workload.done,
            tasks=self._scale.tasks,
            last_fault=lambda: self._nemesis.last,
        )

    def _work(self, watch: Watch) -> None:
        try:
            self._nemesis.carry_out(make_plan(self._seed, self._scale), self._say)
        finally:
            self._nemesis.heal_all()
        self._say("the last fault has struck")
        watch.release(_STEADY_PRODUCER)
        self._workload.finish()

    def _bring_in(self) -> None:
        self._say("draining")
        try:
            books.drain(self._stage)
            self._say("recovering the spools")
            self._spool_left = bytes_below(self._stage.spool)
            recovery = books.recover(self._stage, self._interrupted())
            self._failures += recovery.failures
            self._recovered = recovery.messages
            books.drain(self._stage)
        except TimeoutError as error:
            self._failures.append(str(error))

    def _interrupted(self) -> list[Stint]:
        lanes = self._workload.lanes.values()
        return [stint for lane in lanes for stint in lane.interrupted]

    # --- the questions ---

    def _check(self) -> None:
        self._say("checking")
        with self._stage.mongo.client() as client:
            database = client[DATABASE]
            for workflow_id in self._workload.workflow_ids:
                self._failures += self._check_workflow(database, workflow_id)
            for item in database["quarantine"].find({}, {"reason": 1, "workflow_id": 1}).limit(5):
                self._failures.append(f"quarantined: {item}")
        unclosed = {lane.workflow_id for lane in self._workload.lanes.values() if lane.silenced}
        self._failures += books.check_keys(self._stage, unclosed=sorted(unclosed))

    def _check_workflow(self, database: Any, workflow_id: str) -> Iterator[str]:
        lanes = [lane for lane in self._workload.lanes.values() if lane.workflow_id == workflow_id]
        silenced = [stint for lane in lanes for stint in lane.silenced]
        interrupted = [stint for lane in lanes for stint in lane.interrupted]
        yield from books.check_workflow(self._stage, workflow_id, silenced)
        truth = Truth((stint for lane in lanes for stint in lane.stints), interrupted=interrupted)
        truth.read(read_tasks(database["tasks"], workflow_id))
        self._tasks += truth.tasks
        yield from (f"{workflow_id}: {complaint}" for complaint in truth.complaints())

    def _end_consumers(self) -> None:
        for name, consumer in self._stage.consumers.items():
            code = consumer.stop(30)
            if code != 0:
                self._failures.append(f"{name}: exit {code} at the end\n{consumer.tail()}")

    def _judge(self, watch: Watch) -> None:
        self._failures += self._nemesis.odd_ends
        self._failures += [end for lane in self._workload.lanes.values() for end in lane.odd_ends]
        self._failures += [f"{process} ended before the soak" for process in sorted(watch.gone)]
        self._failures += [f"a receipt ahead of the store: {receipt}" for receipt in watch.unfounded[:5]]
        if self._scale.judges_memory:
            self._failures += [
                f"memory of {memory.process} grew by {memory.growth:.1%}"
                for memory in watch.memories()
                if not memory.is_flat
            ]
