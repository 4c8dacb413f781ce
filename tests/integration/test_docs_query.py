"""Every question of docs/query.md is asked, as a command and in Python, of a campaign in both stores, and answered."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pyarrow.parquet as pq
import pymongo
import pytest
import redis

from provd.store.open import open_store
from tests.integration.query_campaign import run_campaign

PAGE = Path(__file__).parents[2] / "docs" / "query.md"

QUESTIONS = 30


@dataclass(frozen=True, slots=True)
class Question:
    """A heading with its command and its Python."""

    title: str
    sh: str
    python: str


def read_page() -> tuple[str, list[Question]]:
    """How the page begins in Python, and its questions."""
    head, *parts = re.split(r"^### ", PAGE.read_text(), flags=re.MULTILINE)
    questions = []
    for part in parts:
        (sh,), (python,) = blocks(part, "sh"), blocks(part, "python")
        questions.append(Question(part.splitlines()[0], sh, python))
    (opening,) = blocks(head, "python")
    return opening, questions


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


OPENING, ASKED = read_page()

#: What the answers say: texts (patterns) of the command's, and of the Python's; `!` for what must not be there.
ANSWERS: dict[str, tuple[list[str], list[str]]] = {
    "Which runs are there, and how did they end?": (
        [r"night2 +DEGRADED .* 437 +3 ", r"slurm-7002-r0 +ERROR", r"prepare +FINISHED"],
        [r"night2 DEGRADED {'FINISHED': 437, 'ERROR': 3}", r"night1 FINISHED"],
    ),
    "What is running now?": (
        [r"long +RUNNING", "!night2"],
        [r"<1 run>\n +<Run long 'long': RUNNING; 1 RUNNING>"],
    ),
    "Which runs failed since yesterday?": (
        [r"slurm-7002-r0 +ERROR", r"night2 +DEGRADED", "!night1"],
        [r"<2 runs>", "night2", "slurm-7002-r0"],
    ),
    "Which runs used this commit?": (
        ["night2", "slurm-7002-r1", "long", "!night1", "!prepare"],
        [r"night2 \S+/later/sweep.py", "!night1"],
    ),
    "Which runs were started with these arguments?": (
        ["night2", "!night1"],
        [r"night2 {'seed': 2, 'layers': \[2, 4\]}", "!night1"],
    ),
    "Which run was job 7001?": (["night2", "!night1"], [r"night2 .*'job_id': '7001'", "!night1"]),
    "Which runs were requeued?": (
        [r"slurm-7002-r1 +FINISHED", "!slurm-7002-r0"],
        ["^slurm-7002-r1 came after slurm-7002-r0$"],
    ),
    "What did a run do?": (
        [r"train_step +400 +0 ", "2 times evaluate: ValueError: the loss is not a number", "node03"],
        [r"evaluate {'FINISHED': 5, 'ERROR': 3}"],
    ),
    "Is everything of it stored?": ([r"complete: all \d+ messages of 4 producers stored"], ["^True$"]),
    "What differs between last night's run and the one before?": (
        [r"seed +1 +2", r"commit +1a2b3c4d\S+ +9fceb02d", "2 came out differently"],
        ["^seed 1 2$", r"^commit 1a2b3c4d\S+ 9fceb02d"],
    ),
    "How many tokens did the campaign use?": ([r"night2 +8,?000", r"night1 +2,?000"], ["^10000$"]),
    "Which configuration is the best?": (
        [r"acc\n +0\.01 +4 +0\.94\n +0\.001 +4 +0\.931\n +0\.01 +2 +0\.92\n"],
        ["^0.01 4 0.94$"],
    ),
    "How does the result depend on a parameter?": (
        [r"0\.01 +0\.93 +2", r"1(\.0)? +(null)? *2"],
        [r"0\.010 +0\.93\d* +2", r"1\.000 +(NaN|<NA>) +0"],
    ),
    "Which configurations gave no result?": (
        [r"1 +2 +ERROR", r"1 +4 +ERROR", r"0\.1 +4 +ERROR", "!FINISHED"],
        ["1.0 2 ERROR", "1.0 4 ERROR", "0.1 4 ERROR", "!FINISHED"],
    ),
    "Which tasks failed with this message, and on which hosts?": (
        [r"node02 +2 +evaluate +OSError: \[Errno 28\] No space left on device", "!node03"],
        [r"^node02 2 evaluate OSError: \[Errno 28\] No space left on device$"],
    ),
    "What kinds of failures were there, and how many of each?": (
        [r"the loss is not a number.* 2\n", r"No space left.* 1\n", "the job's time is over"],
        [
            r"^2 evaluate ValueError \S+sweep.py:\d+ ValueError: the loss is not a number$",
            r"^1 evaluate OSError \S+sweep.py:\d+ OSError: .*No space left",
        ],
    ),
    "Where in the code did it fail?": (
        [r'sweep.py"", line \d+, in evaluate', "raise (ValueError|OSError)"],
        [r'sweep.py", line \d+, in evaluate', "raise (ValueError|OSError)"],
    ),
    "Which are the slowest 1 % of train_step, and on which hosts?": (
        [r"(node03 +0\.914 +(24|49)\n){4}", "!node01"],
        [r"node03 +4 +0\.914", "!node01"],
    ),
    "Which tasks have been running for more than an hour?": (
        [r"simulate +RUNNING", "!FINISHED"],
        [r"^node04 simulate \S+ \S+ {'atoms': 4096}$"],
    ),
    "How long does each activity take?": ([r"train_step +400 +0\.021\d* +0\.914"], [r"^train_step 0\.012 0\.014"]),
    "Did all ranks get an equal share of the work?": (
        [r"_id.*\n +3 +100 +4\.8\d*\n"],
        [r"3 +100 +4\.8", r"0 +100 +1\.2"],
    ),
    "What did the training loop record?": ([r"-00000001 +0 +0\.333\d*\n\S+-00000001 +1 +0\.25"], [r"^0 .*0\.333.* 0\.2"]),
    "When did the loss stop being a number?": ([r"node03 +1\n"], [r"^node03 1 \S+$"]),
    "What led to this checkpoint?": (
        [r"^train \S+ FINISHED\n.*\n.*convert \S+ FINISHED  made \S+/table.csv"],
        [r"^0 train night2\n-1 convert prepare$"],
    ),
    "What came of this file?": (
        [r"evaluate \S+ ERROR +used \S+/night2-1.0-2.pt", "night1-0.01-2.pt"],
        ["2 evaluate night2 ERROR", "1 train night1 FINISHED"],
    ),
    "Which tasks used this input file?": (
        [r"night2 +train +[0-9a-f]{8}", "night1"],
        [r"night2 [0-9a-f]{64}", "night1"],
    ),
    "Did these runs read the same file?": ([r"[0-9a-f]{8}.*(night1.*night2|night2.*night1)"], ["night1", "night2"]),
    "How do I get the tasks as a table?": ([], ["'used.lr'", "'generated.acc'"]),
    "How do I publish where a result comes from?": ([], []),
    "What does the workflow look like?": ([r"^flowchart", r'-->\|"8 values"\|'], ["^train value evaluate 8$"]),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Site:
    """Where the campaign ran, and the store it is in."""

    folder: Path
    store_url: str


@pytest.fixture(scope="module", params=["mongodb", "embedded"])
def site(
    request: pytest.FixtureRequest, redis_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """The campaign, in a store of its own for all questions: they only read."""
    folder = tmp_path_factory.mktemp("crystals")
    name = f"provd_t{uuid.uuid4().hex[:12]}"
    server: str | None = request.getfixturevalue("mongo_server_url") if request.param == "mongodb" else None
    url = (
        f"sqlite:///{folder}/provd.db"
        if server is None
        else urlunsplit(urlsplit(server)._replace(path=f"/{name}"))
    )
    store = open_store(url)
    store.migrate()
    store.close()
    run_campaign(folder, redis_url=redis_url, store_url=url, namespace=name)
    yield Site(folder, url)
    if server is not None:
        with pymongo.MongoClient[dict[str, Any]](server) as mongo:
            mongo.drop_database(name)
    with redis.Redis.from_url(redis_url) as client:
        for key in list(client.scan_iter(match=f"{name}:*", count=1000)):
            client.delete(key)


def answered(said: str, patterns: list[str]) -> None:
    for pattern in patterns:
        found = re.search(pattern.removeprefix("!"), said, flags=re.MULTILINE)
        assert bool(found) != pattern.startswith("!"), f"{pattern!r} in:\n{said}"


def test_the_page_has_thirty_questions_and_each_has_an_answer_here() -> None:
    assert len(ASKED) == QUESTIONS
    assert [question.title for question in ASKED] == list(ANSWERS)


@pytest.mark.parametrize("question", ASKED, ids=lambda question: question.title)
def test_each_command_answers_its_question(site: Site, question: Question) -> None:
    environment = {
        **os.environ, "PROVD_STORE_URL": site.store_url, "COLUMNS": "140", "TZ": "UTC",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }  # fmt: skip

    ended = subprocess.run(
        ["sh", "-c", question.sh],
        cwd=site.folder, env=environment, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip

    assert ended.returncode == 0, ended.stdout + ended.stderr
    answered(ended.stdout, ANSWERS[question.title][0])


@pytest.mark.parametrize("question", ASKED, ids=lambda question: question.title)
def test_each_python_answers_its_question(
    site: Site, question: Question, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PROVD_STORE_URL", site.store_url)
    monkeypatch.chdir(site.folder)
    names: dict[str, Any] = {}

    exec(compile(OPENING, "docs/query.md", "exec"), names)
    try:
        exec(compile(question.python, "docs/query.md", "exec"), names)
    finally:
        names["books"].close()

    answered(capsys.readouterr().out, ANSWERS[question.title][1])


def test_the_files_that_the_page_writes_hold_what_it_says(site: Site) -> None:
    (table,) = (question for question in ASKED if "evaluations.parquet" in question.sh)
    (published,) = (question for question in ASKED if "prov-json" in question.sh)
    for question in (table, published):
        test_each_command_answers_its_question(site, question)

    assert pq.read_table(site.folder / "evaluations.parquet").num_rows == 8
    said = json.loads((site.folder / "night2.prov.json").read_text())
    assert {"activity", "entity", "used", "wasGeneratedBy"} <= said.keys()
