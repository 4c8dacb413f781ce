"""`deploy/redis/users.acl`: each user of Redis can do its work, and no more (G8)."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.exceptions import NoPermissionError, ResponseError

from provd.common.names import WorkflowKeys
from tests.conftest import RunProvd
from tests.integration.programs import SWEEP
from tests.services.redis_server import RedisServer
from tests.streams import Script

ROOT = Path(__file__).parents[2]
USERS = ROOT / "deploy" / "redis" / "users.acl"
PASSWORD = "acl-hunter2"


@dataclass(frozen=True)
class Site:
    """A Redis with the users of `users.acl`, all with one password, and an administrator."""

    server: RedisServer

    def url(self, user: str) -> str:
        return self.server.url_as(user, PASSWORD)

    def client(self, user: str) -> Any:
        return redis.Redis.from_url(self.url(user), socket_timeout=10)


@pytest.fixture
def site(private_redis: Callable[..., RedisServer], tmp_path: Path) -> Site:
    file = tmp_path / "users.acl"
    lines = [
        line.replace(" on resetpass", f" on resetpass >{PASSWORD}") for line in USERS.read_text().splitlines()
    ]
    file.write_text("\n".join([*lines, f"user admin on >{PASSWORD} +@all ~* &*"]) + "\n")
    config = {"aclfile": str(file), "enable-debug-command": "yes"}  # so that only the user's rules forbid it
    return Site(private_redis(config=config, credentials=f"admin:{PASSWORD}"))


@pytest.fixture
def script(clean_env: Path, tmp_path: Path) -> Script:
    folder = tmp_path / "job"
    folder.mkdir()
    return Script(folder, dict(os.environ))


@pytest.fixture
def filled(site: Site, script: Script) -> tuple[Site, WorkflowKeys]:
    """A site where a producer with its own user has left a stream, and the stream's keys."""
    with site.client("provd-consumer") as consumer:
        consumer.set("provd:buckets", 16)
    done = script.run(SWEEP, env={"PROVD_BROKER_URL": site.url("provd-producer")})
    assert (done.returncode, done.stderr) == (0, "")
    return site, WorkflowKeys.of("provd", 16, "w1", "c1")


def _denied(site: Site) -> list[str]:
    """What Redis noted of commands that were refused, but for the name that a client gives itself."""
    with site.client("admin") as admin:
        return [
            f"{entry['username']}: {entry['object']} ({entry['reason']})"
            for entry in admin.acl_log()
            if not str(entry["object"]).startswith(("client|", "hello"))
        ]


def test_as_shipped_nobody_can_log_in(private_redis: Callable[..., RedisServer]) -> None:
    """No user has a password until the administrator gives one, and the default user is off."""
    server = private_redis()
    with server.client() as admin:
        for line in USERS.read_text().splitlines():
            if line.startswith("user provd-"):
                _, name, *rules = line.split()
                admin.execute_command("ACL", "SETUSER", name, *_selectors_joined(rules))

    for user in ("provd-producer", "provd-consumer", "provd-reader"):
        for password in ("", user, PASSWORD):
            client = redis.Redis.from_url(server.url_as(user, password or "x"))
            with client, pytest.raises(redis.AuthenticationError):
                client.ping()
    assert "user default off" in USERS.read_text().splitlines()


def _selectors_joined(rules: list[str]) -> list[str]:
    joined: list[str] = []
    for rule in rules:
        if joined and joined[-1].startswith("(") and not joined[-1].endswith(")"):
            joined[-1] += f" {rule}"
        else:
            joined.append(rule)
    return joined


