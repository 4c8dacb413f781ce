"""What an instrumented program does when Redis is away, and how its spool comes back."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from provd.common import names
from provd.common.record import Kind, Message
from provd.common.settings import load
from provd.common.spool import read_spool, spool_files
from provd.producer.replay import replay_into_broker
from tests.services.ports import free_port
from tests.services.redis_server import RedisServer
from tests.services.waiting import wait_until
from tests.streams import Script, Streams

SOURCE = """
    import provd

    @provd.task
    def double(x):
        return 2 * x

    with provd.workflow("w", campaign_id="camp"):
        print([double(x) for x in range(5)])
"""


def spooled(folder: Path) -> list[Message]:
    """Every message below a folder; a bad line fails the test."""
    lines = [line for file in spool_files([folder], with_open=True) for line in read_spool(file)]
    assert [line.error for line in lines if line.error] == []
    return [line.message for line in lines if line.message is not None]


def test_without_redis_the_program_runs_and_its_messages_are_on_disk(script: Script, tmp_path: Path) -> None:
    # Given a Redis that refuses
    spool = tmp_path / "spool"
    away = f"redis://:secret@127.0.0.1:{free_port()}/0"

    # When an instrumented program runs
    ended = script.run(SOURCE, env={"PROVD_BROKER_URL": away, "PROVD_SPOOL_DIR": str(spool)})

    # Then it does what it would have done, and says in one line where its records went
    assert (ended.returncode, ended.stdout) == (0, "[0, 2, 4, 6, 8]\n")
    assert ended.stderr.count("\n") == 1
    assert str(spool) in ended.stderr
    assert "provd replay" in ended.stderr
    assert "secret" not in ended.stderr

    # And every message is in one sealed file that only its owner can read
    (file,) = spool_files([spool])
    assert [message.seq for message in spooled(spool)] == list(range(1, 10))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_an_empty_broker_url_or_a_folder_is_the_spool_alone(script: Script, tmp_path: Path) -> None:
    by_folder = script.run(SOURCE, env={"PROVD_BROKER_URL": f"file://{tmp_path}/one"})
    by_empty = script.run(SOURCE, env={"PROVD_BROKER_URL": "", "PROVD_SPOOL_DIR": f"{tmp_path}/two"})

    assert by_folder.stderr == by_empty.stderr == ""
    assert len(spooled(tmp_path / "one")) == len(spooled(tmp_path / "two")) == 9


def test_a_replayed_spool_holds_the_very_messages_that_redis_would_have_got(
    script: Script, streams: Streams, tmp_path: Path
) -> None:
    """G3: the path a message takes, online or spooled, does not change what it says."""
    # Given messages in a spool
    script.run(SOURCE, env={"PROVD_BROKER_URL": f"file://{tmp_path}/spool"})

    # When they are replayed into the broker
    settings = load(overrides={"broker_url": streams.url, "namespace": streams.namespace}, environ={})
    report = replay_into_broker([tmp_path / "spool"], settings)

    # Then the broker has what the spool has, in frames of its own
    assert report.messages == 9
    assert report.bad_lines == ()
    assert streams.messages() == spooled(tmp_path / "spool")


def test_redis_going_away_in_the_middle_loses_nothing(
    script: Script, private_redis: Callable[..., RedisServer], tmp_path: Path
) -> None:
    # Given a program that works before, during and after an outage of a Redis that forgets nothing
    server = private_redis(config={"appendfsync": "always"})
    spool = tmp_path / "spool"
    process = script.start(
        """
        import provd, sys

        @provd.task
        def step(n): pass

        with provd.workflow("w"):
            for part in range(3):
                for n in range(100):
                    step(part * 100 + n)
                provd.flush(30)
                print(part, flush=True)
                sys.stdin.readline()
        """,
        env={"PROVD_BROKER_URL": server.url, "PROVD_SPOOL_DIR": str(spool), "PROVD_NAMESPACE": "t"},
    )
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == "0\n"

    # When Redis is killed after the first part and comes back after the second
    server.kill()
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline() == "1\n"
    server.start()
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline() == "2\n"
    process.communicate("\n", timeout=30)

    # Then every number is in Redis or in the spool
    messages = Streams(server.url, "t").messages() + spooled(spool)
    seqs = {message.seq for message in messages}
    goodbye = max(messages, key=lambda message: message.seq)
    assert goodbye.kind is Kind.PRODUCER
    assert seqs == set(range(1, goodbye.record["sent"] + 1))
    assert goodbye.record["tasks_ended"] == 300


RETURNING = """
    import provd, sys

    @provd.task
    def keep(text):
        pass

    with provd.workflow("w"):
        for _ in range(100):
            keep("x" * 20_000)
        provd.flush(30)
        print("away", flush=True)
        sys.stdin.readline()
        provd.flush(30)
