"""`provd.query.connect`: what a program, or a notebook, asks of a store; on both stores."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import polars as pl
import pyarrow.parquet as pq
import pytest

import provd
from provd.common import names
from provd.common.errors import Ambiguous, NotFound, StoreUnavailable, UsageError
from provd.common.record import Status
from provd.query import Connection, notebook
from provd.query.run_search import RunFollower, RunQuestion, parse_run_where
from provd.store.interface import Store
from tests.builders import START_MS, ProducerBuilder, finished_run

#: What a notebook's table is made of.
_TABLE_TAGS = {"div", "table", "caption", "thead", "tbody", "tr", "th", "td"}


@pytest.fixture
def books(store: Store, store_url: str) -> Iterator[Connection]:
    """The test's store, as a program opens it."""
    with provd.query.connect(store_url) as connection:
        yield connection


def test_a_run_is_found_as_the_commands_find_it(store: Store, books: Connection) -> None:
    finished_run(store, "alpha1", name="sweep")
    finished_run(store, "alpha2", name="other", started_at=START_MS + 1000)

    assert books.run().workflow_id == "alpha2"
    assert books.run("sweep").workflow_id == books.run("alpha1").workflow_id == "alpha1"
    with pytest.raises(Ambiguous):
        books.run("alpha")
    with pytest.raises(NotFound):
        books.run("beta")


def test_a_run_tells_its_facts(store: Store, books: Connection) -> None:
    finished_run(store, "alpha")

    run = books.run("alpha")

    assert (run.name, run.campaign_id, run.status, run.duration) == ("sweep", "exp42", "DEGRADED", 12.34)
    assert run.task_counts == {"FINISHED": 4, "ERROR": 1}
    assert (run.args, run.code["commit"]) == ({"lr": 0.1}, "0123456789abcdef")
    assert run.environment["scheduler"]["job_id"] == "1234"
    assert run.record["user"] == "ada"
    assert run.verify().complete
    assert run.summary().errors[0].count == 1
    assert run == books.run("last")


def test_a_run_knows_its_parent_and_its_children(store: Store, books: Connection) -> None:
    finished_run(store, "outer")
    for number in range(2):
        part = ProducerBuilder(f"inner{number}", f"p{number}", started_at=START_MS + number).open()
        part.workflow(parent_workflow_id="outer").close().write(store)

    outer, inner = books.run("outer"), books.run("inner0")

    assert [run.workflow_id for run in outer.children()] == ["inner1", "inner0"]
    assert (outer.parent_workflow_id, inner.parent_workflow_id) == (None, "outer")
    assert len(inner.children()) == 0


def test_runs_are_a_list_the_latest_first_and_a_table(store: Store, books: Connection) -> None:
    for number in range(3):
        finished_run(store, f"run{number}", started_at=START_MS + number, campaign_id="one")
    finished_run(store, "other", campaign_id="two")

    runs = books.runs(campaign_id="one", limit=2)

    assert [run.workflow_id for run in runs] == ["run2", "run1"]
    assert (runs[-1].workflow_id, len(runs[:1])) == ("run1", 1)
    frame = runs.to_pandas()
    assert list(frame["workflow_id"]) == ["run2", "run1"]
    assert list(frame["tasks.FINISHED"]) == [4, 4]


def test_runs_are_asked_for_by_status_and_start(store: Store, books: Connection) -> None:
    finished_run(store, "good", failing=0)
    finished_run(store, "bad", failing=1, started_at=START_MS + 60_000)

    assert [run.workflow_id for run in books.runs(status="DEGRADED")] == ["bad"]
    assert [run.workflow_id for run in books.runs(since="2026-11-20T14:00:30Z")] == ["bad"]
    assert len(books.runs(status=["FINISHED", "degraded"])) == 2
    with pytest.raises(UsageError):
        books.runs(status="EROR")


def test_runs_are_asked_for_by_what_their_records_say(store: Store, books: Connection) -> None:
    finished_run(store, "alpha", failing=0)
    finished_run(store, "beta", failing=1, started_at=START_MS + 60_000)
    ProducerBuilder("ownerless", "p9").open().write(store)

    assert [run.workflow_id for run in books.runs("code.commit ~ '0123456'")] == ["beta", "alpha"]
    assert [run.workflow_id for run in books.runs({"args.lr": 0.1}, status="DEGRADED")] == ["beta"]
    assert [run.workflow_id for run in books.runs("args.lr = 0.1", limit=1)] == ["beta"]
    assert not books.runs("code.commit ~ 'fedcba'")
    with pytest.raises(UsageError, match="column 11"):
        books.runs("args.lr = = 1")
    for where in ("args.lr = 0.1 and not status = 'LOST'", {"$or": [{"status": "ERROR"}]}):
        with pytest.raises(UsageError, match="derived"):
            books.runs(where)


