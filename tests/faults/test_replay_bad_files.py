"""Replaying whatever is found where spools are, in whatever state.

G4: one bad record harms only itself.
"""

from __future__ import annotations

import gzip
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from provd.common.record import Kind
from provd.common.spool import LINE_BYTES_MAX, decode_line, encode_line
from provd.common.spool_reader import SpoolReader
from provd.consumer.replay import replay_into_store
from provd.producer.replay import replay_into_broker
from provd.store.interface import Store
from tests.conftest import RunProvd
from tests.faults.replaying import brought_in, settings_of, spool, whole_run
from tests.integration.feeder import Feeder
from tests.streams import Streams


def test_of_torn_truncated_garbled_duplicated_foreign_and_empty_files_every_sound_line_arrives(
    feeder: Feeder, store: Store, tmp_path: Path, run_provd: RunProvd, mongo_url: str
) -> None:
    """G4: one bad record harms only itself; replay reports line numbers and goes on."""
    # Given one run over files in every state
    folder = tmp_path / "spool"
    folder.mkdir()
    parts = [feeder.tasks(4) for _ in range(5)]
    lines = [[encode_line(message) for message in part] for part in parts]
    sound = spool(folder, [feeder.hello(), *parts[0]], name="sound")
    (folder / "copy.jsonl").write_bytes(sound.read_bytes())
    (folder / "torn.jsonl").write_bytes(b"".join(lines[1]) + lines[2][0][:50])
    (folder / "inside.jsonl").write_bytes(lines[2][0] + lines[2][1][:50] + b"\n" + b"".join(lines[2][1:]))
    (folder / "garbled.jsonl").write_bytes(b"\x00\xff" * 9 + b"\n" + b"".join(lines[3]) + b"[" * 9999 + b"\n")
    (folder / "foreign.jsonl").write_bytes(b'{"a": 1}\n[1, 2]\n"text"\n17\n')
    (folder / "empty.jsonl").touch()
    (folder / "header.jsonl").write_bytes(sound.read_bytes().splitlines(keepends=True)[0])
    (folder / "packed.jsonl").write_bytes(gzip.compress(b"".join(lines[4])))
    (folder / "notes.txt").write_text("not looked at")
    (tmp_path / "table.csv").write_text("a,b\n1,2\n")
    (tmp_path / "plot.png").write_bytes(b"\x89PNG\r\n\x1a\n\x00\x00")
    spool(folder, [*parts[4], feeder.goodbye()], name="last")

    # When all of it is replayed
    done = run_provd("replay", "spool", "table.csv", "plot.png", "--store", mongo_url, "--json")

    # Then what is wrong is named by file and line, and the books are complete
    assert done.returncode == 1
    report = json.loads(done.stdout)
    places = {(Path(bad["path"]).name, bad["line"]) for bad in report["bad_lines"]}
    assert {
        ("torn.jsonl", 5), ("inside.jsonl", 2), ("garbled.jsonl", 1), ("garbled.jsonl", 6),
        ("foreign.jsonl", 1), ("foreign.jsonl", 2), ("foreign.jsonl", 3), ("foreign.jsonl", 4),
        ("table.csv", 1), ("table.csv", 2), ("plot.png", 1),
    } <= places  # fmt: skip
    assert {name for name, _ in places}.isdisjoint({"empty.jsonl", "header.jsonl", "copy.jsonl", sound.name})
    assert brought_in(store, feeder)


def test_what_cannot_be_opened_is_named_and_the_rest_comes_in(
    feeder: Feeder, store: Store, tmp_path: Path
) -> None:
    """A folder without permission, a loop of links, a link to nothing, a pipe, a folder with a spool's name."""
    folder = tmp_path / "spool"
    spool(folder, whole_run(feeder, 5))
    os.symlink("loop.jsonl", folder / "loop.jsonl")
    os.symlink("nothing", folder / "nowhere.jsonl")
    os.symlink(folder, folder / "again")
    os.mkfifo(folder / "pipe.jsonl")
    (folder / "folder.jsonl").mkdir()

    report = replay_into_store([folder], store)

    assert brought_in(store, feeder)
    assert {(bad.path.name, bad.number) for bad in report.bad_lines} == {
        ("loop.jsonl", 0), ("nowhere.jsonl", 0), ("pipe.jsonl", 0),
    }  # fmt: skip


