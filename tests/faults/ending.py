"""A traced program that ends in one way or another, and what of its records is kept."""

from __future__ import annotations

import subprocess
import textwrap
from dataclasses import dataclass
from pathlib import Path

from provd.common.record import Kind, Message, Record
from provd.common.spool import TORN, read_spool, spool_files
from tests.streams import Script, Streams

#: Steps that were flushed before the end, and steps that were not.
FLUSHED, MORE = 50, 10

#: How much longer than its deadline an exit may take here, with a machine that is busy with other things.
SLACK_S = 20.0

#: A program that ends in order when it is sent SIGTERM.
DRAINED = {"PROVD_DRAIN_ON_SIGTERM": "true"}

HEAD = f"""
import os, signal, subprocess, sys, threading, time
import provd

@provd.task
def step(n):
    return n

def tell(text):
    os.write(1, f"{{text}}\\n".encode())

def work():
    for n in range({FLUSHED}):
        step(n)
    provd.flush(30)
    for n in range({FLUSHED}, {FLUSHED + MORE}):
        step(n)
"""


@dataclass(frozen=True, slots=True)
class Job:
    """A program, and what it leaves behind in Redis and in its spool."""

    script: Script
    streams: Streams
    spool: Path
    environment: dict[str, str]

    def run(self, body: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return self.script.run(HEAD + textwrap.dedent(body), env=self.environment | environment)

    def start(self, body: str, **environment: str) -> subprocess.Popen[str]:
        return self.script.start(HEAD + textwrap.dedent(body), env=self.environment | environment)

    def messages(self) -> list[Message]:
        """What Redis or the spool has, each message once; no line is bad but a torn one at the end of a file."""
        found = {(message.producer_id, message.seq): message for message in self.streams.messages()}
        files = spool_files([self.spool], with_open=True) if self.spool.exists() else []
        for file in files:
            lines = list(read_spool(file))
            assert [line.error for line in lines[:-1] if line.error] == []
            assert not lines or lines[-1].error in (None, TORN)
            found |= {(m.producer_id, m.seq): m for m in (line.message for line in lines) if m is not None}
        return [found[place] for place in sorted(found)]

    def records(self, kind: Kind) -> list[Record]:
        return [message.record for message in self.messages() if message.kind is kind]

    def steps(self) -> list[int]:
        """The steps that are kept, each as often as it is kept."""
        tasks = [task for task in self.records(Kind.TASK) if task["activity_id"] == "step"]
        return sorted(task["used"]["n"] for task in tasks if task["status"] == "FINISHED")

    def assert_sound(self) -> None:
        """G7: of each producer every number from 1 to the last is there; nothing is missing in between."""
        numbers: dict[str, list[int]] = {}
        for message in self.messages():
            numbers.setdefault(message.producer_id, []).append(message.seq)
        for producer_id, seqs in numbers.items():
            assert seqs == list(range(1, len(seqs) + 1)), producer_id


def workflow_of(job: Job) -> Record:
    return max(job.records(Kind.WORKFLOW), key=lambda record: record["seq"])
