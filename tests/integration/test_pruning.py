"""What is old enough to be pruned: never a run of which something lives, or that is another campaign's, too."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from provd.common import clock, names
from provd.common.errors import OutputError
from provd.common.record import Kind, Message, Status
from provd.query.archive import Archiving, remove_run
from provd.query.pruning import Age, Candidates, find_candidates, still_goes
from provd.store.interface import Store
from tests.builders import ProducerBuilder, finished_run
from tests.integration.commands import Provd

_DAY_MS = 24 * 3600 * 1000


def ago(days: float) -> int:
    return clock.now_ms() - int(days * _DAY_MS)


def moment(days: float) -> datetime:
    return clock.to_datetime(ago(days))


def fates(found: Candidates) -> dict[str, list[str]]:
    parts = {"going": found.going, "staying": found.staying, "shared": found.shared}
    return {name: [run.workflow_id for run in runs] for name, runs in parts.items() if runs}


def joined(store: Store, days: float, *, ended: bool, **fields: Any) -> None:
    """A process that joined the old run: one that has ended, or one that was heard of a moment ago."""
    part = ProducerBuilder("old", "p-joined", started_at=ago(days), **fields).open()
    part.task(status=Status.FINISHED if ended else Status.RUNNING)
    if ended:
        part.close()
    part.write(store)
    if not ended:
        part.beat(store, clock.now_ms())


@pytest.mark.parametrize("force", [False, True])
def test_a_run_whose_owner_ended_long_ago_stays_while_a_process_of_it_works_on(
    store: Store, *, force: bool
) -> None:
    finished_run(store, "old", started_at=ago(40))
    joined(store, 39, ended=False)

    found = find_candidates(store, Age(moment(30), force=force))

    assert fates(found) == {"staying": ["old"]}
    assert found.staying[0].status == "RUNNING"


def test_a_run_that_a_process_has_joined_since_is_not_old_enough(store: Store) -> None:
    finished_run(store, "old", started_at=ago(40))
    joined(store, 2, ended=True)

    assert fates(find_candidates(store, Age(moment(30)))) == {}
    assert fates(find_candidates(store, Age(moment(1)))) == {"going": ["old"]}


def test_such_a_run_is_not_deleted_by_name_without_insisting_either(store: Store, provd: Provd) -> None:
    finished_run(store, "old", started_at=ago(40))
    joined(store, 39, ended=False)

    refused = provd("runs", "delete", "old", "--yes")

    assert (refused.exit_code, "is RUNNING" in refused.stderr) == (2, True)
    assert store.count(names.TASKS, {"workflow_id": "old"}) > 0


@pytest.mark.parametrize("how", ["a process", "a call"])
def test_a_run_in_which_another_campaign_has_tasks_is_not_pruned_with_one_of_them(
    store: Store, provd: Provd, how: str
) -> None:
    finished_run(store, "old", campaign_id="exp1", started_at=ago(40))
    finished_run(store, "alone", campaign_id="exp1", started_at=ago(40))
    if how == "a process":
        joined(store, 39, ended=True, campaign_id="exp2")
    else:
        part = ProducerBuilder("old", "p-joined", "exp1", started_at=ago(39)).open()
        part.task(campaign_id="exp2")
        part.close(campaigns=["exp2"]).write(store)

    assert fates(find_candidates(store, Age(moment(30), "exp1"))) == {"going": ["alone"], "shared": ["old"]}
    told = provd("runs", "prune", "--older-than", "30d", "--campaign-id", "exp1", "--yes")
    assert "having tasks of other campaigns: old" in told.stderr
    assert store.count(names.TASKS, {"workflow_id": "old"}) > 0
    assert store.count(names.TASKS, {"workflow_id": "alone"}) == 0
    assert fates(find_candidates(store, Age(moment(30)))) == {"going": ["old"]}  # of all campaigns


def test_what_was_found_is_looked_at_again_before_it_goes(store: Store) -> None:
    for name in ("old", "buried", "back"):
        finished_run(store, name, started_at=ago(40))
    age = Age(moment(30))
    store.begin_deletion("back", by="ada")
    found = find_candidates(store, age)
    assert fates(found) == {"going": ["buried", "old"]} or fates(found) == {"going": ["old", "buried"]}
    assert found.unfinished == ("back",)
    assert all(still_goes(store, name, age) for name in ("old", "buried", "back"))

    joined(store, 0, ended=False)
    store.begin_deletion("buried", by="ada")
    store.delete_run("buried")
    store.undelete_run("back")
    ProducerBuilder("back", "p-later", started_at=ago(1)).open().close().write(store)

    assert [name for name in ("old", "buried", "back") if still_goes(store, name, age)] == []


def test_an_archive_is_never_written_outside_of_its_folder(store: Store, tmp_path: Path) -> None:
    name = "../climbed"
    record = {"workflow_id": name, "status": "FINISHED", "started_at": ago(40), "ended_at": ago(40)}
    store.write([Message(Kind.WORKFLOW, "p1", name, 1, record)], received_at=ago(40))

    with pytest.raises(OutputError, match="cannot be the name of a file"):
        remove_run(store, name, archiving=Archiving(tmp_path / "archive"))

    assert not list(tmp_path.glob("climbed*"))
    assert store.count(names.WORKFLOWS, {"workflow_id": name}) == 1
