"""Spools left `.open` by processes that are gone: `provd replay --recover`.

The file of a living process is never sealed; that of a dead one always; in between, silence for an hour decides.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from provd.common import owner
from provd.common.owner import Fate, Owner
from provd.common.record import Message
from provd.common.sealing import SILENT_S, Sealed, seal_abandoned
from provd.common.spool import SpoolWriter, read_header
from provd.store.books import read_books
from tests.conftest import RunProvd
from tests.integration.consuming import opened_store
from tests.integration.feeder import Feeder
from tests.services.waiting import wait_until
from tests.streams import Script

linux_only = pytest.mark.skipif(owner.boot_id() is None, reason="the kernel does not tell its boots apart")

#: Spools three tasks, says so, and goes on living.
LIVING = """
import os, sys
import provd

@provd.task
def step(n): pass

wf = provd.workflow("w", workflow_id="w1")
wf.start()
for n in range(3):
    step(n)
provd.flush(30)
print("said", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def living(script: Script, spool: Path) -> Iterator[subprocess.Popen[str]]:
    """A process with an open spool file."""
    process = script.start(LIVING, env={"PROVD_BROKER_URL": f"file://{spool}"})
    assert process.stdout is not None
    assert process.stdout.readline() == "said\n"
    yield process
    process.kill()
    process.communicate()


def messages_of(feeder: Feeder) -> list[Message]:
    return [feeder.hello(), *feeder.tasks(3)]


def open_file(folder: Path, **facts: Any) -> Path:
    """A file left open by whoever the facts describe; a fact that is None is not told."""
    writer = SpoolWriter(folder, "p", ceiling_bytes=1 << 30, free_floor=0, hostname=os.uname().nodename)
    writer.write(messages_of(Feeder(redis.Redis(), "ns")))
    writer.forget()
    (path,) = folder.rglob("*.open")
    header, *rest = path.read_bytes().splitlines(keepends=True)
    document = json.loads(header) | facts
    told = {name: value for name, value in document.items() if value is not None}
    path.write_bytes(json.dumps(told).encode() + b"\n" + b"".join(rest))
    return path


def pid_of_nobody() -> int:
    """The pid of a process that has ended and was collected."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def silent_for(path: Path, seconds: float) -> None:
    """Have a file's last write be so long ago."""
    now = path.stat().st_mtime
    os.utime(path, (now - seconds, now - seconds))


# --- the command -----------------------------------------------------------------------------------------------


@linux_only
def test_the_spool_of_a_killed_process_is_sealed_and_comes_in(
    living: subprocess.Popen[str], spool: Path, run_provd: RunProvd, mongo_url: str
) -> None:
    # Given a process that was killed
    living.kill()
    living.wait()
    (path,) = spool.rglob("*.open")

    # When its spool is recovered
    done = run_provd("replay", "spool", "--recover", "--store", mongo_url, "--json")

    # Then the file is closed, its messages are stored, and only the producer's goodbye is missing
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["sealed"] == [str(path.relative_to(spool.parent))[: -len(".open")]]
    assert not list(spool.rglob("*.open"))
    with opened_store(mongo_url) as store:
        books = read_books(store, "w1")
    assert (books.total("missing"), books.total("stored"), len(books.unclosed)) == (
        0,
        books.total("produced"),
        1,
    )


@linux_only
def test_the_open_file_of_a_living_process_is_read_and_never_sealed_however_long_it_is_silent(
    living: subprocess.Popen[str], spool: Path, run_provd: RunProvd, mongo_url: str
) -> None:
    (path,) = spool.rglob("*.open")
    silent_for(path, 10 * SILENT_S)

    first = run_provd("replay", "spool", "--recover", "--store", mongo_url, "--json")
    living.send_signal(signal.SIGSTOP)
    second = run_provd("replay", "spool", "--recover", "--store", mongo_url, "--json")
    living.send_signal(signal.SIGCONT)
    living.communicate("\n", timeout=30)
    third = run_provd("replay", "spool", "--recover", "--store", mongo_url, "--json")

    for done in (first, second):
        report = json.loads(done.stdout)
        assert (done.returncode, report["sealed"], report["open"]) == (0, [], 1)
        assert f"process {living.pid} is running" in report["left_open"][0]["reason"]
        assert str(path.relative_to(spool.parent)) in done.stderr
    assert (living.returncode, third.returncode) == (0, 0)
    with opened_store(mongo_url) as store:
        assert read_books(store, "w1").complete


def test_without_recover_nothing_is_sealed(spool: Path, run_provd: RunProvd, mongo_url: str) -> None:
    path = open_file(spool, pid=pid_of_nobody())

    done = run_provd("replay", "spool", "--store", mongo_url, "--remove")

    assert done.returncode == 0, done.stderr
    assert path.exists()
    assert "1 file still open" in done.stderr


def test_an_open_file_named_itself_is_found_under_its_new_name(
    spool: Path, run_provd: RunProvd, mongo_url: str
) -> None:
    path = open_file(spool)
    silent_for(path, 1e9)
    path.write_bytes(path.read_bytes().replace(b'"pid":', b'"was":'))
    silent_for(path, 2 * SILENT_S)

    done = run_provd("replay", str(path), "--recover", "--store", mongo_url, "--json")

    assert (done.returncode, json.loads(done.stdout)["messages"]) == (0, 4), done.stderr


# --- who is dead -----------------------------------------------------------------------------------------------


@linux_only
def test_dead_is_a_pid_that_nobody_has_or_that_another_process_has_by_now(spool: Path) -> None:
    nobody = open_file(spool / "nobody", pid=pid_of_nobody())
    returned = open_file(spool / "returned", process_started=1)

    assert len(seal_abandoned([nobody, returned]).sealed) == 2


@linux_only
def test_dead_is_what_ran_before_this_host_was_started(spool: Path) -> None:
    path = open_file(spool, boot_id="another")
    silent_for(path, float(Path("/proc/uptime").read_text().split()[0]) + 60)

    assert len(seal_abandoned([path]).sealed) == 1


@linux_only
def test_a_host_of_the_same_name_that_wrote_since_this_one_was_started_is_another(spool: Path) -> None:
    path = open_file(spool, boot_id="another")

    assert [left.path for left in seal_abandoned([path]).left] == [path]


@linux_only
@pytest.mark.parametrize(
    "facts",
    [
        pytest.param({"hostname": "another", "boot_id": "another"}, id="another-host"),
        pytest.param({"pid_namespace": "pid:[1]", "pid": 1 << 22}, id="another-container"),
        pytest.param({"pid_namespace": None, "process_started": None, "pid": 1 << 22}, id="an-older-provd"),
        pytest.param({"boot_id": None, "pid": 1 << 22}, id="a-kernel-that-does-not-say"),
        pytest.param({"kind": "something else"}, id="no-header"),
        pytest.param({"pid": "17"}, id="a-garbled-header"),
    ],
)
def test_of_whom_nothing_is_known_an_hour_of_silence_decides(spool: Path, facts: dict[str, Any]) -> None:
    path = open_file(spool, **facts)

    silent_for(path, SILENT_S - 60)
    before = seal_abandoned([path])
    silent_for(path, 120)
    after = seal_abandoned([path])

    assert (before.sealed, [left.path for left in before.left]) == ((), [path])
    assert "is not known from here" in before.left[0].reason
    assert after.sealed == (path.with_name(path.name[: -len(".open")]),)


def test_a_file_that_got_nothing_yet_is_left_for_an_hour(spool: Path) -> None:
    spool.mkdir()
    path = spool / "x.1-1-abcdef.jsonl.open"
    path.touch()

    assert [left.path for left in seal_abandoned([path]).left] == [path]
    silent_for(path, 2 * SILENT_S)
    assert len(seal_abandoned([path]).sealed) == 1


def test_a_file_whose_time_lies_in_the_future_is_not_silent(spool: Path) -> None:
    """G2, a node whose clock is five minutes off: silence is told by the file system's clock, not by ours."""
    path = open_file(spool, boot_id=None)
    silent_for(path, -300)

    assert seal_abandoned([path]).sealed == ()


@linux_only
def test_what_a_living_process_has_let_go_of_is_sealed_after_a_minute(spool: Path) -> None:
    """By `os.execv` a process lives on as another program: same pid, same start, without the file."""
    path = open_file(spool)
    assert Owner.here("x").fate() is Fate.ALIVE

    before = seal_abandoned([path])
    silent_for(path, 120)
    after = seal_abandoned([path])

    assert (before.sealed, len(after.sealed)) == ((), 1)


@linux_only
def test_a_process_that_has_ended_and_was_not_collected_is_dead() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    assert process.stdout is not None
    here = Owner.here("x")
    process.stdout.read()
    wait_until(lambda: owner.start_of(process.pid) is None)

    assert Owner("x", here.boot_id, here.pid_namespace, process.pid, 1).fate() is Fate.DEAD
    process.communicate()


# --- sealing itself --------------------------------------------------------------------------------------------


def test_sealing_never_overwrites(spool: Path) -> None:
    path = open_file(spool, boot_id=None)
    silent_for(path, 2 * SILENT_S)
    there = path.with_name(path.name[: -len(".open")])
    there.write_bytes(b"kept\n")

    report = seal_abandoned([path])

    assert (report.sealed, report.left[0].reason) == ((), f"there is a {there.name} already")
    assert there.read_bytes() == b"kept\n"
    assert path.exists()


@linux_only
def test_two_recoveries_at_once_seal_each_file_once(spool: Path) -> None:
    paths = []
    for number in range(40):
        path = open_file(spool / str(number), pid=None)
        silent_for(path, 2 * SILENT_S)
        paths.append(path)
    reports: list[Sealed] = []
    threads = [threading.Thread(target=lambda: reports.append(seal_abandoned(paths))) for _ in range(4)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    sealed = [path for report in reports for path in report.sealed]
    assert sorted(sealed) == sorted(path.with_name(path.name[: -len(".open")]) for path in paths)
    assert [left for report in reports for left in report.left] == []
    assert not list(spool.rglob(".clock*"))


def test_a_writer_whose_file_was_sealed_under_it_closes_it_all_the_same(spool: Path) -> None:
    """Silent for an hour on a node that nobody can ask: its next words are in the sealed file, or in one after it."""
    feeder = Feeder(redis.Redis(), "ns")
    writer = SpoolWriter(spool, "p", ceiling_bytes=1 << 30, free_floor=0, hostname="node1")
    writer.write(messages_of(feeder))
    (path,) = spool.rglob("*.open")
    path.rename(path.with_name(path.name[: -len(".open")]))

    writer.write(feeder.tasks(1))
    writer.close()
    writer.write(feeder.tasks(1))
    writer.close()

    lines = [line for file in spool.rglob("*.jsonl") for line in file.read_bytes().splitlines()]
    assert len(lines) == 6 + 2


def test_a_header_of_the_first_version_still_names_its_process() -> None:
    golden = Path(__file__).parents[1] / "golden" / "schema1" / "spool.jsonl"
    with golden.open("rb") as stream:
        found = read_header(stream.readline())

    assert found is not None
    assert (found.hostname, found.pid, found.pid_namespace) == ("node001", 4242, None)
    assert found.fate() is Fate.UNKNOWN


def test_where_nothing_may_be_written_files_are_left_with_the_reason(spool: Path) -> None:
    if os.geteuid() == 0 and shutil.which("chattr") is None:
        pytest.skip("root may write everywhere")
    path = open_file(spool, boot_id=None)
    path.parent.chmod(0o500)
    source = (
        "import os, sys, pathlib\n"
        "from provd.common.sealing import seal_abandoned\n"
        "if os.geteuid() == 0: os.seteuid(65534)\n"
        "report = seal_abandoned([pathlib.Path(sys.argv[1])])\n"
        "print(report.sealed, [left.reason for left in report.left])\n"
    )

    ended = subprocess.run(
        [sys.executable, "-c", source, str(path)], capture_output=True, text=True, check=False
    )

    path.parent.chmod(0o700)
    assert ended.stdout == "() ['Permission denied']\n", ended.stderr
