"""`provd tasks` on both stores: filters, conditions, order, fields, formats, and what comes in while one looks."""

from __future__ import annotations

import csv
import io
import json
import signal
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from provd.common import clock
from provd.common.record import Status
from provd.query.follow import TaskFollower
from provd.query.tasks import TaskQuestion
from provd.query.where import parse_where
from provd.store.interface import Store
from tests.builders import START_MS, ProducerBuilder, finished_run
from tests.conftest import RunProvd, StartProvd
from tests.integration.commands import Provd
from tests.services.waiting import wait_until


def lines_of(result: Result) -> list[dict[str, Any]]:
    """The JSON documents that a command printed, one a line."""
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def numbers(found: list[dict[str, Any]]) -> list[int]:
    """The tasks' counters."""
    return [int(task["task_id"].rpartition("-")[2], 16) for task in found]


@pytest.fixture
def sweep(store: Store) -> ProducerBuilder:
    """Six tasks of one run: rates 0.0 to 0.5, accuracies falling, on two hosts and ranks."""
    part = ProducerBuilder("sweep000", "p1", "exp42").open().workflow(Status.RUNNING)
    for number in range(6):
        part.task(
            "train" if number < 4 else "test",
            Status.ERROR if number == 3 else Status.FINISHED,
            after_ms=number * 60_000,
            duration=float(number),
            used={"lr": number / 10, "model.pt": f"m{number}", "name": "adam" if number % 2 else "sgd"},
            generated={"acc": 1 - number / 10} if number != 3 else None,
            hostname=f"node{number % 2}",
            rank=number % 3,
            tags=["even"] if number % 2 == 0 else ["odd", "prime"],
        )
    return part.write(store)


# --- which ones ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ("--where", "campain_id = 'x'"),
            "no field 'campain_id' of a task is known; did you mean campaign_id?",
        ),
        (("--where", "rank = 9 or not used.lr exists and lr = 1"), "did you mean used.lr or generated.lr?"),
        (("--where", "lr['a.b'] = 1"), "no field 'lr' of a task is known"),
        (("-w", "sweep000", "-a", "trian"), "sweep000 has no activity 'trian'; did you mean 'train'?"),
        (("-w", "sweep000", "-a", "inner"), "sweep000 has no activity 'inner'; there are test, train"),
        (("--sort", "nope", "-n", "0"), "no field 'nope' of a task is known"),
    ],
)
@pytest.mark.parametrize("json_too", [False, True])
@pytest.mark.usefixtures("sweep")
def test_a_name_that_no_task_has_is_told_with_the_nearest(
    provd: Provd, options: tuple[str, ...], said: str, json_too: bool
) -> None:
    result = provd("tasks", *options, *(["--json"] if json_too else []))

    assert result.exit_code == 0
    assert said in result.stderr


@pytest.mark.parametrize(
    "options",
    [
        ("--where", "used.zz = 1"),
        ("--where", "rank = 9 and custom_metadata.a = 1"),
        ("-w", "sweep000", "-a", "train", "--host", "none"),
        ("--sort", "generated.acc"),
        ("--sort=-received_at,task_id"),
    ],
)
@pytest.mark.usefixtures("sweep")
def test_nothing_is_said_of_names_that_are_known(provd: Provd, options: tuple[str, ...] | str) -> None:
    result = provd("tasks", *([options] if isinstance(options, str) else options))

    assert result.stderr in ("", "no such tasks\n")


def test_a_field_of_a_later_version_is_not_called_unknown(store: Store, provd: Provd) -> None:
    part = ProducerBuilder("alpha", "p1").open()
    part.task(energy=3)
    part.write(store)

    assert provd("tasks", "--sort", "energy").stderr == ""


