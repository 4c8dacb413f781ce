"""`provd backup` and `provd restore` as processes, on real services, while consumers run and processes are killed."""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
import redis

from provd.common import names
from provd.store.backup_folder import MANIFEST
from provd.store.books import read_books
from provd.store.interface import Store
from provd.store.open import open_store
from tests.builders import finished_run
from tests.conftest import RunProvd
from tests.integration.commands import Provd
from tests.integration.consuming import (
    MakeConsumer,
    consume,
    make_consumers,
    opened_store,
    plain_settings,
    running,
)
from tests.integration.feeder import Feeder
from tests.services.child import Child
from tests.services.waiting import wait_until
from tests.streams import Script


def seqs_held(store: Store, workflow_id: str) -> set[int]:
    """The numbers of the messages whose documents are there."""
    return {
        document["seq"]
        for name in (names.TASKS, names.PRODUCERS, names.WORKFLOWS)
        for document in store.find(name, {"workflow_id": workflow_id})
    }


def test_a_backup_that_is_taken_while_a_consumer_ingests_never_claims_more_than_it_holds(
    store: Store,
    store_url: str,
    client: redis.Redis,
    namespace: str,
    make_consumer: MakeConsumer,
    run_provd: RunProvd,
    tmp_path: Path,
) -> None:
    feeder = Feeder(client, namespace)
    copies = []
    feeder.send([feeder.hello(), *feeder.tasks(300)], frame=20)
    with running(make_consumer(batch_messages=50)):
        for number in range(3):
            feeder.send(feeder.tasks(1500), frame=20)
            folder, copy = tmp_path / f"backup-{number}", f"sqlite:///{tmp_path}/copy-{number}.db"
            backup = run_provd("backup", str(folder), "--store", store_url, "--json")
            assert backup.returncode == 0, backup.stderr
            restored = run_provd("restore", str(folder), "--store", copy, "--json")
            assert restored.returncode == 0, restored.stderr
            told = json.loads(backup.stdout)
            assert json.loads(restored.stdout)["documents"] == sum(told["documents"].values())
            copies.append(copy)
        feeder.send([feeder.goodbye()])
        wait_until(lambda: read_books(store, "w1").complete, 60, "all to be stored")

    for copy in copies:
        with opened_store(copy) as opened:
            claimed = opened.stored_ranges("w1").get(feeder.producer_id, ())
            numbers = {number for first, last in claimed for number in range(first, last + 1)}
            assert numbers <= seqs_held(opened, "w1")
            assert not read_books(opened, "w1").complete
    assert run_provd("runs", "verify", "w1", "--store", store_url).returncode == 0


def test_a_restored_run_verifies_as_the_one_that_was_backed_up(
    store: Store, store_url: str, provd: Provd, tmp_path: Path
) -> None:
    finished_run(store, "alpha")
    copy = f"sqlite:///{tmp_path}/copy.db"

    backup = provd("backup", str(tmp_path / "b"))
    restored = provd("restore", str(tmp_path / "b"), "--store", copy)

    assert (backup.exit_code, restored.exit_code) == (0, 0), (backup.stderr, restored.stderr)
    assert "documents" in backup.stderr
    assert "8 documents restored, 0 of 7 records there before" in restored.stderr
    again = provd("restore", str(tmp_path / "b"), "--store", copy)
    assert "8 documents restored, 7 of 7 records there before" in again.stderr
    assert (backup.stdout, restored.stdout) == ("", "")
    before = provd("runs", "verify", "alpha", "--json")
    after = provd("runs", "verify", "alpha", "--json", "--store", copy)
    assert after.stdout == before.stdout
    assert after.exit_code == before.exit_code == 0
    shown = provd("runs", "show", "alpha", "--json").stdout
    assert provd("runs", "show", "alpha", "--json", "--store", copy).stdout == shown


def test_a_backup_is_for_its_owner_alone(store: Store, provd: Provd, tmp_path: Path) -> None:
    finished_run(store, "alpha")

    provd("backup", str(tmp_path / "b"))

    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "b").iterdir()} == {0o600}


