"""Fixtures that every test may use, and the guard that every test passes.

Services are real (`tests/services/`). Where one is missing the test is skipped; with `CI` set it fails instead.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, Protocol
from urllib.parse import urlsplit, urlunsplit

import hypothesis
import pymongo
import pytest
import redis

from provd.store.interface import Store
from provd.store.open import open_store
from tests.integration.feeder import Feeder
from tests.services import child as children
from tests.services.binaries import ServiceMissing
from tests.services.child import Child
from tests.services.mongo_server import MongoServer
from tests.services.redis_server import RedisServer
from tests.services.shared import mongo_source, opened, redis_source
from tests.services.waiting import wait_until
from tests.streams import Script, Streams

#: The quick run looks at the same examples everywhere, so that nothing in it fails by chance; the nightly run looks at
#: others each time, and much further. How fast examples are made and run would judge the machine.
_patient = hypothesis.settings(deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.register_profile("quick", _patient, derandomize=True)
hypothesis.settings.register_profile(
    "nightly", _patient, derandomize=False, max_examples=8_000, print_blob=True
)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))

#: Variables by which schedulers and MPI launchers tell a process its job, rank and size.
_SCHEDULER_PREFIXES = (
    "SLURM_",
    "PBS_",
    "LSB_",
    "COBALT_",
    "FLUX_",
    "PMI_",
    "PMIX_",
    "PALS_",
    "OMPI_",
    "MPI_",
    "JSM_",
)

#: Helpers that `multiprocessing` starts once and keeps for the life of the process.
_PYTHON_HELPERS = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")

#: Seconds that threads and children get to end after a test.
_GRACE_S = 3.0


class RunProvd(Protocol):
    """Run a `provd` command to its end."""

    def __call__(
        self,
        *args: str,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        input: str | None = None,
        timeout: float = 60.0,
    ) -> subprocess.CompletedProcess[str]:
        """`env` is added to the clean environment; output is captured as text."""


class StartProvd(Protocol):
    """Start a `provd` command that goes on in the background; the fixture ends it."""

    def __call__(self, *args: str, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> Child:
        """`env` is added to the clean environment; output goes to the child's log."""


def pytest_configure() -> None:
    """Let Ctrl-C reach the children of tests also where this run ignores it: in a shell's background, under nohup."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


# --- the report ------------------------------------------------------------------------------------------------


def pytest_report_header() -> list[str]:
    """Say which services the run uses."""
    lines = []
    for name, source in (("redis", redis_source), ("mongodb", mongo_source)):
        try:
            lines.append(f"service: {source().description}")
        except ServiceMissing as missing:
            lines.append(f"service: {name} MISSING: {missing}")
    return lines


def pytest_runtest_setup() -> None:
    """Forget the children of earlier tests."""
    children.recent.clear()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Show what the children printed below a failure."""
    report: pytest.TestReport = yield  # type: ignore[assignment]
    if report.failed:
        report.sections += [(f"log of {process}", process.tail()) for process in children.recent]
    return report  # type: ignore[return-value]


# --- the guard -------------------------------------------------------------------------------------------------


def _own_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("provd")}


def _own_variables() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith("PROVD_")}


def _child_pids() -> set[int]:
    """Pids of running children that nobody in `tests.services` answers for; empty where /proc is not Linux's."""
    pids = set()
    for listing in Path("/proc/self/task").glob("*/children"):
        try:
            pids |= {int(pid) for pid in listing.read_text().split()}
        except OSError:  # the thread has ended meanwhile
            continue
    return {pid for pid in pids - children.alive.keys() if _is_stray(pid)}


def _is_stray(pid: int) -> bool:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
    except OSError:
        return False
    # The command line of a zombie is empty: it has ended and waits for its Popen to be collected.
    return bool(command) and not any(helper in command for helper in _PYTHON_HELPERS)


@pytest.fixture(autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    """No test leaves a thread of provd's, a `PROVD_*` variable or a child process behind."""
    threads, variables, pids = _own_threads(), _own_variables(), _child_pids()
    yield
    left = []
    try:
        wait_until(lambda: not (_own_threads() - threads or _child_pids() - pids), _GRACE_S)
    except TimeoutError:
        left += [f"thread {thread.name}" for thread in _own_threads() - threads]
        for pid in _child_pids() - pids:
            left.append(f"process {pid}")
            os.kill(pid, signal.SIGKILL)
    now = _own_variables()
    if now != variables:
        left += [f"variable {name}" for name in sorted(now.keys() ^ variables.keys())] or [
            "changed variables"
        ]
        for name in now.keys() - variables.keys():
            del os.environ[name]
        os.environ.update(variables)
    assert not left, f"left behind: {', '.join(left)}"


# --- the environment -------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def clean_env(_nothing_left_behind: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A process environment that says nothing to provd: no settings, no job, a home of its own, which it returns."""
    for name in list(os.environ):
        is_ours = name.startswith("PROVD_") and not name.startswith("PROVD_TEST_")
        if is_ours or name.startswith((*_SCHEDULER_PREFIXES, "XDG_")):
            monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("PROVD_DATA_DIR", str(home / "data"))
    return home


@pytest.fixture
def run_provd(clean_env: Path, tmp_path: Path) -> RunProvd:
    """Run `provd` as a user would, in a process of its own."""

    def run(
        *args: str,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        input: str | None = None,
        timeout: float = 60.0,
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "provd", *args],
            capture_output=True, text=True, check=False,
            input=input or "", timeout=timeout, cwd=cwd or tmp_path, env={**os.environ, **(env or {})},
        )  # fmt: skip

    return run


