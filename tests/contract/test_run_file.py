"""A run in a file, from either store into either: the copy equals the original, ledger included."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from provd.common import names
from provd.common.errors import BadExport
from provd.common.record import Status
from provd.consumer.importing import import_runs
from provd.store.books import read_books
from provd.store.interface import Store
from provd.store.open import open_store
from provd.store.run_file import ORDER, write_run
from tests.builders import START_MS, ProducerBuilder, finished_run
from tests.contract.whole_life import a_whole_life, everything
from tests.record_values import named_values

NewStore = Callable[[str], Store]


def exported(store: Store, workflow_id: str, path: Path) -> Path:
    with path.open("wb") as stream:
        write_run(store, workflow_id, stream)
    return path


def test_an_imported_run_equals_the_exported_one(store: Store, copy: Store, tmp_path: Path) -> None:
    a_whole_life(store)
    finished_run(store, "another")
    file = exported(store, "alpha", tmp_path / "alpha.jsonl")

    imported = import_runs(file, copy)

    assert imported.workflow_ids == ["alpha"]
    assert imported.unchanged == imported.refused == 0
    assert everything(copy, "alpha") == everything(store, "alpha")
    assert read_books(copy, "alpha") == read_books(store, "alpha")
    assert copy.count(names.WORKFLOWS, {}) == 1


def test_importing_again_changes_nothing(store: Store, copy: Store, tmp_path: Path) -> None:
    a_whole_life(store)
    file = exported(store, "alpha", tmp_path / "alpha.jsonl")
    import_runs(file, copy)
    before = everything(copy, "alpha")

    again = import_runs(file, copy)

    assert again.changed == 0
    assert everything(copy, "alpha") == before


def test_an_export_of_the_copy_is_the_same_file_but_for_its_first_and_last_line(
    store: Store, copy: Store, tmp_path: Path
) -> None:
    a_whole_life(store)
    first = exported(store, "alpha", tmp_path / "first.jsonl")
    import_runs(first, copy)

    second = exported(copy, "alpha", tmp_path / "second.jsonl")

    assert sorted(map(normal, second.read_text().splitlines()[1:-1])) == sorted(
        map(normal, first.read_text().splitlines()[1:-1])
    )


def normal(line: str) -> str:
    return json.dumps(json.loads(line), sort_keys=True)


def test_a_run_that_went_on_meanwhile_is_merged_and_the_later_word_stands(
    store: Store, copy: Store, tmp_path: Path
) -> None:
    """The merge rule (G3): the document is a function of the set of messages, in whatever order they come."""
    part = ProducerBuilder("alpha", "p1").open()
    part.task(status=Status.RUNNING)
    part.write(store)
    early = exported(store, "alpha", tmp_path / "early.jsonl")
    running = part.messages[-1]
    part._add(running.kind, running.record | {"status": "FINISHED", "ended_at": START_MS + 9})
    part.close().write(store)
    late = exported(store, "alpha", tmp_path / "late.jsonl")

    for file in (late, early):
        import_runs(file, copy)

    assert everything(copy, "alpha") == everything(store, "alpha")

    changed = import_runs(late, store_with(early, tmp_path))

    assert changed.changed == 2  # the task, and the producer


def store_with(file: Path, tmp_path: Path) -> Store:
    opened = open_store(f"sqlite:///{tmp_path}/third.db")
    opened.migrate()
    import_runs(file, opened)
    return opened


@settings(
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    deadline=None,
)
@given(named_values)
def test_any_values_come_back(store: Store, copy: Store, tmp_path: Path, values: dict[str, Any]) -> None:
    number = store.count(names.WORKFLOWS, {})
    part = ProducerBuilder(f"run{number}", f"p{number}").open().workflow()
    part.task(used=values, generated=values)
    part.write(store)

    imported = import_runs(exported(store, f"run{number}", tmp_path / "run.jsonl"), copy)

    assert imported.refused == 0
    assert everything(copy, f"run{number}") == everything(store, f"run{number}")


def test_several_files_in_one_are_imported_together(store: Store, copy: Store, tmp_path: Path) -> None:
    for name in ("alpha", "beta"):
        finished_run(store, name)
    both = tmp_path / "both.jsonl"
    both.write_bytes(
        b"".join(exported(store, name, tmp_path / name).read_bytes() for name in ("alpha", "beta"))
    )

    assert import_runs(both, copy).workflow_ids == ["alpha", "beta"]
    assert everything(copy, "beta") == everything(store, "beta")


def damaged(lines: list[bytes]) -> dict[str, tuple[list[bytes], int]]:
    """Ways in which a file is no whole export, and the line that is named."""
    return {
        "cut off after a line": (lines[:5], 6),
        "cut off inside a line": ([*lines[:5], lines[5][:20]], 6),
        "cut off before its last line": (lines[:-1], len(lines)),
        "a line is missing": (lines[:3] + lines[4:], len(lines) - 1),
        "a line came twice": (lines[:3] + lines[2:], len(lines) + 1),
        "a value has changed": ([line.replace(b'"loss":0.5', b'"loss":0.6') for line in lines], len(lines)),
        "garbage": ([*lines[:2], b"\xff\xfe\n", *lines[2:]], 3),
        "not JSON": ([*lines[:2], b"{]\n", *lines[2:]], 3),
        "a collection that nobody knows": ([lines[0], b'{"collection":"users","document":{}}\n'], 2),
        "a task without its id": (
            [lines[0], b'{"collection":"tasks","document":{"producer_id":"p","workflow_id":"alpha"}}\n'],
            2,
        ),
        "of another run": ([lines[0].replace(b'"alpha"', b'"beta"'), *lines[1:]], 2),
        "of a later version": ([lines[0].replace(b'"provd_export":1', b'"provd_export":99'), *lines[1:]], 1),
        "not of ours": ([b'{"kind":"spool"}\n'], 1),
        "empty": ([], 0),
    }


@pytest.mark.parametrize("how", damaged([b""] * 9))
def test_a_file_that_is_not_whole_is_refused_with_its_line_before_anything_is_written(
    store: Store, copy: Store, tmp_path: Path, how: str
) -> None:
    finished_run(store, "alpha")
    file = exported(store, "alpha", tmp_path / "alpha.jsonl")
    lines, number = damaged(file.read_bytes().splitlines(keepends=True))[how]
    file.write_bytes(b"".join(lines))

    with pytest.raises(BadExport, match=rf"alpha.jsonl:{number}: "):
        import_runs(file, copy)

    assert [copy.count(collection, {}) for collection in ORDER] == [0] * len(ORDER)


def test_a_file_that_is_not_there_is_a_bad_export(copy: Store, tmp_path: Path) -> None:
    with pytest.raises(BadExport, match="No such file"):
        import_runs(tmp_path / "none.jsonl", copy)


def test_the_books_never_claim_what_the_store_refused(store: Store, copy: Store, tmp_path: Path) -> None:
    part = finished_run(store, "alpha")
    task_id = next(message.record["task_id"] for message in part.messages if "task_id" in message.record)
    other = ProducerBuilder("beta", "p-beta")
    other.task(task_id=task_id)
    other.write(copy)

    imported = import_runs(exported(store, "alpha", tmp_path / "alpha.jsonl"), copy)

    assert imported.refused == 1
    assert "another workflow" in imported.reasons[0]
    assert copy.stored_ranges("alpha") == {}
