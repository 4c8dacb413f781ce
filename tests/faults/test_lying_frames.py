"""Frames that claim more than they hold.

G4: they are quarantined, and the frames around them are stored. G5: a frame that claims four gigabytes is not given
them.
"""

from __future__ import annotations

import json
import os
import resource
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
import redis

from provd.common import names, wire
from provd.store.books import read_books
from tests.faults.proof import assert_stored_once
from tests.integration.consuming import consume, opened_store
from tests.integration.feeder import Feeder


def claims_four_gigabytes() -> dict[str, tuple[bytes, bytes]]:
    """Frames whose lengths lie, by what lies: msgpack's own headers, with sound checksums, and sections."""

    def header(packed: bytes) -> bytes:
        return struct.pack("<I", zlib.crc32(packed)) + packed

    def section(payload: bytes, size: int | None = None) -> bytes:
        size = len(payload) if size is None else size
        return struct.pack("<II", size, zlib.crc32(payload, size)) + payload

    def sound(count: int) -> bytes:
        return wire.encode_header(wire.Header("p" * 22, "w1", None, "h", 1, None, 1, count))

    table = section(wire.pack([["task", {}, None, None]]))
    huge = {
        "bin32": b"\xc6\xff\xff\xff\xff",
        "str32": b"\xdb\xff\xff\xff\xff",
        "ext32": b"\xc9\xff\xff\xff\xff\x01",
        "array32": b"\xdd\xff\xff\xff\xff",
        "map32": b"\xdf\xff\xff\xff\xff",
        "arrays in arrays": b"\xdd\xff\xff\xff\xff" * 2000,
        "deep arrays": b"\x91" * 100_000,
    }
    frames = {f"header, {name}": (header(b"\x9a\x01" + lie), b"") for name, lie in huge.items()}
    for name, lie in huge.items():
        frames[f"table, {name}"] = (sound(1), section(lie) + section(b"\x90") + section(lie))
        frames[f"row, {name}"] = (sound(1), table + section(b"\x98\x00" + lie) + table)
    frames["section"] = (sound(1), table + section(b"x" * 100, 0xFFFFFFF0) + table)
    frames["count"] = (sound(2**32), table + section(b"\x90") + table)
    frames["count of 64 bits"] = (sound(2**63), table + section(b"\x90") + table)
    return frames


@pytest.mark.parametrize("what", claims_four_gigabytes())
def test_a_frame_that_claims_gigabytes_is_quarantined_and_does_not_get_them(
    redis_url: str,
    client: redis.Redis,
    mongo_url: str,
    namespace: str,
    tmp_path: Path,
    slots: Path,
    what: str,
) -> None:
    """G4, G5: with an honest frame before and behind it."""
    feeder = Feeder(client, namespace)
    feeder.send(feeder.tasks(1))
    feeder.send_raw(*claims_four_gigabytes()[what])
    feeder.send(feeder.tasks(1))
    before = peak_bytes()

    consume(redis_url, mongo_url, namespace, tmp_path, slots)

    assert peak_bytes() - before < 64 << 20
    with opened_store(mongo_url) as store:
        assert store.count(names.QUARANTINE, {}) >= 1
        assert_stored_once(store, feeder)
        assert feeder.length() == 0
        assert not read_books(store, "w1").complete


def peak_bytes() -> int:
    """The most memory that this process has ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def test_decoding_all_the_lies_takes_little_memory() -> None:
    """G5: in a process that may not have more: its address space is limited."""
    script = f"""
import json, resource, sys
from provd.common import wire
from provd.common.errors import FrameError
frames = json.load(sys.stdin)
used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + {64 << 20}, used + {64 << 20}))
for name, (header, body) in frames.items():
    try:
        frame = wire.decode(bytes.fromhex(header), bytes.fromhex(body))
        assert frame.flaws and not frame.messages, name
    except FrameError:
        pass
print("done", len(frames))
"""
    frames = {name: (header.hex(), body.hex()) for name, (header, body) in claims_four_gigabytes().items()}
    ended = subprocess.run(
        [sys.executable, "-c", script],
        input=json.dumps(frames),
        capture_output=True,
        text=True,
        env=os.environ,
    )
    assert ended.stdout == f"done {len(frames)}\n", ended.stderr
