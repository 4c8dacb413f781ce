"""`provd config`, and how wrong settings end a command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from provd.cli.sample import sample_text
from provd.common.settings import KEYS, Settings, load
from tests.conftest import RunProvd


def test_show_says_where_each_value_came_from_and_masks_passwords(
    run_provd: RunProvd, tmp_path: Path
) -> None:
    file = tmp_path / "site.yaml"
    file.write_text("heartbeat_s: 20\nstore_url: mongodb://ada:hunter2@db/provd\n", encoding="utf-8")

    done = run_provd("--settings", str(file), "config", "show", "--json", env={"PROVD_BUCKETS": "4"})

    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert tuple(shown) == KEYS
    assert (shown["heartbeat_s"]["value"], shown["heartbeat_s"]["source"]) == (20.0, "file")
    assert str(file) in shown["heartbeat_s"]["from"]
    assert (shown["buckets"]["value"], shown["buckets"]["source"]) == (4, "environment")
    assert (shown["flush_interval_s"]["value"], shown["flush_interval_s"]["source"]) == (0.2, "default")
    assert shown["store_url"]["value"] == "mongodb://ada:***@db/provd"
    assert "hunter2" not in done.stdout + done.stderr


def test_options_win_over_the_environment_and_are_named_as_the_source(run_provd: RunProvd) -> None:
    broker = "redis://:secret@elsewhere:1/0"

    done = run_provd(
        "config", "show", "--broker", broker, "--json", env={"PROVD_BROKER_URL": "redis://localhost:2/0"}
    )

    entry = json.loads(done.stdout)["broker_url"]
    assert (entry["value"], entry["source"], entry["from"]) == (
        "redis://:***@elsewhere:1/0",
        "option",
        "--broker",
    )


def test_what_is_not_set_is_shown_as_it_resolves(run_provd: RunProvd, clean_env: Path) -> None:
    shown = json.loads(run_provd("config", "show", "--json").stdout)

    assert shown["broker_url"]["effective"] == "redis://localhost:6379/0"
    assert shown["spool_dir"]["effective"] == str(clean_env / "data" / "spool")


def test_the_table_of_settings_names_every_key(run_provd: RunProvd) -> None:
    done = run_provd("config", "show", env={"COLUMNS": "80"})

    assert [line.split()[0] for line in done.stdout.splitlines() if line[:1].strip()] == ["setting", *KEYS]
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_init_writes_a_file_that_changes_nothing_and_never_overwrites(
    run_provd: RunProvd, tmp_path: Path
) -> None:
    first = run_provd("config", "init")
    written = (tmp_path / "provd.yaml").read_text(encoding="utf-8")
    second = run_provd("config", "init")

    assert (first.returncode, first.stdout) == (0, "")
    assert written == sample_text()
    assert second.returncode == 2
    assert "provd.yaml exists" in second.stderr
    assert load(settings_file=tmp_path / "provd.yaml", environ={}) == Settings()


def test_the_sample_uncommented_is_the_defaults() -> None:
    """So each key stands in it, and each default is the true one."""
    lines = [line.removeprefix("# ") for line in sample_text().splitlines()]
    settings = yaml.safe_load("\n".join(line for line in lines if line.split(":")[0] in KEYS))

    assert tuple(settings) == KEYS
    for key, value in settings.items():
        if key != "data_dir":
            assert value == getattr(Settings(), key), key


@pytest.mark.parametrize(
    ("args", "env", "words"),
    [
        (["runs", "tail", "--store", "postgres://x"], {}, ["--store", "postgres://x", "mongodb://"]),
        (["runs", "tail"], {"PROVD_BUCKETS": "many"}, ["PROVD_BUCKETS", "many", "whole number"]),
        (["config", "show"], {"PROVD_BUCKET": "3"}, ["PROVD_BUCKET", "'buckets'"]),
        (["--settings", "nowhere.yaml", "config", "show"], {}, ["nowhere.yaml", "readable"]),
        (["consume", "--exit-when-done"], {}, ["--exit-when-done", "--workflow-id"]),
        (["consume", "--workflow-id", "a b"], {}, ["--workflow-id", "'a b'"]),
        (["consume", "--embedded", "--store", "sqlite:///x"], {}, ["--embedded", "--store"]),
        (["consume"], {"PROVD_BROKER_URL": "file:///tmp/x"}, ["spool"]),
        (["replay", "nowhere"], {}, ["nowhere"]),
        (["doctor", "--wrong"], {}, ["--wrong"]),
    ],
)
def test_what_is_wrong_exits_2_in_one_clear_message(
    run_provd: RunProvd, args: list[str], env: dict[str, str], words: list[str]
) -> None:
    done = run_provd(*args, env=env)

    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr


@pytest.mark.parametrize("args", [["runs", "tail"], ["runs", "show", "x"], ["tasks"], ["query", "tasks"]])
def test_a_store_that_does_not_answer_exits_3_with_the_masked_url(
    run_provd: RunProvd, args: list[str]
) -> None:
    url = "mongodb://ada:secret@127.0.0.1:1/provd?serverSelectionTimeoutMS=200"

    done = run_provd(*args, env={"PROVD_STORE_URL": url})

    assert (done.returncode, done.stdout) == (3, "")
    assert "mongodb://ada:***@127.0.0.1:1/provd" in done.stderr
    assert "secret" not in done.stderr


def test_reading_an_embedded_store_that_is_not_there_exits_3_and_makes_none(
    run_provd: RunProvd, tmp_path: Path
) -> None:
    done = run_provd("runs", "tail", "--store", f"sqlite:///{tmp_path}/none.db")

    assert done.returncode == 3
    assert "none.db" in done.stderr
    assert not (tmp_path / "none.db").exists()
