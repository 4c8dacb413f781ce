"""Replaying whatever is found where spools are, in whatever state, by whoever is interrupted.

G3: order, repetition and path do not change the stored document. G4: one bad record harms only itself.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from provd.common import names
from provd.common.record import Kind, Message
from provd.common.settings import load
from provd.common.spool import LINE_BYTES_MAX, SpoolWriter, decode_line, encode_line
from provd.common.spool_reader import SpoolReader
from provd.consumer.replay import replay_into_store
from provd.producer.replay import replay_into_broker
from provd.store.books import read_books
from provd.store.interface import Store
from tests.conftest import RunProvd, StartProvd
from tests.integration.consuming import opened_store
from tests.integration.feeder import Feeder
from tests.services.child import Child
from tests.services.mongo_server import MongoServer
from tests.services.redis_server import RedisServer
from tests.services.waiting import wait_until
from tests.streams import Streams


@pytest.fixture
def feeder() -> Feeder:
    """Makes messages; never connects."""
    return Feeder(redis.Redis(), "ns")


@pytest.fixture
def store(mongo_url: str) -> Iterator[Store]:
    with opened_store(mongo_url) as opened:
        opened.migrate()
        yield opened


def spool(folder: Path, messages: list[Message], *, name: str = "") -> Path:
    """Messages in a closed spool file, which is returned."""
    writer = SpoolWriter(
        folder, name or messages[0].producer_id, ceiling_bytes=1 << 30, free_floor=0, hostname="node1"
    )
    before = set(folder.rglob("*.jsonl"))
    writer.write(messages)
    writer.close()
    (file,) = set(folder.rglob("*.jsonl")) - before
    return file


def whole_run(feeder: Feeder, tasks: int) -> list[Message]:
    return [feeder.hello(), *feeder.tasks(tasks), feeder.goodbye()]


def brought_in(store: Store, feeder: Feeder) -> bool:
    """Whether the run is in the store: every number once, and not one document more."""
    books = read_books(store, feeder.workflow_id)
    return books.complete and store.count(names.TASKS, {}) == feeder.tasks_made


# --- files of every kind ---------------------------------------------------------------------------------------


def test_of_torn_truncated_garbled_duplicated_foreign_and_empty_files_every_sound_line_arrives(
    feeder: Feeder, store: Store, tmp_path: Path, run_provd: RunProvd, mongo_url: str
) -> None:
    """G4: one bad record harms only itself; replay reports line numbers and goes on."""
    # Given one run over files in every state
    folder = tmp_path / "spool"
    folder.mkdir()
    parts = [feeder.tasks(4) for _ in range(5)]
    lines = [[encode_line(message) for message in part] for part in parts]
    sound = spool(folder, [feeder.hello(), *parts[0]], name="sound")
    (folder / "copy.jsonl").write_bytes(sound.read_bytes())
    (folder / "torn.jsonl").write_bytes(b"".join(lines[1]) + lines[2][0][:50])
    (folder / "inside.jsonl").write_bytes(lines[2][0] + lines[2][1][:50] + b"\n" + b"".join(lines[2][1:]))
    (folder / "garbled.jsonl").write_bytes(b"\x00\xff" * 9 + b"\n" + b"".join(lines[3]) + b"[" * 9999 + b"\n")
    (folder / "foreign.jsonl").write_bytes(b'{"a": 1}\n[1, 2]\n"text"\n17\n')
    (folder / "empty.jsonl").touch()
    (folder / "header.jsonl").write_bytes(sound.read_bytes().splitlines(keepends=True)[0])
    (folder / "packed.jsonl").write_bytes(gzip.compress(b"".join(lines[4])))
    (folder / "notes.txt").write_text("not looked at")
    (tmp_path / "table.csv").write_text("a,b\n1,2\n")
    (tmp_path / "plot.png").write_bytes(b"\x89PNG\r\n\x1a\n\x00\x00")
    spool(folder, [*parts[4], feeder.goodbye()], name="last")

    # When all of it is replayed
    done = run_provd("replay", "spool", "table.csv", "plot.png", "--store", mongo_url, "--json")

    # Then what is wrong is named by file and line, and the books are complete
    assert done.returncode == 1
    report = json.loads(done.stdout)
    places = {(Path(bad["path"]).name, bad["line"]) for bad in report["bad_lines"]}
    assert {
        ("torn.jsonl", 5), ("inside.jsonl", 2), ("garbled.jsonl", 1), ("garbled.jsonl", 6),
        ("foreign.jsonl", 1), ("foreign.jsonl", 2), ("foreign.jsonl", 3), ("foreign.jsonl", 4),
        ("table.csv", 1), ("table.csv", 2), ("plot.png", 1),
    } <= places  # fmt: skip
    assert {name for name, _ in places}.isdisjoint({"empty.jsonl", "header.jsonl", "copy.jsonl", sound.name})
    assert brought_in(store, feeder)


def test_what_cannot_be_opened_is_named_and_the_rest_comes_in(
    feeder: Feeder, store: Store, tmp_path: Path
) -> None:
    """A folder without permission, a loop of links, a link to nothing, a pipe, a folder with a spool's name."""
    folder = tmp_path / "spool"
    spool(folder, whole_run(feeder, 5))
    os.symlink("loop.jsonl", folder / "loop.jsonl")
    os.symlink("nothing", folder / "nowhere.jsonl")
    os.symlink(folder, folder / "again")
    os.mkfifo(folder / "pipe.jsonl")
    (folder / "folder.jsonl").mkdir()

    report = replay_into_store([folder], store)

    assert brought_in(store, feeder)
    assert {(bad.path.name, bad.number) for bad in report.bad_lines} == {
        ("loop.jsonl", 0), ("nowhere.jsonl", 0), ("pipe.jsonl", 0),
    }  # fmt: skip


