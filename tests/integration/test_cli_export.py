"""`provd export` and `provd import`, on both stores: read back by other readers, and whole or not at all."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path

import pandas as pd
import pytest

from provd.common import names
from provd.common.record import Status
from provd.query.exports import Exported, export_parquet
from provd.store.books import read_books
from provd.store.interface import Store
from provd.store.open import open_store
from tests.builders import ProducerBuilder, finished_run
from tests.integration.commands import Provd


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with nothing in it."""
    (tmp_path / "exports").mkdir()
    return tmp_path / "exports"


def test_tasks_as_csv_on_standard_output(store: Store, provd: Provd) -> None:
    finished_run(store, "alpha")
    finished_run(store, "beta")

    result = provd("export", "alpha", "--format", "csv")

    assert result.exit_code == 0, result.output
    rows = list(csv.DictReader(io.StringIO(result.stdout, newline="")))
    assert len(rows) == 5
    assert {row["workflow_id"] for row in rows} == {"alpha"}
    assert list(rows[0])[:3] == ["task_id", "workflow_id", "campaign_id"]
    assert sorted(row["used.lr"] for row in rows) == ["0.1"] * 5
    assert sorted(row["status"] for row in rows) == ["ERROR", *["FINISHED"] * 4]
    assert min(row["started_at"] for row in rows) == "2026-11-20T14:00:00.000Z"


def test_tasks_as_parquet_have_types(store: Store, provd: Provd, folder: Path) -> None:
    finished_run(store, "alpha")
    path = folder / "alpha.parquet"

    result = provd("export", "alpha", "--output", str(path), "--json")

    told = json.loads(result.stdout)
    assert (told["format"], told["tasks"], told["bytes"]) == ("parquet", 5, path.stat().st_size)
    frame = pd.read_parquet(path)
    assert frame["duration"].sum() == pytest.approx(1.01)
    assert str(frame["started_at"].dtype) == "datetime64[ms, UTC]"
    assert str(frame["used.epochs"].dtype) == "int64"
    assert os.listdir(folder) == ["alpha.parquet"]


def test_parquet_is_written_into_the_one_temporary_file(store: Store, folder: Path) -> None:
    finished_run(store, "alpha")
    temporary = folder / ".alpha.part"
    temporary.touch()
    same = temporary.stat().st_ino

    export_parquet(Exported(store, "alpha", 60.0), temporary)

    assert temporary.stat().st_ino == same


def test_a_run_without_tasks_is_a_table_of_the_usual_columns(store: Store, provd: Provd) -> None:
    ProducerBuilder("alpha", "p1").open().workflow().close().write(store)

    result = provd("export", "alpha", "-f", "csv")

    assert result.stdout_bytes == (
        b"task_id,workflow_id,campaign_id,activity_id,status,started_at,ended_at,duration\r\n"
    )


def test_a_task_whose_producer_fell_silent_is_lost_in_a_table_and_running_in_a_copy(
    store: Store, provd: Provd
) -> None:
    silent = ProducerBuilder("alpha", "p1").open()
    silent.task(status=Status.RUNNING)
    silent.write(store).beat(store, silent.started_at + 1)

    as_table = provd("export", "alpha", "-f", "csv").stdout
    as_copy = provd("export", "alpha", "-f", "jsonl").stdout

    assert ",LOST," in as_table
    assert '"status":"RUNNING"' in as_copy
    assert "LOST" not in as_copy


def test_an_exported_run_is_imported_into_another_store(
    store: Store, provd: Provd, folder: Path, tmp_path: Path
) -> None:
    finished_run(store, "alpha")
    file = folder / "alpha.jsonl"
    other = f"sqlite:///{tmp_path}/other.db"

    assert provd("export", "last", "-o", str(file)).exit_code == 0
    first = provd("import", str(file), "--store", other, "--json")
    again = provd("import", str(file), "--store", other, "--json")

    assert (first.exit_code, again.exit_code) == (0, 0)
    told = json.loads(first.stdout)
    assert (told["workflow_ids"], told["unchanged"], told["refused"]) == (["alpha"], 0, 0)
    assert json.loads(again.stdout)["changed"] == 0
    assert provd("runs", "verify", "alpha", "--store", other).exit_code == 0
    copy = open_store(other)
    assert read_books(copy, "alpha") == read_books(store, "alpha")
    copy.close()


