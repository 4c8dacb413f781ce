"""The workload: lanes of work, each done by one producer process after another.

- A lane is told how far it may work, and goes on from where its last producer's diary ends.
- The processes live until the last fault has struck, with nothing to do towards the end of each segment.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.faults.soak.diaries import Stint
from tests.faults.soak.scale import Scale
from tests.services.child import Child

_PROGRAM = Path(__file__).with_name("program.py")


class Lane:
    """One after the other, the producers of one share of a workflow."""

    def __init__(
        self,
        workflow_id: str,
        name: str,
        folder: Path,
        env: Mapping[str, str],
        *,
        is_steady: bool,
        drains: bool,
    ) -> None:
        """A lane that `is_steady` keeps its producer to the end; one that `drains` says goodbye on SIGTERM."""
        self.workflow_id = workflow_id
        self.name = name
        self.is_steady = is_steady
        self.drains = drains
        self.stints: list[Stint] = []
        #: Producers that were ended by a signal, and those among them that had no chance to say goodbye.
        self.interrupted: list[Stint] = []
        self.silenced: list[Stint] = []
        self.odd_ends: list[str] = []
        self._folder = folder
        self._env = {**env, "PROVD_DRAIN_ON_SIGTERM": str(drains).lower()}
        self._ceiling = 0
        self._done_before = 0
        self._child = self._new(0)

    @property
    def done(self) -> int:
        """Tasks done by all its producers."""
        return self._done_before + self.stints[-1].count

    @property
    def pid(self) -> int:
        return self._child.pid

    def start(self) -> None:
        self._child.start()

    def grant(self, ceiling: int) -> None:
        """Let it work on up to this unit."""
        self._ceiling = ceiling
        self._child.say(str(ceiling))

    def kill(self) -> None:
        """End its producer by SIGKILL; another one goes on."""
        self._child.kill()
        self.interrupted.append(self.stints[-1])
        self.silenced.append(self.stints[-1])
        self._succeed()

    def terminate(self) -> None:
        """End its producer by SIGTERM; another one goes on."""
        self._child.send(signal.SIGTERM)
        self._expect(-signal.SIGTERM)
        self.interrupted.append(self.stints[-1])
        if not self.drains:
            self.silenced.append(self.stints[-1])
        self._succeed()

    def leave(self) -> None:
        """Let its producer end by itself; another one goes on."""
        self.hang_up()
        self.finish()
        self._succeed()

    def hang_up(self) -> None:
        """Tell its producer that there is no more work."""
        self._child.hang_up()

    def finish(self) -> None:
        """Wait until its producer has ended by itself."""
        self._expect(0)

    def send(self, number: signal.Signals) -> None:
        self._child.send(number)

    def close(self) -> None:
        """End what is left, whatever happened."""
        self._child.kill()

    def _expect(self, code: int) -> None:
        ended = self._child.wait(60)
        if ended != code:
            self.odd_ends.append(f"{self.name}: exit {ended} instead of {code}\n{self._child.tail()}")

    def _succeed(self) -> None:
        self._done_before += self.stints[-1].count
        self._child = self._new(self.stints[-1].next_unit)
        self.start()
        self.grant(self._ceiling)

    def _new(self, unit: int) -> Child:
        number = len(self.stints)
        folder = self._folder / f"{self.name}-{number}"
        self.stints.append(Stint(self.workflow_id, self.name, number, folder, unit))
        arguments = ["--lane", self.name, "--folder", str(folder), "--unit", str(unit)]
        arguments += ["--workflow-id", self.workflow_id, "--campaign-id", "soak"]
        return Child(
            [sys.executable, _PROGRAM, *arguments],
            log=self._folder / f"{self.name}-{number}.log",
            env=self._env,
            cwd=self._folder,
            listens=True,
        )


class Workload:
    """All lanes of a soak."""

    def __init__(self, scale: Scale, folder: Path, env: Mapping[str, str]) -> None:
        self._scale = scale
        folder.mkdir(parents=True)
        self.workflow_ids = tuple(f"soak.{number}" for number in range(scale.workflows))
        self.lanes = {
            lane.name: lane
            for workflow_id in self.workflow_ids
            for lane in self._lanes_of(workflow_id, folder, env)
        }

    def _lanes_of(self, workflow_id: str, folder: Path, env: Mapping[str, str]) -> Iterator[Lane]:
        for number in range(self._scale.lanes):
            is_steady = workflow_id == self.workflow_ids[0] and number == 0
            name = f"{workflow_id}-{number}"
            yield Lane(workflow_id, name, folder, env, is_steady=is_steady, drains=number % 2 == 1)

    @property
    def steady(self) -> Lane:
        """The lane whose one producer lives as long as the soak."""
        return next(lane for lane in self.lanes.values() if lane.is_steady)

    def replaceable(self) -> list[str]:
        """Lanes whose producers may end in order."""
        return [name for name, lane in self.lanes.items() if not lane.is_steady]

    def mortal(self) -> list[str]:
        """Lanes whose producers may be killed: none of the last workflow, which is to end as a healthy one does."""
        healthy = self.workflow_ids[-1]
        return [name for name in self.replaceable() if self.lanes[name].workflow_id != healthy]

    def terminable(self) -> list[str]:
        """Lanes whose producers may be sent SIGTERM."""
        mortal = self.mortal() if self._scale.survives_kills else []
        return [name for name in self.replaceable() if self.lanes[name].drains or name in mortal]

    def start(self) -> None:
        for lane in self.lanes.values():
            lane.start()

    def grant(self, segment: int) -> None:
        """Let all lanes work on to the end of a segment."""
        for lane in self.lanes.values():
            lane.grant(self._scale.ceiling(segment))

    def stints(self) -> list[Stint]:
        return [stint for lane in self.lanes.values() for stint in lane.stints]

    def done(self) -> int:
        """Tasks done, by the producers' own account."""
        return sum(lane.done for lane in self.lanes.values())

    def finish(self) -> None:
        """Let every producer end by itself."""
        for lane in self.lanes.values():
            lane.hang_up()
        for lane in self.lanes.values():
            lane.finish()

    def close(self) -> None:
        for lane in self.lanes.values():
            lane.close()
