"""Fixtures of the nemesis tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from provd.store.interface import Store
from tests.integration.consuming import opened_store
from tests.streams import Script, Streams

pytest.register_assert_rewrite("tests.faults.proof", "tests.faults.ending")

from tests.faults.ending import Job  # noqa: E402 - its assertions are rewritten


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
def store(mongo_url: str) -> Iterator[Store]:
    """A store of the test's own, in MongoDB."""
    with opened_store(mongo_url) as opened:
        opened.migrate()
        yield opened