@pytest.mark.parametrize(
    ("question", "count"),
    [
        ({}, 5),
        ({"where": "used.lr > 0.01 and duration >= 0.3"}, 2),
        ({"where": {"duration": {"$gte": 0.3}}}, 2),
        ({"activity": "evaluate"}, 1),
        ({"status": "error"}, 1),
        ({"status": ["ERROR", "FINISHED"]}, 5),
        ({"host": "node01"}, 5),
        ({"host": "node02"}, 0),
        ({"min_duration": 0.2, "max_duration": 0.3}, 2),
        ({"since": "2026-11-20T14:00:00.300Z"}, 2),
        ({"limit": 3}, 3),
    ],
)
def test_tasks_are_asked_for_as_the_commands_ask(
    store: Store, books: Connection, question: dict[str, Any], count: int
) -> None:
    finished_run(store, "alpha")
    finished_run(store, "beta", started_at=START_MS + 60_000)

    tasks = books.run("alpha").tasks(**question)

    assert {task["workflow_id"] for task in tasks} <= {"alpha"}
    assert len(list(tasks)) == tasks.count() == count


def test_tasks_are_sorted_and_cut_as_asked(store: Store, books: Connection) -> None:
    finished_run(store, "alpha")
    tasks = books.run("alpha").tasks(sort="-duration", fields="duration", limit=2)

    assert [task["duration"] for task in tasks] == [0.4, 0.3]
    assert set(next(iter(tasks))) == {"task_id", "duration"}
    first = tasks.sorted("duration").first()
    assert first is not None
    assert first["duration"] == 0.01


def test_a_task_whose_producer_fell_silent_reads_and_is_found_as_lost(
    store: Store, books: Connection
) -> None:
    silent = ProducerBuilder("alpha", "p1").open()
    silent.task(status=Status.RUNNING)
    silent.write(store).beat(store, START_MS + 1)

    for fields in (None, "status", "activity_id,status"):
        (task,) = books.run("alpha").tasks(status="LOST", fields=fields)
        assert task["status"] == "LOST"
    assert books.run("alpha").tasks(status="RUNNING").count() == 0


def test_each_loop_asks_anew(store: Store, books: Connection) -> None:
    part = ProducerBuilder("alpha", "p1").open().workflow()
    part.task()
    part.write(store)
    tasks = books.run("alpha").tasks()
    assert len(list(tasks)) == 1

    part.task()
    part.write(store)

    assert len(list(tasks)) == 2


def test_every_form_of_a_table_holds_the_same(store: Store, books: Connection, tmp_path: Path) -> None:
    part = ProducerBuilder("alpha", "p1").open().workflow()
    part.task(used={"lr": 1, "model.pt": "a"}, generated={"acc": 0.5, "ok": True, "loss": [1, 2.5]})
    part.task(used={"lr": 0.1}, generated={"acc": None, "steps": 3, "loss": []})
    part.task(used={"lr": math.nan}, generated={"note": "=1+1", "steps": "many"})
    part.write(store)
    tasks = books.run("alpha").tasks(sort="task_id")
    written = tasks.to_parquet(tmp_path / "t.parquet")
    tasks.to_csv(tmp_path / "t.csv")

    table = tasks.to_arrow()

    assert table.column('used["model.pt"]').to_pylist() == ["a", None, None]
    assert table.column("generated.acc").to_pylist() == [0.5, None, None]
    assert table.column("generated.steps").to_pylist() == [None, "3", '"many"']
    assert table.column("generated.loss").to_pylist() == [[1.0, 2.5], [], None]
    assert math.isnan(table.column("used.lr")[2].as_py())
    read = pq.read_table(tmp_path / "t.parquet")
    assert read.schema.equals(table.schema)
    assert repr(read.to_pylist()) == repr(table.to_pylist())
    assert written.columns == tuple(table.column_names)
    pandas = tasks.to_pandas()
    assert list(pandas.columns) == table.column_names
    assert str(pandas["generated.ok"].dtype) == "boolean"
    polars = tasks.to_polars()
    assert polars.columns == table.column_names
    assert polars["generated.acc"].to_list() == [0.5, None, None]
    assert polars["started_at"].dtype == pl.Datetime("ms", "UTC")
    header, *lines = (tmp_path / "t.csv").read_bytes().decode().split("\r\n")
    assert 'used[""model.pt""]' in header
    assert len(lines) == 4