@pytest.mark.skipif(os.geteuid() == 0 and not Path("/usr/bin/setpriv").exists(), reason="root may read all")
def test_files_and_folders_without_permission_are_named_and_the_rest_comes_in(
    feeder: Feeder, tmp_path: Path
) -> None:
    # Given a file and a folder that may not be read, beside one that may
    folder = tmp_path / "spool"
    folder.mkdir()
    closed, secret = folder / "closed.jsonl", folder / "secret"
    line = encode_line(feeder.hello())
    for path in (folder / "open.jsonl", closed):
        path.write_bytes(line)
    secret.mkdir()
    (secret / "x.jsonl").write_bytes(line)

    # When someone reads them who is not root
    source = (
        "import os, sys\n"
        "from provd.common.spool_reader import SpoolReader\n"
        "if os.geteuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "reader = SpoolReader()\n"
        "found = [line for file in reader.read([__import__('pathlib').Path(sys.argv[1])]) for line in reader.lines(file)]\n"
        "print(len(found), sorted((bad.path.name, bad.number, bad.error) for bad in reader.bad))\n"
    )
    for path in (*folder.parents, folder):
        if path.stat().st_uid == os.geteuid() and path.is_relative_to("/tmp"):
            path.chmod(0o755)
    closed.chmod(0)
    secret.chmod(0)
    ended = subprocess.run(
        [sys.executable, "-c", source, str(folder)], capture_output=True, text=True, check=False
    )
    secret.chmod(0o700)

    # Then both are named
    assert ended.stdout == (
        "1 [('closed.jsonl', 0, 'Permission denied'), ('secret', 0, 'Permission denied')]\n"
    ), ended.stderr


def test_a_line_of_a_gigabyte_costs_bounded_memory_and_only_itself(feeder: Feeder, tmp_path: Path) -> None:
    """G5: bounded. The file is sparse: a gigabyte of zeros in one line, between two sound ones."""
    path = tmp_path / "long.jsonl"
    first, last = (encode_line(message) for message in feeder.tasks(2))
    with path.open("wb") as stream:
        stream.write(first)
        stream.truncate(len(first) + (1 << 30))
        stream.seek(0, os.SEEK_END)
        stream.write(b"\n" + last)

    source = (
        "import resource, sys, pathlib\n"
        "from provd.common.spool_reader import SpoolReader\n"
        "reader = SpoolReader()\n"
        "path = pathlib.Path(sys.argv[1])\n"
        "found = [line.number for file in reader.read([path]) for line in reader.lines(file)]\n"
        "print(found, [bad.number for bad in reader.bad])\n"
    )
    limit = 512 << 20
    ended = subprocess.run(
        [sys.executable, "-c", source, str(path)],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert LINE_BYTES_MAX < limit / 4
    assert ended.stdout == "[1, 3] [2]\n", ended.stderr


def test_a_folder_full_of_foreign_lines_is_counted_in_bounded_memory(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_bytes(b"a,b,c\n" * 100_000)
    reader = SpoolReader()

    found = [line for file in reader.read([tmp_path]) for line in reader.lines(file)]

    assert (found, reader.bad_count, len(reader.bad)) == ([], 100_000, 1000)


_WORDS = [
    "kind",
    "task",
    "task_id",
    "seq",
    "status",
    "schema_version",
    "campaign_id",
    "started_at",
    "$date",
    "~int",
]
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.sampled_from(_WORDS),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(_WORDS) | st.text(), inner, max_size=6),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=300)
@given(
    fields=st.dictionaries(st.sampled_from(_WORDS) | st.text(), _JSON, max_size=5), cut=st.integers(0, 400)
)
def test_a_line_is_a_sound_message_or_a_value_error(fields: dict[str, Any], cut: int) -> None:
    """Whatever stands in a line, reading it ends in a message whose place in the books makes sense, or says why not."""
    message = Feeder(redis.Redis(), "ns").tasks(1)[0]
    document = json.loads(encode_line(message)) | fields
    line = json.dumps(document).encode()[: cut or None]

    try:
        found = decode_line(line)
    except ValueError:
        return

    assert found.kind in Kind
    assert 0 < found.seq < 1 << 53
    assert isinstance(found.record.get("status", ""), str)


@pytest.mark.parametrize(
    "odd",
    [
        {"workflow_id": "../../etc/passwd"},
        {"workflow_id": "a:{b}:stream"},
        {"campaign_id": ["x"]},
        {"campaign_id": "a b"},
        {"producer_id": "*"},
        {"seq": 1 << 63},
        {"seq": True},
        {"seq": -1},
        {"status": {"$ne": 1}},
        {"task_id": 7},
        {"schema_version": "2"},
        {"schema_version": 999},
    ],
    ids=str,
)
def test_a_line_with_an_id_or_number_that_cannot_be_one_is_refused(
    feeder: Feeder, odd: dict[str, Any]
) -> None:
    document = json.loads(encode_line(feeder.tasks(1)[0])) | odd

    with pytest.raises(ValueError, match=r"\w"):
        decode_line(json.dumps(document).encode() + b"\n")


def test_a_line_that_fits_into_no_frame_is_named_and_those_around_it_are_sent(
    feeder: Feeder, streams: Streams, tmp_path: Path
) -> None:
    """Seven hundred lists inside one another are JSON, and are more than a frame's encoding takes."""
    before, odd, after = feeder.tasks(3)
    deep = encode_line(odd).replace(b'"lr":0.1', b'"lr":' + b"[" * 700 + b"]" * 700)
    path = tmp_path / "deep.jsonl"
    path.write_bytes(encode_line(before) + deep + encode_line(after))

    report = replay_into_broker([path], settings_of(streams))

    assert [(bad.number, bad.path) for bad in report.bad_lines] == [(2, path)]
    assert [message.seq for message in streams.messages()] == [1, 3]
