"""Fixtures of the nemesis tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from provd.store.interface import Store
from tests.integration.consuming import opened_store
from tests.integration.feeder import Feeder
from tests.streams import Script, Streams

pytest.register_assert_rewrite("tests.faults.proof", "tests.faults.ending")

from tests.faults.ending import Job  # noqa: E402 - its assertions are rewritten


@pytest.fixture
def slots(tmp_path: Path) -> Path:
    """Where the consumers of a test, one host's, hold their names."""
    folder = tmp_path / "slots"
    folder.mkdir()
    return folder


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    """A client of the shared Redis."""
    with redis.Redis.from_url(redis_url) as connection:
        yield connection


@pytest.fixture(params=["mongodb", "embedded"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store of the test's own; each test that asks for it is run on both kinds."""
    if request.param == "embedded":
        return f"sqlite:///{tmp_path}/provd.db"
    url: str = request.getfixturevalue("mongo_url")
    return url


@pytest.fixture
def streams(redis_url: str, namespace: str) -> Streams:
    """What producers of this test leave in Redis."""
    return Streams(redis_url, namespace)


@pytest.fixture
def script(clean_env: Path, tmp_path: Path, redis_url: str, namespace: str) -> Script:
    """Runs a user's script with the broker set by environment, as a job would."""
    folder = tmp_path / "job"
    folder.mkdir()
    return Script(folder, {**os.environ, "PROVD_BROKER_URL": redis_url, "PROVD_NAMESPACE": namespace})


@pytest.fixture(params=["memory", "disk"])
def durability(request: pytest.FixtureRequest) -> str:
    """How a producer keeps what it has accepted; each test that asks for it is run with both."""
    kind: str = request.param
    return kind


@pytest.fixture
def job(script: Script, streams: Streams, tmp_path: Path, durability: str) -> Job:
    """A program that is run with one durability."""
    spool = tmp_path / "spool"
    return Job(script, streams, spool, {"PROVD_SPOOL_DIR": str(spool), "PROVD_DURABILITY": durability})


@pytest.fixture
def feeder() -> Feeder:
    """Makes messages; never connects."""
    return Feeder(redis.Redis(), "ns")


@pytest.fixture
def store(mongo_url: str) -> Iterator[Store]:
    """A store of the test's own, in MongoDB."""
    with opened_store(mongo_url) as opened:
        opened.migrate()
        yield opened
