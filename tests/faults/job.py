"""A traced program that does what it is told, a line at a time, so that a test may strike between any two steps."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from provd.common import wire
from provd.common.errors import SpoolError
from provd.common.ranges import Ranges
from provd.common.record import Kind, Message
from provd.common.spool import read_spool, spool_files
from tests.streams import Script, Streams

#: `work N` calls a captured function N times; `flush` waits for what was said; `stop` ends the workflow.
PROGRAM = """
import sys
import provd

@provd.task
def step(n):
    return n

done = 0
workflow = provd.workflow("job", workflow_id="job").start()
print("started", flush=True)
for line in sys.stdin:
    word, *rest = line.split()
    if word == "work":
        for _ in range(int(rest[0])):
            step(done)
            done += 1
    elif word == "flush":
        assert provd.flush(60)
    elif word == "stop":
        workflow.stop()
    elif word == "memory":
        status = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
        print(status["VmRSS"].split()[0], flush=True)
        continue
    print(word, flush=True)
print(f"called {done}", flush=True)
"""


@dataclass(frozen=True, slots=True)
class Job:
    """The running program."""

    process: subprocess.Popen[str]
    spool: Path

    def do(self, command: str) -> str:
        """Have it do something, and return what it says when that is done."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        said = self.process.stdout.readline().strip()
        assert said, f"the program ended at {command!r}: {self.process.communicate(timeout=10)[1]}"
        return said

    def end(self) -> str:
        """Let it end, as programs do; returns what it wrote to stderr."""
        out, err = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, err
        assert out.startswith("called ")
        return err

    def spooled(self) -> list[Message]:
        """The messages on disk."""
        return spooled_messages(self.spool)


@contextmanager
def running_job(
    script: Script, broker_url: str, spool: Path, env: Mapping[str, str] | None = None
) -> Iterator[Job]:
    """A job in the namespace `t` of a Redis, which is killed at the end if it still runs."""
    settings = {
        "PROVD_BROKER_URL": broker_url,
        "PROVD_NAMESPACE": "t",
        "PROVD_SPOOL_DIR": str(spool),
        "PROVD_CONNECT_TIMEOUT_S": "0.5",
        **(env or {}),
    }
    process = script.start(PROGRAM, env=settings)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        yield Job(process, spool)
    finally:
        process.kill()
        process.communicate()


def spooled_messages(folder: Path) -> list[Message]:
    """Every message on disk below a folder; what is torn, or removed meanwhile, counts as not there."""
    found: list[Message] = []
    for file in spool_files([folder], with_open=True) if folder.is_dir() else ():
        try:
            found += [line.message for line in read_spool(file) if line.message is not None]
        except SpoolError:
            continue
    return found


def numbers(messages: list[Message]) -> set[int]:
    """The sequence numbers, of the job's one producer."""
    assert len({message.producer_id for message in messages}) <= 1
    return {message.seq for message in messages}


def steps(messages: list[Message]) -> set[int]:
    """The calls that were captured, by their argument."""
    return {
        message.record["used"]["n"]
        for message in messages
        if message.kind is Kind.TASK and message.record["status"] == "FINISHED"
    }


def assert_all_said(messages: list[Message], calls: int) -> None:
    """Every call is there, and every number up to that of the goodbye, which tells the same."""
    goodbye = max(messages, key=lambda message: message.seq)
    assert goodbye.kind is Kind.PRODUCER
    assert goodbye.record["tasks_ended"] == calls
    assert numbers(messages) == set(range(1, goodbye.record["sent"] + 1))
    assert steps(messages) == set(range(calls))


def in_redis(url: str) -> list[Message]:
    """What producers have left in Redis."""
    return Streams(url, "t").messages()


def count_in_redis(url: str) -> int:
    """How many different messages producers have left in Redis, by the frames' headers."""
    found: dict[str, Ranges] = {}
    with redis.Redis.from_url(url) as client:
        for key in client.scan_iter(match="t:*:stream:*", count=1000):
            entries: Any = client.xrange(key)
            for _, fields in entries:
                header = wire.decode_header(fields[b"h"])
                span = Ranges.of([(header.first_seq, header.last_seq)])
                found[header.producer_id] = found.get(header.producer_id, Ranges()).union(span)
    return sum(map(len, found.values()))
