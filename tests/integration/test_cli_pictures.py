"""`provd runs compare`, `timeline` and `graph`, on both stores."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from provd.common.record import Status
from provd.query.compare import compare_runs
from provd.query.graph_text import svg
from provd.query.neighbours import VALUE
from provd.query.run_graph import Activity, Arrow, RunGraph, read_graph
from provd.query.timeline import BY_STATUS, read_timeline
from provd.query.timeline_picture import picture
from provd.store.interface import Store
from tests.builders import START_MS, ProducerBuilder, finished_run
from tests.integration.commands import Provd

#: Everything that ends a label somewhere.
NASTY = 'a "b" <c> & \\ #x; ]] -->\n\x1b[31m\ud800 end'
_SVG = "{http://www.w3.org/2000/svg}"


def a_sweep(store: Store, workflow_id: str, *, lr: float = 0.1, failing: int = -1, more: int = 0) -> None:
    """Ten times `prepare`, which calls `train` and hands it a value."""
    part = ProducerBuilder(workflow_id, f"p-{workflow_id}", rank=0).open()
    for number in range(10 + more):
        key = {"type": "provd.Key", "key": f"{workflow_id}-{number}"}
        caller = part.task("prepare", after_ms=1000 * number, duration=0.25, used={"n": number}, generated={"k": key})  # fmt: skip
        failed = number == failing
        part.task(
            "train", Status.ERROR if failed else Status.FINISHED, after_ms=1000 * number + 250, duration=0.5,
            used={"n": number, "lr": 0.5}, generated=None if failed else {"loss": lr * number, "steps": 7},
            parent_task_id=caller,
        )  # fmt: skip
    part.workflow(
        name="sweep", args={"lr": lr, "same": 1}, code={"commit": f"c{lr}", "dirty": False, "branch": "main"},
        environment={"python": "3.11", "packages": {"numpy": f"1.{lr}", "scipy": "1.0"}},
    ).close().write(store)  # fmt: skip


def differences(found: Any) -> dict[str, tuple[Any, Any]]:
    return {one.name: (one.a, one.b) for one in found}


# --- compare -----------------------------------------------------------------------------------------------------


def test_only_what_differs_is_told(store: Store) -> None:
    a_sweep(store, "one", lr=0.1)
    a_sweep(store, "two", lr=0.2, failing=3, more=2)

    found = compare_runs(store, "one", "two")

    assert differences(found.args) == {"lr": (0.1, 0.2)}
    assert differences(found.code) == {"commit": ("c0.1", "c0.2")}
    assert differences(found.environment) == {"packages.numpy": ("1.0.1", "1.0.2")}
    assert differences(found.run) == {"status": ("FINISHED", "DEGRADED")}
    told = {one.activity_id: one for one in found.activities}
    assert told["train"].b is not None
    assert told["train"].b.tasks == {"FINISHED": 11, "ERROR": 1}
    # What was prepared has its run's name in it, and only the first loss is 0 in both.
    assert (found.results.matched, found.results.differing) == (20, 19)
    assert (found.results.only_a, found.results.only_b) == (0, 4)
    assert not found.same


def test_tasks_with_equal_inputs_are_matched_whatever_their_order(store: Store) -> None:
    for name, numbers in (("one", (1, 2, 3, 3, 4)), ("two", (3, 2, 1, 3, 5))):
        part = ProducerBuilder(name, f"p-{name}").open()
        for place, number in enumerate(numbers):
            part.task(used={"b": 1, "n": number} if place % 2 else {"n": number, "b": 1},
                      generated={"x": float("nan") if number == 1 else place if number == 3 else 0})  # fmt: skip
        part.workflow().close().write(store)

    results = compare_runs(store, "one", "two").results

    # 1 and 2 came out alike; of the two 3s one gave 3 in both, the others 2 and 0.
    assert (results.matched, results.differing, results.only_a, results.only_b) == (4, 1, 1, 1)
    (example,) = results.examples
    assert (example.used, example.generated_a, example.generated_b) == ({"n": 3, "b": 1}, {"x": 2}, {"x": 0})


def test_two_equal_runs_are_the_same(store: Store, provd: Provd) -> None:
    for name in ("one", "two"):
        finished_run(store, name)

    assert compare_runs(store, "one", "two").same
    assert "nothing differs but times" in provd("runs", "compare", "one", "two").stdout


def test_with_too_many_tasks_their_results_are_not_compared_and_that_is_said(
    store: Store, provd: Provd, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_sweep(store, "one")
    a_sweep(store, "two")

    found = compare_runs(store, "one", "two", tasks_max=19)

    assert not found.results.compared
    assert not found.same


def test_a_comparison_as_json_and_of_an_unknown_run(store: Store, provd: Provd) -> None:
    a_sweep(store, "one", lr=0.1)
    a_sweep(store, "two", lr=0.2)

    document = json.loads(provd("runs", "compare", "one", "two", "--json").stdout)

    assert document["args"] == [{"part": "args", "name": "lr", "a": 0.1, "b": 0.2}]
    assert document["same"] is False
    assert provd("runs", "compare", "one", "three").exit_code == 1


def test_what_programs_counted_is_compared(store: Store, provd: Provd) -> None:
    for name, rows in (("one", 5), ("two", 7)):
        ProducerBuilder(name, f"p-{name}").open().workflow().close(counts={"rows_in": rows, "same": 1}).write(store)  # fmt: skip

    found = compare_runs(store, "one", "two")

    assert differences(found.counts) == {"rows_in": (5, 7)}
    assert not [one.name for one in found.run if "rows_in" in one.name]
    assert provd("runs", "compare", "one", "two").stdout.count("rows_in") == 1


def test_of_a_result_only_what_differs_is_shown_and_files_by_name_and_checksum(
    store: Store, provd: Provd
) -> None:
    for name, mark in (("one", "1a"), ("two", "2b")):
        file = {"type": "provd.File", "path": "/data/deep/in/model.pt", "size": 5, "sha256": mark * 32}
        result = {"log": "the same " * 10, "model": file}
        part = ProducerBuilder(name, f"p-{name}").open()
        part.task(generated=result)
        part.workflow().close().write(store)

    told = provd("runs", "compare", "one", "two").stdout

    assert "model=model.pt@1a1a1a1a" in told
    assert "model=model.pt@2b2b2b2b" in told
    assert "the same" not in told


# --- timeline ----------------------------------------------------------------------------------------------------


def test_each_span_has_the_share_that_was_worked_in_it(store: Store) -> None:
    part = ProducerBuilder("alpha", "p1", rank=3, hostname="node7").open()
    part.task("a", after_ms=0, duration=2.0)
    part.task("b", after_ms=2500, duration=0.5)
    part.task("b", after_ms=2500, duration=1.5)
    part.write(store)

    found = read_timeline(store, "alpha", spans=4)

    (lane,) = found.lanes
    assert (lane.hostname, lane.rank, lane.tasks, lane.seconds) == ("node7", 3, 3, 4.0)
    assert [round(lane.share(span), 3) for span in range(4)] == [1.0, 1.0, 1.0, 1.0]
    assert [lane.group(span) for span in range(4)] == ["a", "a", "b", "b"]
    assert (found.end - found.start).total_seconds() == 4.0  # type: ignore[operator]


def test_lanes_are_by_host_and_rank_and_those_with_the_most_tasks_are_shown(store: Store) -> None:
    for number, host in enumerate(("node2", "node1", "node1")):
        part = ProducerBuilder("alpha", f"p{number}", hostname=host, rank=2 - number).open()
        for _ in range(number + 1):
            part.task()
        part.write(store)

    everything = read_timeline(store, "alpha", spans=10)
    busiest = read_timeline(store, "alpha", spans=10, lanes=2)

    assert [(lane.hostname, lane.rank) for lane in everything.lanes] == [("node1", 0), ("node1", 1), ("node2", 2)]  # fmt: skip
    assert [lane.producer_id for lane in busiest.lanes] == ["p2", "p1"]
    assert (everything.more, busiest.more) == (0, 1)


def test_many_lanes_have_longer_spans_so_that_memory_is_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    for number in range(5):
        ProducerBuilder("alpha", f"p{number}").open().task()
        part = ProducerBuilder("alpha", f"p{number}").open()
        part.task()
        part.write(store)
    monkeypatch.setattr("provd.query.timeline._CELLS_MAX", 50)

    assert read_timeline(store, "alpha", spans=1000).spans == 10


def test_running_tasks_of_a_silent_producer_are_lost_in_the_timeline_too(store: Store) -> None:
    part = ProducerBuilder("alpha", "p1").open()
    part.task(status=Status.RUNNING)
    part.task("more", after_ms=5000)
    part.write(store).beat(store, START_MS - 10_000_000)

    assert "LOST" in read_timeline(store, "alpha", spans=10, by=BY_STATUS).groups


def test_a_task_that_has_not_ended_is_drawn_up_to_the_last_sign_of_its_run(store: Store) -> None:
    part = ProducerBuilder("alpha", "p1").open()
    part.task(status=Status.RUNNING)
    part.workflow(Status.RUNNING).write(store).beat(store, START_MS + 90_000)

    found = read_timeline(store, "alpha", spans=3)

    assert (found.end - found.start).total_seconds() == 90  # type: ignore[operator]
    assert [round(found.lanes[0].share(span), 3) for span in range(3)] == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("seconds", "marks"),
    [
        (0.25, ["0", "50 ms", "100 ms", "150 ms", "200 ms", "250 ms"]),
        (61.3, ["0", "10 s", "20 s", "30 s", "40 s", "50 s", "60 s"]),
        (10_000.0, ["0", "30 min", "60 min", "90 min", "120 min", "150 min"]),
        (400 * 86400.0, ["0", "50 d", "100 d", "150 d", "200 d", "250 d", "300 d", "350 d", "400 d"]),
        (0.0, ["0"]),
    ],
)
def test_the_axis_of_a_picture_is_marked_with_round_times(
    store: Store, seconds: float, marks: list[str]
) -> None:
    part = ProducerBuilder("alpha", "p1").open()
    part.task("a", duration=seconds)
    part.write(store)

    drawn = ET.fromstring(picture(read_timeline(store, "alpha", spans=10)).encode())

    words = [one.text or "" for one in drawn.findall(f"{_SVG}text")]
    assert words[words.index("0") : -1] == marks


def test_words_of_the_legend_do_not_touch_the_next_box(store: Store) -> None:
    part = ProducerBuilder("alpha", "p1").open()
    part.task(status=Status.ERROR)
    part.task()
    part.write(store)

    drawn = ET.fromstring(picture(read_timeline(store, "alpha", spans=10, by=BY_STATUS)).encode())

    first, second = [
        float(one.get("x", "")) for one in drawn.findall(f"{_SVG}rect") if one.get("y") == "28.00"
    ]
    # A box is 12 wide, its word begins 4 behind it, and a capital takes about nine.
    assert second - first > 16 + 9 * len("ERROR")


def test_a_timeline_is_a_picture_with_whatever_names(store: Store, provd: Provd, tmp_path: Path) -> None:
    part = ProducerBuilder("alpha", "p1", hostname=NASTY).open()
    for number in range(12):
        part.task(f"{number} {NASTY}", after_ms=number * 100)
    part.write(store)
    file = tmp_path / "t.svg"

    for by in ("activity", "status"):
        done = provd("runs", "timeline", "alpha", "--by", by, "--output", str(file))

        assert (done.exit_code, done.stdout) == (0, "")
        root = ET.parse(file).getroot()
        assert root.tag == f"{_SVG}svg"
        assert len(root.findall(f"{_SVG}rect")) > 3
    shown = provd("runs", "timeline", "alpha")
    assert "\x1b" not in shown.stdout
    assert "other" in shown.stdout


def test_wrong_options_of_a_timeline(store: Store, provd: Provd, tmp_path: Path) -> None:
    finished_run(store, "alpha")

    for arguments in (["--by", "colour"], ["-o", "t.png"], ["-o", str(tmp_path / "no" / "t.svg")]):
        done = provd("runs", "timeline", "alpha", *arguments)
        assert done.exit_code == 2, arguments


def test_a_timeline_of_a_run_without_tasks_says_so(store: Store, provd: Provd, tmp_path: Path) -> None:
    ProducerBuilder("alpha", "p1").open().workflow().close().write(store)

    assert provd("runs", "timeline", "alpha").stdout == "no task has begun\n"
    assert provd("runs", "timeline", "alpha", "-o", str(tmp_path / "t.svg")).exit_code == 0
    assert json.loads(provd("runs", "timeline", "alpha", "--json").stdout)["lanes"] == []


# --- graph -------------------------------------------------------------------------------------------------------


def test_arrows_count_calls_and_values_between_activities(store: Store) -> None:
    part = ProducerBuilder("alpha", "p1").open()
    other = ProducerBuilder("beta", "p2").open()
    key = {"type": "provd.File", "path": "/in", "size": 1, "sha256": "0" * 64}
    other.task("elsewhere", generated={"f": key})
    other.write(store)
    first = part.task("prepare", used={"f": key}, generated={"k": {"type": "provd.Key", "key": "x"}})
    for _ in range(3):
        part.task("train", used={"k": {"type": "provd.Key", "key": "x"}}, parent_task_id=first)
    part.task("report", Status.ERROR, depends_on=[first], parent_task_id="alpha")
    part.write(store)

    found = read_graph(store, "alpha")

    assert {(one.source, one.target, one.kind): one.count for one in found.arrows} == {
        ("prepare", "train", "call"): 3,
        ("prepare", "train", "value"): 3,
        ("prepare", "report", "dependency"): 1,
    }
    assert {one.activity_id: dict(one.tasks) for one in found.activities} == {
        "prepare": {"FINISHED": 1}, "train": {"FINISHED": 3}, "report": {"ERROR": 1},
    }  # fmt: skip
    assert (found.from_outside, found.complete) == (1, True)
    assert not read_graph(store, "alpha", pairs_max=2).complete


@pytest.mark.parametrize("form", ["mermaid", "dot", "svg", "json"])
def test_no_name_breaks_out_of_a_graph(store: Store, provd: Provd, tmp_path: Path, form: str) -> None:
    part = ProducerBuilder("alpha", "p1").open()
    first = part.task(NASTY)
    part.task(NASTY, parent_task_id=first)
    part.task("plain", parent_task_id=first)
    part.write(store)

    done = provd("runs", "graph", "alpha", "--format", form)

    assert done.exit_code == 0, done.output
    assert "\x1b" not in done.stdout
    if form == "svg":
        assert ET.fromstring(done.stdout.encode()).tag == f"{_SVG}svg"
    elif form == "json":
        assert len(json.loads(done.stdout)["activities"]) == 2
    elif form == "mermaid":
        # Two nodes and two arrows, each on a line of its own; quotes of names are written as codes.
        assert [line.count('"') for line in done.stdout.splitlines()] == [0, 2, 2, 2, 2]
    else:
        assert len(done.stdout.splitlines()) == 3 + 2 + 2
        assert '\\"b\\" <c> & \\\\ #x' in done.stdout


def test_what_the_lines_mean_fits_under_the_smallest_graph(store: Store, provd: Provd) -> None:
    part = ProducerBuilder("a", "p1").open()
    part.task("t")
    part.write(store)

    drawn = ET.fromstring(provd("runs", "graph", "a", "--format", "svg").stdout.encode())

    longest = max(len(one.text or "") for one in drawn.findall(f"{_SVG}text"))
    assert float(drawn.get("width", "")) > 24 + 6 * longest


def test_an_arrow_past_an_activity_goes_round_it() -> None:
    chain = ("load", "clean", "train")
    arrows = (("load", "clean"), ("clean", "train"), ("load", "train"))
    graph = RunGraph(
        "alpha",
        tuple(Activity(name, {"FINISHED": 1}) for name in chain),
        tuple(Arrow(source, target, VALUE, 1) for source, target in arrows),
        from_outside=0,
        complete=True,
    )

    drawn = ET.fromstring(svg(graph).encode())

    *_, past = [one.get("d", "") for one in drawn.findall(f"{_SVG}path")]
    xs = [float(place) for place in re.findall(r"[\d.-]+", past)][::2]
    reach = (xs[0] + 3 * xs[1] + 3 * xs[2] + xs[3]) / 8
    box = next(one for one in drawn.findall(f"{_SVG}rect") if "clean" in "".join(one.itertext()))
    assert 0 < reach < float(box.get("x", ""))


def test_one_is_not_several(store: Store, provd: Provd) -> None:
    part = ProducerBuilder("alpha", "p1").open()
    outer = part.task("a")
    part.task("b", parent_task_id=outer)
    for _ in range(2):
        part.task("c", parent_task_id=outer)
    part.write(store)

    drawn = provd("runs", "graph", "alpha").stdout

    assert '"1 call"' in drawn
    assert '"2 calls"' in drawn


def test_circles_end_and_the_file_name_says_the_format(store: Store, provd: Provd, tmp_path: Path) -> None:
    part = ProducerBuilder("alpha", "p1").open()
    last = part.task("a")
    for name in ("b", "c", "a", "b"):
        last = part.task(name, parent_task_id=last)
    part.write(store)

    for name, beginning in (
        ("g.svg", "<?xml"),
        ("g.dot", "digraph"),
        ("g.mmd", "flowchart"),
        ("g.json", "{"),
    ):
        assert provd("runs", "graph", "alpha", "-o", str(tmp_path / name)).exit_code == 0
        assert (tmp_path / name).read_text().startswith(beginning)
    assert provd("runs", "graph", "alpha", "--format", "png").exit_code == 2
    for name in ("g.png", "g"):
        refused = provd("runs", "graph", "alpha", "-o", str(tmp_path / name))
        assert refused.exit_code == 2
        assert ".svg, .dot, .gv, .mmd" in refused.stderr
        assert not (tmp_path / name).exists()
    assert provd("runs", "graph", "alpha", "-o", str(tmp_path / "g"), "--format", "dot").exit_code == 0
    assert provd("runs", "graph", "alpha", "--json", "--format", "dot").exit_code == 2


# --- show --------------------------------------------------------------------------------------------------------


def test_show_names_the_hosts_where_there_are_several(store: Store, provd: Provd) -> None:
    for rank in range(11):
        ProducerBuilder("alpha", f"p{rank}", hostname=f"node{rank:02d}", rank=rank).open().write(store)

    assert "hosts    11: node00, node01" in provd("runs", "show", "alpha").stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("runs", "tail"), ("runs", "show", "w1"), ("runs", "timeline", "w1"), ("runs", "graph", "w1"), ("tasks",),
        ("lineage", "p1-1"), ("runs", "compare", "w1", "w1"),
    ],
)  # fmt: skip
def test_a_name_with_line_ends_stays_on_its_line(
    store: Store, provd: Provd, arguments: tuple[str, ...]
) -> None:
    name = "one\n\u202etwo\r\n\u2028three"
    part = ProducerBuilder("w1", "p1").open()
    part.task(name, Status.ERROR, stderr=f"{name}: no", task_id="p1-1")
    part.workflow(name=name).close().write(store)

    result = provd(*arguments)

    assert result.exit_code == 0, result.output
    assert not any(
        line.lstrip().startswith(("two", "\ufffdtwo", "three")) for line in result.stdout.splitlines()
    )
    assert "\u202e" not in result.stdout
    assert "\u2028" not in result.stdout


def test_names_of_any_length_are_cut_in_labels(store: Store, provd: Provd) -> None:
    long = "x" * 3000
    part = ProducerBuilder("w1", "p1").open()
    first = part.task(long, generated={"k": {"type": "provd.Key", "key": "a"}})
    part.task(f"{long}y", used={"k": {"type": "provd.Key", "key": "a"}}, parent_task_id=first)
    part.workflow().close().write(store)

    pictures = [
        provd(*command, "--format", form).stdout
        for command in (("runs", "graph", "w1"), ("lineage", first, "--down"))
        for form in ("mermaid", "dot")
    ]
    pictures += [svg(read_graph(store, "w1")), picture(read_timeline(store, "w1", spans=100))]
    pictures += [provd("runs", "timeline", "w1").stdout]

    for drawn in pictures:
        assert "x" * 20 in drawn
        assert "x" * 201 not in drawn