"""


def test_what_returns_from_the_spool_comes_in_frames_no_larger_than_usual(
    script: Script, private_redis: Callable[..., RedisServer], tmp_path: Path
) -> None:
    """G5: neither the producer, nor Redis, nor a consumer has to hold an outage in one piece."""
    server, spool = private_redis(), tmp_path / "spool"
    server.kill()
    process = script.start(
        RETURNING,
        env={
            "PROVD_BROKER_URL": server.url,
            "PROVD_SPOOL_DIR": str(spool),
            "PROVD_NAMESPACE": "t",
            "PROVD_FRAME_BYTES": "65536",
        },
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "away\n"
    server.start()
    wait_until(lambda: not list(spool.rglob("*.jsonl*")), 30, "the removal of what Redis has")
    process.communicate("\n", timeout=30)

    client: Any
    with redis.Redis.from_url(server.url) as client:
        entries = [entry for key in client.keys("t:*:stream:*") for entry in client.xrange(key)]
    sizes = [len(fields[names.BODY_FIELD]) for _, fields in entries]
    assert sum(sizes) > 100 * 20_000
    assert max(sizes) <= 65_536 + 2 * 20_000


def test_a_line_that_was_changed_on_its_disk_keeps_none_of_the_others_from_returning(
    script: Script, private_redis: Callable[..., RedisServer], tmp_path: Path
) -> None:
    """G4: it reads as JSON, and is no message; the sender tells of it, leaves the file and goes on."""
    server, spool = private_redis(), tmp_path / "spool"
    server.kill()
    process = script.start(
        RETURNING,
        env={"PROVD_BROKER_URL": server.url, "PROVD_SPOOL_DIR": str(spool), "PROVD_NAMESPACE": "t"},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "away\n"
    (file,) = spool.rglob("*.jsonl*")
    lines = file.read_text().split("\n")
    lines[50] = lines[50].replace('"FINISHED"', '"FINISHEX"')
    file.write_text("\n".join(lines))
    server.start()
    streams = Streams(server.url, "t")
    wait_until(lambda: len(streams.tasks()) >= 99, 30, "the return of the others")
    _, complaints = process.communicate("\n", timeout=30)

    assert len(streams.tasks()) == 99
    assert "cannot be read back" in complaints
    assert "the sender stopped" not in complaints
    assert [path.read_text().count("FINISHEX") for path in spool.rglob("*.jsonl")] == [1]


@pytest.mark.parametrize("durability", ["memory", "disk"])
def test_a_message_that_no_line_can_hold_keeps_none_of_the_others_from_the_disk(
    script: Script, tmp_path: Path, durability: str
) -> None:
    """G4: the end of a task that began in the last millisecond of the year 9999 is no time that a record can hold."""
    spool = tmp_path / "spool"
    ended = script.run(
        """
        import provd, time

        @provd.task
        def step(n): pass

        with provd.workflow("w"):
            step(0)
            with provd.Task("late", started_at=253_402_300_799_999):
                time.sleep(0.01)
            for n in range(1, 50):
                step(n)
            provd.flush(0.5)
            step(50)
        """,
        env={
            "PROVD_BROKER_URL": f"redis://127.0.0.1:{free_port()}/0",
            "PROVD_SPOOL_DIR": str(spool),
            "PROVD_DURABILITY": durability,
        },
    )

    assert ended.returncode == 0
    assert "the sender stopped" not in ended.stderr
    assert ended.stderr.count("no JSON form") == (durability == "disk")
    said = [message.record for message in spooled(spool)]
    assert sorted(task["used"]["n"] for task in said if task.get("activity_id") == "step") == list(range(51))
    goodbye = next(record for record in said if "sent" in record)
    assert goodbye["tasks_ended"] == 52
    assert len({message.seq for message in spooled(spool)}) == goodbye["sent"] - 1


def test_a_spool_that_takes_nothing_is_counted_as_dropped(script: Script, streams: Streams) -> None:
    """G5: at the disk's ceiling messages are dropped and counted, and the count is shown."""
    # Given a spool folder that is a file, and no Redis for the first tasks
    ended = script.run(
        """
        import os, provd

        @provd.task
        def step(n): pass

        with provd.workflow("w"):
            step(1)
            provd.flush(30)
        print("science done")
        """,
        env={"PROVD_BROKER_URL": "", "PROVD_SPOOL_DIR": "/dev/null/spool"},
    )

    # Then the program goes on, and one line says what is lost
    assert (ended.returncode, ended.stdout) == (0, "science done\n")
    assert ended.stderr.count("\n") == 1
    assert "messages are dropped and counted" in ended.stderr


def test_lines_that_cannot_be_read_are_named_and_the_rest_is_replayed(
    script: Script, streams: Streams, tmp_path: Path
) -> None:
    # Given a spool with a garbled line in the middle and a torn one at the end
    script.run(SOURCE, env={"PROVD_BROKER_URL": f"file://{tmp_path}/spool"})
    (file,) = spool_files([tmp_path / "spool"])
    lines = file.read_bytes().splitlines(keepends=True)
    lines[4] = b'{"kind": "task", "no end\n'
    lines[-1] = lines[-1][:40]
    file.write_bytes(b"".join(lines))

    # When it is replayed
    settings = load(overrides={"broker_url": streams.url, "namespace": streams.namespace}, environ={})
    report = replay_into_broker([file], settings)

    # Then the two are named, and the others arrive
    assert [(bad.path, bad.number) for bad in report.bad_lines] == [(file, 5), (file, 10)]
    assert [message.seq for message in streams.messages()] == [1, 2, 3, 5, 6, 7, 8]
