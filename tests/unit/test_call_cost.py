"""The call path does not grow unnoticed: its instructions and calls are counted, and compared with those on record."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.call_cost import BASELINES, MEASURES, VERSION, Counts

ROOT = Path(__file__).parents[2]

#: The Python of the merge: without its counts nothing would be guarded.
GUARDED = "3.11"

#: Growth that passes: a step or two, but no further call.
ALLOWED = 1.10

HOW_TO = "if it is worth that, `python -m tests.call_cost --write` with each Python in tests/unit/call_cost.json, and say why in the commit"


@pytest.fixture(scope="module")
def counts() -> Counts:
    """The counts of a fresh process."""
    ended = subprocess.run(
        [sys.executable, "-m", "tests.call_cost"],
        cwd=ROOT,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    found: Counts = json.loads(ended.stdout.splitlines()[-1])
    return found


def test_no_part_of_the_call_path_has_grown_by_more_than_a_tenth(counts: Counts) -> None:
    baselines: dict[str, Counts] = json.loads(BASELINES.read_text())
    assert GUARDED in baselines, f"{BASELINES} must have counts for Python {GUARDED}"
    if VERSION not in baselines:
        pytest.skip(
            f"no counts on record for Python {VERSION}: the guard is on with {', '.join(baselines)}; "
            "`python -m tests.call_cost --write` adds them"
        )

    before = baselines[VERSION]

    assert counts.keys() == before.keys(), f"other things are counted than are on record: {HOW_TO}"
    grown = [
        f"{what}: {before[what][name]:g} {name} on record, now {counts[what][name]:g}"
        for what in before
        for name in MEASURES
        if counts[what][name] > ALLOWED * before[what][name]
    ]
    assert not grown, "\n".join([*grown, HOW_TO])


def test_the_counts_are_the_same_in_every_process(counts: Counts) -> None:
    again = subprocess.run(
        [sys.executable, "-m", "tests.call_cost"], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert json.loads(again.stdout.splitlines()[-1]) == counts
