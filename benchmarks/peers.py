"""The peers, at the versions they are compared at, each in a virtual environment of its own.

Nothing of a peer is installed beside provd: its dependencies would change what is measured.
"""

from __future__ import annotations

import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

_FOLDER = Path(__file__).parents[1] / ".venv-peers"


@dataclass(frozen=True, slots=True)
class Peer:
    """A program that is measured beside provd."""

    name: str
    version: str
    requirements: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.version}"

    @property
    def folder(self) -> Path:
        """Its virtual environment."""
        return _FOLDER / f"{self.name.lower()}-{self.version}"

    def python(self) -> str:
        """The interpreter that has it, installed on first use."""
        interpreter = self.folder / "bin" / "python"
        done = self.folder / ".made"
        if not done.exists():
            print(f"installing {self} into {self.folder}", file=sys.stderr)
            venv.create(self.folder, with_pip=True, clear=True)
            subprocess.run(
                [
                    interpreter,
                    "-m",
                    "pip",
                    "install",
                    "-qq",
                    "--disable-pip-version-check",
                    *self.requirements,
                ],
                check=True,
                stdin=subprocess.DEVNULL,
            )
            done.touch()
        return str(interpreter)


#: The nearest peer: Redis as a queue, MongoDB as the store, decorators for tasks.
FLOWCEPT = Peer("Flowcept", "1.0.3", ("flowcept==1.0.3", "redis", "pymongo", "psutil"))
