"""`provd lineage`: what it prints, and how it exits."""

from __future__ import annotations

import json
from typing import Any

import pytest

from provd.common.record import Status
from provd.store.interface import Store
from tests.builders import ProducerBuilder
from tests.integration.commands import Provd

PRODUCER = "01m7zh4mhr95hy0g0q1gnk"
SUM = "0123456789abcdef" * 4


def file(path: str) -> dict[str, Any]:
    """A file as it is recorded."""
    return {"type": "provd.File", "path": path, "size": 7, "sha256": SUM}


@pytest.fixture
def ids(store: Store) -> dict[str, str]:
    """A small run: two conversions, a training under a caller, an evaluation that failed, a report."""
    owner = ProducerBuilder("alpha0000000001", PRODUCER, "exp42").open()
    found = {
        "main": owner.task("main"),
        "left": owner.task("convert", generated={"out": file("/data/left.csv")}),
        "right": owner.task("convert", generated={"out": file("/data/right.csv")}),
    }
    found["train"] = owner.task(
        "train",
        used={"tables": [file("/data/left.csv"), file("/data/right.csv")]},
        generated={
            "model": file("/data/model.bin"),
            "score": {"type": "provd.Key", "key": 'score "one" <1>', "value": 0.9},
        },
        parent_task_id=found["main"],
    )
    found["evaluate"] = owner.task("evaluate", Status.ERROR, used={"model": file("/data/model.bin")})
    found["report"] = owner.task(
        "report",
        used={"score": {"type": "provd.Key", "key": 'score "one" <1>'}},
        depends_on=[found["evaluate"], "elsewhere-00000001"],
    )
    owner.workflow().close().write(store)
    return found


def test_the_tree_on_a_narrow_screen(ids: dict[str, str], provd: Provd) -> None:
    result = provd("lineage", ids["train"])

    assert result.exit_code == 0, result.output
    assert result.stdout == (
        "train 01m7zh4mhr95hy0g0q1gnk-00000004 FINISHED\n"
        "what led to it:\n"
        "├─ convert 01m7zh4mhr95hy0g0q1gnk-00000002 FINISHED  made /data/left.csv\n"
        "├─ convert 01m7zh4mhr95hy0g0q1gnk-00000003 FINISHED  made /data/right.csv\n"
        "└─ main 01m7zh4mhr95hy0g0q1gnk-00000001 FINISHED  called it\n"
        "what came of it:\n"
        "├─ evaluate 01m7zh4mhr95hy0g0q1gnk-00000005 ERROR  used /data/model.bin\n"
        "│  └─ report 01m7zh4mhr95hy0g0q1gnk-00000006 FINISHED  depends on it\n"
        '└─ report 01m7zh4mhr95hy0g0q1gnk-00000006 FINISHED  used score "one" <1>\n'
    )
    assert result.stderr == ""


