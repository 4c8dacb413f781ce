"""The whole of it, distributed: producers, consumers, Redis and MongoDB, and one consumer killed on the way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pymongo
import pytest

from tests.conftest import RunProvd, StartProvd
from tests.services.waiting import wait_until

PRODUCERS = 8
#: Inner tasks of a producer; every tenth opens an outer one above it and its nine followers.
INNER = 2_250
OUTER = 250
TASKS = PRODUCERS * (INNER + OUTER)

PRODUCER = """
import argparse, sys
import provd

parser = argparse.ArgumentParser()
parser.add_argument("--producer", type=int)
provd.add_arguments(parser)
number = parser.parse_args().producer

@provd.task
def inner(producer, index):
    return {"product": producer * index}

@provd.task
def outer(producer, start):
    for index in range(start, start + 9):
        inner(producer, index)

with provd.workflow("part"):
    for start in range(0, 2250, 9):
        if start == 1125:
            provd.flush(60)
            print("half", flush=True)
            sys.stdin.readline()
        outer(number, start)
"""


@pytest.mark.timeout(180)
def test_twenty_thousand_tasks_of_eight_producers_survive_the_death_of_a_consumer(
    start_provd: StartProvd,
    run_provd: RunProvd,
    redis_url: str,
    mongo_url: str,
    namespace: str,
    tmp_path: Path,
    clean_env: Path,
) -> None:
    """G2 and G3: every task stored once, parents right, books complete, whatever of ours is killed."""
    # Given two consumers and eight producers of one workflow
    services = {
        "PROVD_BROKER_URL": redis_url,
        "PROVD_STORE_URL": mongo_url,
        "PROVD_NAMESPACE": namespace,
        "PROVD_CLAIM_AFTER_S": "2",
        "PROVD_BATCH_MESSAGES": "200",
    }
    doomed = start_provd("consume", env=services)
    survivor = start_provd(
        "consume", "--workflow-id", "campaign.1", "--exit-when-done", "--grace", "60", env=services
    )
    script = tmp_path / "part.py"
    script.write_text(PRODUCER)
    producers = [
        subprocess.Popen(
            [sys.executable, str(script), "--producer", str(number), "--workflow-id", "campaign.1"],
            env={**os.environ, **services},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(PRODUCERS)
    ]

    # When one consumer is killed while half of the tasks are on their way, and the other half follows
    with pymongo.MongoClient[dict[str, Any]](mongo_url) as client:
        tasks = client.get_default_database()["tasks"]
        wait_until(lambda: tasks.estimated_document_count() > 100, 60)
        doomed.kill()
        for producer in producers:
            assert producer.stdout is not None
            assert producer.stdout.readline() == "half\n"
        assert tasks.estimated_document_count() < TASKS
        for producer in producers:
            producer.communicate("\n", timeout=60)
        assert [producer.returncode for producer in producers] == [0] * PRODUCERS

        # Then the other one brings in everything
        assert survivor.wait(120) == 0

        # Each task once
        keys = [
            (task["used"]["producer"], task["used"]["index"]) for task in tasks.find({"activity_id": "inner"})
        ]
        assert sorted(keys) == [(producer, index) for producer in range(PRODUCERS) for index in range(INNER)]
        assert tasks.count_documents({}) == TASKS
        assert tasks.count_documents({"status": "FINISHED"}) == TASKS

        # Below its own parent
        outer = {task["_id"]: task["used"] for task in tasks.find({"activity_id": "outer"})}
        assert len(outer) == PRODUCERS * OUTER
        for task in tasks.find({"activity_id": "inner"}):
            parent = outer[task["parent_task_id"]]
            assert parent["producer"] == task["used"]["producer"]
            assert parent["start"] <= task["used"]["index"] < parent["start"] + 9

    # And the books are complete
    verified = run_provd("runs", "verify", "campaign.1", "--json", env=services)
    books = json.loads(verified.stdout)
    assert verified.returncode == 0
    assert books["complete"] is True
    assert books["produced"] == books["stored"] >= TASKS + 3 * PRODUCERS
    assert (books["missing"], books["dropped"], books["spooled"], books["quarantined"]) == (0, 0, 0, 0)
    assert len(books["producers"]) == PRODUCERS
