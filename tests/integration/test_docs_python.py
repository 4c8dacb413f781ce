"""Every Python of docs/python.md runs as it stands, on both stores, and the sample of docs/exports.md is an export."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from provd.consumer.importing import import_runs
from provd.store.books import read_books
from provd.store.interface import Store
from tests.builders import finished_run

DOCS = Path(__file__).parents[2] / "docs"


def blocks(page: str, language: str) -> list[str]:
    return re.findall(
        rf"^```{language}\n(.*?)^```", (DOCS / page).read_text(), flags=re.DOTALL | re.MULTILINE
    )


def test_the_page_about_python_runs_as_it_stands(
    store: Store,
    store_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    finished_run(store, "alpha")
    monkeypatch.setenv("PROVD_STORE_URL", store_url)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}

    for block in blocks("python.md", "python"):
        exec(compile(block, "docs/python.md", "exec"), names)

    printed = capsys.readouterr().out
    assert "alpha DEGRADED 12.34 {'FINISHED': 4, 'ERROR': 1}" in printed
    assert {"tasks.parquet", "tasks.csv", "run.jsonl", "run.parquet"} <= {
        one.name for one in tmp_path.iterdir()
    }


def test_the_sample_of_an_export_can_be_imported(store: Store, tmp_path: Path) -> None:
    (sample,) = blocks("exports.md", "json")
    file = tmp_path / "sample.jsonl"
    file.write_text(sample)

    imported = import_runs(file, store)

    assert (imported.workflow_ids, imported.reasons) == (["w1"], [])
    assert read_books(store, "w1").total("stored") == 2