@pytest.mark.parametrize("durability", ["memory", "disk"])
def test_a_workflow_goes_from_the_producers_user_to_the_consumers_without_one_refusal(
    durability: str, site: Site, script: Script, run_provd: RunProvd, tmp_path: Path
) -> None:
    """G2, with each side confined to its user."""
    store = f"sqlite:///{tmp_path}/provd.db"
    env = {"PROVD_BROKER_URL": site.url("provd-consumer"), "PROVD_STORE_URL": store}
    with site.client("provd-consumer") as consumer:
        consumer.set("provd:buckets", 16)
    producing = {"PROVD_BROKER_URL": site.url("provd-producer"), "PROVD_DURABILITY": durability}
    done = script.run(SWEEP, env=producing)
    assert (done.returncode, done.stderr) == (0, "")

    consumed = run_provd("consume", "--workflow-id", "w1", "--exit-when-done", "--grace", "20", env=env)
    spool = Path(os.environ["HOME"]) / "data" / "spool"
    if spool.exists():  # what waited for the store's receipt
        replayed = run_provd("replay", str(spool), env=producing)
        assert replayed.returncode == 0, replayed.stderr

    assert consumed.returncode == 0, consumed.stderr
    verified = run_provd("runs", "verify", "w1", "--json", env=env)
    assert verified.returncode == 0, verified.stdout
    assert _denied(site) == []


def test_a_retired_workflow_leaves_no_key_with_the_consumers_user(
    filled: tuple[Site, WorkflowKeys], run_provd: RunProvd, tmp_path: Path
) -> None:
    site, _ = filled
    env = {
        "PROVD_BROKER_URL": site.url("provd-consumer"),
        "PROVD_STORE_URL": f"sqlite:///{tmp_path}/provd.db",
    }

    consumed = run_provd("consume", "--workflow-id", "w1", "--exit-when-done", "--grace", "20", env=env)

    assert consumed.returncode == 0, consumed.stderr
    with site.client("admin") as admin:
        assert [key for key in admin.keys("*") if b"w1" in key] == []
    assert _denied(site) == []


def _attempts(keys: WorkflowKeys) -> list[tuple[Any, ...]]:
    stream = keys.stream
    return [
        # reading what others sent
        ("XRANGE", stream, "-", "+"), ("XREVRANGE", stream, "+", "-"), ("XREAD", "STREAMS", stream, "0"),
        ("XREADGROUP", "GROUP", "provd", "me", "STREAMS", stream, ">"), ("XPENDING", stream, "provd"),
        ("XCLAIM", stream, "provd", "me", 0, "1-1"), ("XAUTOCLAIM", stream, "provd", "me", 0, "0"),
        ("XINFO", "STREAM", stream, "FULL"), ("XINFO", "GROUPS", stream), ("XINFO", "CONSUMERS", stream, "provd"),
        ("XLEN", stream), ("DUMP", stream), ("MONITOR",), ("PSUBSCRIBE", "*"), ("OBJECT", "ENCODING", stream),
        ("SORT", keys.registry), ("SMEMBERS", keys.registry), ("HGETALL", keys.beats), ("HGET", keys.beats, "p"),
        ("HGETALL", keys.stored), ("COPY", stream, "provd:{0}:stream:x:y"),
        # deleting
        ("XDEL", stream, "1-1"), ("XTRIM", stream, "MAXLEN", 0), ("XACK", stream, "provd", "1-1"),
        ("XGROUP", "DESTROY", stream, "provd"), ("XGROUP", "SETID", stream, "provd", "$"),
        ("XGROUP", "DELCONSUMER", stream, "provd", "head-0"), ("XSETID", stream, "99999999999999-0"),
        ("DEL", stream), ("UNLINK", stream), ("EXPIRE", stream, 1), ("PEXPIREAT", stream, 1), ("RENAME", stream, "x"),
        ("MOVE", stream, 1), ("SET", stream, "x"), ("SET", "provd:buckets", 1), ("GETDEL", "provd:buckets"),
        ("GET", stream), ("SREM", keys.registry, stream), ("HDEL", keys.beats, "p"), ("SPOP", keys.registry),
        ("HSET", keys.stored, "p", "1-9"), ("HSET", keys.spooled, "p", "1-9"), ("HSET", keys.suspects, "1-1", "3"),
        ("MIGRATE", "127.0.0.1", 1, stream, 0, 1), ("RESTORE", stream, 0, b"x"), ("SWAPDB", 0, 1),
        ("FLUSHALL",), ("FLUSHDB",),
        # what belongs to the administrator, or to others
        ("CONFIG", "GET", "*"), ("CONFIG", "SET", "maxmemory", 1), ("ACL", "LIST"), ("ACL", "WHOAMI"), ("KEYS", "*"),
        ("SCAN", 0), ("RANDOMKEY",), ("DEBUG", "SLEEP", 0), ("SHUTDOWN",), ("SAVE",), ("BGREWRITEAOF",),
        ("REPLICAOF", "NO", "ONE"), ("CLIENT", "LIST"), ("CLIENT", "KILL", "TYPE", "normal"), ("SCRIPT", "FLUSH"),
        ("FUNCTION", "LIST"), ("MODULE", "LIST"), ("SLOWLOG", "GET"), ("LATENCY", "RESET"), ("SYNC",),
        ("XADD", "other:{1}:stream:-:w", "*", "h", "x"), ("XADD", "provd:{1}:streams:x", "*", "h", "x"),
        ("SADD", "else", "x"), ("GET", "else"), ("EVALSHA", "0" * 40, 0), ("FCALL", "f", 0),
    ]  # fmt: skip


