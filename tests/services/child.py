"""A child process: its output kept in a file, ended by its pid.

- Whoever starts a child ends it; `alive` lists those that run, so that the guard in `conftest.py` can tell a server
  of the session from a process that a test left behind.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

_TAIL_BYTES = 4096

#: Children started and not yet reaped, by pid.
alive: dict[int, Child] = {}
#: Children started since the present test began: their logs are shown when it fails.
recent: list[Child] = []


class Child:
    """A command that can be started, signalled, ended and started again."""

    def __init__(
        self,
        argv: Sequence[str | Path],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        listens: bool = False,
    ) -> None:
        """One that `listens` reads what `say` says on its standard input; the input of others is empty."""
        self.argv = [str(part) for part in argv]
        self.log = log
        self._env = env
        self._cwd = cwd
        self._listens = listens
        self._process: subprocess.Popen[bytes] | None = None

    def __repr__(self) -> str:
        return f"<{Path(self.argv[0]).name} pid {self._process.pid if self._process else None}>"

    def start(self) -> None:
        """Start the command; output goes to the end of the log."""
        if self.is_running:
            raise RuntimeError(f"{self} runs already")
        env = None if self._env is None else dict(self._env)
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                self.argv,
                stdin=subprocess.PIPE if self._listens else subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=env,
                cwd=self._cwd,
            )
        alive[self._process.pid] = self
        recent.append(self)

    @property
    def pid(self) -> int:
        """The pid of the last start."""
        if self._process is None:
            raise RuntimeError(f"{self.argv[0]} was never started")
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the process exists; one that ended is reaped."""
        return self._process is not None and self._reap(timeout=0) is None

    @property
    def returncode(self) -> int | None:
        """The exit code, negative for a signal, None while running."""
        return None if self._process is None else self._reap(timeout=0)

    def send(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens if the process has ended."""
        if self.is_running:
            os.kill(self.pid, number)

    def say(self, line: str) -> None:
        """Write a line to the standard input of one that listens; nothing happens if the process has ended."""
        if self._process is None or self._process.stdin is None or self._process.stdin.closed:
            return
        try:
            os.write(self._process.stdin.fileno(), f"{line}\n".encode())
        except BrokenPipeError:
            pass

    def hang_up(self) -> None:
        """Close the standard input of one that listens."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()

    def wait(self, timeout: float = 30.0) -> int:
        """Wait for the end and return the exit code; raise `TimeoutError` that shows the log's end."""
        if self._process is None:
            raise RuntimeError(f"{self.argv[0]} was never started")
        code = self._reap(timeout)
        if code is None:
            raise TimeoutError(f"{self} still runs after {timeout:g} s:\n{self.tail()}")
        return code

    def stop(self, timeout: float = 15.0) -> int | None:
        """End it with SIGTERM, and with SIGKILL when that does not work within `timeout` seconds."""
        if self._process is None:
            return None
        self.send(signal.SIGTERM)
        self.send(signal.SIGCONT)
        code = self._reap(timeout)
        return self.kill() if code is None else code

    def kill(self) -> int | None:
        """End it with SIGKILL, at once."""
        if self._process is None:
            return None
        self.send(signal.SIGKILL)
        return self.wait()

    def tail(self) -> str:
        """The end of what it printed."""
        if not self.log.exists():
            return ""
        with self.log.open("rb") as output:
            size = output.seek(0, os.SEEK_END)
            output.seek(max(0, size - _TAIL_BYTES))
            return output.read().decode("utf-8", "replace")

    def _reap(self, timeout: float) -> int | None:
        assert self._process is not None
        try:
            code = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None
        alive.pop(self._process.pid, None)
        self.hang_up()
        return code
