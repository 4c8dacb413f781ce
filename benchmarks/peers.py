"""The peers, at the versions they are compared at, each in a virtual environment of its own.

Nothing of a peer is installed beside provd: its dependencies would change what is measured.
"""

from __future__ import annotations

import fcntl
import subprocess
import sys
import venv
from collections.abc import Iterator
from contextlib import contextmanager
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
            with self._alone():
                if not done.exists():  # another run may have made it meanwhile
                    self._install(interpreter)
                    done.touch()
        return str(interpreter)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other runs from installing at the same time."""
        _FOLDER.mkdir(exist_ok=True)
        with (_FOLDER / f"{self.folder.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _install(self, interpreter: Path) -> None:
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


#: The nearest peer: Redis as a queue, MongoDB as the store, decorators for tasks.
FLOWCEPT = Peer(
    "Flowcept",
    "1.0.3",
    ("flowcept==1.0.3", "redis", "pymongo", "psutil", "pandas", "pyarrow"),  # its store needs the last two
)

_FLOWCEPT_SETTINGS = """\
project: {{debug: false, enrich_messages: false, db_flush_mode: online, performance_logging: false}}
log: {{log_file_level: disable, log_stream_level: disable}}
telemetry_capture: {{}}
instrumentation: {{enabled: true}}
mq: {{enabled: true, type: redis, host: 127.0.0.1, port: {port}, buffer_size: 50, insertion_buffer_time_secs: 5}}
kv_db: {{enabled: true, host: 127.0.0.1, port: {port}}}
databases: {{mongodb: {{enabled: false}}, lmdb: {{enabled: false}}}}
"""


def flowcept_settings(redis_port: int) -> str:
    """Settings of a Flowcept that sends to a Redis: the buffer of its sample, and nothing else switched on."""
    return _FLOWCEPT_SETTINGS.format(port=redis_port)