@pytest.mark.skipif(os.geteuid() == 0 and not Path("/usr/bin/setpriv").exists(), reason="root may read all")
def test_files_and_folders_without_permission_are_named_and_the_rest_comes_in(
    feeder: Feeder, tmp_path: Path
) -> None:
    # Given a file and a folder that may not be read, beside one that may
    folder = tmp_path / "spool"
    folder.mkdir()
    closed, secret = folder / "closed.jsonl", folder / "secret"
    line = encode_line(feeder.hello())
    for path in (folder / "open.jsonl", closed):
        path.write_bytes(line)
    secret.mkdir()
    (secret / "x.jsonl").write_bytes(line)

    # When someone reads them who is not root
    source = (
        "import os, sys\n"
        "from provd.common.spool_reader import SpoolReader\n"
        "if os.geteuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "reader = SpoolReader()\n"
        "found = [line for file in reader.read([__import__('pathlib').Path(sys.argv[1])]) for line in reader.lines(file)]\n"
        "print(len(found), sorted((bad.path.name, bad.number, bad.error) for bad in reader.bad))\n"
    )
    for path in (*folder.parents, folder):
        if path.stat().st_uid == os.geteuid() and path.is_relative_to("/tmp"):
            path.chmod(0o755)
    closed.chmod(0)
    secret.chmod(0)
    ended = subprocess.run(
        [sys.executable, "-c", source, str(folder)], capture_output=True, text=True, check=False
    )
    secret.chmod(0o700)

    # Then both are named
    assert ended.stdout == (
        "1 [('closed.jsonl', 0, 'Permission denied'), ('secret', 0, 'Permission denied')]\n"
    ), ended.stderr


def test_a_line_of_a_gigabyte_costs_bounded_memory_and_only_itself(feeder: Feeder, tmp_path: Path) -> None:
    """G5: bounded. The file is sparse: a gigabyte of zeros in one line, between two sound ones."""
    path = tmp_path / "long.jsonl"
    first, last = (encode_line(message) for message in feeder.tasks(2))
    with path.open("wb") as stream:
        stream.write(first)
        stream.truncate(len(first) + (1 << 30))
        stream.seek(0, os.SEEK_END)
        stream.write(b"\n" + last)

    source = (
        "import resource, sys, pathlib\n"
        "from provd.common.spool_reader import SpoolReader\n"
        "reader = SpoolReader()\n"
        "path = pathlib.Path(sys.argv[1])\n"
        "found = [line.number for file in reader.read([path]) for line in reader.lines(file)]\n"
        "print(found, [bad.number for bad in reader.bad])\n"
    )
    limit = 512 << 20
    ended = subprocess.run(
        [sys.executable, "-c", source, str(path)],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert LINE_BYTES_MAX < limit / 4
    assert ended.stdout == "[1, 3] [2]\n", ended.stderr


def test_a_folder_full_of_foreign_lines_is_counted_in_bounded_memory(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_bytes(b"a,b,c\n" * 100_000)
    reader = SpoolReader()

    found = [line for file in reader.read([tmp_path]) for line in reader.lines(file)]

    assert (found, reader.bad_count, len(reader.bad)) == ([], 100_000, 1000)


_WORDS = [
    "kind",
    "task",
    "task_id",
    "seq",
    "status",
    "schema_version",
    "campaign_id",
    "started_at",
    "$date",
    "~int",
]
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.sampled_from(_WORDS),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(_WORDS) | st.text(), inner, max_size=6),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=300)
@given(
    fields=st.dictionaries(st.sampled_from(_WORDS) | st.text(), _JSON, max_size=5), cut=st.integers(0, 400)
)
def test_a_line_is_a_sound_message_or_a_value_error(fields: dict[str, Any], cut: int) -> None:
    """Whatever stands in a line, reading it ends in a message whose place in the books makes sense, or says why not."""
    message = Feeder(redis.Redis(), "ns").tasks(1)[0]
    document = json.loads(encode_line(message)) | fields
    line = json.dumps(document).encode()[: cut or None]

    try:
        found = decode_line(line)
    except ValueError:
        return

    assert found.kind in Kind
    assert 0 < found.seq < 1 << 53
    assert isinstance(found.record.get("status", ""), str)


