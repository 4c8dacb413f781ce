"""Running the programs that are measured: each in a process of its own, the subjects in turn.

A program is a file of `benchmarks/programs/`. It is started anew for each sample, and prints one JSON object on its
last line of standard output.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PROGRAMS = Path(__file__).parent / "programs"

#: What a user's environment might say to provd or a peer must not reach a measurement.
_FOREIGN = ("PROVD_", "FLOWCEPT_", "PYTHON", "SLURM_")

#: Seconds after which a program counts as stuck.
_STUCK_S = 1800.0


class ProgramFailed(Exception):
    """A measured program ended with an error; its output is the message."""


@dataclass(frozen=True, slots=True)
class Program:
    """A program with its arguments, ready to be started any number of times."""

    name: str
    arguments: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    python: str = sys.executable

    @property
    def command(self) -> list[str]:
        """The command line."""
        return [self.python, str(PROGRAMS / f"{self.name}.py"), *self.arguments]

    @property
    def environment(self) -> dict[str, str]:
        """The environment: ours without what is addressed to provd or a peer, and what the program is given."""
        return {**clean_environment(), **self.env}

    def run(self) -> dict[str, Any]:
        """Start it, wait, and return what it said.

        Raises `ProgramFailed`.
        """
        done = subprocess.run(
            self.command,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=_STUCK_S,
        )
        if done.returncode != 0 or not done.stdout.strip():
            raise ProgramFailed(
                f"{' '.join(self.command)}: exit {done.returncode}\n{done.stdout}{done.stderr}"
            )
        said: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
        return said

    def start(self) -> subprocess.Popen[str]:
        """Start it, with pipes for standard input and output; the caller ends it."""
        return subprocess.Popen(
            self.command,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )


def clean_environment() -> dict[str, str]:
    """Our environment, without what is addressed to provd or a peer."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}


def interleaved(rounds: int, *subjects: Callable[[], float]) -> list[tuple[float, ...]]:
    """Take one sample of each subject, `rounds` times over; returns the samples of each.

    Every other round goes backwards, so that none is always the one that comes first.
    """
    samples: list[list[float]] = [[] for _ in subjects]
    for number in range(rounds):
        order: Sequence[int] = range(len(subjects))
        for index in order if number % 2 == 0 else reversed(order):
            samples[index].append(subjects[index]())
    return [tuple(each) for each in samples]
