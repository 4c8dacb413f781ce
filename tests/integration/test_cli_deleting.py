"""`provd runs delete`, `provd runs prune`, and what comes late of deleted runs, on both stores."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from provd.common import clock, names
from provd.common.errors import OutputError
from provd.common.record import Status
from provd.query.archive import Archiving, remove_run
from provd.store.interface import Store
from provd.store.run_file import read_runs
from provd.store.tombstones import RUN_COLLECTIONS, find_tombstone
from tests.builders import ProducerBuilder, finished_run
from tests.conftest import RunProvd
from tests.integration.commands import Provd
from tests.services.waiting import wait_until

_DAY_MS = 24 * 3600 * 1000


def ago(days: float) -> int:
    return clock.now_ms() - int(days * _DAY_MS)


def left_of(store: Store, workflow_id: str) -> int:
    return sum(store.count(name, {"workflow_id": workflow_id}) for name in RUN_COLLECTIONS)


def many_tasks(store: Store, workflow_id: str, tasks: int, started_at: int) -> ProducerBuilder:
    part = ProducerBuilder(workflow_id, f"p-{workflow_id}", started_at=started_at).open()
    for number in range(tasks):
        part.task(used={"n": number})
    return part.workflow().close().write(store)


# --- delete ------------------------------------------------------------------------------------------------------


def test_a_deleted_run_is_said_to_be_deleted_by_every_command_that_is_asked_about_it(
    store: Store, provd: Provd
) -> None:
    finished_run(store, "alpha", name="sweep")
    finished_run(store, "beta", name="other")

    done = provd("runs", "delete", "sweep", "--yes", "--json")

    assert done.exit_code == 0, done.output
    tombstone = json.loads(done.stdout)
    assert (tombstone["workflow_id"], tombstone["counts"]["tasks"]) == ("alpha", 5)
    assert left_of(store, "alpha") == 0
    for command in (["runs", "show"], ["runs", "verify"], ["runs", "delete"], ["tasks", "-w"]):
        for name in ("alpha", "alp", "sweep"):
            said = provd(*command, name)
            assert said.exit_code == 1
            assert "run alpha was deleted on 20" in said.stderr
    assert "alpha" not in provd("runs", "tail").stdout


def test_without_a_terminal_it_needs_to_be_told_not_to_ask(store: Store, store_url: str, run_provd: RunProvd) -> None:  # fmt: skip
    finished_run(store, "alpha")
    finished_run(store, "beta")

    for command in (["runs", "delete", "alpha"], ["runs", "prune", "--older-than", "2100-01-01"]):
        done = run_provd(*command, "--store", store_url)

        assert (done.returncode, done.stdout) == (2, "")
        assert "--yes" in done.stderr
    assert left_of(store, "alpha") > 0
    assert find_tombstone(store, "alpha") is None


@pytest.mark.parametrize(("answer", "status"), [(b"n\n", 1), (b"\n", 1), (b"y\n", 0)])
def test_on_a_terminal_it_asks(store: Store, store_url: str, answer: bytes, status: int) -> None:
    finished_run(store, "alpha")
    ours, theirs = pty.openpty()
    os.write(ours, answer)

    done = subprocess.run(
        [sys.executable, "-m", "provd", "runs", "delete", "alpha", "--store", store_url],
        stdin=theirs, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip

    os.close(ours)
    os.close(theirs)
    assert "delete run alpha 'sweep' (DEGRADED, started " in done.stderr
    assert done.returncode == status
    assert (left_of(store, "alpha") == 0) == (status == 0)


@pytest.mark.parametrize("beats", [True, False])
def test_a_run_that_has_not_ended_is_deleted_only_when_that_is_insisted_on(
    store: Store, provd: Provd, beats: bool
) -> None:
    part = ProducerBuilder("alpha", "p1", started_at=ago(1)).open().workflow(Status.RUNNING).write(store)
    part.beat(store, clock.now_ms() if beats else ago(1))

    refused = provd("runs", "delete", "alpha", "--yes")

    assert refused.exit_code == 2
    assert ("is RUNNING" if beats else "is LOST") in refused.stderr
    assert "--force" in refused.stderr
    assert provd("runs", "delete", "alpha", "--yes", "--force").exit_code == 0
    assert left_of(store, "alpha") == 0


def test_a_tenant_deletes_nothing(store: Store, provd: Provd, monkeypatch: pytest.MonkeyPatch) -> None:
    finished_run(store, "alpha")
    monkeypatch.setenv("PROVD_TENANT_ID", "ours")

    assert provd("runs", "delete", "alpha", "--yes").exit_code == 2
    assert left_of(store, "alpha") > 0


# --- prune -------------------------------------------------------------------------------------------------------


def old_and_new(store: Store) -> None:
    finished_run(store, "older", campaign_id="exp1", started_at=ago(50))
    finished_run(store, "old", campaign_id="exp2", started_at=ago(40))
    finished_run(store, "new", campaign_id="exp1", started_at=ago(2))
    ProducerBuilder("lost", "p-lost", started_at=ago(60)).open().workflow(Status.RUNNING).write(store).beat(
        store, ago(59)
    )
    going = ProducerBuilder("going", "p-going", started_at=ago(60)).open().workflow(Status.RUNNING)
    going.write(store).beat(store, clock.now_ms())


def tombstones(store: Store) -> set[str]:
    return {one["workflow_id"] for one in store.find(names.TOMBSTONES, {})}


def test_what_would_be_deleted_can_be_seen_before(store: Store, provd: Provd) -> None:
    old_and_new(store)

    done = provd("runs", "prune", "--older-than", "30d", "--dry-run", "--json")

    told = {one["workflow_id"]: one["fate"] for one in map(json.loads, done.stdout.splitlines())}
    assert told == {"older": "delete", "old": "delete", "lost": "stays"}
    assert tombstones(store) == set()


def test_old_runs_are_archived_and_deleted_and_come_back_equal(
    store: Store, provd: Provd, tmp_path: Path
) -> None:
    old_and_new(store)
    before = left_of(store, "older")
    folder = tmp_path / "archive" / "2026"

    done = provd("runs", "prune", "--older-than", "30d", "--archive", str(folder), "--yes")

    assert done.exit_code == 0, done.output
    assert tombstones(store) == {"older", "old"}
    assert left_of(store, "older") == left_of(store, "old") == 0
    assert left_of(store, "new") > 0
    assert "1 run of that age stays, having not ended: lost (LOST)" in done.stderr
    assert sorted(path.name for path in folder.iterdir()) == ["old.jsonl", "older.jsonl"]
    said = provd("runs", "verify", "older")
    assert (said.exit_code, f"archive at {folder}/older.jsonl" in said.stderr) == (1, True)

    refused = provd("import", str(folder / "older.jsonl"))
    assert refused.exit_code == 1
    assert "--undelete brings it back" in refused.stderr
    assert left_of(store, "older") == 0
    assert provd("import", "--undelete", str(folder / "older.jsonl")).exit_code == 0
    assert left_of(store, "older") == before
    assert provd("runs", "verify", "older").exit_code == 0


def test_a_campaign_alone_and_lost_runs_by_force(store: Store, provd: Provd) -> None:
    old_and_new(store)

    provd("runs", "prune", "--older-than", "30d", "--campaign-id", "exp2", "--yes")
    assert tombstones(store) == {"old"}
    provd("runs", "prune", "--older-than", "30d", "--force", "--yes")

    assert tombstones(store) == {"old", "older", "lost"}
    assert left_of(store, "going") > 0


def test_an_archive_may_be_a_table_and_holds_everything_beside_it(
    store: Store, provd: Provd, tmp_path: Path
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    old_and_new(store)

    done = provd("runs", "prune", "--older-than", "30d", "--archive", str(tmp_path / "a"), "--format", "parquet", "--yes")  # fmt: skip

    assert done.exit_code == 0, done.output
    assert parquet.read_table(tmp_path / "a" / "older.parquet").num_rows == 5
    assert {item.workflow_id for item in read_runs(tmp_path / "a" / "older.jsonl")} == {"older"}


def test_a_run_that_cannot_be_archived_stays(store: Store, provd: Provd, tmp_path: Path) -> None:
    old_and_new(store)
    (tmp_path / "file").write_text("")

    done = provd("runs", "prune", "--older-than", "30d", "--archive", str(tmp_path / "file" / "x"), "--yes")

    assert done.exit_code == 1
    assert tombstones(store) == set()
    assert left_of(store, "older") > 0


def test_a_file_that_is_there_is_never_written_over(store: Store, provd: Provd, tmp_path: Path) -> None:
    old_and_new(store)
    (tmp_path / "older.jsonl").write_text("of somebody else")

    provd("runs", "prune", "--older-than", "30d", "--archive", str(tmp_path), "--yes")

    assert (tmp_path / "older.jsonl").read_text() == "of somebody else"
    tombstone = find_tombstone(store, "older")
    assert tombstone is not None
    assert tombstone["archive"] == str(tmp_path / "older.2.jsonl")


@pytest.mark.parametrize(
    "moment", ["the archive is there", "the tombstone stands", "some documents are gone"]
)
def test_a_prune_that_is_killed_goes_on_when_it_is_done_again(
    store: Store, store_url: str, provd: Provd, tmp_path: Path, moment: str
) -> None:
    part = many_tasks(store, "older", 12_000, ago(50))
    folder = tmp_path / "archive"
    command = ["runs", "prune", "--older-than", "30d", "--archive", str(folder), "--yes"]
    stored = left_of(store, "older")
    reached: dict[str, Callable[[], Any]] = {
        "the archive is there": (folder / "older.jsonl").exists,
        "the tombstone stands": lambda: tombstones(store),
        "some documents are gone": lambda: left_of(store, "older") < stored,
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "provd", *command, "--store", store_url], stderr=subprocess.DEVNULL
    )
    wait_until(reached[moment], 60)
    process.send_signal(signal.SIGKILL)
    process.wait()

    done = provd(*command)

    assert done.exit_code == 0, done.output
    assert left_of(store, "older") == 0
    tombstone = find_tombstone(store, "older")
    assert tombstone is not None
    archived = [item for item in read_runs(Path(tombstone["archive"])) if item.collection == names.TASKS]
    assert {item.document["task_id"] for item in archived} == {
        message.record["task_id"] for message in part.messages if "task_id" in message.record
    }
    assert "finished_at" in tombstone


def test_a_run_whose_archive_fails_after_all_is_there_as_before(store: Store, tmp_path: Path) -> None:
    """The disk fills up when the tombstone stands already."""
    many_tasks(store, "older", 3, ago(50))
    before = left_of(store, "older")
    folder = tmp_path / "archive"
    late = ProducerBuilder("older", "p-late").open()

    class GrowsMeanwhile:
        """The run gets another message between the archive and the tombstone; then the folder is gone."""

        def __getattr__(self, name: str) -> Any:
            return getattr(store, name)

        def begin_deletion(self, *arguments: Any, **options: Any) -> None:
            late.write(store)
            store.begin_deletion(*arguments, **options)
            (folder / "older.jsonl").rename(tmp_path / "elsewhere")
            folder.rmdir()
            folder.write_text("")

    growing: Any = GrowsMeanwhile()
    with pytest.raises(OutputError):
        remove_run(growing, "older", archiving=Archiving(folder))

    assert tombstones(store) == set()
    assert left_of(store, "older") == before + 2


def test_what_came_between_the_archive_and_the_tombstone_is_archived_too(
    store: Store, tmp_path: Path
) -> None:
    many_tasks(store, "older", 3, ago(50))
    late = ProducerBuilder("older", "p-late").open()
    late.task("late")

    class GrowsMeanwhile:
        """The run gets more messages between the archive and the tombstone, the first time."""

        def __getattr__(self, name: str) -> Any:
            return getattr(store, name)

        def begin_deletion(self, *arguments: Any, **options: Any) -> None:
            late.write(store)
            store.begin_deletion(*arguments, **options)

    growing: Any = GrowsMeanwhile()
    tombstone = remove_run(growing, "older", archiving=Archiving(tmp_path))

    assert tombstone["archive"] == str(tmp_path / "older.2.jsonl")
    archived = [item.document for item in read_runs(tmp_path / "older.2.jsonl") if item.collection == names.TASKS]  # fmt: skip
    assert sorted(task["activity_id"] for task in archived) == ["late", "train", "train", "train"]
    assert left_of(store, "older") == 0
