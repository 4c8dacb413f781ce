"""`provd consume --workers N`."""

from __future__ import annotations

import signal
from collections import Counter
from typing import Any

import pymongo
import redis

from tests.conftest import RunProvd, StartProvd
from tests.integration.feeder import Feeder
from tests.services.waiting import wait_until


def test_several_workers_share_a_workflow_and_end_when_it_is_done(
    run_provd: RunProvd, redis_url: str, mongo_url: str, namespace: str
) -> None:
    # Given a workflow of many frames
    services = {"PROVD_BROKER_URL": redis_url, "PROVD_STORE_URL": mongo_url, "PROVD_NAMESPACE": namespace}
    with redis.Redis.from_url(redis_url) as client:
        feeder = Feeder(client, namespace)
        feeder.whole_run(2000, frame=20)

    # When three workers consume it
    ended = run_provd(
        "consume", "--workers", "3", "--workflow-id", "w1", "--exit-when-done", "--grace", "20",
        env={**services, "PROVD_BATCH_MESSAGES": "20"},
    )  # fmt: skip

    # Then all is stored once, and each of them said what it did
    assert ended.returncode == 0, ended.stderr
    with pymongo.MongoClient[dict[str, Any]](mongo_url) as mongo:
        assert mongo.get_default_database()["tasks"].count_documents({}) == 2000
    started = Counter(line[:3] for line in ended.stderr.splitlines() if "consumer started" in line)
    assert started == {"[0]": 1, "[1]": 1, "[2]": 1}


def test_a_signal_to_the_parent_ends_all_workers_in_good_order(
    start_provd: StartProvd, redis_url: str, mongo_url: str, namespace: str
) -> None:
    services = {"PROVD_BROKER_URL": redis_url, "PROVD_STORE_URL": mongo_url, "PROVD_NAMESPACE": namespace}
    parent = start_provd("consume", "--workers", "2", env=services)
    wait_until(lambda: parent.tail().count("consumer started") == 2, 30)

    parent.send(signal.SIGTERM)

    assert parent.wait(30) == 0
    assert parent.tail().count("consumer stopped") == 2
