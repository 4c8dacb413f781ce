"""Every example runs, and leaves what it is about."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import provd
from tests.streams import Script

EXAMPLES = sorted((Path(provd.__file__).parent / "examples").glob("*.py"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs_and_is_recorded(script: Script, tmp_path: Path, example: Path) -> None:
    # When an example runs where no service is
    environment = {
        **script.environment,
        "PROVD_BROKER_URL": f"file://{tmp_path}/spool",
        "TMPDIR": str(tmp_path),
    }
    ended = subprocess.run(
        [sys.executable, str(example)],
        capture_output=True, text=True, check=False, timeout=60, cwd=tmp_path, env=environment,
    )  # fmt: skip

    # Then it says nothing on stderr, and its tasks are in files
    assert (ended.returncode, ended.stderr) == (0, "")
    assert len(provd.read_jsonl(tmp_path)) > 0