def test_a_field_that_no_run_has_is_told_with_the_nearest(store: Store, provd: Provd) -> None:
    finished_run(store)

    for condition, said in (
        ("nam = 'x'", "did you mean name?"),
        ("lr = 7", "did you mean args.lr or code.lr?"),
    ):
        result = provd("runs", "tail", "--where", condition)
        assert result.stderr.startswith("no such runs\nno field ")
        assert said in result.stderr


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["-w", "sweep"], [7, 6, 5, 4, 3, 2]),
        (["--host", "node1"], [7, 5, 3]),
        (["--rank", "2"], [7, 4]),
        (["--tag", "odd", "--tag", "prime"], [7, 5, 3]),
        (["--tag", "even", "--tag", "odd"], []),
        (["--since", "2026-11-20T14:02:00Z", "--until", "2026-11-20T14:04Z"], [5, 4]),
        (["--since", "2h"], []),
        (["--min-duration", "2", "--max-duration", "4s"], [6, 5, 4]),
        (["--where", "used.lr > 0.1 and generated.acc >= 0.6"], [6, 4]),
        (["--where", 'used["model.pt"] = "m4"'], [6]),
        (["--where", "used.name ~ 'da'", "--where", "status = 'ERROR'"], [5]),
        (["--status", "error", "--activity", "train", "--campaign-id", "exp42"], [5]),
        (["--sort", "generated.acc", "-n", "3"], [5, 7, 6]),
        (["--sort=-used.name,used.lr", "--where", "generated.acc exists"], [2, 4, 6, 3, 7]),
    ],
)
def test_tasks_are_found_by_what_people_ask(
    sweep: ProducerBuilder, provd: Provd, options: list[str], expected: list[int]
) -> None:
    assert numbers(lines_of(provd("tasks", "--json", *options))) == expected


@pytest.mark.parametrize(
    ("options", "expected"),
    [(["-n", "1%"], [7]), (["--limit", "50%"], [7, 6, 5]), (["-a", "train", "-n", "26%"], [5, 4]), (["-n", "100%"], [7, 6, 5, 4, 3, 2])],
)  # fmt: skip
def test_a_limit_may_be_a_part_of_all(
    sweep: ProducerBuilder, provd: Provd, options: list[str], expected: list[int]
) -> None:
    result = provd("tasks", "--json", "--sort=-duration", *options)

    assert numbers(lines_of(result)) == expected
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["-n", "0%"], "'0%'"),
        (["-n", "101%"], "'101%'"),
        (["-n=-1"], "0 for all"),
        (["-n", "ten"], "such as 1%"),
        (["-n", "1%", "--follow"], "--follow"),
        (["--where", "used.lr >> 1"], "column 10"),
        (["--since", "yesterdayish"], "--since 'yesterdayish'"),
        (["--min-duration", "5x"], "--min-duration '5x'"),
        (["--format", "xml"], "table, json, csv, parquet"),
        (["--format", "parquet"], "--output"),
        (["--json", "--format", "csv"], "two formats"),
        (["--output", "x.txt"], "--format"),
        (["--output", "/nowhere/at/all.csv"], "/nowhere/at"),
        (["--follow", "--sort", "a"], "--follow"),
        (["--follow", "--format", "csv"], "--follow"),
        (["--follow", "--status", "LOST"], "LOST"),
    ],
)
def test_a_wrong_question_exits_2_and_says_what_is_wrong(
    sweep: ProducerBuilder, provd: Provd, options: list[str], words: str
) -> None:
    result = provd("tasks", *options)

    assert (result.exit_code, result.stdout) == (2, "")
    assert words in result.stderr


# --- LOST is derived -------------------------------------------------------------------------------------------


