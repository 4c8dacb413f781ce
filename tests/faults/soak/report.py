"""What a soak found and did, as one JSON document and as lines for people."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.faults.soak.scale import Scale
from tests.faults.soak.watch import Memory, Standstill

_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of a soak; `failures` is empty when everything promised was kept."""

    seed: int
    scale: Scale
    faults: dict[str, int]
    by_the_clock: int
    tasks: int
    producers: int
    interrupted: int
    #: Seconds until the work was done, and from then on until the store had all.
    working_s: float
    draining_s: float
    recovered_messages: int
    #: Of the producers' spool: the most it held, and what was left in it when the work was done and drained.
    highest_spool_bytes: int
    left_spool_bytes: int
    memories: tuple[Memory, ...]
    standstill: Standstill
    failures: tuple[str, ...]

    @property
    def reproduction(self) -> str:
        """The command that does it again."""
        scale = self.scale
        return f"make soak SEED={self.seed} TASKS={scale.tasks} FAULTS={scale.faults} DURABILITY={scale.durability}"

    def to_document(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "seed": self.seed,
            "ok": not self.failures,
            "failures": list(self.failures),
            "durability": self.scale.durability,
            "faults": sum(self.faults.values()),
            "faults_by_kind": dict(sorted(self.faults.items())),
            "faults_by_the_clock": self.by_the_clock,
            "tasks_stored": self.tasks,
            "producers": self.producers,
            "producers_interrupted": self.interrupted,
            "working_s": round(self.working_s, 1),
            "draining_s": round(self.draining_s, 1),
            "tasks_per_s": round(self.tasks / max(1e-9, self.working_s + self.draining_s)),
            "memory": [_memory_document(memory) for memory in self.memories],
            "longest_standstill_s": round(self.standstill.seconds, 1),
            "longest_standstill_after": str(self.standstill.fault) if self.standstill.fault else None,
            "recovered_messages": self.recovered_messages,
            "highest_spool_bytes": self.highest_spool_bytes,
            "left_spool_bytes": self.left_spool_bytes,
            "reproduce": self.reproduction,
        }

    def lines(self) -> Iterator[str]:
        """As people read it."""
        document = self.to_document()
        yield f"seed {self.seed}: {document['faults']} faults, {self.tasks:,} tasks stored, {self.interrupted} of {self.producers} producers ended by a signal"
        for kind, count in sorted(self.faults.items()):
            yield f"  {count:>4} x {kind}"
        yield f"  {self.by_the_clock} faults struck by the clock, the work standing still"
        yield f"worked {self.working_s:.0f} s, drained {self.draining_s:.0f} s, {document['tasks_per_s']:,} tasks/s"
        yield (
            f"producers' spool: {self.highest_spool_bytes / _MIB:.1f} MiB at most, {self.left_spool_bytes / _MIB:.1f}"
            f" left at the end, from which replay --recover sent {self.recovered_messages:,} messages"
        )
        yield f"longest standstill of the store {self.standstill.seconds:.1f} s ({document['longest_standstill_after']})"
        for memory in self.memories:
            yield (
                f"memory of {memory.process}: {memory.first_third / _MIB:.1f} MiB in the first third,"
                f" {memory.last_third / _MIB:.1f} in the last ({memory.growth:+.1%})"
            )
        for failure in self.failures:
            yield f"FAILED: {failure}"
        yield f"reproduce: {self.reproduction}"


def _memory_document(memory: Memory) -> dict[str, Any]:
    return {
        "process": memory.process,
        "samples": len(memory.samples),
        "first_third_bytes": round(memory.first_third),
        "last_third_bytes": round(memory.last_third),
        "highest_bytes": max(memory.samples, default=0),
        "growth": round(memory.growth, 4),
        "series_mib": [
            round(sample / _MIB, 1) for sample in memory.samples[:: len(memory.samples) // 100 + 1]
        ],
    }
