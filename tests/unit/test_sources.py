"""Where settings come from: files of one value, folders of secrets, and which source wins."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from provd.common import settings as common
from provd.common.errors import SettingsError
from provd.consumer import settings as consumer

PASSWORD = "hunter2-from-a-file"


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)


def _file(path: Path, text: str) -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return str(path)


def _both() -> common.Settings:
    """The settings, read by both readers, which agree."""
    loaded = common.load()
    assert consumer.load() == loaded
    return loaded


@pytest.mark.parametrize("ending", ["", "\n", "\r\n", "\n\n"])
def test_a_file_that_the_environment_names_holds_the_value(
    ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"redis://:{PASSWORD}@host:6379/0"
    monkeypatch.setenv("PROVD_BROKER_URL_FILE", _file(tmp_path / "broker", url + ending))

    assert _both().broker_url == url


def test_any_setting_may_come_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROVD_BUCKETS_FILE", _file(tmp_path / "b", "4\n"))
    monkeypatch.setenv("PROVD_ENABLED_FILE", _file(tmp_path / "e", "off"))
    monkeypatch.setenv("PROVD_HEARTBEAT_S_FILE", _file(tmp_path / "h", "2.5"))

    loaded = _both()

    assert (loaded.buckets, loaded.enabled, loaded.heartbeat_s) == (4, False, 2.5)


@pytest.mark.parametrize("name", ["broker_password", "provd_broker_password", "PROVD_BROKER_PASSWORD"])
def test_a_secrets_folder_holds_files_named_after_settings(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _file(tmp_path / "secrets" / name, PASSWORD + "\n")
    _file(tmp_path / "secrets" / "somebody-elses", "x")
    (tmp_path / "secrets" / "..data").mkdir()  # as Kubernetes mounts them
    monkeypatch.setenv("PROVD_SECRETS_DIR", str(tmp_path / "secrets"))

    assert _both().broker_password == PASSWORD


def test_credentials_of_systemd_count_with_our_prefix_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _file(tmp_path / "credentials" / "provd.store_password", PASSWORD)
    _file(tmp_path / "credentials" / "namespace", "of-another-program")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "credentials"))

    loaded = _both()

    assert (loaded.store_password, loaded.namespace) == (PASSWORD, "provd")


def test_the_environment_goes_before_its_file_before_the_secrets_folder_before_the_settings_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = ("broker_password", "namespace", "campaign_id", "workflow_id")
    (tmp_path / "provd.yaml").write_text("".join(f"{key}: settings-file\n" for key in keys))
    for key in keys[:3]:
        _file(tmp_path / "secrets" / key, "secrets-folder")
    for key in keys[:2]:
        monkeypatch.setenv(f"PROVD_{key.upper()}_FILE", _file(tmp_path / key, "named-file"))
    monkeypatch.setenv("PROVD_BROKER_PASSWORD", "environment")
    monkeypatch.setenv("PROVD_SECRETS_DIR", str(tmp_path / "secrets"))

    loaded = _both()

    assert [getattr(loaded, key) for key in keys] == [
        "environment", "named-file", "secrets-folder", "settings-file",
    ]  # fmt: skip


def test_a_file_whose_value_is_not_needed_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROVD_NAMESPACE", "here")
    monkeypatch.setenv("PROVD_NAMESPACE_FILE", "/nowhere")

    assert _both().namespace == "here"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (Path.exists, "No such file or directory; name a file that this user can read"),
        (lambda path: path.mkdir(), "no regular file"),
        (os.mkfifo, "no regular file"),
        (lambda path: path.write_text("\n"), "it is empty; write the value into it"),
        (lambda path: path.write_text(f"{PASSWORD}\nsecond\n"), "more than one line"),
        (lambda path: path.write_text(PASSWORD * 10_000), "longer than 64 KiB"),
        (lambda path: path.write_bytes(PASSWORD.encode() + b"\xff"), "not text in UTF-8"),
        (lambda path: path.write_bytes(PASSWORD.encode() + b"\0x"), "more than one line"),
    ],
    ids=["missing", "folder", "pipe", "empty", "lines", "long", "bytes", "nul"],
)
def test_a_file_that_holds_no_value_is_an_error_that_names_it_and_never_shows_it(
    make: object, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert callable(make)
    path = tmp_path / "secret"
    make(path)
    monkeypatch.setenv("PROVD_BROKER_PASSWORD_FILE", str(path))

    for load in (common.load, consumer.load):
        with pytest.raises(SettingsError) as caught:
            load()

        assert str(path) in str(caught.value)
        assert "PROVD_BROKER_PASSWORD_FILE" in str(caught.value)
        assert words in str(caught.value)
        assert PASSWORD not in str(caught.value)


def test_a_device_that_never_ends_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROVD_BROKER_PASSWORD_FILE", "/dev/zero")

    with pytest.raises(SettingsError, match="no regular file"):
        common.load()


def test_a_secrets_folder_that_is_not_there_is_an_error_that_names_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PROVD_SECRETS_DIR", "/nowhere/secrets")

    with pytest.raises(
        SettingsError, match="PROVD_SECRETS_DIR is /nowhere/secrets: No such file or directory"
    ):
        common.load()


@pytest.mark.parametrize(
    "key", ["broker_url", "store_url", "buckets", "enabled", "namespace", "telemetry", "durability"]
)
def test_a_wrong_value_from_a_file_is_not_shown_whatever_its_key(
    key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody named the password's file for another key."""
    path = _file(tmp_path / "secret", f"{PASSWORD} !")
    monkeypatch.setenv(f"PROVD_{key.upper()}_FILE", path)

    for load in (common.load, consumer.load):
        with pytest.raises(SettingsError) as caught:
            load()

        assert path in str(caught.value)
        assert PASSWORD not in str(caught.value)