@pytest.mark.parametrize(
    "odd",
    [
        {"workflow_id": "../../etc/passwd"},
        {"workflow_id": "a:{b}:stream"},
        {"campaign_id": ["x"]},
        {"campaign_id": "a b"},
        {"producer_id": "*"},
        {"seq": 1 << 63},
        {"seq": True},
        {"seq": -1},
        {"status": {"$ne": 1}},
        {"task_id": 7},
        {"schema_version": "2"},
        {"schema_version": 999},
    ],
    ids=str,
)
def test_a_line_with_an_id_or_number_that_cannot_be_one_is_refused(
    feeder: Feeder, odd: dict[str, Any]
) -> None:
    document = json.loads(encode_line(feeder.tasks(1)[0])) | odd

    with pytest.raises(ValueError, match=r"\w"):
        decode_line(json.dumps(document).encode() + b"\n")


def test_a_line_that_fits_into_no_frame_is_named_and_those_around_it_are_sent(
    feeder: Feeder, streams: Streams, tmp_path: Path
) -> None:
    """Seven hundred lists inside one another are JSON, and are more than a frame's encoding takes."""
    before, odd, after = feeder.tasks(3)
    deep = encode_line(odd).replace(b'"lr":0.1', b'"lr":' + b"[" * 700 + b"]" * 700)
    path = tmp_path / "deep.jsonl"
    path.write_bytes(encode_line(before) + deep + encode_line(after))

    report = replay_into_broker([path], settings_of(streams))

    assert [(bad.number, bad.path) for bad in report.bad_lines] == [(2, path)]
    assert [message.seq for message in streams.messages()] == [1, 3]


# --- twice, at once, half way ----------------------------------------------------------------------------------


def settings_of(streams: Streams) -> Any:
    return load(overrides={"broker_url": streams.url, "namespace": streams.namespace}, environ={})


def test_what_the_ledger_has_is_passed_over_and_what_it_lacks_is_written(
    feeder: Feeder, store: Store, tmp_path: Path
) -> None:
    """Also where only a part is stored, and where two files hold the same."""
    messages = whole_run(feeder, 40)
    replay_into_store([spool(tmp_path / "one", messages[5:30])], store)
    spool(tmp_path / "all", messages, name="x")
    spool(tmp_path / "all", messages, name="y")

    report = replay_into_store([tmp_path / "all"], store, batch_messages=7)

    assert (report.messages, report.stored, report.duplicates) == (84, 42 - 25, 84 - (42 - 25))
    assert brought_in(store, feeder)


def reached(store: Store, child: Child, goal: int) -> bool:
    return store.count(names.TASKS, {}) >= goal or not child.is_running


def test_a_replay_killed_at_any_point_and_repeated_leaves_one_of_each(
    feeder: Feeder, store: Store, tmp_path: Path, start_provd: StartProvd, run_provd: RunProvd, mongo_url: str
) -> None:
    """G3: repetition does not change the stored document; killed between write and ledger, or anywhere."""
    messages = whole_run(feeder, 6_000)
    spool(tmp_path / "spool", messages)
    expected: set[int] = set()
    environment = {"PROVD_BATCH_MESSAGES": "50"}

    # When it is killed at several points, each a little further
    for _ in range(4):
        child = start_provd("replay", "spool", "--store", mongo_url, env=environment)
        goal = len(expected) + random.randrange(50, 600)
        wait_until(partial(reached, store, child, goal), 30)
        child.kill()
        expected = {task["seq"] for task in store.find(names.TASKS, {}, fields=["seq"])}
        assert len(expected) == store.count(names.TASKS, {})

    # And then left alone
    done = run_provd("replay", "spool", "--store", mongo_url, "--json")

    assert (done.returncode, json.loads(done.stdout)["messages"]) == (0, 6_002), done.stderr
    assert brought_in(store, feeder)


