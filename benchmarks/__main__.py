"""`python -m benchmarks`: one run, one table."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from benchmarks.figure import Figure, Form
from benchmarks.machine import Machine
from benchmarks.table import to_documents, to_markdown, to_text
from benchmarks.topics import TOPICS


def main() -> int:
    """Measure, and print the table; exit 0 whatever the figures are: people judge them."""
    names = [topic.name for topic in TOPICS]
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="provd beside its peers and its floors"
    )
    parser.add_argument("topics", nargs="*", choices=[[], *names], help="only these")
    parser.add_argument("--quick", dest="form", action="store_const", const=Form.QUICK, default=Form.FULL)
    parser.add_argument("--nightly", dest="form", action="store_const", const=Form.NIGHTLY)
    parser.add_argument("--json", type=Path, help="write the figures with all samples to this file")
    parser.add_argument("--markdown", type=Path, help="write the table as docs/performance.md has it")
    given = parser.parse_args()

    machine = Machine.here()
    figures: list[Figure] = []
    for topic in TOPICS:
        if topic.name in given.topics if given.topics else given.form in topic.forms:
            print(f"measuring {topic.name}", file=sys.stderr)
            figures += topic.measure(given.form)
    print(to_text(machine, figures))
    if given.json:
        given.json.write_text(
            json.dumps({"machine": asdict(machine), "figures": to_documents(figures)}, indent=2) + "\n"
        )
    if given.markdown:
        given.markdown.write_text(to_markdown(machine, figures) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
