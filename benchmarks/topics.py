"""What is measured, in the order of the table.

A topic is a module with one function, `measure(form)`, that yields figures as they are known.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module

from benchmarks.figure import Figure, Form


@dataclass(frozen=True, slots=True)
class Topic:
    """A module of figures, and the forms of a run it is part of."""

    name: str
    forms: frozenset[Form]

    def measure(self, form: Form) -> Iterator[Figure]:
        """Its figures."""
        figures: Iterator[Figure] = import_module(f"benchmarks.{self.name}").measure(form)
        return figures


_ALWAYS = frozenset(Form)
_FULL = frozenset({Form.FULL, Form.NIGHTLY})
_NIGHTLY = frozenset({Form.NIGHTLY})

TOPICS = (
    Topic("calls", _ALWAYS),
    Topic("startup", _ALWAYS),
    Topic("ingest", _ALWAYS),
    Topic("sizes", _ALWAYS),
    Topic("workloads", _FULL),
    Topic("idle", _FULL),
    Topic("visibility", _FULL),
    Topic("sharing", _FULL),
    Topic("reading", _FULL),
    Topic("lineage", _FULL),
    Topic("export", _FULL),
    Topic("memory", _NIGHTLY),
    Topic("scale", _NIGHTLY),
)