def test_two_replays_of_the_same_files_at_once_into_a_store_leave_one_of_each(
    feeder: Feeder, store: Store, tmp_path: Path, start_provd: StartProvd, mongo_url: str
) -> None:
    for part in range(4):
        spool(tmp_path / "spool", feeder.tasks(500), name=f"part{part}")
    spool(tmp_path / "spool", [feeder.hello(), feeder.goodbye()], name="frame")

    children = [start_provd("replay", "spool", "--store", mongo_url) for _ in range(2)]

    assert [child.wait(60) for child in children] == [0, 0]
    assert brought_in(store, feeder)


def test_two_replays_at_once_into_a_broker_leave_one_of_each_in_the_store(
    feeder: Feeder, store: Store, tmp_path: Path, start_provd: StartProvd, run_provd: RunProvd,
    mongo_url: str, redis_url: str, namespace: str,
) -> None:  # fmt: skip
    spool(tmp_path / "spool", whole_run(feeder, 1_000))
    services = {"PROVD_BROKER_URL": redis_url, "PROVD_NAMESPACE": namespace, "PROVD_STORE_URL": mongo_url}

    children = [start_provd("replay", "spool", env=services) for _ in range(2)]
    assert [child.wait(60) for child in children] == [0, 0]
    consumed = run_provd("consume", "-w", "w1", "--exit-when-done", "--grace", "20", env=services)

    assert consumed.returncode == 0, consumed.stderr
    assert brought_in(store, feeder)


def test_a_folder_that_is_written_to_while_it_is_read_gives_what_was_there_and_the_rest_next_time(
    feeder: Feeder, store: Store, tmp_path: Path
) -> None:
    """Files that grow, are sealed, appear and vanish between being listed and being read."""
    # Given a closed file, an open one, and one that its sender is about to take away
    folder = tmp_path / "spool"
    spool(folder / "1", feeder.tasks(4))
    writer = SpoolWriter(folder / "2", "open", ceiling_bytes=1 << 30, free_floor=0, hostname="node1")
    writer.write([feeder.hello(), *feeder.tasks(5)])
    doomed = spool(folder / "3", feeder.tasks(3))
    kept = doomed.read_bytes()

    # When the folder changes after the first batch
    def change(_: int) -> None:
        if doomed.exists():
            doomed.unlink()
            writer.close()

    report = replay_into_store([folder], store, batch_messages=2, on_progress=change)

    # Then nothing stops it, and what has moved is found under its new name or counted as gone
    assert (report.bad_lines, report.messages, report.gone, report.open) == ((), 10, 1, 0)

    # And the next time brings what came later
    doomed.write_bytes(kept)
    spool(folder / "4", [feeder.goodbye()])
    replay_into_store([folder], store)
    assert brought_in(store, feeder)


def test_the_last_line_of_an_open_file_is_not_called_bad_while_it_may_be_on_its_way(
    feeder: Feeder, store: Store, tmp_path: Path
) -> None:
    lines = [encode_line(message) for message in feeder.tasks(2)]
    growing = tmp_path / "x.jsonl.open"
    growing.write_bytes(lines[0] + lines[1][:40])

    first = replay_into_store([tmp_path], store)
    growing.write_bytes(lines[0] + lines[1])
    second = replay_into_store([tmp_path], store)

    assert (first.bad_lines, first.messages, first.open) == ((), 1, 1)
    assert (second.stored, second.duplicates) == (1, 1)


# --- services that go away -------------------------------------------------------------------------------------