def test_the_producers_user_cannot_read_delete_trim_flush_or_govern(
    filled: tuple[Site, WorkflowKeys],
) -> None:
    site, keys = filled
    allowed = []
    with site.client("admin") as admin:
        before = admin.xlen(keys.stream)
    for command in _attempts(keys):
        with site.client("provd-producer") as client:
            try:
                client.execute_command(*command)
            except NoPermissionError:
                continue
            except (ResponseError, redis.ConnectionError) as error:
                allowed.append((command, str(error)))
            else:
                allowed.append((command, "done"))

    assert allowed == []
    with site.client("admin") as admin:
        assert admin.xlen(keys.stream) == before > 0


def test_a_script_of_the_producers_user_can_do_no_more_than_its_commands(
    filled: tuple[Site, WorkflowKeys],
) -> None:
    """Redis checks every command of a script against the user that runs it."""
    site, keys = filled
    allowed = []
    call = "return redis.call(unpack(ARGV))"
    with site.client("provd-producer") as client:
        for command in _attempts(keys):
            for declared in ((), (keys.stream,)):
                try:
                    client.eval(call, len(declared), *declared, *command)
                except ResponseError as error:
                    # Some commands no script may run, whoever the user is.
                    if not any(
                        sign in str(error)
                        for sign in (
                            "NOPERM",
                            "ermission",
                            "can't access",
                            "not allowed from script",
                            "can't run this command",
                        )
                    ):
                        allowed.append((command, str(error)))
                else:
                    allowed.append((command, "done"))

    assert allowed == []


def test_what_the_producers_user_trims_by_adding_is_seen_as_missing(
    filled: tuple[Site, WorkflowKeys], run_provd: RunProvd, tmp_path: Path
) -> None:
    """The gap that ACLs leave: `XADD` itself can trim. What a compromised producer throws away shows in the books."""
    site, keys = filled
    with site.client("provd-producer") as client:
        client.execute_command("XADD", keys.stream, "MAXLEN", "0", "*", "h", "x", "b", "y")
    env = {
        "PROVD_BROKER_URL": site.url("provd-consumer"),
        "PROVD_STORE_URL": f"sqlite:///{tmp_path}/provd.db",
    }

    run_provd("consume", "--workflow-id", "w1", "--exit-when-done", "--grace", "2", env=env)

    verified = run_provd("runs", "verify", "w1", env=env)
    assert verified.returncode != 0


