"""Replaying by whoever is interrupted, twice, at once, and while services go away.

G3: order, repetition and path do not change the stored document.
"""

from __future__ import annotations

import json
import random
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from provd.common import names
from provd.common.spool import SpoolWriter, encode_line
from provd.consumer.replay import replay_into_store
from provd.store.interface import Store
from tests.conftest import RunProvd, StartProvd
from tests.faults.replaying import brought_in, spool, whole_run
from tests.integration.consuming import opened_store
from tests.integration.feeder import Feeder
from tests.services.child import Child
from tests.services.mongo_server import MongoServer
from tests.services.redis_server import RedisServer
from tests.services.waiting import wait_until
from tests.streams import Streams

# --- twice, at once, half way ----------------------------------------------------------------------------------


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
        # One look: the server may still write what the killed one had given it.
        stored = [task["seq"] for task in store.find(names.TASKS, {}, fields=["seq"])]
        expected = set(stored)
        assert len(expected) == len(stored)

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


@pytest.mark.parametrize("broker", ["file:///some/spool", ""])
def test_where_the_settings_name_no_broker_but_a_store_it_goes_there_and_with_neither_it_is_exit_2(
    feeder: Feeder, store_url: str, run_provd: RunProvd, tmp_path: Path, broker: str
) -> None:
    file = spool(tmp_path / "spool", whole_run(feeder, 3))
    offline = {"PROVD_BROKER_URL": broker}

    done = run_provd("replay", "spool", "--remove", env=offline | {"PROVD_STORE_URL": store_url})
    neither = run_provd("replay", ".", env=offline)

    assert (done.returncode, "into the store" in done.stderr) == (0, True), done.stderr
    assert not file.exists()
    with opened_store(store_url) as opened:
        assert brought_in(opened, feeder)
    assert (neither.returncode, "--broker" in neither.stderr, "--store" in neither.stderr) == (2, True, True)


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
