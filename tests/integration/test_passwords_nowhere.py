"""Passwords never reach a log, a record, a spool or a command line (G8), whatever goes wrong on the way."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bson
import pymongo
import pytest
import redis

from tests.conftest import RunProvd, StartProvd
from tests.services.mongo_server import MongoServer
from tests.services.redis_server import RedisServer
from tests.services.waiting import wait_until
from tests.streams import Script

BROKER_PASSWORD = "b-hunter2/+%?x"
STORE_PASSWORD = "s-hunter2@:%x"

#: What none of what provd writes may hold: both passwords begin or go on with it, in every quoting.
TRACE = "hunter2"

WORK = """
    import os, sys
    import provd

    @provd.task(tags=["urgent", "token=hunter2"])
    def fetch(url, password, raw):
        raise ConnectionError(f"cannot reach {url} with password={password!r}")

    @provd.task
    def load(url):
        return {"url": url}

    def main(url):
        with provd.workflow("sweep", workflow_id="w1", args={"url": url, "password": "hunter2"}):
            load(url)
            try:
                fetch(url, "hunter2", raw=b"\\xff" + url.encode())
            except ConnectionError:
                pass
            with provd.Task(f"get {url}", used={"token": "hunter2"}) as task:
                task.generated(text=f"from {url}")

    main(sys.argv[1])
"""


@dataclass
class Site:
    """Redis and MongoDB that ask for a password, and everything that was said or written meanwhile."""

    redis: RedisServer
    mongo: MongoServer
    root: Path
    said: list[str] = field(default_factory=list)

    @property
    def broker_url(self) -> str:
        return self.redis.url

    @property
    def store_url(self) -> str:
        from urllib.parse import quote

        return self.mongo.url_as("provd", quote(STORE_PASSWORD, safe=""), "provd")

    def documents(self) -> bytes:
        with pymongo.MongoClient[dict[str, Any]](self.store_url) as client:
            database = client["provd"]
            names = database.list_collection_names()
            return b"".join(bson.encode(one) for name in names for one in database[name].find())

    def keys(self) -> bytes:
        with redis.Redis.from_url(self.broker_url) as client:
            return b"".join(client.dump(key) or b"" for key in client.scan_iter())

    def files(self, *ignored: Path) -> Iterator[Path]:
        """Files of provd's: its data, spools and logs."""
        for path in sorted(self.root.rglob("*")):
            if path.is_file() and not any(path.is_relative_to(one) for one in ignored):
                yield path


@pytest.fixture
def site(
    private_redis: Callable[..., RedisServer], private_mongo: Callable[..., MongoServer], clean_env: Path
) -> Site:
    from urllib.parse import quote

    broker = private_redis(
        config={"requirepass": BROKER_PASSWORD}, credentials=":" + quote(BROKER_PASSWORD, safe="")
    )
    store = private_mongo(options=["--auth"])
    with store.client() as first:
        first["admin"].command("createUser", "admin", pwd="admin", roles=["root"])
    with pymongo.MongoClient[dict[str, Any]](store.url_as("admin", "admin", "admin")) as admin:
        admin["provd"].command("createUser", "provd", pwd=STORE_PASSWORD, roles=["readWrite"])
    return Site(broker, store, clean_env)


@pytest.fixture(params=[pytest.param("urls", marks=pytest.mark.long), "files"])
def secrets(request: pytest.FixtureRequest, site: Site, tmp_path: Path) -> dict[str, str]:
    """The passwords in the URLs, or in files of their own."""
    if request.param == "urls":
        return {"PROVD_BROKER_URL": site.broker_url, "PROVD_STORE_URL": site.store_url}
    folder = tmp_path / "secrets"
    folder.mkdir(mode=0o700)
    (folder / "broker_password").write_text(BROKER_PASSWORD + "\n")
    (folder / "store_password").write_text(STORE_PASSWORD + "\n")
    plain_broker = f"redis://{site.broker_url.rpartition('@')[2]}"
    plain_store = f"mongodb://provd@{site.store_url.rpartition('@')[2]}"
    return {
        "PROVD_BROKER_URL": plain_broker, "PROVD_STORE_URL": plain_store, "PROVD_SECRETS_DIR": str(folder),
    }  # fmt: skip


@pytest.fixture
def script(clean_env: Path, tmp_path: Path) -> Script:
    folder = tmp_path / "job"
    folder.mkdir()
    return Script(folder, dict(os.environ))