def test_tasks_of_a_campaign_are_asked_for_over_its_runs(store: Store, books: Connection) -> None:
    finished_run(store, "alpha", campaign_id="one")
    finished_run(store, "beta", campaign_id="one")
    finished_run(store, "gamma", campaign_id="two")

    assert books.tasks(campaign_id="one", activity="train").count() == 8
    assert {task["workflow_id"] for task in books.tasks(campaign_id="one")} == {"alpha", "beta"}


def test_lineage_is_asked_of_a_run(store: Store, books: Connection) -> None:
    part = ProducerBuilder("alpha", "p1").open()
    parent = part.task("fit")
    child = part.task("step", parent_task_id=parent)
    part.write(store)

    lineage = books.run("alpha").lineage(child)

    assert {node.task_id for node in lineage.nodes} == {parent, child}
    assert books.lineage(parent, up=False, down=True).nodes[-1].task_id == child


def test_a_run_is_exported_from_a_program(store: Store, books: Connection, tmp_path: Path) -> None:
    finished_run(store, "alpha")

    assert books.run("alpha").export(tmp_path / "a.jsonl")["tasks"] == 5
    assert books.run("alpha").export(tmp_path / "a", "csv")["tasks"] == 5
    with pytest.raises(UsageError, match="csv, parquet"):
        books.run("alpha").export(tmp_path / "a.txt")


@pytest.mark.parametrize(
    "question",
    [{"where": "used.lr >"}, {"status": "EROR"}, {"since": "yesteryear"}, {"limit": -1}, {"sort": "--x"}],
)
def test_a_question_that_makes_no_sense_is_refused_when_it_is_asked(
    store: Store, books: Connection, question: dict[str, Any]
) -> None:
    finished_run(store, "alpha")

    with pytest.raises(UsageError):
        books.run("alpha").tasks(**question)


def test_what_is_shown_in_a_notebook_is_never_read_as_html(store: Store, books: Connection) -> None:
    """Values are data."""
    evil = '<script>alert("x")</script>'
    part = ProducerBuilder("alpha", "p1", hostname=evil).open().workflow(name=evil)
    part.task(
        evil,
        used={evil: evil, "ansi": "\x1b[31m", "half": "\ud800"},
        generated={"img": "<img src=x onerror=y>"},
    )
    part.write(store)
    run = books.run("alpha")

    pages = [
        shown._repr_html_() for shown in (books, books.runs(), run, run.tasks(), run.tasks(activity=evil))
    ]

    for page in pages:
        assert "<script" not in page
        assert "<img" not in page
        assert "\x1b" not in page
        page.encode()
    assert "&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt;" in pages[-1]
    for shown in (books, books.runs(), run, run.tasks()):
        assert repr(shown).isprintable() or "\n" in repr(shown)


def test_what_is_shown_of_each(store: Store, books: Connection) -> None:
    finished_run(store, "alpha")
    run = books.run("alpha")

    assert repr(run) == "<Run alpha 'sweep': DEGRADED; 4 FINISHED, 1 ERROR>"
    assert repr(books.runs()) == f"<1 run>\n  {run!r}"
    assert (
        repr(run.tasks(activity="train", limit=3))
        == "<Tasks of workflow_id='alpha', activity_id='train', limit=3>"
    )
    assert repr(books) == f"<Connection to {books.url}>"
    assert run._repr_html_() == (
        "<table><caption>Run alpha</caption><tbody>"
        "<tr><th>workflow_id</th><td>alpha</td></tr><tr><th>campaign_id</th><td>exp42</td></tr>"
        "<tr><th>name</th><td>sweep</td></tr><tr><th>status</th><td>DEGRADED</td></tr>"
        "<tr><th>started_at</th><td>2026-11-20T14:00:00.000Z</td></tr>"
        "<tr><th>ended_at</th><td>2026-11-20T14:00:12.340Z</td></tr><tr><th>duration</th><td>12.34</td></tr>"
        "<tr><th>tasks</th><td>FINISHED=4, ERROR=1</td></tr><tr><th>producers</th><td>1</td></tr>"
        "</tbody></table>"
    )


