"""What tells two runs apart: hashes that another run of the same thing has, too."""

from __future__ import annotations

import hashlib
import json
import subprocess
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import provd
from provd.producer.fingerprints import config_hash
from provd.testing import captured

_LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
_ARGS = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.integers(), inner, max_size=3),
    max_leaves=8,
)


def workflow_record(**options: Any) -> dict[str, Any]:
    """What a workflow of these options records."""
    with captured() as capture, provd.workflow("w", **options):
        pass
    (record,) = capture.workflows()
    return record


def reversed_keys(value: Any) -> Any:
    """The same value, its keys in the opposite order."""
    if isinstance(value, dict):
        return {key: reversed_keys(value[key]) for key in reversed(value)}
    return [reversed_keys(item) for item in value] if isinstance(value, list) else value


def test_the_hash_of_a_plain_configuration_is_that_of_its_sorted_json() -> None:
    args = {"lr": 0.1, "layers": [64, 32], "name": "née", "nested": {"b": None, "a": True}}
    text = json.dumps(args, sort_keys=True, separators=(",", ":"))

    assert workflow_record(args=args)["config_hash"] == hashlib.sha256(text.encode()).hexdigest()


def test_the_hash_is_the_same_in_every_version() -> None:
    args = {
        "lr": 0.1,
        "epochs": 3.0,
        1: b"\x00\xff",
        "at": datetime(2026, 11, 20, tzinfo=timezone.utc),
        "n": 2**70,
    }

    assert config_hash(args) == "c0b7af24dc27df1f9ad2ed678d7272f50494078a46bdeea247a49514fb88336b"


@given(st.dictionaries(st.text() | st.integers(), _ARGS, max_size=4))
def test_the_hash_does_not_depend_on_the_order_of_keys(args: dict[Any, Any]) -> None:
    assert config_hash(args) == config_hash(reversed_keys(args))


@given(st.integers(-(2**53), 2**53))
def test_a_whole_number_hashes_alike_however_it_is_written(number: int) -> None:
    assert config_hash({"n": number}) == config_hash({"n": float(number)})


@pytest.mark.parametrize(
    ("one", "other"),
    [({"a": 1}, {"a": True}), ({"a": 1}, {"a": "1"}), ({"a": [1, 2]}, {"a": [2, 1]}), ({"a": None}, {}), ({"a": 1}, {"a": 1.5})],
)  # fmt: skip
def test_different_configurations_have_different_hashes(one: Any, other: Any) -> None:
    assert config_hash(one) != config_hash(other)


def test_an_object_among_the_arguments_hashes_alike_in_every_process() -> None:
    class Model:
        pass

    one, other = (workflow_record(args={"model": Model(), "lr": 0.1}) for _ in range(2))

    assert one["args"] != other["args"]
    assert one["config_hash"] == other["config_hash"]


def test_without_arguments_and_commit_nothing_is_made_up(tmp_path: Path) -> None:
    record = workflow_record()

    assert not {"config_hash", "input_fingerprint", "trace_id"} & record.keys()


def test_what_the_program_gives_is_recorded_as_it_is() -> None:
    given_ones = {"input_fingerprint": "v3", "code_ref": "release-7", "config_hash": "abc"}

    record = workflow_record(args={"lr": 1}, **given_ones)

    assert {name: record[name] for name in given_ones} == given_ones


def test_the_fingerprint_of_files_is_that_of_their_checksums(tmp_path: Path) -> None:
    """The commands that the documentation names give the same."""
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    files = [provd.File(tmp_path / "b"), tmp_path / "a"]

    def shell(command: str) -> str:
        done = subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout.split()[0]

    assert workflow_record(input_fingerprint=files[0])["input_fingerprint"] == shell("sha256sum b")
    assert workflow_record(input_fingerprint=files)["input_fingerprint"] == shell(
        "sha256sum a b | cut -c 1-64 | sort | sha256sum"
    )
    assert workflow_record(input_fingerprint={"a": files[1], "b": files[0]})["input_fingerprint"] == shell(
        "sha256sum a b | sort | sha256sum"
    )


def test_a_large_file_stands_for_itself_by_its_place_size_and_last_change(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")

    one, again = (
        workflow_record(input_fingerprint=provd.File(tmp_path / "a", checksum=False))["input_fingerprint"]
        for _ in range(2)
    )
    (tmp_path / "a").write_text("aa")
    changed = workflow_record(input_fingerprint=provd.File(tmp_path / "a", checksum=False))[
        "input_fingerprint"
    ]

    assert one == again != changed


@pytest.mark.parametrize("wrong", [5, [], [5], {"a": None}, ["missing"], Path("missing"), object()])
def test_inputs_that_cannot_be_read_cost_the_fingerprint_and_nothing_else(wrong: Any) -> None:
    record = workflow_record(input_fingerprint=wrong, args={"lr": 1})

    assert "input_fingerprint" not in record
    assert record["status"] == "FINISHED"
    assert record["config_hash"]


def test_each_call_of_a_decorated_function_has_the_same(tmp_path: Path) -> None:
    @provd.workflow("nightly", args={"lr": 1}, code_ref="r1")
    def main() -> None: ...

    with captured() as capture:
        main()
        main()

    assert [(w["code_ref"], len(w["config_hash"])) for w in capture.workflows()] == [("r1", 64)] * 2
