"""The soak's own rules: a seed means one plan, and a store that says anything else than the diaries is found out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from tests.faults.soak.diaries import Stint
from tests.faults.soak.plan import Kind, make_plan
from tests.faults.soak.program import INSIDE, REFUSED, STEPS, TURNS
from tests.faults.soak.scale import Scale
from tests.faults.soak.truth import Truth
from tests.faults.soak.watch import Memory

SCALE = Scale(tasks=1_000_000, faults=200)
#: The order in which a unit's tasks end.
SLOTS = (*STEPS, REFUSED, 8, 6, 9, 7, 0)

Tasks: TypeAlias = list[dict[str, Any]]


def test_a_seed_means_one_plan_and_another_seed_another() -> None:
    assert make_plan(7, SCALE) == make_plan(7, SCALE)
    assert make_plan(7, SCALE) != make_plan(8, SCALE)


def test_every_kind_of_fault_comes_up_even_in_a_short_plan() -> None:
    for seed in range(20):
        plan = make_plan(seed, Scale(tasks=1000, faults=len(Kind)))

        assert {fault.kind for fault in plan} == set(Kind)


def test_with_durability_in_memory_nothing_strikes_that_may_lose_something() -> None:
    kinds = {fault.kind for fault in make_plan(1, Scale(tasks=1000, faults=200, durability="memory"))}

    assert not kinds & {Kind.PRODUCER_KILL, Kind.REDIS_TORN, Kind.REDIS_WIPED}


def test_the_segments_of_a_run_share_out_all_of_the_work() -> None:
    ceilings = [SCALE.ceiling(segment) for segment in range(SCALE.faults + 1)]

    assert ceilings == sorted(ceilings)
    assert ceilings[-1] == SCALE.units
    assert SCALE.units * 10 * SCALE.workflows * SCALE.lanes >= SCALE.tasks


def test_memory_that_grows_by_more_than_a_twentieth_is_not_flat() -> None:
    assert Memory("p", (100,) * 10 + (103,) * 10 + (105,) * 10).is_flat
    assert not Memory("p", (100,) * 10 + (103,) * 10 + (106,) * 10).is_flat


def test_a_store_that_holds_what_the_diary_says_is_right(tmp_path: Path) -> None:
    assert complaints(tmp_path, stored()) == []


def drop_one(tasks: Tasks) -> None:
    del tasks[3]


def double_one(tasks: Tasks) -> None:
    tasks.append({**tasks[3], "_id": "another", "seq": 999})


def double_a_number(tasks: Tasks) -> None:
    tasks[3]["seq"] = tasks[4]["seq"]


def change_a_value(tasks: Tasks) -> None:
    tasks[0]["generated"] = {"square": 0.5}


def change_a_status(tasks: Tasks) -> None:
    tasks[0]["status"] = "RUNNING"


def change_a_parent(tasks: Tasks) -> None:
    tasks[0]["parent_task_id"] = tasks[-2]["_id"]


def add_one(tasks: Tasks) -> None:
    tasks.append({**tasks[0], "_id": "made up", "seq": 999, "used": {"lane": "w-0", "mark": 71}})


def add_a_stranger(tasks: Tasks) -> None:
    tasks.append({**tasks[0], "_id": "foreign", "producer_id": "somebody"})


def drop_the_shift(tasks: Tasks) -> None:
    tasks.pop()


@pytest.mark.parametrize(
    "spoil",
    [
        drop_one,
        double_one,
        double_a_number,
        change_a_value,
        change_a_status,
        change_a_parent,
        add_one,
        add_a_stranger,
        drop_the_shift,
    ],
)
def test_a_store_that_holds_anything_else_is_found_out(
    tmp_path: Path, spoil: Callable[[Tasks], None]
) -> None:
    tasks = stored()

    spoil(tasks)

    assert complaints(tmp_path, tasks)


def test_a_killed_producer_may_have_made_one_task_more_than_it_wrote_down(tmp_path: Path) -> None:
    write_diary(tmp_path, [mark for mark in marks() if mark != 10])

    assert complaints_of(tmp_path, stored(), is_killed=True) == []
    assert complaints_of(tmp_path, stored(), is_killed=False) != []


def test_a_killed_producer_loses_nothing_that_it_wrote_down(tmp_path: Path) -> None:
    write_diary(tmp_path, marks())
    tasks = stored()
    drop_one(tasks)

    assert complaints_of(tmp_path, tasks, is_killed=True) != []


def test_work_goes_on_where_the_diary_of_the_one_before_ends(tmp_path: Path) -> None:
    stint = Stint("w", "w-0", 0, tmp_path, 5)
    assert stint.next_unit == 5

    write_diary(tmp_path, marks())
    assert stint.next_unit == 2

    write_diary(tmp_path, marks()[:-1])
    assert stint.next_unit == 1


def marks() -> list[int]:
    """Two units of work, in the order in which their tasks end."""
    return [10 * unit + slot for unit in (0, 1) for slot in SLOTS]


def stored() -> Tasks:
    """The same two units as the store has them, below one shift."""
    tasks = [task(number, mark) for number, mark in enumerate(marks(), start=1)]
    shift = {"_id": "shift", "activity_id": "shift", "producer_id": "p", "seq": 500, "status": "FINISHED"}
    return [*tasks, {**shift, "used": {"lane": "w-0", "ceiling": 2}}]


def task(seq: int, mark: int) -> dict[str, Any]:
    slot = mark % 10
    above = mark - INSIDE if slot - INSIDE in TURNS else mark - slot
    document: dict[str, Any] = {
        "_id": f"t{mark}",
        "producer_id": "p",
        "seq": seq,
        "status": "FINISHED",
        "used": {"lane": "w-0", "mark": mark},
        "parent_task_id": f"t{above}" if slot else "shift",
    }
    if slot == 0:
        return document | {"activity_id": "work"}
    if slot == REFUSED:
        return document | {"activity_id": "refuse", "status": "ERROR", "stderr": f"ValueError: mark {mark}"}
    if slot in TURNS:
        return document | {"activity_id": "turn", "used": {"i": slot - TURNS[0], "mark": mark}}
    return document | {"activity_id": "step", "generated": {"square": mark * mark}}


def write_diary(folder: Path, written: list[int]) -> None:
    (folder / "who").write_text("p")
    (folder / "marks").write_text("".join(f"{mark:010d}\n" for mark in written))
    (folder / "shifts").write_text(f"{2:010d}\n")


def complaints(folder: Path, tasks: Tasks) -> list[str]:
    write_diary(folder, marks())
    return complaints_of(folder, tasks, is_killed=False)


def complaints_of(folder: Path, tasks: Tasks, *, is_killed: bool) -> list[str]:
    stint = Stint("w", "w-0", 0, folder, 0)
    truth = Truth([stint], interrupted=[stint] if is_killed else [])
    truth.read(tasks)
    return truth.complaints()