#: A command that kills itself as it makes its Nth write of a kind.
KILLED = """
import os, signal, sys
from provd.cli.main import main
place, wanted = sys.argv.pop(1), int(sys.argv.pop(1))
module, name = place.rsplit(".", 1)
module = __import__(module, fromlist=["x"])
owner, _, attribute = name.partition(":")
target = getattr(module, owner) if attribute else module
real = getattr(target, attribute or owner)
times = 0
def counting(*arguments, **options):
    global times
    times += 1
    if times == wanted:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments, **options)
setattr(target, attribute or owner, counting)
main()
"""


def killed_at(place: str, number: int, tmp_path: Path, *args: str) -> int | None:
    """Run a command that SIGKILLs itself at the Nth call of a function; returns its status."""
    command = [sys.executable, "-c", KILLED, place, str(number), *args]
    child = Child(command, log=tmp_path / "killed.log", env=dict(os.environ), cwd=tmp_path)
    child.start()
    return child.wait(60)


@pytest.mark.parametrize("moment", [1, 3, 9, 10, 11])
def test_a_backup_that_is_killed_leaves_no_folder_and_is_done_again(
    store: Store, store_url: str, provd: Provd, tmp_path: Path, moment: int
) -> None:
    """Killed at one of its syncs to the disk: of each file, of the manifest, of the folder."""
    finished_run(store, "alpha")
    (tmp_path / "place").mkdir()
    folder = tmp_path / "place" / "b"

    status = killed_at("os.fsync", moment, tmp_path, "backup", str(folder), "--store", store_url)

    if status == -signal.SIGKILL:
        assert not folder.exists()
        left = os.listdir(tmp_path / "place")
        assert all(name.startswith(".b.") and name.endswith(".part") for name in left)
    else:
        assert (folder / MANIFEST).exists()
        folder = tmp_path / "place" / "another"
    assert provd("backup", str(folder)).exit_code == 0
    assert provd("restore", str(folder), "--store", f"sqlite:///{tmp_path}/copy.db").exit_code == 0


@pytest.mark.parametrize("moment", [1, 2, 3, 4])
def test_a_restore_that_is_killed_is_done_again(
    store: Store, provd: Provd, tmp_path: Path, moment: int
) -> None:
    finished_run(store, "alpha")
    copy = f"sqlite:///{tmp_path}/copy.db"
    assert provd("backup", str(tmp_path / "b")).exit_code == 0

    place = (
        "provd.store.embedded.EmbeddedStore:put_documents"
        if moment < 4
        else ("provd.store.embedded.EmbeddedStore:add_stored")
    )
    status = killed_at(
        place, moment if moment < 4 else 1, tmp_path, "restore", str(tmp_path / "b"), "--store", copy
    )
    assert status == -signal.SIGKILL
    with closing(open_store(copy)) as opened:
        assert not read_books(opened, "alpha").complete

    again = provd("restore", str(tmp_path / "b"), "--store", copy)

    assert again.exit_code == 0, again.stderr
    assert provd("runs", "verify", "alpha", "--store", copy).exit_code == 0


def test_wrong_folders_and_stores_are_named(store: Store, provd: Provd, tmp_path: Path) -> None:
    finished_run(store, "alpha")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("mine")
    (tmp_path / "file").write_text("mine")

    def told(*args: str) -> tuple[int, str]:
        result = provd(*args)
        return result.exit_code, result.stderr

    assert told("backup", str(tmp_path / "full"))[0] == 2
    assert "not empty" in told("backup", str(tmp_path / "full"))[1]
    assert told("backup", str(tmp_path / "file"))[0] == 2
    assert told("backup", str(tmp_path / "no" / "where"))[0] == 2
    assert told("backup", str(tmp_path / "b"), "--store", f"sqlite:///{tmp_path}/no.db")[0] == 3
    status, said = told("restore", str(tmp_path / "full"))
    assert (status, "no backup, or half of one" in said) == (1, True)
    assert provd("backup", str(tmp_path / "b")).exit_code == 0
    status, said = told("restore", str(tmp_path / "b"))
    assert (status, "--merge" in said) == (2, True)
    assert told("restore", str(tmp_path / "b"), "--merge")[0] == 0
    assert not (tmp_path / "no.db").exists()


