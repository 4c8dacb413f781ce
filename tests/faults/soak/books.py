"""The end of a soak: everything drained, spools brought in, and the books and Redis' keys as they should be."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from provd.common import names
from provd.common.names import WorkflowKeys
from tests.faults.soak.diaries import Stint
from tests.faults.soak.stage import NAMESPACE, Stage, is_settled
from tests.services.waiting import wait_until

#: Seconds that the consumers get to empty the streams, and to retire what has ended.
DRAIN_S = 300.0
_RETIRE_S = 60.0

_REPLAY_S = 900.0


def provd(stage: Stage, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command of ours to its end."""
    return subprocess.run(
        [sys.executable, "-m", "provd", *arguments],
        capture_output=True, text=True, check=False, timeout=_REPLAY_S, cwd=stage.folder, env=stage.env,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip


def drain(stage: Stage) -> None:
    """Wait until the streams and the consumers' own spools are empty; raises `TimeoutError`."""
    with stage.broker() as client:
        wait_until(lambda: is_settled(client), DRAIN_S, "empty streams")
    wait_until(lambda: not _consumer_files(stage), DRAIN_S, "empty spools of the consumers")


def _consumer_files(stage: Stage) -> list[str]:
    if not stage.consumer_spool.is_dir():
        return []
    return [str(path) for path in stage.consumer_spool.rglob("*.jsonl*")]


@dataclass(frozen=True, slots=True)
class Recovery:
    """What `provd replay --recover` brought in, and what went wrong."""

    messages: int = 0
    failures: tuple[str, ...] = ()


def recover(stage: Stage, interrupted: Iterable[Stint]) -> Recovery:
    """Bring in what the producers left behind; `interrupted` were ended by a signal."""
    if not stage.spool.is_dir():
        return Recovery()
    done = provd(stage, "replay", "--recover", str(stage.spool), "--json")
    try:
        document = json.loads(done.stdout)
    except ValueError:
        return Recovery(0, (f"provd replay --recover: exit {done.returncode}: {done.stderr[-2000:]}",))
    # A signal may leave one torn line at the end of a file: nobody was told that it was written.
    tearing = tuple(f"{stint.producer_id}." for stint in interrupted)
    bad = [
        line
        for line in document["bad_lines"]
        if not (line["error"].startswith("torn") and Path(line["path"]).name.startswith(tearing))
    ]
    failures = [f"replay: unreadable: {line}" for line in bad[:5]]
    if document["refused"] or done.returncode > 1:
        failures.append(f"provd replay --recover: exit {done.returncode}, {document['refused']} refused")
    return Recovery(document["messages"], tuple(failures))


def check_workflow(stage: Stage, workflow_id: str, silenced: Sequence[Stint]) -> Iterator[str]:
    """What the books of a workflow say that they should not; `silenced` producers had no chance to say goodbye."""
    done = provd(stage, "runs", "verify", workflow_id, "--json")
    try:
        books = json.loads(done.stdout)
    except ValueError:
        yield f"provd runs verify {workflow_id}: exit {done.returncode}: {done.stdout} {done.stderr[-2000:]}"
        return
    for bucket in ("missing", "dropped", "quarantined", "spooled", "unattributed"):
        if books[bucket]:
            yield f"{workflow_id}: {books[bucket]} {bucket}: {_ranges(books, bucket)}"
    if books["missing_ranks"]:
        yield f"{workflow_id}: missing ranks {books['missing_ranks']}"
    yield from _check_unclosed(books, silenced)
    for producer in books["producers"]:
        ended = producer.get("tasks_ended")
        if ended is not None and ended != producer["tasks_stored"]:
            yield f"{producer['producer_id']} ended {ended} tasks, {producer['tasks_stored']} are stored"
    if books["complete"] != (done.returncode == 0) or books["complete"] == bool(books["unclosed"]):
        yield f"{workflow_id}: exit {done.returncode}, complete {books['complete']}, unclosed {books['unclosed']}"


def _check_unclosed(books: Mapping[str, Any], silenced: Sequence[Stint]) -> Iterator[str]:
    unclosed = set(books["unclosed"])
    # One that was ended before it had done anything is known or not, as it happened.
    known = {stint.producer_id for stint in silenced if stint.count}
    if known - unclosed:
        yield f"{books['workflow_id']}: killed, and shown as closed: {sorted(map(str, known - unclosed))}"
    never_silenced = unclosed - {stint.producer_id for stint in silenced}
    if never_silenced:
        yield f"{books['workflow_id']}: unclosed, and never killed: {sorted(never_silenced)}"


def _ranges(books: Mapping[str, Any], bucket: str) -> str:
    found = {
        producer["producer_id"]: producer[bucket] for producer in books["producers"] if producer.get(bucket)
    }
    return json.dumps(found)[:500]


def check_keys(stage: Stage, *, unclosed: Iterable[str]) -> Iterator[str]:
    """Keys that should not be in Redis any more; `unclosed` are the workflows that keep theirs for a day."""
    with stage.broker() as client:
        expected = set(_expected_keys(client, unclosed))
        try:
            wait_until(lambda: _keys(client) <= expected, _RETIRE_S, "retirement")
        except TimeoutError:
            yield f"keys left in Redis: {sorted(_keys(client) - expected)}"


def _keys(client: Any) -> set[str]:
    return {key.decode() for key in client.scan_iter(match=f"{NAMESPACE}:*", count=1000)}


def _expected_keys(client: Any, unclosed: Iterable[str]) -> Iterator[str]:
    yield names.buckets_key(NAMESPACE)
    buckets = int(client.get(names.buckets_key(NAMESPACE)) or 1)
    for workflow_id in unclosed:
        keys = WorkflowKeys.of(NAMESPACE, buckets, workflow_id, "soak")
        yield from (keys.registry, keys.stream, keys.beats, keys.spooled, keys.stored)
