"""What makes failures alike, and how many groups there may be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provd.query.failure import Failure, read_failure
from provd.query.failure_groups import GROUPS_MAX, FailureGroups


def counts(*failures: Failure | None) -> list[int]:
    """How many are in each group."""
    groups = FailureGroups()
    for number, failure in enumerate(failures):
        groups.add("train", f"t{number:09}", failure)
    return [group.count for group in groups]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("cannot read /data/part-00017.h5 at offset 12", "cannot read /scratch/a/b at offset 9e3"),
        ("no key 'a b' in \"x\"", "no key 'c' in \"y z\""),
        ("object at 0x7fa0 lost", "object at 0xDEAD lost"),
        (
            "job 0190aefc-0190-4e5f-8aaa-0190aefc0190 failed",
            "job 7190aefc-0190-4e5f-8aaa-0190aefc0191 failed",
        ),
        ("no run-3fa0bc12", "no run-ab01ffee"),
        ("rank7: loss 0.25 at step 3", "rank12: loss 1.5 at step 400"),
    ],
)
def test_messages_that_differ_in_what_varies_are_alike(one: str, other: str) -> None:
    assert counts(Failure(one), Failure(other)) == [2]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("SystemExit: 2", "SystemExit: 3"),
        ("exit status 1", "exit status 139"),
        ("killed by signal 9", "killed by signal 11"),
        ("[Errno 28] it failed", "[Errno 5] it failed"),
        ("Http404Error: gone", "Http410Error: gone"),
        ("cannot read it", "cannot write it"),
    ],
)
def test_messages_that_differ_in_what_tells_are_not(one: str, other: str) -> None:
    assert counts(read_failure({"stderr": one}), read_failure({"stderr": other})) == [1, 1]


def test_one_line_of_code_is_one_group_whatever_it_says_and_another_line_is_another() -> None:
    seven = [Failure(f"ValueError: {word}", "ValueError", "train.py:7") for word in ("a", "b", "c")]

    assert counts(*seven, Failure("ValueError: a", "ValueError", "train.py:8")) == [3, 1]


@given(
    types=st.lists(st.sampled_from(["E1", "E2", "a.E1", "ValueError"]), min_size=1, max_size=20),
    text=st.text(max_size=10),
    frame=st.sampled_from([None, "a.py:1"]),
)
def test_two_types_are_never_in_one_group(types: list[str], text: str, frame: str | None) -> None:
    """Whatever the message and the place."""
    failures = [Failure(f"{name}: {text}", name, frame) for name in types]

    assert sorted(counts(*failures)) == sorted(types.count(name) for name in set(types))


def test_the_example_is_the_first_task_in_whichever_order_they_come() -> None:
    groups = FailureGroups()
    for task_id in ("t2", "t1", "t3"):
        groups.add("train", task_id, Failure(f"part {task_id[1]} is lost"))

    (group,) = groups

    assert (group.task_id, group.failure.headline, group.count) == ("t1", "part 1 is lost", 3)


def test_of_very_many_kinds_as_many_as_fit_are_kept_and_all_are_counted() -> None:
    """Free texts leave room for what was raised somewhere."""
    groups = FailureGroups()
    for number in range(2 * GROUPS_MAX):
        word = "".join(chr(97 + int(digit)) for digit in f"{number:04}")
        groups.add("train", f"a{number}", Failure(f"it said {word}"))
        groups.add("train", f"b{number}", Failure(f"it said {word}"))
    groups.add("train", "c", Failure("ValueError: x", "ValueError", "train.py:7"))

    found = list(groups)

    assert len(found) == GROUPS_MAX + 1
    assert sum(group.count for group in found) + groups.others == 4 * GROUPS_MAX + 1
    assert found[-1].task_id == "c"
