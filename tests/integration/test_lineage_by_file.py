"""A task is named by a file that it generated, on both stores."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from provd.common.errors import Ambiguous, NotFound
from provd.query.lineage import find_task
from provd.store.interface import Store
from tests.builders import ProducerBuilder
from tests.integration.commands import Provd


def file(path: Path, content: str) -> dict[str, Any]:
    """What is recorded of a file with this content."""
    data = content.encode()
    return {
        "type": "provd.File", "path": str(path), "size": len(data), "sha256": hashlib.sha256(data).hexdigest(),
    }  # fmt: skip


@pytest.fixture
def model(store: Store, tmp_path: Path) -> Path:
    """A path to which two tasks wrote, one after the other, of a file that no task made."""
    path = tmp_path / "model (1).pt"
    part = ProducerBuilder("w1", "p1").open().workflow()
    raw = file(tmp_path / "raw.csv", "raw")
    part.task("first", used={"raw": raw}, generated={"model": file(path, "one")})
    part.task("second", used={"raw": raw}, generated={"model": file(path, "two")})
    part.write(store)
    return path


@pytest.mark.parametrize(("content", "number"), [("one", "00000002"), ("two", "00000003")])
def test_a_file_that_is_here_means_the_task_that_left_it_so(
    store: Store, model: Path, content: str, number: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.write_text(content)
    monkeypatch.chdir(model.parent)

    assert find_task(store, str(model)) == find_task(store, model.name) == f"p1-{number}"


def test_a_file_recorded_without_a_checksum_is_told_by_size_and_time(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "large.h5"
    path.write_text("large")
    facts = os.stat(path)
    part = ProducerBuilder("w1", "p1").open().workflow()
    recorded = {"type": "provd.File", "path": str(path), "size": 5}
    part.task("now", generated={"data": {**recorded, "modified_ns": facts.st_mtime_ns}})
    part.task("before", generated={"data": {**recorded, "modified_ns": facts.st_mtime_ns - 1}})
    part.write(store)

    assert find_task(store, str(path)) == "p1-00000002"


@pytest.mark.parametrize("content", [None, "changed since"])
def test_a_file_that_is_not_here_or_has_changed_is_told_by_its_path(
    store: Store, model: Path, content: str | None
) -> None:
    if content is not None:
        model.write_text(content)

    with pytest.raises(Ambiguous, match=r"2 tasks generated(.|\n)*p1-00000003  w1  second\n  p1-00000002"):
        find_task(store, str(model))


def test_a_pattern_in_a_path_is_no_pattern(store: Store, tmp_path: Path) -> None:
    part = ProducerBuilder("w1", "p1").open().workflow()
    part.task("other", generated={"data": file(tmp_path / "a+b.csv", "x")})
    part.task("nested", generated={"data": file(tmp_path / "x" / "a.b.csv", "x")})
    part.write(store)

    assert find_task(store, str(tmp_path / "a+b.csv")) == "p1-00000002"
    for name in ("a.b.csv", "b.csv", "aab.csv"):
        with pytest.raises(NotFound, match="no task generated or used"):
            find_task(store, str(tmp_path / name))


def test_a_file_that_was_only_used_names_the_tasks_that_used_it(model: Path, provd: Provd) -> None:
    asked = provd("lineage", str(model.parent / "raw.csv"), "--down")

    assert (asked.exit_code, asked.stdout) == (1, "")
    assert "p1-00000003  w1  second\n  p1-00000002  w1  first" in asked.stderr


def test_the_command_and_the_connection_take_a_file(
    store: Store, store_url: str, model: Path, provd: Provd
) -> None:
    from provd.query import connect

    model.write_text("one")

    assert provd("lineage", str(model), "--up").stdout.startswith("first p1-00000002")
    with connect(store_url) as books:
        for asked in (books, books.run("w1")):
            assert asked.lineage(str(model)).task_id == "p1-00000002"