@pytest.fixture
def running(store: Store) -> None:
    """Two producers with a running task each: one lives, one has fallen silent; and a finished one."""
    now = clock.now_ms()
    for name, silence_ms in (("living", 1_000), ("silent", 300_000)):
        part = ProducerBuilder("w1", f"p-{name}", started_at=now - 400_000).open()
        part.task(name, Status.RUNNING)
        if name == "living":
            part.task("done", after_ms=5)
        part.write(store).beat(store, now - silence_ms)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--status", "LOST"], {"silent": "LOST"}),
        (["--status", "RUNNING"], {"living": "RUNNING"}),
        (["--status", "RUNNING", "--status", "LOST"], {"living": "RUNNING", "silent": "LOST"}),
        (["--status", "LOST", "--status", "FINISHED"], {"done": "FINISHED", "silent": "LOST"}),
        (["--where", "status = 'LOST'"], {"silent": "LOST"}),
        (["--where", "status = 'RUNNING'"], {"living": "RUNNING"}),
        (["--where", "not status = 'RUNNING'"], {"silent": "LOST", "done": "FINISHED"}),
        (["--where", "status in ('LOST', 'FINISHED') and activity_id != 'done'"], {"silent": "LOST"}),
        (["--where", "status ~ 'N'"], {"living": "RUNNING", "done": "FINISHED"}),
        (["--status", "LOST", "--where", "status != 'RUNNING'"], {"silent": "LOST"}),
        (["--fields", "activity_id,status"], {"living": "RUNNING", "silent": "LOST", "done": "FINISHED"}),
    ],
)
def test_every_condition_on_the_status_sees_what_is_lost(
    running: None, provd: Provd, options: list[str], expected: dict[str, str]
) -> None:
    found = lines_of(provd("tasks", "--json", *options))

    assert {task["activity_id"]: task["status"] for task in found} == expected


def test_sorting_by_status_puts_lost_tasks_where_they_read(running: None, provd: Provd) -> None:
    found = lines_of(provd("tasks", "--sort", "status", "--fields", "status", "-n", "2", "--json"))

    assert [task["status"] for task in found] == ["FINISHED", "LOST"]
    assert all(task.keys() == {"status", "task_id"} for task in found)


def test_csv_has_the_derived_status(running: None, provd: Provd) -> None:
    printed = provd("tasks", "--fields", "activity_id,status", "--format", "csv").stdout

    rows = {row["activity_id"]: row["status"] for row in csv.DictReader(io.StringIO(printed))}
    assert rows == {"living": "RUNNING", "silent": "LOST", "done": "FINISHED"}


# --- formats ---------------------------------------------------------------------------------------------------


def test_fields_make_the_columns_of_a_table(sweep: ProducerBuilder, provd: Provd) -> None:
    printed = provd("tasks", "--fields", "used.lr,generated.acc", "--sort=-generated.acc", "-n", "2").stdout

    assert [line.split() for line in printed.splitlines()] == [
        ["used.lr", "generated.acc"],
        ["0", "1"],
        ["0.1", "0.9"],
    ]


@pytest.mark.parametrize("columns", [80, 160])
def test_a_table_of_tasks_fits_its_width(
    sweep: ProducerBuilder, provd: Provd, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))

    printed = provd("tasks", "--where", "used.lr >= 0").stdout

    assert max(map(len, printed.splitlines())) <= columns
    assert "\x1b" not in printed
    assert ("model.pt=m4" in printed) is (columns == 160)