def test_the_consumers_user_is_kept_to_its_keys_and_its_commands(filled: tuple[Site, WorkflowKeys]) -> None:
    site, keys = filled
    commands: list[tuple[Any, ...]] = [
        ("FLUSHALL",), ("FLUSHDB",), ("CONFIG", "GET", "*"), ("KEYS", "*"), ("SCAN", 0), ("DEBUG", "SLEEP", 0),
        ("ACL", "LIST"), ("SHUTDOWN",), ("XTRIM", keys.stream, "MAXLEN", 0), ("XADD", keys.stream, "*", "h", "x"),
        ("XGROUP", "DESTROY", keys.stream, "provd"), ("DEL", "else"), ("GET", "else"), ("RENAME", keys.stream, "x"),
        ("EXPIRE", keys.stream, 1), ("REPLICAOF", "NO", "ONE"), ("CLIENT", "LIST"), ("MONITOR",),
        ("SCRIPT", "FLUSH"), ("FUNCTION", "LIST"),
    ]  # fmt: skip
    for command in commands:
        with site.client("provd-consumer") as client, pytest.raises(NoPermissionError):
            client.execute_command(*command)


def test_the_readers_user_sees_how_much_there_is_and_not_what(filled: tuple[Site, WorkflowKeys]) -> None:
    site, keys = filled
    with site.client("provd-reader") as client:
        assert client.ping()
        assert client.info("server")
        assert client.xlen(keys.stream) > 0
        assert client.xpending(keys.stream, "provd")["pending"] == 0
        assert keys.stream.encode() in client.smembers(keys.registry)
        assert client.hgetall(keys.beats) == {}
    for command in (
        ("XRANGE", keys.stream, "-", "+"), ("XREAD", "STREAMS", keys.stream, "0"), ("XINFO", "STREAM", keys.stream),
        ("XADD", keys.stream, "*", "h", "x"), ("DEL", keys.stream), ("HSET", keys.beats, "p", "x"), ("KEYS", "*"),
        ("SET", "provd:buckets", 1), ("EVAL", "return 1", 0), ("CONFIG", "GET", "requirepass"), ("FLUSHALL",),
    ):  # fmt: skip
        with site.client("provd-reader") as client, pytest.raises(NoPermissionError):
            client.execute_command(*command)


def test_without_a_bucket_count_the_producers_user_spools_and_says_what_to_do(
    site: Site, script: Script
) -> None:
    """The count is the consumer's to set: a producer that could write it could scatter everybody's streams."""
    done = script.run(SWEEP, env={"PROVD_BROKER_URL": site.url("provd-producer")})

    assert done.returncode == 0
    assert "start `provd consume` first" in done.stderr
    assert list((Path(os.environ["HOME"]) / "data" / "spool").rglob("*.jsonl*"))


def test_status_with_the_readers_user_says_what_waits(
    filled: tuple[Site, WorkflowKeys], run_provd: RunProvd, tmp_path: Path
) -> None:
    """Not how old it is: the age stands in the entries, which this user does not read."""
    site, keys = filled
    with site.client("admin") as admin:
        waiting = admin.xlen(keys.stream)
    env = {"PROVD_BROKER_URL": site.url("provd-reader"), "PROVD_STORE_URL": f"sqlite:///{tmp_path}/none.db"}

    done = run_provd("status", "--json", env=env)

    assert "NOPERM" not in done.stdout + done.stderr
    views = [json.loads(line) for line in done.stdout.splitlines() if '"w1"' in line]
    assert str(views).count(f"'frames': {waiting}") == 1, done.stdout


def test_doctor_with_the_readers_user_is_content(site: Site, run_provd: RunProvd, tmp_path: Path) -> None:
    done = run_provd(
        "doctor",
        "--json",
        env={
            "PROVD_BROKER_URL": site.url("provd-reader"),
            "PROVD_STORE_URL": f"sqlite:///{tmp_path}/provd.db",
        },
    )

    assert "NOPERM" not in done.stdout + done.stderr
    assert "answers, version" in done.stdout
    assert PASSWORD not in done.stdout + done.stderr
