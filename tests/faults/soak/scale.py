"""How large a soak is: everything that a run needs to know besides its seed."""

from __future__ import annotations

from dataclasses import dataclass

#: Tasks that one unit of work makes: see `program`.
UNIT_TASKS = 10


@dataclass(frozen=True, slots=True)
class Scale:
    """The size of the workload and of the plan of faults."""

    tasks: int
    faults: int
    workflows: int = 3
    #: Producers of a workflow that run side by side.
    lanes: int = 3
    consumers: int = 3
    durability: str = "disk"
    claim_after_s: float = 2.0
    heartbeat_s: float = 1.0
    #: Small, so that a long run has many, and their sizes vary little.
    batch_messages: int = 500
    #: Whether the run is long enough for a process to have come to rest: only then is its memory judged.
    judges_memory: bool = False

    @property
    def units(self) -> int:
        """Units of work of one lane."""
        return -(-self.tasks // (UNIT_TASKS * self.workflows * self.lanes))

    @property
    def survives_kills(self) -> bool:
        """Whether a producer that is killed loses nothing, and what Redis forgets comes again."""
        return self.durability == "disk"

    def ceiling(self, segment: int) -> int:
        """Units that a lane may have done when a segment of the run is over; a run has one more than faults."""
        return self.units * (segment + 1) // (self.faults + 1)