@pytest.mark.parametrize(
    "command",
    [("backup", "b"), ("restore", "b"), ("store", "stats"), ("store", "compact"), ("store", "migrate")],
)
def test_a_tenant_is_told_that_it_is_about_the_whole_store(
    store: Store, provd: Provd, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PROVD_TENANT_ID", "acme")

    result = provd(*command)

    assert result.exit_code == 2
    assert "whole store" in result.stderr
    assert "PROVD_TENANT_ID" in result.stderr
    assert not (tmp_path / "b").exists()


def test_the_store_command_tells_sizes_and_makes_room(store: Store, provd: Provd) -> None:
    finished_run(store, "alpha")
    finished_run(store, "beta")

    shown, told = provd("store", "stats"), json.loads(provd("store", "stats", "--json").stdout)
    compacted = json.loads(provd("store", "compact", "--json").stdout)

    assert shown.exit_code == 0
    assert "tasks" in shown.stdout
    assert told["collections"]["tasks"]["documents"] == store.count(names.TASKS, {})
    assert told["schema"]["pending"] == []
    assert told["oldest_run"] == "2026-11-20T14:00:00.000Z"
    assert compacted["runs"] == 2
    assert compacted["refused"] == []
    assert provd("runs", "verify", "alpha").exit_code == 0


# --- producers that keep their own copy ------------------------------------------------------------------------


def test_receipts_of_the_store_that_was_lost_do_not_count_at_the_restored_one(
    client: redis.Redis, redis_url: str, namespace: str, run_provd: RunProvd, tmp_path: Path, slots: Path
) -> None:
    """G2: a producer lets go of nothing that only a store holds which is gone."""
    lost, restored = (f"sqlite:///{tmp_path}/{name}.db" for name in ("lost", "restored"))
    feeder = Feeder(client, namespace, receipt=True)

    def consume_into(url: str) -> None:
        with ExitStack() as stack:
            settings = plain_settings(redis_url, url, namespace, tmp_path)
            make_consumers(settings, slots, stack)().run_until_empty()

    feeder.send(feeder.tasks(10))
    consume_into(lost)
    assert run_provd("backup", "b", "--store", lost).returncode == 0
    feeder.send(feeder.tasks(10))
    consume_into(lost)
    assert feeder.receipts() == "1-20"

    assert run_provd("restore", "b", "--store", restored).returncode == 0
    feeder.send(feeder.tasks(10))
    consume_into(restored)

    assert feeder.receipts() == "21-30"


#: With `durability: disk`: says twenty things, waits until Redis has them, and waits to be killed.
DURABLE = """
import sys
import provd

@provd.task
def step(n): pass

wf = provd.workflow("w", workflow_id="w1")
wf.start()
for n in range(20):
    step(n)
    if n == 9:
        provd.flush(30)
        print("half", flush=True)
        sys.stdin.readline()
provd.flush(30)
print("all", flush=True)
sys.stdin.readline()
"""


def test_what_the_copy_lacks_comes_from_the_spool_of_a_durable_producer(
    script: Script,
    redis_url: str,
    namespace: str,
    run_provd: RunProvd,
    tmp_path: Path,
    slots: Path,
) -> None:
    lost, restored = (f"sqlite:///{tmp_path}/{name}.db" for name in ("lost", "restored"))
    spool = tmp_path / "spool"
    process: Any = script.start(DURABLE, env={"PROVD_DURABILITY": "disk", "PROVD_SPOOL_DIR": str(spool)})
    with process:
        assert process.stdout.readline() == "half\n"
        process.send_signal(signal.SIGSTOP)  # it sees no receipt
        consume(redis_url, lost, namespace, tmp_path, slots)
        assert run_provd("backup", "b", "--store", lost).returncode == 0
        process.send_signal(signal.SIGCONT)
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "all\n"
        process.kill()
    consume(redis_url, lost, namespace, tmp_path, slots)
    with opened_store(lost) as store:
        had = store.count(names.TASKS, {"status": "FINISHED"})

    assert run_provd("restore", "b", "--store", restored).returncode == 0
    with opened_store(restored) as store:
        assert store.count(names.TASKS, {"status": "FINISHED"}) < had == 20
    replayed = run_provd("replay", str(spool), "--recover", "--store", restored)

    assert replayed.returncode == 0, replayed.stderr
    with opened_store(restored) as store:
        assert store.count(names.TASKS, {"status": "FINISHED"}) == 20
