"""The soak in small, with a fixed seed: every kind of fault while producers and consumers work (`make soak-quick`).

With `durability: disk` nothing is spared. There the producers' own copies could make up for what a consumer loses; with
`durability: memory` nothing could, and only what may lose a message by itself is left out.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.soak.scale import Scale
from tests.faults.soak.soak import Soak

SEED = 4
SCALES = {
    "disk": Scale(tasks=24_000, faults=26, durability="disk"),
    "memory": Scale(tasks=12_000, faults=16, durability="memory"),
}


@pytest.mark.soak
@pytest.mark.timeout(300)
@pytest.mark.parametrize("durability", SCALES)
def test_whatever_is_killed_and_paused_no_task_is_missing_and_none_is_there_twice(
    tmp_path: Path, durability: str
) -> None:
    """G2, G3, G4 and G7: nothing accepted is lost, nothing is there twice, and the books say so."""
    # Given a plan of faults
    scale = SCALES[durability]

    # When it is carried out while tasks flow
    report = Soak(SEED, scale, tmp_path / "soak", print).run()

    # Then nothing is wrong beyond the producers that were killed, which the books show as unclosed
    print("\n".join(report.lines()))
    assert not report.failures
    assert report.tasks >= scale.tasks
    assert sum(report.faults.values()) == scale.faults
