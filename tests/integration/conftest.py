"""Fixtures for tests that run users' scripts against real services."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.streams import Script, Streams


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