def test_a_file_gets_all_tasks_whole_or_not_at_all(
    sweep: ProducerBuilder, provd: Provd, tmp_path: Path
) -> None:
    pq = pytest.importorskip("pyarrow.parquet")

    for name in ("tasks.csv", "tasks.json", "tasks.parquet"):
        assert provd("tasks", "--output", str(tmp_path / name)).exit_code == 0

    with (tmp_path / "tasks.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row['used["model.pt"]'] for row in rows] == ["m5", "m4", "m3", "m2", "m1", "m0"]
    documents = [json.loads(line) for line in (tmp_path / "tasks.json").read_text().splitlines()]
    assert [task["used"]["lr"] for task in documents] == [0.5, 0.4, 0.3, 0.2, 0.1, 0]
    assert pq.read_table(tmp_path / "tasks.parquet").column("used.lr").to_pylist() == [
        0.5,
        0.4,
        0.3,
        0.2,
        0.1,
        0,
    ]
    assert sorted(file.name for file in tmp_path.iterdir() if file.name.startswith((".", "tasks"))) == [
        "tasks.csv", "tasks.json", "tasks.parquet",
    ]  # fmt: skip


# --- following -------------------------------------------------------------------------------------------------


def followed(store: Store, question: TaskQuestion | None = None) -> TaskFollower:
    return TaskFollower(store, question or TaskQuestion(), lost_after_s=60)


def ids(tasks: list[dict[str, Any]]) -> list[str]:
    return [task["task_id"] for task in tasks]


def test_following_tells_each_state_once_whatever_its_stamp(store: Store) -> None:
    now = clock.now_ms()
    part = ProducerBuilder("w1", "p1", started_at=now)
    first = part.task()
    store.write(part.messages, received_at=now)
    follower = followed(store)
    assert ids(follower.begin(10)) == [first]
    assert follower.look() == []

    # Documents of the same millisecond, one after the other; then one that was stamped before them
    told = []
    for stamp in (now, now, now + 5, now - 20_000):
        task_id = part.task()
        store.write(part.messages[-1:], received_at=stamp)
        assert ids(follower.look()) == [task_id]
        assert follower.look() == []
        told.append(task_id)

    assert len(set(told)) == 4


def test_following_tells_a_task_again_when_it_has_changed(store: Store) -> None:
    now = clock.now_ms()
    part = ProducerBuilder("w1", "p1", started_at=now)
    task_id = part.task(status=Status.RUNNING)
    store.write(part.messages, received_at=now)
    follower = followed(store, TaskQuestion(where=parse_where("used.lr > 0")))
    assert [task["status"] for task in follower.begin(0)] == ["RUNNING"]

    part.task(task_id=task_id)
    store.write(part.messages[-1:], received_at=now)

    assert [(task["task_id"], task["status"]) for task in follower.look()] == [(task_id, "FINISHED")]
    assert follower.look() == []


def test_following_an_empty_store_tells_what_comes(store: Store) -> None:
    follower = followed(store)
    assert follower.begin(10) == []
    assert follower.look() == []

    finished_run(store, failing=0)

    assert len(follower.look()) == 4
    assert follower.look() == []


def test_a_stamp_from_the_future_hides_nothing_that_comes_after_it(store: Store) -> None:
    now = clock.now_ms()
    part = ProducerBuilder("w1", "p1", started_at=now)
    part.task()
    store.write(part.messages, received_at=now + 86_400_000)
    follower = followed(store)
    follower.begin(10)

    task_id = part.task()
    store.write(part.messages[-1:], received_at=now)

    assert ids(follower.look()) == [task_id]


def test_the_command_follows_until_ctrl_c(store: Store, store_url: str, start_provd: StartProvd) -> None:
    now = clock.now_ms()
    part = ProducerBuilder("w1", "p1", started_at=now)
    part.task("before")
    store.write(part.messages, received_at=now)
    child = start_provd("tasks", "--follow", "--json", "--interval", "0.1", "--store", store_url)
    wait_until(lambda: "before" in child.log.read_text(), 30)

    part.task("after")
    store.write(part.messages[-1:], received_at=now)
    wait_until(lambda: "after" in child.log.read_text(), 30)
    child.send(signal.SIGINT)

    wait_until(lambda: not child.is_running, 30)
    assert child.returncode == 130
    told = [
        json.loads(line)["activity_id"] for line in child.log.read_text().splitlines() if line.startswith("{")
    ]
    assert told == ["before", "after"]


def test_following_goes_on_when_the_store_was_away(tmp_path: Path, start_provd: StartProvd) -> None:
    from provd.store.open import open_store

    file = tmp_path / "provd.db"
    store = open_store(f"sqlite:///{file}")
    store.migrate()
    part = ProducerBuilder("w1", "p1", started_at=clock.now_ms())
    part.task("before")
    store.write(part.messages, received_at=clock.now_ms())
    store.close()
    child = start_provd("tasks", "--follow", "--interval", "0.1", "--store", f"sqlite:///{file}")
    wait_until(lambda: "before" in child.log.read_text(), 30)

    file.rename(tmp_path / "elsewhere.db")
    wait_until(lambda: "waiting for it" in child.log.read_text(), 30)
    (tmp_path / "elsewhere.db").rename(file)
    wait_until(lambda: "answers again" in child.log.read_text(), 30)

    with_more = open_store(f"sqlite:///{file}")
    part.task("after")
    with_more.write(part.messages[-1:], received_at=clock.now_ms())
    with_more.close()
    wait_until(lambda: "after" in child.log.read_text(), 30)
    assert child.log.read_text().count("before") == 1
    assert child.log.read_text().count("waiting for it") == 1


# --- provd runs tail -------------------------------------------------------------------------------------------


def test_tail_finds_runs_by_the_status_that_they_read_as(store: Store, provd: Provd) -> None:
    now = clock.now_ms()
    finished_run(store, "degraded", failing=1, started_at=now - 3_600_000 * 5)
    finished_run(store, "fine", failing=0, started_at=now - 3_600_000)
    for name, silence_ms in (("living", 1_000), ("lost", 300_000)):
        part = ProducerBuilder(name, f"p-{name}", started_at=now - 400_000).open()
        part.workflow(Status.RUNNING).write(store).beat(store, now - silence_ms)
    joined = ProducerBuilder("joined", "p-joined", started_at=now - 3_600_000 * 3).open()
    joined.workflow(Status.SUBMITTED).task()
    joined.close().write(store)

    def found(*options: str) -> list[str]:
        return [run["workflow_id"] for run in lines_of(provd("runs", "tail", "--json", *options))]

    assert set(found()) == {"living", "lost", "fine", "joined", "degraded"}
    assert found("--status", "LOST") == ["lost"]
    assert found("--status", "degraded") == ["degraded"]
    assert found("-s", "FINISHED") == ["fine", "joined"]
    assert found("-s", "FINISHED", "-n", "1") == ["fine"]
    assert set(found("--since", "2h")) == {"living", "lost", "fine"}
    assert found("--since", "4h", "-s", "FINISHED", "-s", "DEGRADED") == ["fine", "joined"]
    assert provd("runs", "tail", "--status", "SKIPPED").stderr == "no such runs\n"
    assert provd("runs", "tail", "--status", "GONE").exit_code == 2


def test_tail_finds_the_few_among_many(store: Store, provd: Provd) -> None:
    for number in range(120):
        part = ProducerBuilder(f"run{number:03d}", f"p{number:03d}", started_at=START_MS + number * 1000)
        part.workflow(Status.ERROR if number in (3, 70, 110) else Status.FINISHED).write(store)

    found = lines_of(provd("runs", "tail", "--status", "ERROR", "-n", "2", "--json"))

    assert [run["workflow_id"] for run in found] == ["run110", "run070"]


def test_tail_follows_runs_that_begin_and_end(store: Store, store_url: str, start_provd: StartProvd) -> None:
    now = clock.now_ms()
    part = ProducerBuilder("first", "p1", started_at=now).open().workflow(Status.RUNNING).write(store)
    child = start_provd("runs", "tail", "--follow", "--json", "--interval", "0.1", "--store", store_url)
    wait_until(lambda: "first" in child.log.read_text(), 30)

    finished_run(store, "second", failing=1, started_at=now)
    wait_until(lambda: "DEGRADED" in child.log.read_text(), 30)
    part.workflow(Status.FINISHED).close().write(store)
    wait_until(lambda: '"status":"FINISHED"' in child.log.read_text(), 30)
    child.send(signal.SIGINT)

    wait_until(lambda: not child.is_running, 30)
    assert child.returncode == 130
    told = [json.loads(line) for line in child.log.read_text().splitlines() if line.startswith("{")]
    assert [(run["workflow_id"], run["status"]) for run in told] == [
        ("first", "RUNNING"), ("second", "DEGRADED"), ("first", "FINISHED"),
    ]  # fmt: skip


def test_lines_without_a_terminal_are_plain(store: Store, store_url: str, run_provd: RunProvd) -> None:
    finished_run(store)

    done = run_provd("tasks", "--where", "status = 'ERROR'", "--store", store_url, env={"COLUMNS": "80"})

    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