@pytest.fixture
def start_provd(clean_env: Path, tmp_path: Path) -> Iterator[StartProvd]:
    """Start `provd` in the background, such as `start_provd("consume")`; ended with SIGTERM after the test."""
    started: list[Child] = []

    def start(*args: str, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> Child:
        process = Child(
            [sys.executable, "-m", "provd", *args],
            log=tmp_path / f"provd-{len(started)}.log", env={**os.environ, **(env or {})}, cwd=cwd or tmp_path,
        )  # fmt: skip
        started.append(process)
        process.start()
        return process

    yield start
    for process in started:
        process.stop()


# --- the services ----------------------------------------------------------------------------------------------


def _missing(reason: ServiceMissing) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(str(reason), pytrace=False)
    pytest.skip(str(reason))


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The Redis that all tests share; keep to keys under `namespace`."""
    try:
        source = redis_source()
    except ServiceMissing as missing:
        _missing(missing)
    with opened(source, tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture(scope="session")
def mongo_server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The MongoDB that all tests share, without a database."""
    try:
        source = mongo_source()
    except ServiceMissing as missing:
        _missing(missing)
    with opened(source, tmp_path_factory.mktemp("mongo")) as url:
        yield url


@pytest.fixture
def namespace(redis_url: str) -> Iterator[str]:
    """A namespace of the test's own in the shared Redis; its keys are removed afterwards."""
    name = f"t{uuid.uuid4().hex[:12]}"
    yield name
    with redis.Redis.from_url(redis_url) as client:
        keys = list(client.scan_iter(match=f"{name}:*", count=1000))
        if keys:
            client.delete(*keys)


@pytest.fixture
def mongo_url(mongo_server_url: str) -> Iterator[str]:
    """The URL of a database of the test's own in the shared MongoDB; it is dropped afterwards."""
    database = f"provd_t{uuid.uuid4().hex[:12]}"
    yield urlunsplit(urlsplit(mongo_server_url)._replace(path=f"/{database}"))
    with pymongo.MongoClient[dict[str, Any]](mongo_server_url) as client:
        client.drop_database(database)


@pytest.fixture
def private_redis(tmp_path: Path) -> Iterator[Callable[..., RedisServer]]:
    """Start a Redis that the test may stop, kill, pause and restart: `private_redis(unix_socket=True, config={})`."""
    servers: list[RedisServer] = []

    def start(
        *, unix_socket: bool = False, config: Mapping[str, str] | None = None, credentials: str = ""
    ) -> RedisServer:
        try:
            folder = tmp_path / f"redis-{len(servers)}"
            server = RedisServer(folder, unix_socket=unix_socket, config=config, credentials=credentials)
        except ServiceMissing as missing:
            _missing(missing)
        servers.append(server)
        server.start()
        return server

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def private_mongo(tmp_path: Path) -> Iterator[Callable[..., MongoServer]]:
    """Start a MongoDB that the test may stop, kill, pause and restart: `private_mongo(replica_set=True)`."""
    servers: list[MongoServer] = []

    def start(
        *,
        replica_set: bool = False,
        parameters: Mapping[str, str] | None = None,
        options: Sequence[str] = (),
    ) -> MongoServer:
        try:
            folder = tmp_path / f"mongo-{len(servers)}"
            server = MongoServer(folder, replica_set=replica_set, parameters=parameters, options=options)
        except ServiceMissing as missing:
            _missing(missing)
        servers.append(server)
        server.start()
        return server

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    """A client of the shared Redis."""
    with redis.Redis.from_url(redis_url) as connection:
        yield connection


@pytest.fixture(params=["mongodb", "embedded"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store of the test's own; each test that asks for it is run on both kinds."""
    if request.param == "embedded":
        return f"sqlite:///{tmp_path}/provd.db"
    url: str = request.getfixturevalue("mongo_url")
    return url


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    """The store, migrated."""
    opened = open_store(store_url)
    opened.migrate()
    yield opened
    opened.close()


# --- what goes in and comes out --------------------------------------------------------------------------------


@pytest.fixture
def streams(redis_url: str, namespace: str) -> Streams:
    """What producers of this test leave in Redis."""
    return Streams(redis_url, namespace)


@pytest.fixture
def script(clean_env: Path, tmp_path: Path, redis_url: str, namespace: str) -> Script:
    """Runs a user's script with the broker set by environment, as a job would."""
    folder = tmp_path / "job"
    folder.mkdir()
    return Script(folder, {**os.environ, "PROVD_BROKER_URL": redis_url, "PROVD_NAMESPACE": namespace})


@pytest.fixture
def feeder() -> Feeder:
    """Makes messages; never connects."""
    return Feeder(redis.Redis(), "ns")


@pytest.fixture
def slots(tmp_path: Path) -> Path:
    """Where the consumers of a test, one host's, hold their names."""
    folder = tmp_path / "slots"
    folder.mkdir()
    return folder
