"""The traced program of a soak: a user's script that also writes down, by itself, what it has done.

It is given a folder, and reads from its standard input up to which unit it may work. A unit is ten tasks:

    slot 0      work, the parent of slots 1 to 7
    slots 1-4   step
    slot 5      refuse, which raises
    slots 6, 7  turn, two iterations of a loop
    slots 8, 9  step, one inside of each turn

Every task carries its mark, `10 * unit + slot`. A mark is appended to the file `marks`, by one `write(2)`, after the
call has returned: what stands there was accepted. The tasks of the time between two lines of input lie below a task
named shift, whose ceilings stand in `shifts`.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import provd
from provd.producer.process import producer

#: Bytes of a mark in its file.
MARK_BYTES = 11

STEPS = (1, 2, 3, 4)
REFUSED = 5
TURNS = (6, 7)
#: What a turn's mark is ahead of its step's.
INSIDE = 2


class Diary:
    """What was done, on disk before anything else is done."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        self._marks = os.open(folder / "marks", flags)
        self._shifts = os.open(folder / "shifts", flags)
        (folder / "who").write_text(producer().id, encoding="ascii")

    def mark(self, mark: int) -> None:
        os.write(self._marks, b"%010d\n" % mark)

    def shift(self, ceiling: int) -> None:
        os.write(self._shifts, b"%010d\n" % ceiling)


#: Of this process; set by `main`.
diary: Diary


@provd.task(outputs="square")
def step(lane: str, mark: int) -> int:
    return mark * mark


@provd.task
def refuse(lane: str, mark: int) -> None:
    raise ValueError(f"mark {mark}")


@provd.task
def work(lane: str, mark: int) -> None:
    for slot in STEPS:
        step(lane, mark + slot)
        diary.mark(mark + slot)
    try:
        refuse(lane, mark + REFUSED)
    except ValueError:
        diary.mark(mark + REFUSED)
    ended = 0
    for turn in provd.loop([mark + slot for slot in TURNS], name="turn", item="mark"):
        if ended:
            diary.mark(ended)
        step(lane, turn + INSIDE)
        diary.mark(turn + INSIDE)
        ended = turn
    diary.mark(ended)


def main() -> None:
    global diary  # noqa: PLW0603 - the tasks' own arguments are recorded, and it is none of them
    parser = argparse.ArgumentParser()
    parser.add_argument("--lane", required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--unit", type=int, required=True)
    provd.add_arguments(parser)
    arguments = parser.parse_args()
    diary = Diary(arguments.folder)
    unit = arguments.unit
    with provd.workflow("soak"):
        line = sys.stdin.readline()
        while line:
            ceiling = int(line)
            with provd.Task("shift", used={"lane": arguments.lane, "ceiling": ceiling}):
                while unit < ceiling:
                    work(arguments.lane, 10 * unit)
                    diary.mark(10 * unit)
                    unit += 1
                line = sys.stdin.readline()
            diary.shift(ceiling)


if __name__ == "__main__":
    main()
