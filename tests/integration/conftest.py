"""Fixtures for tests that run consumers and commands against real services."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from provd.cli.main import app
from provd.store.interface import Store
from tests.integration.commands import Provd
from tests.integration.consuming import MakeConsumer, consume, make_consumers, plain_settings


@pytest.fixture
def make_consumer(
    redis_url: str, store_url: str, namespace: str, tmp_path: Path, slots: Path
) -> Iterator[MakeConsumer]:
    """Makes consumers that bring what is in the shared Redis into the test's store."""
    with ExitStack() as stack:
        yield make_consumers(plain_settings(redis_url, store_url, namespace, tmp_path), slots, stack)


@pytest.fixture
def collect(
    redis_url: str, namespace: str, store_url: str, store: Store, tmp_path: Path, slots: Path
) -> Callable[[], None]:
    """Brings what producers have said into the store."""
    assert store.url
    return lambda: consume(redis_url, store_url, namespace, tmp_path, slots)


@pytest.fixture
def provd(store: Store, store_url: str, monkeypatch: pytest.MonkeyPatch) -> Provd:
    """Run `provd` on the store, 80 columns wide."""
    monkeypatch.setenv("PROVD_STORE_URL", store_url)
    monkeypatch.setenv("COLUMNS", "80")

    def run(*args: str) -> Result:
        return CliRunner().invoke(app, list(args))

    return run
