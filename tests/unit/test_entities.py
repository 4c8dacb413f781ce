"""Files and declared keys, as they are recorded."""

from __future__ import annotations

import hashlib
import os
import pickle
import re
from pathlib import Path
from typing import Any

import pytest

import provd
from provd.common import wire
from provd.producer.capture import freeze


def recorded(value: Any) -> Any:
    """What a reader finds for an argument."""
    row = freeze((value,))
    assert isinstance(row, bytes)
    (found,) = wire.unpack(row)
    return found


def settle(path: Path) -> Path:
    """Make a file look as if it had been changed long ago."""
    os.utime(path, (1_700_000_000, 1_700_000_000))
    return path


def test_a_file_is_recorded_by_path_size_and_checksum(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.csv").write_bytes(b"a,b\n")
    monkeypatch.chdir(tmp_path)

    assert recorded(provd.File("a.csv")) == {
        "type": "provd.File",
        "path": str(tmp_path / "a.csv"),
        "size": 4,
        "sha256": hashlib.sha256(b"a,b\n").hexdigest(),
    }


def test_a_file_stands_in_place_of_its_path(tmp_path: Path) -> None:
    file = provd.File(tmp_path / "a.csv")

    with open(file, "w") as stream:
        stream.write("x")

    assert Path(file).read_text() == "x"
    assert os.path.getsize(file) == 1
    assert (str(file), repr(file)) == (f"{tmp_path}/a.csv", f"provd.File('{tmp_path}/a.csv')")
    assert isinstance(file, os.PathLike)
    assert pickle.loads(pickle.dumps(file)) == file == provd.File(f"{tmp_path}/a.csv")
    assert len({file, provd.File(tmp_path / "a.csv"), provd.File("b")}) == 2


def test_what_is_recorded_is_the_file_at_that_moment(tmp_path: Path) -> None:
    path = tmp_path / "a"
    file = provd.File(path)
    sums = []
    for content in (b"one", b"two", b"one"):
        path.write_bytes(content)  # at once, and of the same size: its time alone may not show the change
        sums.append(recorded(file)["sha256"])

    assert sums == [hashlib.sha256(content).hexdigest() for content in (b"one", b"two", b"one")]


def bytes_read() -> int:
    """What this process has read so far."""
    return int(re.search(r"rchar: (\d+)", Path("/proc/self/io").read_text())[1])  # type: ignore[index]


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="needs the kernel's count of bytes read")
def test_a_file_that_did_not_change_is_read_once() -> None:
    path = Path(os.__file__)  # written long ago

    before = bytes_read()
    first = recorded(provd.File(path))
    between = bytes_read()
    again = recorded(provd.File(path))
    after = bytes_read()

    assert between - before >= path.stat().st_size > after - between
    assert again == first


@pytest.mark.parametrize("options", [{"checksum": False}, {"checksum_max": 3}])
def test_a_file_whose_checksum_would_cost_too_much_is_told_by_its_time_of_change(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    path = tmp_path / "large"
    path.write_bytes(b"data")
    settle(path)

    said = recorded(provd.File(path, **options))

    assert said == {
        "type": "provd.File",
        "path": str(path),
        "size": 4,
        "modified_ns": 1_700_000_000_000_000_000,
    }


def test_a_file_of_exactly_the_cap_has_a_checksum(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"data")

    assert "sha256" in recorded(provd.File(tmp_path / "a", checksum_max=4))


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe", "below a file", "nul", "loop"])
def test_what_is_no_readable_file_is_recorded_by_its_path_alone(tmp_path: Path, kind: str) -> None:
    """G1: nothing raises, and nothing waits for the writer of a pipe."""
    path = tmp_path / "x"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "below a file":
        path.write_bytes(b"")
        path = path / "y"
    elif kind == "nul":
        path = Path(f"{path}\0")
    elif kind == "loop":
        path.symlink_to(path)

    assert recorded(provd.File(path)) == {"type": "provd.File", "path": str(path)}


def test_a_path_of_another_kind_of_storage_is_left_as_it_is() -> None:
    assert recorded(provd.File("s3://bucket/key")) == {"type": "provd.File", "path": "s3://bucket/key"}


@pytest.mark.parametrize("path", [None, 5, object()])
def test_what_is_no_path_is_recorded_as_unreadable_and_raises_only_where_it_is_opened(path: Any) -> None:
    file = provd.File(path)

    assert recorded(file) == {"type": "provd.producer.entities.File", "unreadable": "TypeError"}
    with pytest.raises(TypeError):
        os.stat(file)


def test_a_path_of_bytes_that_are_no_text_is_followed() -> None:
    assert recorded(provd.File(os.fsdecode(b"/data/\xff")))["path"] == "/data/\udcff"


@pytest.mark.parametrize(
    ("key", "said"),
    [
        (provd.Key("model/3"), {"type": "provd.Key", "key": "model/3"}),
        (provd.Key(3), {"type": "provd.Key", "key": "3"}),
        (provd.Key("a", 0.5), {"type": "provd.Key", "key": "a", "value": 0.5}),
        (provd.Key("a", {"password": "x"}), {"type": "provd.Key", "key": "a", "value": {"password": "***"}}),
    ],
)
def test_a_declared_key_is_recorded_with_its_value(key: provd.Key, said: dict[str, Any]) -> None:
    assert recorded(key) == said


def test_a_file_that_has_more_to_read_than_its_size_is_not_read_to_its_end() -> None:
    """Files in `/proc` have no size, and some of them no end."""
    path = Path("/proc/self/status")
    if not path.exists():
        pytest.skip("there is no /proc here")

    assert provd.File(path).to_provd_dict() == {"type": "provd.File", "path": str(path)}