def test_the_tree_upwards_on_a_wide_and_on_a_very_narrow_screen(
    ids: dict[str, str], provd: Provd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    wide = provd("lineage", ids["report"], "--up", "--kind", "dependency", "--kind", "value")
    monkeypatch.setenv("COLUMNS", "40")
    narrow = provd("lineage", ids["report"], "--up", "--kind", "value", "--depth", "1")

    assert wide.stdout == (
        "report 01m7zh4mhr95hy0g0q1gnk-00000006 FINISHED\n"
        "what led to it:\n"
        '├─ train 01m7zh4mhr95hy0g0q1gnk-00000004 FINISHED  made score "one" <1>\n'
        "│  ├─ convert 01m7zh4mhr95hy0g0q1gnk-00000002 FINISHED  made /data/left.csv\n"
        "│  └─ convert 01m7zh4mhr95hy0g0q1gnk-00000003 FINISHED  made /data/right.csv\n"
        "├─ elsewhere-00000001 not stored  it depends on this\n"
        "└─ evaluate 01m7zh4mhr95hy0g0q1gnk-00000005 ERROR  it depends on this\n"
        "   └─ train 01m7zh4mhr95hy0g0q1gnk-00000004 FINISHED  made /data/model.bin (above)\n"
    )
    assert narrow.stdout == (
        "report 01m7zh4mhr95hy0g0q1gnk-00000006 FINISHED\n"
        "what led to it:\n"
        "└─ train 01m7zh4mhr95hy0g0q1gnk-00000004 FINISHED  made scor…\n"
    )
    assert narrow.stderr == "stopped at hop 1 up: there is more; --depth 0 for all\n"


@pytest.mark.parametrize("limit", [[], ["--limit", "0"]])
def test_json_is_a_line_for_each_task_and_edge_and_one_for_where_it_stopped(
    ids: dict[str, str], provd: Provd, limit: list[str]
) -> None:
    result = provd("lineage", ids["train"][:-1] + "4", "--up", "--json", *limit)

    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert next(line["task"]["task_id"] for line in lines if "task" in line) == ids["train"]
    assert {(line["task"]["activity_id"], line["task"]["hop"]) for line in lines if "task" in line} == {
        ("train", 0),
        ("main", -1),
        ("convert", -1),
    }
    assert {
        "edge": {
            "source": ids["left"],
            "target": ids["train"],
            "kind": "value",
            "key": f"file:{SUM}:/data/left.csv",
        }
    } in lines
    assert lines[-1] == {"tasks": 4, "edges": 3, "stopped_at": []}


def test_an_answer_that_was_cut_says_so(ids: dict[str, str], provd: Provd) -> None:
    table = provd("lineage", ids["train"], "--up", "--limit", "2")
    lines = provd("lineage", ids["train"], "--up", "--limit", "2", "--json")

    assert table.stderr == "stopped after 2 tasks up, at hop 1: there is more; --limit 0 for all\n"
    assert json.loads(lines.stdout.splitlines()[-1]) == {
        "tasks": 3,
        "edges": 2,
        "stopped_at": [{"direction": "up", "hop": 1, "reason": "limit"}],
    }


def test_mermaid(ids: dict[str, str], provd: Provd) -> None:
    result = provd("lineage", ids["report"], "--up", "--depth", "1", "--format", "mermaid")

    lines = result.stdout.splitlines()
    assert lines[:2] == [
        "flowchart TD",
        f'  t0(["report<br/>{ids["report"]}<br/>FINISHED"])',
    ]
    assert f'  t1["evaluate<br/>{ids["evaluate"]}<br/>ERROR"]' in lines
    assert '  t1 ==>|"depends on"| t0' in lines
    assert '  t3 -->|"score #34;one#34; #60;1#62;"| t0' in lines
    assert len(lines) == 8


def test_dot(ids: dict[str, str], provd: Provd) -> None:
    result = provd("lineage", ids["train"], "--up", "--format", "dot")

    lines = result.stdout.splitlines()
    assert (lines[0], lines[-1]) == ("digraph lineage {", "}")
    assert rf'  "{ids["train"]}" [label="train\n{ids["train"]}\nFINISHED", peripheries=2];' in lines
    assert f'  "{ids["main"]}" -> "{ids["train"]}" [label="called", style=dashed];' in lines
    assert f'  "{ids["left"]}" -> "{ids["train"]}" [label="/data/left.csv", style=solid];' in lines


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["01m7zh"], 2, ["fits several tasks", "01m7zh4mhr95hy0g0q1gnk-00000001"]),
        (["01m7zh4mhr95hy0g0q1gnk-0000000x"], 1, ["the nearest is", "01m7zh4mhr95hy0g0q1gnk-0000000"]),
        (["01m7zh", "--format", "svg"], 2, ["'svg'", "tree, json, mermaid, dot"]),
        (["01m7zh", "--json", "--format", "dot"], 2, ["--json"]),
        (["01m7zh", "--kind", "file"], 2, ["'file'", "value, dependency, call"]),
    ],
)
def test_what_cannot_be_answered_says_why(
    ids: dict[str, str], provd: Provd, arguments: list[str], status: int, words: list[str]
) -> None:
    assert ids
    result = provd("lineage", *arguments)

    assert (result.exit_code, result.stdout) == (status, "")
    assert all(word in result.stderr for word in words), result.stderr


def test_a_chain_of_thousands_is_told(store: Store, provd: Provd) -> None:
    """No depth of a lineage is too deep."""
    owner = ProducerBuilder("alpha0000000001", PRODUCER).open()
    last = owner.task("first")
    for _ in range(1_200):
        last = owner.task("next", depends_on=[last])
    owner.write(store)

    result = provd("lineage", last, "--up", "--depth", "0", "--limit", "0")

    assert result.exit_code == 0, result.output
    assert len(result.stdout.splitlines()) == 1_202
