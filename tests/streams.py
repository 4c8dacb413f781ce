"""Reading what producers left in Redis, as a consumer would see it."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from provd.common import wire
from provd.common.record import Kind, Message, Record


@dataclass(frozen=True, slots=True)
class Streams:
    """The streams of one namespace."""

    url: str
    namespace: str

    def messages(self) -> list[Message]:
        """Every message of every stream, in seq order per producer; a flawed frame fails the test."""
        found: list[Message] = []
        with redis.Redis.from_url(self.url) as client:
            for key in client.scan_iter(match=f"{self.namespace}:*:stream:*", count=1000):
                entries: Any = client.xrange(key)
                for _, fields in entries:
                    frame = wire.decode(fields[b"h"], fields[b"b"])
                    assert frame.flaws == ()
                    found += frame.messages
        return sorted(found, key=lambda message: (message.producer_id, message.seq))

    def records(self, kind: Kind) -> list[Record]:
        """The records of one kind."""
        return [message.record for message in self.messages() if message.kind is kind]

    def tasks(self, activity: str | None = None) -> list[Record]:
        """Tasks that have ended, of one activity or all."""
        return [
            record
            for record in self.records(Kind.TASK)
            if record["status"] != "RUNNING" and activity in (None, record["activity_id"])
        ]


@dataclass(frozen=True, slots=True)
class Script:
    """A user's script, run in a process of its own."""

    folder: Path
    environment: Mapping[str, str]

    def run(
        self,
        source: str,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        timeout: float = 60.0,
    ) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        return subprocess.run(
            self.command(source, arguments),
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
            cwd=self.folder,
            env={**self.environment, **(env or {})},
        )

    def start(
        self, source: str, *arguments: str, env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[str]:
        """Start it; the caller waits for it."""
        return subprocess.Popen(
            self.command(source, arguments),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            env={**self.environment, **(env or {})},
        )

    def command(self, source: str, arguments: Sequence[str] = ()) -> list[str]:
        """Write the script and return the command that runs it."""
        path = self.folder / "script.py"
        text = textwrap.dedent(source)
        if not path.exists() or path.read_text() != text:  # another process may be about to read it
            path.write_text(text)
        return [sys.executable, str(path), *arguments]