def test_a_file_that_was_cut_off_is_refused_with_its_line_and_no_other_file_is_imported(
    store: Store, provd: Provd, folder: Path
) -> None:
    finished_run(store, "alpha")
    whole, cut = folder / "whole.jsonl", folder / "cut.jsonl"
    provd("export", "alpha", "-o", str(whole))
    cut.write_bytes(whole.read_bytes()[:-30])
    other = f"sqlite:///{folder}/other.db"

    result = provd("import", str(whole), str(cut), "--store", other)

    assert result.exit_code == 1
    assert f"cut.jsonl:{len(whole.read_bytes().splitlines())}: the line has no end" in result.stderr
    assert not (folder / "other.db").exists()


def test_importing_where_an_id_belongs_to_another_run_fails_and_names_it(
    store: Store, provd: Provd, folder: Path, tmp_path: Path
) -> None:
    part = finished_run(store, "alpha")
    task_id = next(message.record["task_id"] for message in part.messages if "task_id" in message.record)
    provd("export", "alpha", "-o", str(folder / "alpha.jsonl"))
    url = f"sqlite:///{tmp_path}/other.db"
    other = open_store(url)
    other.migrate()
    taken = ProducerBuilder("beta", "p-beta")
    taken.task(task_id=task_id)
    taken.write(other)

    result = provd("import", str(folder / "alpha.jsonl"), "--store", url)

    assert result.exit_code == 1
    assert f"refused: {task_id}: its id belongs to a record of another workflow" in result.stderr
    assert other.stored_ranges("alpha") == {}
    assert other.count(names.TASKS, {"workflow_id": "alpha"}) == 4
    other.close()


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["alpha", "-o", "run.txt"], 2, "which of csv, parquet, jsonl"),
        (["alpha", "-f", "parket", "-o", "x"], 2, "did you mean parquet?"),
        (["alpha", "-f", "parquet"], 2, "parquet needs a file"),
        (["alpha", "-f", "csv", "--json"], 2, "give --output PATH"),
        (["alpha", "-f", "csv", "-o", "/dev/null"], 2, "no regular file"),
        (["alpha", "-f", "csv", "-o", "/no/such/folder/x.csv"], 2, "no folder /no/such/folder"),
        (["alphq", "-f", "csv"], 1, "the nearest is 'alpha'"),
    ],
)
def test_bad_input_is_one_clear_line(
    store: Store, provd: Provd, arguments: list[str], status: int, said: str
) -> None:
    finished_run(store, "alpha")

    result = provd("export", *arguments)

    assert (result.exit_code, result.stdout) == (status, "")
    assert said in result.stderr


def test_an_export_that_fails_leaves_the_file_that_was_there(
    store: Store, provd: Provd, folder: Path
) -> None:
    wide = ProducerBuilder("alpha", "p1")
    for part in range(12):
        wide.task(used={f"sample {part}-{number}": 1 for number in range(1000)})
    wide.write(store)
    path = folder / "alpha.csv"
    path.write_text("before")

    result = provd("export", "alpha", "-o", str(path))

    assert (result.exit_code, path.read_text()) == (2, "before")
    assert "more than 10,000 columns" in result.stderr
    assert os.listdir(folder) == ["alpha.csv"]


def test_a_store_that_is_away_is_exit_status_3(provd: Provd, folder: Path) -> None:
    result = provd("export", "alpha", "-o", str(folder / "a.csv"), "--store", f"sqlite:///{folder}/none.db")

    assert result.exit_code == 3
    assert os.listdir(folder) == []