def test_a_whole_run_leaves_no_password_anywhere(
    site: Site, secrets: dict[str, str], script: Script, run_provd: RunProvd, start_provd: StartProvd
) -> None:
    # Given a program that is started with passwords, handles them, and fails over them
    command = [*script.command(WORK), site.broker_url, "--password", "hunter2"]
    said = []

    # When it runs by itself and as a command of ours, and all of it is stored and shown
    for done in (
        run_provd("run", "--workflow-id", "w0", "--", *command, env=secrets),
        script.run(WORK, site.store_url, env={**secrets, "PROVD_RECORD_VARIABLES": ",".join(secrets)}),
    ):
        assert done.returncode == 0, done.stderr
        said.append(done.stdout + done.stderr)
    in_redis = site.keys()
    consumer = start_provd("consume", "--workers", "2", env=secrets)
    wait_until(lambda: run_provd("runs", "verify", "w1", env=secrets).returncode == 0, 40)
    lines = _command_lines(consumer.pid)
    for arguments in (
        ["config", "show"], ["config", "show", "--json"], ["doctor"], ["doctor", "--json"], ["runs", "tail"],
        ["runs", "show", "w1"], ["runs", "show", "w0"], ["runs", "verify", "w1"], ["tasks", "--json"],
        ["query", "tasks", "{}"], ["query", "workflows", "{}"], ["query", "producers", "{}"],
    ):  # fmt: skip
        done = run_provd(*arguments, env=secrets)
        assert done.returncode == 0, done.stderr
        said.append(done.stdout + done.stderr)
    consumer.stop()

    # Then neither what was said, nor sent, nor stored, nor kept, has one in it
    assert TRACE not in "".join(said)
    assert TRACE.encode() not in in_redis
    assert TRACE.encode() not in site.documents()
    assert TRACE not in consumer.log.read_text()
    assert TRACE not in lines
    assert [path for path in site.files() if TRACE.encode() in path.read_bytes()] == []


def _command_lines(pid: int) -> str:
    """What `ps` shows everybody of a process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return "".join(Path(f"/proc/{one}/cmdline").read_text() for one in [str(pid), *children])


@pytest.mark.parametrize(
    "trouble", ["away", "wrong-password", pytest.param("no-tls", marks=pytest.mark.long), "odd-url"]
)
def test_no_failure_says_the_password(
    trouble: str,
    site: Site,
    script: Script,
    run_provd: RunProvd,
    start_provd: StartProvd,
) -> None:
    env = {"PROVD_BROKER_URL": site.broker_url, "PROVD_STORE_URL": site.store_url}
    if trouble == "away":
        site.redis.stop()
        site.mongo.kill()
    elif trouble == "wrong-password":
        env["PROVD_BROKER_URL"] = site.redis.url_as("default", "wrong-hunter2")
        env["PROVD_STORE_URL"] = site.mongo.url_as("provd", "wrong-hunter2", "provd")
    elif trouble == "no-tls":
        env["PROVD_BROKER_URL"] = env["PROVD_BROKER_URL"].replace("redis://", "rediss://")
        env["PROVD_STORE_URL"] += "&tls=true"
    else:  # not percent-encoded: a client takes the first half of it for a port, and says so
        env["PROVD_BROKER_URL"] = "redis://:pa-hunter2/word#x@127.0.0.1:1/0"
        env["PROVD_STORE_URL"] = "mongodb://u:pa-hunter2/word@127.0.0.1:1/x"
    if trouble != "odd-url":
        env["PROVD_STORE_URL"] += "&serverSelectionTimeoutMS=500&connectTimeoutMS=500"

    said: list[str] = []
    produced = script.run(WORK, site.broker_url, env=env)
    assert produced.returncode == 0
    said.append(produced.stdout + produced.stderr)
    spool = site.root / "data" / "spool"
    for arguments in (
        ["config", "show"], ["doctor"], ["doctor", "--json"], ["runs", "tail"], ["replay", str(spool)],
        ["run", "--", "true"],
    ):  # fmt: skip
        done = run_provd(*arguments, env=env)
        said.append(done.stdout + done.stderr)

    consumer = start_provd("consume", env=env)
    wait_until(lambda: not consumer.is_running or "waiting for" in consumer.tail(), 20)
    consumer.stop()
    said.append(consumer.log.read_text())

    assert "Traceback" not in "".join(said)
    assert TRACE not in "".join(said)
    files = list(site.files())
    assert [path for path in files if path.suffix == ".jsonl"]
    assert [path for path in files if TRACE.encode() in path.read_bytes()] == []


def test_the_settings_of_a_run_go_to_its_command_by_environment_alone(
    site: Site, secrets: dict[str, str], run_provd: RunProvd
) -> None:
    show = shutil.which("cat")
    assert show is not None

    done = run_provd("run", "--", show, "/proc/self/cmdline", env=secrets)

    assert (done.returncode, TRACE in done.stdout) == (0, False)


def test_config_show_says_that_there_is_a_password_and_where_it_is_from(
    site: Site, secrets: dict[str, str], run_provd: RunProvd
) -> None:
    shown = json.loads(run_provd("config", "show", "--json", env=secrets).stdout)

    if "PROVD_SECRETS_DIR" in secrets:
        entry = shown["broker_password"]
        assert (entry["value"], entry["source"]) == ("***", "secret")
        assert entry["from"].startswith(secrets["PROVD_SECRETS_DIR"])
        assert shown["store_url"]["effective"].startswith("mongodb://provd:***@")
    else:
        assert shown["broker_url"]["value"].startswith("redis://:***@")
        assert shown["broker_password"]["value"] is None