def test_a_store_that_goes_away_in_the_middle_is_exit_3_and_repeating_brings_in_the_rest(
    feeder: Feeder, tmp_path: Path, start_provd: StartProvd, run_provd: RunProvd,
    private_mongo: Callable[..., MongoServer],
) -> None:  # fmt: skip
    server = private_mongo()
    url = server.database_url("provd") + "?serverSelectionTimeoutMS=1000"
    spool(tmp_path / "spool", whole_run(feeder, 8_000))
    child = start_provd("replay", "spool", "--store", url, env={"PROVD_BATCH_MESSAGES": "20"})
    with server.client() as client:
        wait_until(lambda: client["provd"]["tasks"].estimated_document_count() > 100, 30)

    server.kill()
    status = child.wait(60)
    server.start()
    again = run_provd("replay", "spool", "--store", url)

    assert status == 3, child.tail()
    assert "repeat the command" in child.tail()
    assert again.returncode == 0, again.stderr
    with opened_store(url) as opened:
        assert brought_in(opened, feeder)


def test_a_broker_that_goes_away_in_the_middle_is_exit_3_and_repeating_brings_in_the_rest(
    feeder: Feeder, tmp_path: Path, start_provd: StartProvd, run_provd: RunProvd,
    private_redis: Callable[..., RedisServer],
) -> None:  # fmt: skip
    server = private_redis()
    environment = {"PROVD_BROKER_URL": server.url, "PROVD_NAMESPACE": "t", "PROVD_FRAME_MESSAGES": "1"}
    spool(tmp_path / "spool", whole_run(feeder, 20_000))
    child = start_provd("replay", "spool", env=environment)

    def entries() -> int:
        with server.client() as client:
            keys: Any = client.keys("t:*:stream:*")
            return int(client.xlen(keys[0])) if keys else 0

    wait_until(lambda: entries() > 100, 30)
    server.kill()
    status = child.wait(60)
    server.start()
    again = run_provd("replay", "spool", env=environment)

    assert status == 3, child.tail()
    assert "repeat the command" in child.tail()
    assert again.returncode == 0, again.stderr
    assert {message.seq for message in Streams(server.url, "t").messages()} == set(range(1, 20_003))


def test_a_signal_stops_a_replay_between_two_writes_and_repeating_brings_in_the_rest(
    feeder: Feeder, store: Store, tmp_path: Path, start_provd: StartProvd, run_provd: RunProvd, mongo_url: str
) -> None:
    spool(tmp_path / "spool", whole_run(feeder, 8_000))
    child = start_provd("replay", "spool", "--store", mongo_url, env={"PROVD_BATCH_MESSAGES": "20"})
    wait_until(lambda: store.count(names.TASKS, {}) > 100, 30)

    child.send(signal.SIGTERM)

    assert child.wait(30) == 130
    assert "stopped after" in child.tail()
    assert run_provd("replay", "spool", "--store", mongo_url).returncode == 0
    assert brought_in(store, feeder)


# --- removing --------------------------------------------------------------------------------------------------


def test_nothing_is_removed_unless_asked_and_only_into_a_store(
    feeder: Feeder, store: Store, tmp_path: Path, run_provd: RunProvd, redis_url: str, mongo_url: str
) -> None:
    file = spool(tmp_path / "spool", whole_run(feeder, 3))

    refused = run_provd("replay", "spool", "--broker", redis_url, "--remove")
    plain = run_provd("replay", "spool", "--store", mongo_url)

    assert refused.returncode == 2
    assert "--remove needs --store" in refused.stderr
    assert plain.returncode == 0
    assert file.exists()


def test_asked_to_remove_it_keeps_open_files_those_with_bad_lines_and_those_that_have_changed(
    feeder: Feeder, store: Store, tmp_path: Path, run_provd: RunProvd, mongo_url: str
) -> None:
    sound = spool(tmp_path / "spool", whole_run(feeder, 3))
    bad, growing = sound.with_name("bad.jsonl"), sound.with_name("growing.jsonl.open")
    bad.write_bytes(sound.read_bytes() + b"{torn")
    growing.write_bytes(sound.read_bytes())

    done = run_provd("replay", "spool", "--store", mongo_url, "--remove", "--json")

    assert done.returncode == 1
    assert json.loads(done.stdout)["removed"] == 1
    assert (sound.exists(), bad.exists(), growing.exists()) == (False, True, True)
    assert brought_in(store, feeder)


def test_a_file_that_grows_while_it_is_read_is_not_removed(
    feeder: Feeder, store: Store, tmp_path: Path
) -> None:
    file = spool(tmp_path / "spool", feeder.tasks(10))
    late = encode_line(feeder.tasks(1)[0])

    def grow(messages: int) -> None:
        if messages == 4:
            with file.open("ab") as stream:
                stream.write(late)

    report = replay_into_store([file], store, batch_messages=4, on_progress=grow, remove=True)

    assert (report.removed, file.exists()) == (0, True)
