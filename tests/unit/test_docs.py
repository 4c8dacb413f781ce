"""The documentation says what the code does."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from provd.cli.sample import sample_text
from provd.common.errors import UnsupportedQuery
from provd.common.record import PRODUCER_FIELDS, TASK_FIELDS, WORKFLOW_FIELDS
from provd.common.settings import Settings
from provd.store import matcher, pipeline

ROOT = Path(__file__).parents[2]


def test_the_sample_settings_file_is_the_one_the_code_makes() -> None:
    assert (ROOT / "settings.sample.yaml").read_text() == sample_text()


@pytest.mark.parametrize("setting", dataclasses.fields(Settings), ids=lambda setting: setting.name)
def test_every_setting_is_documented_with_its_default(setting: dataclasses.Field[object]) -> None:
    rows = (ROOT / "docs" / "settings.md").read_text().splitlines()

    assert f"| `{setting.name}` | {_default(setting)} | {setting.metadata['help']} |" in rows


def test_no_setting_is_documented_that_does_not_exist() -> None:
    text = (ROOT / "docs" / "settings.md").read_text()

    documented = re.findall(r"^\| `(\w+)` \|", text, flags=re.MULTILINE)

    assert documented == [setting.name for setting in dataclasses.fields(Settings)]


@pytest.mark.parametrize(
    "page", [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md"], ids=lambda page: page.name
)
def test_every_link_of_the_documentation_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())

    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize(
    ("row", "known"),
    [
        ("operators of a filter", matcher.OPERATORS),
        ("around filters", matcher.LOGICAL),
        ("stages of a pipeline", pipeline.STAGES),
        ("in expressions", pipeline.EXPRESSIONS),
        ("types of `$type`", matcher.TYPE_NAMES),
    ],
)
def test_what_the_embedded_store_answers_is_listed(row: str, known: frozenset[str]) -> None:
    text = (ROOT / "docs" / "query.md").read_text()

    found = re.search(rf"^\| {re.escape(row)} \| (.*) \|$", text, flags=re.MULTILINE)

    assert found is not None
    assert re.findall(r"`\"?([$\w]+)\"?`", found[1]) == sorted(known)


def test_a_refusal_of_the_embedded_store_names_the_page_that_lists_what_it_answers() -> None:
    for ask in (
        lambda: matcher.matcher({"a": {"$near": 1}}),
        lambda: pipeline.check_pipeline([{"$lookup": {}}]),
        lambda: pipeline.check_pipeline([{"$group": {"_id": {"$year": "$started_at"}}}]),
    ):
        with pytest.raises(UnsupportedQuery) as refused:
            ask()
        page = re.search(r"docs/\w+\.md", str(refused.value))
        assert page is not None
        assert "## What the embedded store answers" in (ROOT / page[0]).read_text()


def test_fields_of_records_that_the_concepts_name_exist() -> None:
    text = (ROOT / "docs" / "concepts.md").read_text()
    for collection, fields in (
        ("tasks", TASK_FIELDS),
        ("workflows", WORKFLOW_FIELDS),
        ("producers", PRODUCER_FIELDS),
    ):
        found = re.search(rf"\*\*{collection}\*\* — (.*?)\n\n", text, flags=re.DOTALL)
        assert found is not None
        named = re.findall(r"`(\w+)(?:\{\}|\[\])?`", re.sub(r"\([^)]*\)", "", found[1]))
        assert set(named) <= set(fields)


def test_every_event_of_the_guarantees_says_what_is_kept_lost_tested_and_measured() -> None:
    section = (ROOT / "docs" / "guarantees.md").read_text().partition("### A producer ends")[2]
    section = section.partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("|")]
    heads = [row for row in rows if row[0] == "event"]

    assert len(heads) == section.count("\n### ") + 1
    assert {tuple(row) for row in heads} == {("event", "kept", "may be lost", "test", "measured")}
    assert [row for row in rows if not row[0].startswith("---") and len(row) != 5] == []


@pytest.mark.parametrize("page", ["guarantees.md", "capture.md", "security.md"])
def test_tests_that_a_page_names_exist(page: str) -> None:
    text = (ROOT / "docs" / page).read_text()
    sources = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("*.py"))

    for path in re.findall(r"`(tests/[\w/]+\.py)`", text):
        assert (ROOT / path).is_file(), path
    for name in re.findall(r"`(test_\w+)`", text):
        assert f"def {name}(" in sources, name


def _default(setting: dataclasses.Field[object]) -> str:
    if setting.default is dataclasses.MISSING:
        return "`~/.local/share/provd`"
    if setting.default is None:
        return "not set"
    if isinstance(setting.default, bool):
        return f"`{str(setting.default).lower()}`"
    return f"`{setting.default:g}`" if isinstance(setting.default, float) else f"`{setting.default}`"
