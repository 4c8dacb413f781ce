"""`make soak`: everything killed and paused at random while tasks flow; exit 1 when a promise was broken."""

from __future__ import annotations

import argparse
import json
import random
import shutil
import tempfile
from pathlib import Path

from tests.faults.soak.scale import Scale
from tests.faults.soak.soak import Soak


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, help="which plan of faults; any, when not given")
    parser.add_argument("--tasks", type=int, default=1_000_000)
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--durability", choices=("disk", "memory"), default="disk")
    parser.add_argument("--report", type=Path, help="write the report to this file, as JSON")
    parser.add_argument("--keep", type=Path, help="work in this new folder, and leave it")
    arguments = parser.parse_args()
    seed = random.SystemRandom().randrange(1 << 31) if arguments.seed is None else arguments.seed
    scale = Scale(
        tasks=arguments.tasks,
        faults=arguments.faults,
        durability=arguments.durability,
        judges_memory=arguments.faults >= 100,
    )
    folder = arguments.keep or Path(tempfile.mkdtemp(prefix="provd-soak-"))
    print(f"seed {seed}, in {folder}", flush=True)
    report = Soak(seed, scale, folder, lambda line: print(line, flush=True)).run()
    if arguments.report is not None:
        arguments.report.write_text(json.dumps(report.to_document(), indent=2) + "\n", encoding="utf-8")
    print("\n".join(report.lines()))
    if report.failures:
        print(f"left for inspection: {folder}")
        return 1
    if arguments.keep is None:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
