"""The lock that one process of a node holds."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from provd.producer.nodelock import NodeLock
from tests.services.waiting import wait_until

#: Takes the lock, says whether it did, and holds it until its input ends.
HOLDER = """
import os, sys
from provd.producer.nodelock import NodeLock

lock = NodeLock(sys.argv[1])
print(lock.acquire(), flush=True)
{then}
sys.stdin.read()
"""

#: Leaves a child behind that lives until the input ends, too.
FORK = """
child = os.fork()
if child == 0:
    sys.stdin.read()
    os._exit(0)
print(child, flush=True)
"""

#: Takes the lock and lets go of it again and again. Two that have it at once would both make the marker.
COMER_AND_GOER = """
import os, sys
from provd.producer.nodelock import NodeLock

lock, marker = NodeLock(sys.argv[1]), sys.argv[2]
for _ in range(400):
    while not lock.acquire():
        pass
    os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
    os.unlink(marker)
    lock.release()
"""


class Holder:
    """Another process with the lock."""

    def __init__(self, name: str, then: str = "") -> None:
        source = textwrap.dedent(HOLDER).format(then=then)
        self.process = subprocess.Popen(
            [sys.executable, "-c", source, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def says(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def lock() -> Iterator[NodeLock]:
    made = NodeLock(uuid.uuid4().hex)
    yield made
    made.release()
    if os.path.exists(made.path):
        os.unlink(made.path)


@pytest.fixture
def name(lock: NodeLock) -> str:
    name = uuid.uuid4().hex
    lock.path = NodeLock(name).path
    return name


def test_one_process_at_a_time_has_it(lock: NodeLock, name: str) -> None:
    holder = Holder(name)
    assert holder.says() == "True"

    assert not lock.acquire()

    holder.end()
    assert lock.acquire()
    assert lock.is_held
    other = Holder(name)
    assert other.says() == "False"
    other.end()


def test_letting_go_removes_the_file_and_another_takes_it(lock: NodeLock, name: str) -> None:
    assert lock.acquire()
    lock.release()
    assert not os.path.exists(lock.path)

    holder = Holder(name)

    assert holder.says() == "True"
    assert not lock.acquire()
    holder.end()


def test_no_two_have_it_at_once_though_the_file_comes_and_goes(name: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", COMER_AND_GOER, name, str(tmp_path / "marker")]

    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    said = [process.communicate(timeout=60)[1] for process in processes]

    assert said == ["", "", ""]


def test_taking_it_twice_is_having_it_and_letting_go_twice_is_nothing(lock: NodeLock) -> None:
    assert lock.acquire()
    assert lock.acquire()

    lock.release()
    lock.release()

    assert not lock.is_held


def test_a_holder_that_is_killed_is_followed_though_its_fork_lives(lock: NodeLock, name: str) -> None:
    # Given a holder with a child that lives on
    holder = Holder(name, FORK)
    assert holder.says() == "True"
    child = int(holder.says())
    assert not lock.acquire()

    # When the holder is killed
    holder.process.kill()
    holder.process.wait()

    # Then the lock is free, for the child did not inherit it
    os.kill(child, 0)
    assert lock.acquire()
    holder.process.communicate()
    wait_until(lambda: not os.path.exists(f"/proc/{child}/cmdline") or _has_ended(child))


def test_a_folder_that_others_may_write_is_refused(
    lock: NodeLock, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("shared")
    folder.chmod(0o777)
    lock.path = str(folder / "lock")

    with pytest.raises(PermissionError):
        lock.acquire()

    assert not lock.is_held


def _has_ended(pid: int) -> bool:
    with open(f"/proc/{pid}/stat") as stream:
        return stream.read().rpartition(")")[2].split()[0] == "Z"