def test_an_unknown_setting_from_a_file_is_named_with_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROVD_BROKER_PASWORD_FILE", "/run/secret")

    with pytest.raises(SettingsError, match="unknown setting 'broker_pasword_file'"):
        common.load()


@pytest.mark.parametrize("key", ["broker_url", "broker_password"])
def test_inside_a_program_a_secret_that_cannot_be_read_sends_messages_to_the_spool(
    key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G1: nothing is refused there."""
    monkeypatch.setenv(f"PROVD_{key.upper()}_FILE", "/nowhere")
    monkeypatch.setenv("PROVD_BUCKETS", "4")

    loaded, wrong = common.load_leniently()

    assert (loaded.broker_url, loaded.buckets) == ("", 4)
    assert len(wrong) == 1
    assert "/nowhere" in str(wrong[0])


def test_what_stands_in_a_settings_file_that_is_not_yaml_is_not_shown(tmp_path: Path) -> None:
    for text in (f"broker_password: *{PASSWORD}", f"broker_password: !{PASSWORD}", f"a: [{PASSWORD}"):
        (tmp_path / "provd.yaml").write_text(text)

        with pytest.raises(SettingsError, match=r"provd\.yaml is not YAML: .*line 1") as caught:
            common.load()

        assert PASSWORD not in str(caught.value)


# --- passwords of their own --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "whole"),
    [
        ("redis://host:6379/0", "redis://:p%2Fw@host:6379/0"),
        ("rediss://ada@host", "rediss://ada:p%2Fw@host"),
        ("unix:///run/redis.sock?db=1", "unix://:p%2Fw@/run/redis.sock?db=1"),
        ("redis://ada:own@host", "redis://ada:own@host"),
        ("file:///data/spool", ""),
        ("", ""),
    ],
)
def test_the_brokers_password_goes_into_its_url_unless_that_has_one(url: str, whole: str) -> None:
    assert common.Settings(broker_url=url, broker_password="p/w").resolved_broker_url() == whole


def test_several_hosts_share_the_password() -> None:
    from provd.common.passwords import with_password

    assert with_password("redis+sentinel://h1:1,h2:2/s/0", "pw") == "redis+sentinel://:pw@h1:1,h2:2/s/0"


def test_no_password_goes_to_the_broker_that_was_not_chosen() -> None:
    """The embedded one takes none, and a default is nobody's choice."""
    settings = common.Settings(broker_password="pw", store_password="pw")

    assert "pw" not in settings.resolved_broker_url() + settings.resolved_store_url()


@pytest.mark.parametrize(
    ("url", "whole"),
    [
        ("mongodb://ada@h1,h2/provd?tls=true", "mongodb://ada:p%40w@h1,h2/provd?tls=true"),
        ("mongodb+srv://ada@cluster/provd", "mongodb+srv://ada:p%40w@cluster/provd"),
        ("mongodb://host/provd", "mongodb://host/provd"),
        ("mongodb://ada:own@host/provd", "mongodb://ada:own@host/provd"),
        ("sqlite:///provd.db", "sqlite:///provd.db"),
    ],
)
def test_the_stores_password_goes_to_the_user_that_its_url_names(url: str, whole: str) -> None:
    assert common.Settings(store_url=url, store_password="p@w").resolved_store_url() == whole


def test_settings_never_show_a_password_by_repr() -> None:
    settings = common.Settings(
        broker_url="redis://:hunter2@h", store_url="mongodb://a:hunter2@h/x",
        broker_password="hunter2", store_password="hunter2",
    )  # fmt: skip

    assert "hunter2" not in repr(settings) + str(settings)


@pytest.mark.parametrize(
    ("key", "url", "code"),
    [
        ("broker_url", "redis://:pass/word@host:6379/0", "%2F for /"),
        ("broker_url", "redis://ada:pass#word@host:6379/0", "%23 for #"),
        ("store_url", "mongodb://ada:pass?word@host/provd", "%3F for ?"),
    ],
)
def test_a_password_that_would_break_its_url_is_an_error_that_says_how_to_write_it(
    key: str, url: str, code: str
) -> None:
    """A client would take the first half of it for a port, and quote it."""
    with pytest.raises(SettingsError) as caught:
        common.load(environ={f"PROVD_{key.upper()}": url})

    assert code in str(caught.value)
    assert "word" not in str(caught.value).replace("password", "")