def two_runs(store: Store, name: str) -> None:
    """Two runs with names everywhere, each of more tasks than are shown."""
    for workflow_id, value in (("alpha", 1), ("beta", 2)):
        part = ProducerBuilder(workflow_id, f"p-{workflow_id}", hostname=name).open()
        caller = part.task(name, generated={"k": {"type": "provd.Key", "key": name}})
        for number in range(notebook.SHOWN_ROWS + 5):
            part.task(
                f"{name}{number}", used={"n": name}, generated={"m": f"{name}{value}"}, parent_task_id=caller
            )
        key = {"type": "provd.Key", "key": name}
        part.task(name, Status.ERROR, stderr=f"{name}\n{name}", used={"k": key}, parent_task_id=caller)
        part.workflow(name=name, args={name: f"{name}{value}"}).write(store, without=[5])


def answers(books: Connection) -> dict[str, Any]:
    """Everything that a run answers a question with."""
    run = books.run("alpha")
    failed = run.tasks(status="ERROR").first()
    assert failed is not None
    return {
        "lineage": run.lineage(failed["task_id"], down=True),
        "all": books.lineage(failed["parent_task_id"], down=True),
        "comparison": run.compare("beta"),
        "summary": run.summary(),
        "books": run.verify(),
        "graph": run.graph(),
    }


def test_answers_are_tables_in_a_notebook_whose_values_are_data(store: Store, books: Connection) -> None:
    evil = """<script>alert("x")</script><img src=x onerror='y'>&amp;\n\x1b[31m\u202e"""
    two_runs(store, evil)

    for name, shown in answers(books).items():
        page = shown._repr_html_()
        tables = ET.fromstring(f"<div>{page}</div>")  # well-formed, also as XML
        assert {element.tag for element in tables.iter()} <= _TABLE_TAGS
        assert not any(element.attrib for element in tables.iter())
        assert "\x1b" not in page
        assert "\u202e" not in page
        for table in tables:
            rows = table.findall("./tbody/tr")
            assert len(rows) <= notebook.SHOWN_ROWS
            assert len(rows) < notebook.SHOWN_ROWS or "the first 20 of" in table.findtext("caption", "")
        assert name == "books" or "<script>alert" in "".join(tables.itertext())


def test_answers_say_on_one_short_line_what_they_are(store: Store, books: Connection) -> None:
    two_runs(store, "x" * 3000 + "\n")

    for shown in answers(books).values():
        assert repr(shown).isprintable()
        assert len(repr(shown)) < 250


def test_what_is_shown_of_each_answer(store: Store, books: Connection) -> None:
    finished_run(store, "alpha")
    finished_run(store, "beta")
    run = books.run("alpha")
    task = run.tasks().first()
    assert task is not None

    assert repr(run.lineage(task["task_id"])) == f"<Lineage of {task['task_id']}: 1 task, 0 edges>"
    assert repr(run.compare("beta")) == "<Comparison of alpha and beta: nothing differs but times>"
    assert repr(run.graph()) == "<Graph of alpha: 2 activities, 0 arrows>"
    assert repr(run.summary()) == (
        "<Summary of alpha: DEGRADED; 1 kind of error; complete: all 9 messages of 1 producer stored>"
    )
    assert repr(run.verify()) == "<Books of alpha: complete: all 9 messages of 1 producer stored>"
    assert run.verify() == run.verify()
    assert run.graph()._repr_html_() == (
        "<table><caption>Graph of alpha: 2 activities, 0 arrows</caption>"
        "<thead><tr><th>activity_id</th><th>tasks</th></tr></thead>"
        "<tbody><tr><td>evaluate</td><td>ERROR=1</td></tr><tr><td>train</td><td>FINISHED=4</td></tr></tbody></table>"
    )


def test_a_store_that_is_not_there_is_said_at_once_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="no file"):
        provd.query.connect(f"sqlite:///{tmp_path}/none.db")

    assert not (tmp_path / "none.db").exists()


def test_without_a_url_it_is_the_store_of_the_settings(
    store: Store, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished_run(store, "alpha")
    monkeypatch.setenv("PROVD_STORE_URL", store_url)

    with provd.query.connect() as books:
        assert books.run().workflow_id == "alpha"
        assert books.store.count(names.TASKS, {}) == 5


def test_runs_are_followed_by_what_their_records_say(store: Store) -> None:
    question = RunQuestion(where=parse_run_where("args.lr = 0.1"))
    follower = RunFollower(store, question, limit=20, lost_after_s=60)
    assert follower.begin() == []

    finished_run(store, "alpha", failing=0)
    ProducerBuilder("other", "p9").open().workflow(args={"lr": 0.2}).write(store)

    assert [run.workflow_id for run in follower.look()] == ["alpha"]
    assert follower.look() == []
