"""The commands that read, on both stores: what they print, and how they exit."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from provd.common import clock
from provd.common.record import Status
from provd.store.interface import Store
from tests.builders import START_MS, ProducerBuilder, finished_run
from tests.conftest import RunProvd
from tests.integration.commands import Provd


def lines_of(result: Result) -> list[dict[str, Any]]:
    """The JSON documents that a command printed, one a line."""
    assert result.exit_code in (0, 1), result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


# --- provd runs tail -------------------------------------------------------------------------------------------


def test_tail_lists_runs_with_tasks_by_status_the_latest_first(store: Store, provd: Provd) -> None:
    finished_run(store, "older", failing=0)
    finished_run(store, "newer", failing=2, started_at=START_MS + 60_000)

    newer, older = lines_of(provd("runs", "tail", "--json"))

    assert (newer["workflow_id"], newer["status"], newer["tasks"]) == (
        "newer",
        "DEGRADED",
        {"FINISHED": 4, "ERROR": 2},
    )
    assert (older["workflow_id"], older["status"], older["tasks"]) == ("older", "FINISHED", {"FINISHED": 4})
    assert older["started_at"] == "2026-11-20T14:00:00.000Z"
    assert older["ended_at"] == "2026-11-20T14:00:12.340Z"
    assert older["duration"] == 12.34


def test_tail_keeps_to_a_campaign_and_a_number(store: Store, provd: Provd) -> None:
    for number in range(3):
        finished_run(store, f"run{number}", started_at=START_MS + number, campaign_id="one")
    finished_run(store, "other", started_at=START_MS + 9, campaign_id="two")

    listed = lines_of(provd("runs", "tail", "--campaign-id", "one", "-n", "2", "--json"))

    assert [run["workflow_id"] for run in listed] == ["run2", "run1"]


def test_tail_derives_a_run_without_an_owner_from_its_producers(store: Store, provd: Provd) -> None:
    for rank in range(2):
        part = ProducerBuilder(
            "joined", f"p{rank}", rank=rank, world_size=2, started_at=START_MS + rank * 1000
        )
        part.open().workflow(Status.SUBMITTED, name="ddp").task()
        part.close(Status.FINISHED if rank else Status.ERROR).write(store)

    (run,) = lines_of(provd("runs", "tail", "--json"))

    assert (run["status"], run["name"], run["producers"]) == ("ERROR", "ddp", 2)
    assert run["started_at"] == "2026-11-20T14:00:00.000Z"
    assert run["ended_at"] == "2026-11-20T14:00:13.000Z"
    assert run["duration"] == 13.0


def test_tail_tells_the_lost_from_the_living_by_their_beats(store: Store, provd: Provd) -> None:
    now = clock.now_ms()
    for name, silence_ms in (("living", 5_000), ("lost", 300_000)):
        part = ProducerBuilder(name, f"p-{name}", started_at=now - 400_000).open()
        part.workflow(Status.RUNNING).write(store).beat(store, now - silence_ms)

    statuses = {run["workflow_id"]: run["status"] for run in lines_of(provd("runs", "tail", "--json"))}

    assert statuses == {"living": "RUNNING", "lost": "LOST"}


def test_tail_asks_the_store_as_often_for_many_runs_as_for_few(store: Store) -> None:
    from provd.query.runs import list_runs

    for number in range(12):
        finished_run(store, f"run{number:02d}", started_at=START_MS + number)
    counting: Any = CountingStore(store)

    list_runs(counting, limit=2)
    few = counting.questions
    list_runs(counting, limit=12)

    assert few == counting.questions - few


def test_tail_of_an_empty_store_says_so_and_succeeds(provd: Provd) -> None:
    result = provd("runs", "tail")

    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "no runs yet\n")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--where", "args.a = 7"), "no such runs\n"),
        (("--since", "2027-01-01"), "no such runs\n"),
        (("--where", "args.a = 7", "--campaign-id", "exp42"), "no such runs in campaign exp42\n"),
        (("--campaign-id", "exp43"), "no runs in campaign exp43\n"),
    ],
)
def test_tail_that_finds_none_of_the_runs_there_are_says_so(
    store: Store, provd: Provd, options: tuple[str, ...], said: str
) -> None:
    finished_run(store)

    result = provd("runs", "tail", *options)

    assert (result.exit_code, result.stdout, result.stderr) == (0, "", said)


@pytest.mark.parametrize("columns", [80, 200])
def test_the_list_of_runs_fits_its_width(
    store: Store, provd: Provd, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    finished_run(store, name="a name that is much too long for any table to show it in full" * 2)
    finished_run(store, "a-given-id-that-is-rather-long-2026-11-20", started_at=START_MS + 5)
    monkeypatch.setenv("COLUMNS", str(columns))

    result = provd("runs", "tail")

    assert max(map(len, result.stdout.splitlines())) <= columns
    assert "DEGRADED" in result.stdout
    assert "alpha0000000001" in result.stdout


# --- which run -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["alpha0000000001", "alph", "sweep", "last"])
def test_a_run_is_named_by_id_prefix_name_or_last(store: Store, provd: Provd, text: str) -> None:
    finished_run(store)
    finished_run(store, "beta", name="other", started_at=START_MS - 1000)

    (books,) = lines_of(provd("runs", "verify", text, "--json"))

    assert books["workflow_id"] == "alpha0000000001"


def test_a_prefix_of_several_runs_lists_them_and_exits_2(store: Store, provd: Provd) -> None:
    finished_run(store, "alpha1")
    finished_run(store, "alpha2")

    result = provd("runs", "show", "alpha")

    assert result.exit_code == 2
    assert result.stdout == ""
    assert "fits 2 runs" in result.stderr
    assert "alpha1" in result.stderr
    assert "alpha2" in result.stderr


def test_an_exact_id_wins_over_longer_ones(store: Store, provd: Provd) -> None:
    finished_run(store, "alpha")
    finished_run(store, "alpha2")

    assert lines_of(provd("runs", "show", "alpha", "--json"))[0]["workflow_id"] == "alpha"


def test_an_unknown_run_exits_1_and_names_the_nearest(store: Store, provd: Provd) -> None:
    finished_run(store)

    result = provd("runs", "show", "alpa0000000001")

    assert result.exit_code == 1
    assert "'alpha0000000001'" in result.stderr


def test_a_run_is_known_before_its_workflow_record_arrives(store: Store, provd: Provd) -> None:
    part = ProducerBuilder("orphan", "p1").open()
    part.task()
    part.write(store)

    (shown,) = lines_of(provd("runs", "show", "orphan", "--json"))

    assert shown["tasks"] == {"FINISHED": 1}


# --- provd runs show -------------------------------------------------------------------------------------------


def test_show_gives_everything_about_a_run_as_one_object(store: Store, provd: Provd) -> None:
    finished_run(store, failing=1)

    (run,) = lines_of(provd("runs", "show", "last", "--json"))

    assert run["status"] == "DEGRADED"
    assert run["args"] == {"lr": 0.1}
    assert run["code"]["dirty"] is True
    assert run["environment"]["scheduler"] == {"name": "slurm", "job_id": "1234"}
    (producer,) = run["producers"]
    assert (producer["hostname"], producer["status"], producer["messages"], producer["tasks"]) == (
        "node01", "FINISHED", 9, 5,
    )  # fmt: skip
    evaluate, train = run["activities"]
    assert (evaluate["activity_id"], evaluate["tasks"]) == ("evaluate", {"ERROR": 1})
    assert train["durations"] == pytest.approx({"mean": 0.25, "median": 0.25, "p95": 0.385, "max": 0.4})
    assert run["complete"] is True
    assert run["verdict"] == "complete: all 9 messages of 1 producer stored"


def test_show_names_the_parent_of_a_run_and_its_child_runs(store: Store, provd: Provd) -> None:
    finished_run(store, "outer", name="outer")
    for number in range(12):
        inner = ProducerBuilder(f"inner{number:02d}", f"p{number}", started_at=START_MS + number).open()
        inner.workflow(name="fold", parent_workflow_id="outer")
        inner.task("train", Status.ERROR if number == 11 else Status.FINISHED)
        inner.close().write(store)

    (outer,) = lines_of(provd("runs", "show", "outer", "--json"))
    above, below = provd("runs", "show", "outer").stdout, provd("runs", "show", "inner03").stdout

    assert [child["workflow_id"] for child in outer["children"]] == [
        f"inner{number:02d}" for number in reversed(range(12))
    ]
    assert (outer["children"][0]["status"], outer["children"][1]["tasks"]) == ("DEGRADED", {"FINISHED": 1})
    assert "more_children" not in outer
    assert "child runs" in above
    assert ("inner11" in above, "inner02" in above, "inner01" in above) == (True, True, False)
    assert "and 2 more: `provd runs tail -n 0 --where \"parent_workflow_id = 'outer'\"`" in above
    assert ["parent", "outer"] in [line.split() for line in below.splitlines()]
    assert "child runs" not in below


def test_show_counts_the_child_runs_that_it_does_not_describe(
    store: Store, provd: Provd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("provd.query.summary.CHILDREN", 2)
    finished_run(store, "outer")
    for number in range(5):
        inner = ProducerBuilder(f"inner{number}", f"p{number}", started_at=START_MS + number).open()
        inner.workflow(parent_workflow_id="outer").close().write(store)

    (outer,) = lines_of(provd("runs", "show", "outer", "--json"))

    assert [child["workflow_id"] for child in outer["children"]] == ["inner4", "inner3"]
    assert outer["more_children"] == 3
    assert "and 3 more" in provd("runs", "show", "outer").stdout


def test_show_groups_errors_by_where_they_were_raised_with_one_example(store: Store, provd: Provd) -> None:
    finished_run(store, failing=4)

    (run,) = lines_of(provd("runs", "show", "last", "--json"))

    groups = [(error["activity_id"], error["message"], error["count"]) for error in run["errors"]]
    assert groups == [("evaluate", "ValueError: loss is nan", 4)]
    assert [(error["exception"], error["frame"]) for error in run["errors"]] == [("ValueError", "train.py:7")]
    assert all("train.py" in error["traceback"] for error in run["errors"])


def test_the_page_of_a_run_reads_well_at_80_columns(store: Store, provd: Provd) -> None:
    finished_run(store)

    result = provd("runs", "show", "last")

    assert max(map(len, result.stdout.splitlines())) <= 80
    for text in (
        "ada@login1", "python sweep.py --lr 0.1", "0123456789ab (with uncommitted changes)", "lr=0.1",
        "name=slurm job_id=1234", "evaluate: ValueError: loss is nan", 'File "train.py", line 7',
        "complete: all 9 messages",
    ):  # fmt: skip
        assert text in result.stdout


# --- provd runs verify -----------------------------------------------------------------------------------------


def test_verify_exits_0_when_all_is_stored(store: Store, provd: Provd) -> None:
    finished_run(store)

    result = provd("runs", "verify", "last", "--json")

    assert result.exit_code == 0
    (books,) = lines_of(result)
    assert {key: books[key] for key in ("complete", "produced", "stored", "missing", "unclosed", "missing_ranks")} == {
        "complete": True, "produced": 9, "stored": 9, "missing": 0, "unclosed": [], "missing_ranks": [],
    }  # fmt: skip


def test_verify_exits_1_and_names_the_gaps_as_ranges(store: Store, provd: Provd) -> None:
    part = ProducerBuilder("holed", "p1", rank=0, world_size=3).open().workflow(Status.RUNNING)
    for _ in range(10):
        part.task()
    part.write(store, without=(4, 5, 6, 9))

    as_json, as_text = provd("runs", "verify", "holed", "--json"), provd("runs", "verify", "holed")

    assert (as_json.exit_code, as_text.exit_code) == (1, 1)
    (books,) = lines_of(as_json)
    assert (books["produced"], books["stored"], books["missing"]) == (12, 8, 4)
    assert (books["unclosed"], books["missing_ranks"]) == (["p1"], [1, 2])
    assert books["producers"][0]["missing"] == [[4, 6], [9, 9]]
    assert "p1: missing 4-6, 9" in as_text.stdout
    assert "ranks never seen: 1-2" in as_text.stdout
    assert "1 producer not closed" in " ".join(as_text.stdout.split())


# --- provd tasks and provd query -------------------------------------------------------------------------------


def test_tasks_are_found_by_run_activity_and_status(store: Store, provd: Provd) -> None:
    finished_run(store, failing=2)
    finished_run(store, "beta")

    found = lines_of(provd("tasks", "-w", "alpha", "--activity", "evaluate", "--status", "error", "--json"))

    assert [task["task_id"][-8:] for task in found] == ["00000007", "00000006"]
    assert {task["workflow_id"] for task in found} == {"alpha0000000001"}
    assert found[0]["started_at"] == "2026-11-20T14:00:00.500Z"


def test_tasks_come_latest_first_and_say_when_there_are_more(store: Store, provd: Provd) -> None:
    finished_run(store)

    result = provd("tasks", "--activity", "train", "--limit", "2", "--json")

    assert [task["duration"] for task in lines_of(result)] == [0.4, 0.3]
    assert "only the first 2 rows shown" in result.stderr
    assert "only the first row shown: there" in provd("tasks", "--limit", "1").stderr
    assert provd("tasks", "--activity", "train", "--limit", "4").stderr == ""


def test_a_wide_table_of_tasks_shows_values_and_errors(
    store: Store, provd: Provd, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished_run(store)
    monkeypatch.setenv("COLUMNS", "140")

    printed = provd("tasks").stdout

    assert "lr=0.1 epochs=3" in printed
    assert "loss=0.5" in printed
    assert "ValueError: loss is nan" in printed


def test_a_query_takes_filter_fields_sort_and_limit(store: Store, provd: Provd) -> None:
    finished_run(store)
    wanted = '{"used.lr": {"$lte": 0.1}, "started_at": {"$gte": {"$date": "2026-11-20T14:00:00.100Z"}}}'

    found = lines_of(
        provd(
            "query",
            "tasks",
            wanted,
            "--fields",
            "duration,used.lr",
            "--sort",
            "-duration",
            "-n",
            "2",
            "--json",
        )
    )

    assert [(task["duration"], task["used"]) for task in found] == [(0.4, {"lr": 0.1}), (0.3, {"lr": 0.1})]


def test_a_query_shows_a_table_of_the_fields_asked_for(store: Store, provd: Provd) -> None:
    finished_run(store)

    result = provd(
        "query", "tasks", '{"activity_id": "train"}', "--fields", "used.lr,duration", "--sort", "duration"
    )

    assert [line.split() for line in result.stdout.splitlines()] == [
        ["used.lr", "duration"], ["0.1", "0.1"], ["0.1", "0.2"], ["0.1", "0.3"], ["0.1", "0.4"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["query", "tasks", '{"a": }'], "column 7"),
        (["query", "task"], "'tasks'"),
        (["query", "tasks", "{}", "--sort", "--a"], "sort"),
        (["query", "tasks", '{"$where": "1"}'], "$where"),
        (["tasks", "--status", "FAILED"], "FAILED"),
        (["tasks", "--limit", "-1"], "limit"),
        (["runs", "show"], "RUN"),
        (["nonsense"], "nonsense"),
    ],
)
def test_a_wrong_question_exits_2_and_says_what_is_wrong(provd: Provd, args: list[str], words: str) -> None:
    result = provd(*args)

    assert result.exit_code == 2
    assert words in result.stderr
    assert result.stdout == ""


def test_a_field_that_none_has_is_named(store: Store, provd: Provd) -> None:
    finished_run(store)

    for asked in (["tasks"], ["query", "tasks"]):
        done = provd(*asked, "--fields", "activity_id,used.lrr")

        assert (done.exit_code, done.stderr) == (0, "none of these has a value of used.lrr\n")


def test_a_wrong_number_is_named_in_few_words(provd: Provd) -> None:
    done = provd("tasks", "--rank", "x")

    assert done.exit_code == 2
    assert "'--rank': it should be a valid integer, not 'x'; see" in done.stderr


# --- a process of its own --------------------------------------------------------------------------------------


def test_the_command_works_in_a_process_of_its_own(store: Store, store_url: str, run_provd: RunProvd) -> None:
    finished_run(store)

    done = run_provd("runs", "tail", "--store", store_url, env={"COLUMNS": "80"})

    assert (done.returncode, done.stderr) == (0, "")
    assert "alpha0000000001" in done.stdout
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_a_full_disk_under_the_output_is_said_in_one_line(
    store: Store, store_url: str, clean_env: Path, form: tuple[str, ...]
) -> None:
    finished_run(store)
    command = [sys.executable, "-m", "provd", "tasks", "--store", store_url, *form]

    with open("/dev/full", "w") as full:
        done = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=60
        )

    assert done.returncode == 1
    assert done.stderr == "provd: the output cannot be written: No space left on device\n"


class CountingStore:
    """A store that counts the questions it is asked, and passes them on."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.questions = 0

    def __getattr__(self, name: str) -> Any:
        self.questions += 1
        return getattr(self._store, name)


def test_a_narrow_list_of_tasks_still_says_what_failed(
    store: Store, store_url: str, run_provd: RunProvd
) -> None:
    finished_run(store)

    done = run_provd("tasks", "--status", "ERROR", "--store", store_url, env={"COLUMNS": "80"})

    assert "What failed" in done.stdout
    assert "ValueError: loss is nan" in done.stdout
