"""`provd status`: what is under way and where it waits, also when a service is away."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from provd.common.record import Status
from provd.store.interface import Quarantined, Store
from tests.builders import START_MS, ProducerBuilder, finished_run
from tests.conftest import RunProvd, StartProvd
from tests.integration.feeder import Feeder
from tests.services.ports import free_port
from tests.services.redis_server import RedisServer
from tests.services.waiting import wait_until

PrivateRedis = Callable[..., RedisServer]


@pytest.fixture
def store_url(tmp_path: Path) -> str:
    """An embedded store of the test's own."""
    return f"sqlite:///{tmp_path}/provd.db"


@pytest.fixture
def services(redis_url: str, namespace: str, store_url: str) -> dict[str, str]:
    """The environment that leads to both."""
    return {"PROVD_BROKER_URL": redis_url, "PROVD_NAMESPACE": namespace, "PROVD_STORE_URL": store_url}


def document(result: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The one object that was printed."""
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_what_waits_in_redis_is_shown_with_its_age_before_any_consumer_runs(
    run_provd: RunProvd, services: dict[str, str], client: redis.Redis, namespace: str, store: Store
) -> None:
    Feeder(client, namespace, "w1", campaign_id="exp42").whole_run(40, frame=10)
    Feeder(client, namespace, "w2").whole_run(3)

    result, page = (
        run_provd("status", "--json", env=services),
        run_provd("status", env=services | {"COLUMNS": "80"}),
    )

    assert result.returncode == 0, result.stderr
    found = document(result)
    first, second = sorted(found["workflows"], key=lambda view: view["workflow_id"])
    assert (first["campaign_id"], first["frames"], first["pending"], first["stored"]) == ("exp42", 5, 0, 0)
    assert second["frames"] == 1
    assert 0 <= first["oldest_s"] < 60
    assert (found["consumers"], found["broker"]["policy"]) == ([], "noeviction")
    assert "no consumer runs" in page.stdout
    assert max(map(len, page.stdout.splitlines())) <= 80


def test_a_running_consumer_and_what_it_has_stored_are_shown(
    run_provd: RunProvd,
    start_provd: StartProvd,
    services: dict[str, str],
    client: redis.Redis,
    namespace: str,
    store: Store,
) -> None:
    feeder = Feeder(client, namespace, "w1")
    feeder.send([feeder.hello(), *feeder.tasks(40)])
    consumer = start_provd("consume", env=services)
    wait_until(lambda: feeder.length() == 0, 30)
    wait_until(store.consumers, 30)

    running = document(run_provd("status", "--json", env=services))
    consumer.stop()
    wait_until(lambda: store.consumers()[0]["state"] == "stopped", 30)
    stopped = run_provd("status", env=services)

    (one,) = running["consumers"]
    (view,) = running["workflows"]
    assert (one["state"], view["frames"], view["stored"], view["produced"]) == ("running", 0, 41, 41)
    assert "no consumer runs" in stopped.stdout


def test_spooled_dropped_and_quarantined_messages_are_counted_each_where_it_is(
    run_provd: RunProvd,
    start_provd: StartProvd,
    services: dict[str, str],
    client: redis.Redis,
    namespace: str,
    store: Store,
) -> None:
    """G7: in a producer's spool, in a consumer's, dropped with the reason, quarantined."""
    feeder = Feeder(client, namespace, "w1")
    feeder.send([feeder.hello(), *feeder.tasks(9)])
    reasons = {"spool ceiling": 2, "disk error": 1}
    feeder.seq = 30
    feeder.beat(1_795_183_200_000, spooled=[[11, 15]], dropped=[[21, 23]], dropped_reasons=reasons)
    client.hset(feeder.keys.spooled, feeder.producer_id, "16-19")
    store.add_quarantined(
        [Quarantined("damaged on the way", b"x", "s", "1-1", feeder.producer_id, "w1", 20, 20)]
    )
    start_provd("consume", env=services)
    wait_until(lambda: store.count("beats", {}) == 1 and feeder.length() == 0, 30)

    found, page = document(run_provd("status", "--json", env=services)), run_provd("status", env=services)
    verified = run_provd("runs", "verify", "w1", env=services)

    (view,) = found["workflows"]
    assert {name: view[name] for name in ("produced", "stored", "spooled", "held", "quarantined", "dropped")} == {
        "produced": 30, "stored": 10, "spooled": 5, "held": 4, "quarantined": 1, "dropped": 3,
    }  # fmt: skip
    assert view["dropped_reasons"] == reasons
    assert "dropped: 2 spool ceiling, 1 disk error" in page.stdout
    for text in ("16-19", "spool ceiling", "provd quarantine list", "provd replay --recover"):
        assert text in " ".join(verified.stdout.split())


def test_with_the_store_away_redis_is_shown_and_the_exit_is_3(
    run_provd: RunProvd, services: dict[str, str], client: redis.Redis, namespace: str
) -> None:
    feeder = Feeder(client, namespace, "w1")
    feeder.whole_run(40)
    feeder.beat(1_795_183_200_000, spooled=[[50, 59]], dropped=[])
    client.hset(feeder.keys.spooled, feeder.producer_id, "60-61")
    away = services | {
        "PROVD_STORE_URL": f"mongodb://127.0.0.1:{free_port()}/provd?serverSelectionTimeoutMS=300"
    }

    result, page = run_provd("status", "--json", env=away), run_provd("status", env=away)

    assert (result.returncode, page.returncode) == (3, 3)
    found = document(result)
    (view,) = found["workflows"]
    assert (view["frames"], view["spooled"], view["held"], "stored" in view) == (1, 10, 2, False)
    assert (found["store"]["up"], found["broker"]["up"], "consumers" in found) == (False, True, False)
    assert "the store cannot be asked" in page.stdout


def test_with_redis_away_the_store_is_shown_and_the_exit_is_3(
    run_provd: RunProvd, services: dict[str, str], store: Store
) -> None:
    store.add_quarantined([Quarantined("damaged on the way", b"x", "s", "1-1", "p1", "w1", 20, 20)])
    away = services | {"PROVD_BROKER_URL": f"redis://127.0.0.1:{free_port()}/0"}

    result, page = run_provd("status", "--json", env=away), run_provd("status", env=away)

    assert (result.returncode, page.returncode) == (3, 3)
    found = document(result)
    (view,) = found["workflows"]
    assert (view["workflow_id"], view["quarantined"], "frames" in view) == ("w1", 1, False)
    assert "Redis cannot be asked" in page.stdout


def test_runs_that_are_not_whole_are_listed_without_stream_and_beat_and_the_whole_ones_counted(
    run_provd: RunProvd, services: dict[str, str], store: Store
) -> None:
    """As after `provd replay` of a file that a line is cut out of: no consumer has ever seen these."""
    finished_run(store, "whole-1")
    finished_run(store, "whole-2", failing=0)
    gap = ProducerBuilder("gap", "p-gap", started_at=START_MS + 2).open().workflow(Status.RUNNING)
    gap.task("train", Status.ERROR)
    gap.task()
    gap.workflow().close().write(store, without=[4])
    ProducerBuilder("silent", "p-silent", started_at=START_MS + 1).open().workflow(Status.RUNNING).write(
        store
    )

    found = document(run_provd("status", "--json", env=services))
    page, one = (
        run_provd("status", *options, env=services | {"COLUMNS": "80"}) for options in ((), ("-w", "whole-2"))
    )

    assert [
        (view["workflow_id"], view["status"], view["missing"], view["unclosed"])
        for view in found["workflows"]
    ] == [("gap", "DEGRADED", 1, 0), ("silent", "LOST", 0, 1)]
    assert (found["whole"], found["unseen"], found["others"]) == (2, 0, 0)
    lines = [line.split() for line in page.stdout.splitlines()]
    assert ["workflow", "status", "produced", "stored", "missing", "unclosed"] in lines
    assert ["gap", "DEGRADED", "6", "5", "1", "0"] in lines
    assert "2 runs ended and wholly stored: `-w ID` shows any one" in page.stdout
    assert "provd runs verify ID" in page.stdout
    assert max(map(len, page.stdout.splitlines())) <= 80
    assert ["whole-2", "FINISHED", "8", "8"] in [line.split() for line in one.stdout.splitlines()]


def test_a_tenant_and_everybody_see_the_same_of_the_tenants_runs(
    run_provd: RunProvd, services: dict[str, str], store: Store
) -> None:
    for name, lost in (("whole", ()), ("gap", (4,))):
        owner = ProducerBuilder(name, f"p-{name}").open().workflow(Status.RUNNING)
        owner.task()
        owner.workflow().close()
        for message in owner.messages:
            message.record["tenant_id"] = "ours"
        owner.write(store, without=lost)

    everybody, ours, others, asked = (
        document(run_provd("status", *options, "--json", env=services | tenant))
        for options, tenant in (
            ((), {}),
            ((), {"PROVD_TENANT_ID": "ours"}),
            ((), {"PROVD_TENANT_ID": "others"}),
            (("-w", "gap"), {"PROVD_TENANT_ID": "others"}),
        )
    )

    assert [view["workflow_id"] for view in everybody["workflows"]] == ["gap"]
    assert (ours["workflows"], ours["whole"]) == (everybody["workflows"], 1)
    assert (others["workflows"], others["whole"], asked["workflows"]) == ([], 0, [])


def test_a_message_that_may_wait_in_redis_is_not_called_missing_while_redis_is_away(
    run_provd: RunProvd, services: dict[str, str], store: Store
) -> None:
    owner = ProducerBuilder("gap", "p-gap").open().workflow(Status.RUNNING)
    owner.task()
    owner.close().write(store, without=[3])
    away = services | {"PROVD_BROKER_URL": f"redis://127.0.0.1:{free_port()}/0"}

    found, page = document(run_provd("status", "--json", env=away)), run_provd("status", env=away)

    assert "missing" not in found["workflows"][0]
    assert ["gap", "LOST", "4", "3", "?"] in [line.split() for line in page.stdout.splitlines()]


def test_with_both_away_it_says_so_and_the_exit_is_3(run_provd: RunProvd, tmp_path: Path) -> None:
    away = {
        "PROVD_BROKER_URL": f"redis://:secret@127.0.0.1:{free_port()}/0",
        "PROVD_STORE_URL": f"sqlite:///{tmp_path}/none.db",
    }

    result = run_provd("status", env=away)

    assert result.returncode == 3
    assert "secret" not in result.stdout
    assert "nothing is known" in result.stdout


def test_watching_prints_a_block_at_a_time_away_from_a_terminal_and_ends_on_ctrl_c(
    start_provd: StartProvd, services: dict[str, str], client: redis.Redis, namespace: str, store: Store
) -> None:
    feeder = Feeder(client, namespace, "w1")
    watching = start_provd("status", "--watch", "--interval", "0.2", "--json", env=services)
    wait_until(lambda: len(_lines(watching.log)) >= 2, 30)
    feeder.whole_run(3)

    wait_until(lambda: bool(_lines(watching.log)[-1]["workflows"]), 30)
    watching.send(signal.SIGINT)

    assert watching.wait(30) == 130


def _lines(log: Path) -> list[dict[str, Any]]:
    lines = log.read_text().splitlines(keepends=True) if log.exists() else []
    return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}\n")]


def test_looking_sets_nothing_in_redis(
    run_provd: RunProvd, private_redis: PrivateRedis, store_url: str, store: Store
) -> None:
    server = private_redis()
    with server.client() as client:
        result = run_provd("status", env={"PROVD_BROKER_URL": server.url, "PROVD_STORE_URL": store_url})

        assert (result.returncode, client.dbsize()) == (0, 0)
    assert "nothing is under way" in result.stdout


def test_a_user_who_may_not_look_at_entries_sees_how_many_wait_and_how_old_those_in_hand_are(
    run_provd: RunProvd, private_redis: PrivateRedis, store_url: str, store: Store
) -> None:
    server = private_redis()
    with server.client() as client:
        taken, waiting = Feeder(client, "provd", "taken"), Feeder(client, "provd", "waiting")
        taken.whole_run(3)
        waiting.whole_run(3)
        client.xreadgroup("provd", "someone", {taken.keys.stream: ">"})
        rights = "+ping +info +time +select +get +smembers +hvals +hgetall +xlen +xpending"
        client.execute_command("ACL", "SETUSER", "looker", "on", ">looking", "%R~*", *rights.split())
    url = server.url.replace("redis://", "redis://looker:looking@")

    result = run_provd("status", "--json", env={"PROVD_BROKER_URL": url, "PROVD_STORE_URL": store_url})

    assert result.returncode == 0, result.stdout
    views = {view["workflow_id"]: view for view in document(result)["workflows"]}
    assert (views["taken"]["frames"], views["taken"]["pending"], views["taken"]["oldest_s"] >= 0) == (
        1,
        1,
        True,
    )
    assert (views["waiting"]["frames"], "oldest_s" in views["waiting"]) == (1, False)
