"""Spool files into the store: safe to repeat, and a bad line costs only itself."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from provd.common import names
from provd.common.errors import SpoolError
from provd.common.record import Message
from provd.common.spool import SpoolWriter, encode_line
from provd.consumer.replay import replay_into_store
from provd.store.books import read_books
from provd.store.interface import Store
from tests.integration.feeder import Feeder


@pytest.fixture
def store_url(mongo_url: str) -> str:
    return mongo_url


def spool(folder: Path, messages: list[Message], *, close: bool = True) -> None:
    writer = SpoolWriter(
        folder, messages[0].producer_id, ceiling_bytes=1 << 30, free_floor=0, hostname="node1"
    )
    writer.write(messages)
    if close:
        writer.close()
    else:
        writer.forget()


def test_replaying_twice_changes_nothing(feeder: Feeder, store: Store, tmp_path: Path) -> None:
    spool(tmp_path, [feeder.hello(), *feeder.tasks(100), feeder.goodbye()])

    first = replay_into_store([tmp_path], store, batch_messages=7)
    records = sorted(store.find(names.TASKS, {}), key=lambda task: task["task_id"])
    second = replay_into_store([tmp_path], store, batch_messages=13)

    assert (first.files, first.messages, first.stored, first.duplicates) == (1, 102, 102, 0)
    assert (second.messages, second.stored, second.duplicates) == (102, 0, 102)
    assert sorted(store.find(names.TASKS, {}), key=lambda task: task["task_id"]) == records
    assert read_books(store, "w1").complete


def test_what_was_spooled_and_what_came_online_make_whole_books(
    feeder: Feeder, store: Store, tmp_path: Path
) -> None:
    messages = [feeder.hello(), *feeder.tasks(10), feeder.goodbye()]
    spool(tmp_path / "one", messages[:7])
    spool(tmp_path / "other", messages[5:])

    replay_into_store([tmp_path / "other"], store)
    replay_into_store([tmp_path / "one"], store)

    (producer,) = read_books(store, "w1").producers
    assert (str(producer.stored), producer.complete) == ("1-12", True)


def test_torn_and_garbled_lines_are_counted_with_their_numbers_and_skipped(
    feeder: Feeder, store: Store, tmp_path: Path
) -> None:
    lines = [encode_line(message) for message in feeder.tasks(4)]
    path = tmp_path / "x.jsonl"
    path.write_bytes(lines[0] + b"{garbled\n" + lines[1] + b'{"kind":"task"}\n' + lines[2] + lines[3][:40])

    report = replay_into_store([path], store)

    assert (report.messages, report.stored) == (3, 3)
    assert [(bad.path, bad.number) for bad in report.bad_lines] == [(path, 2), (path, 4), (path, 6)]
    assert str(read_books(store, "w1").producers[0].stored) == "1-3"


def test_a_file_that_is_still_open_is_read_and_left(feeder: Feeder, store: Store, tmp_path: Path) -> None:
    spool(tmp_path, feeder.tasks(5), close=False)
    (path,) = tmp_path.rglob("*.open")

    report = replay_into_store([tmp_path], store)

    assert report.stored == 5
    assert path.exists()


def test_a_path_that_does_not_exist_is_an_error_that_names_it(store: Store, tmp_path: Path) -> None:
    with pytest.raises(SpoolError, match="missing"):
        replay_into_store([tmp_path / "missing"], store)


def test_a_replay_can_be_stopped_between_two_writes(feeder: Feeder, store: Store, tmp_path: Path) -> None:
    spool(tmp_path, feeder.tasks(100))
    stop = threading.Event()

    report = replay_into_store(
        [tmp_path],
        store,
        batch_messages=10,
        stop=stop,
        on_progress=lambda count: stop.set() if count == 30 else None,
    )

    assert (report.messages, report.complete) == (30, False)
    assert store.count(names.TASKS, {}) == 30
