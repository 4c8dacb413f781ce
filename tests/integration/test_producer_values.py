"""Values on their way from a program to Redis: masked, within their caps, and recognisable."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import redis

from provd.common.record import Kind
from tests.conftest import RunProvd
from tests.streams import Script, Streams

EVERYWHERE = """
    import argparse, sys, provd
    from dataclasses import dataclass

    parser = argparse.ArgumentParser()
    parser.add_argument("--password")
    parser.add_argument("--lr", type=float)
    options = parser.parse_args()

    @dataclass
    class Database:
        url: str
        password: str

    @provd.task
    def connect(host, password, *hosts, retries=3, **more):
        return {"session_token": password, "url": f"redis://:{password}@{host}"}

    @provd.task(outputs="api_key")
    def key(options):
        return options.password

    @provd.task
    def query(db, api_key=None):
        raise RuntimeError(f"cannot reach {db.url} with password={db.password}")

    @provd.task(light=True)
    def light(token):
        return [{"token": token}]

    @provd.task(capture=lambda bound: {"secret": bound["a"]})
    def chosen(a):
        return None

    @provd.task(metadata={"token": "hunter2", "see": "redis://:hunter2@db"})
    def labelled():
        pass

    with provd.workflow("w", args=vars(options), metadata={"broker": "redis://:hunter2@db"}):
        connect("db", options.password)
        connect("db", password=options.password, retries=1, auth_token=options.password)
        key(options)
        light(options.password)
        chosen(options.password)
        labelled()
        try:
            query(Database("redis://:hunter2@db", options.password))
        except RuntimeError:
            pass
        with provd.Task("login", used={"passwd": options.password}) as task:
            task.generated(url="https://me:hunter2@a.org", lr=options.lr)
        for secret in provd.loop([options.password], name="try", item="secret"):
            pass
        provd.Task("shell").end(stdout="export API_TOKEN=hunter2", stderr="Authorization: Bearer hunter2")
"""


def raw_streams(url: str, namespace: str) -> bytes:
    """Everything that is in Redis of a namespace."""
    with redis.Redis.from_url(url) as client:
        keys = list(client.scan_iter(match=f"{namespace}:*:stream:*"))
        entries: list[Any] = [client.xrange(key) for key in keys]
        return b"".join(value for found in entries for _, fields in found for value in fields.values())


def test_no_credential_reaches_redis_by_any_way(
    script: Script, streams: Streams, redis_url: str, namespace: str
) -> None:
    # Given a repository whose remote has a password
    git = script.folder / ".git"
    git.mkdir()
    (git / "HEAD").write_text("ref: refs/heads/main\n")
    (git / "config").write_text('[remote "origin"]\n\turl = https://me:hunter2@git.org/x.git\n')

    # When a program handles a password in every way there is
    ended = script.run(EVERYWHERE, "--password", "hunter2", "--lr", "0.1")

    # Then it is nowhere in what it sent, and the rest is
    assert (ended.returncode, ended.stderr) == (0, "")
    assert b"hunter2" not in raw_streams(redis_url, namespace)
    (workflow,) = [record for record in streams.records(Kind.WORKFLOW) if record["status"] == "FINISHED"]
    assert workflow["args"] == {"password": "***", "lr": 0.1}
    assert workflow["argv"][1:] == ["--password", "***", "--lr", "0.1"]
    assert workflow["code"]["repository"] == "https://me:***@git.org/x.git"
    assert workflow["custom_metadata"] == {"broker": "redis://:***@db"}
    assert [task["used"]["password"] for task in streams.tasks("connect")] == ["***", "***"]
    assert streams.tasks("connect")[0]["generated"] == {"session_token": "***", "url": "redis://:***@db"}
    assert streams.tasks("key")[0]["generated"] == {"api_key": "***"}
    assert streams.tasks("key")[0]["used"] == {"password": "***", "lr": 0.1}
    (failed,) = streams.tasks("query")
    assert failed["stderr"] == "RuntimeError: cannot reach redis://:***@db with password=***"
    assert "password=***" in failed["traceback"]
    assert streams.tasks("login")[0]["generated"] == {"url": "https://me:***@a.org", "lr": 0.1}
    assert streams.tasks("shell")[0]["stdout"] == "export API_TOKEN=***"


def test_the_command_line_of_a_command_is_masked(
    run_provd: RunProvd, streams: Streams, redis_url: str, namespace: str, clean_env: Path
) -> None:
    environment = {"PROVD_BROKER_URL": redis_url, "PROVD_NAMESPACE": namespace}

    ended = run_provd("run", "--", "true", "--api-key", "hunter2", env=environment)

    assert ended.returncode == 0
    assert streams.records(Kind.WORKFLOW)[-1]["argv"] == ["true", "--api-key", "***"]
    assert b"hunter2" not in raw_streams(redis_url, namespace)


def test_settings_say_what_else_is_a_credential(script: Script, streams: Streams) -> None:
    source = """
        import provd

        @provd.task
        def admit(patient_name, password, age):
            return {"patient_name": patient_name}

        with provd.workflow("w"):
            admit("Ada", "x", 36)
    """

    script.run(source, env={"PROVD_SECRET_NAMES": "patient name, ssn"})
    script.run(source, env={"PROVD_MASK_SECRETS": "false"})

    masked, shown = sorted(streams.tasks("admit"), key=lambda task: str(task["started_at"]))
    assert masked["used"] == {"patient_name": "***", "password": "***", "age": 36}
    assert masked["generated"] == {"patient_name": "***"}
    assert shown["used"] == {"patient_name": "Ada", "password": "x", "age": 36}


def test_a_message_over_its_cap_is_cut_to_fit_and_arrives(script: Script, streams: Streams) -> None:
    ended = script.run(
        """
        import provd

        @provd.task
        def load(lr, rows, text):
            return {"rows": rows, "n": len(rows)}

        @provd.task
        def fail(rows):
            raise ValueError("x" * 100_000)

        with provd.workflow("w", args={"table": ["y" * 1_000] * 1_000, "n": 1}):
            rows = ["row"] * 9_000
            load(0.1, rows, "z" * 200_000)
            load(1 << 100_000, [], "")
            try:
                fail(rows)
            except ValueError:
                pass
        """,
        env={"PROVD_MESSAGE_BYTES_MAX": "20000"},
    )

    assert (ended.returncode, ended.stderr) == (0, "")
    large, endless = sorted(streams.tasks("load"), key=lambda task: str(task["task_id"]))
    assert large["used"]["lr"] == 0.1
    assert large["used"]["rows"]["length"] == 9_000
    assert (large["used"]["text"]["type"], large["used"]["text"]["length"]) == ("str", 200_000)
    assert large["generated"]["n"] == 9_000
    assert (endless["used"]["lr"]["type"], endless["used"]["lr"]["too_large"]) == ("int", True)
    (failed,) = streams.tasks("fail")
    assert failed["stderr"].startswith("ValueError: xxx")
    assert failed["status"] == "ERROR"
    finished = [record for record in streams.records(Kind.WORKFLOW) if record["status"] == "FINISHED"]
    assert finished[0]["args"]["n"] == 1
    assert finished[0]["args"]["table"]["length"] == 1_000


def test_the_same_object_is_recognised_from_task_to_task(script: Script, streams: Streams) -> None:
    script.run(
        """
        import provd

        class Model:
            def __repr__(self):
                raise SystemExit("repr was called")

        @provd.task
        def build():
            return Model()

        @provd.task
        def use(model):
            pass

        with provd.workflow("w"):
            model = build()
            use(model)
            use(Model())
        """
    )

    (built,) = streams.tasks("build")
    first, second = (task["used"]["model"] for task in streams.tasks("use"))
    assert first == built["generated"]["result"]
    assert first["object"].startswith(built["producer_id"])
    assert second["type"] == "__main__.Model"
    assert second["object"] != first["object"]


def test_a_registered_type_is_recorded_as_its_function_says(script: Script, streams: Streams) -> None:
    script.run(
        """
        import provd

        class Molecule:
            def to_dict(self):
                return {"atoms": 3, "key": "O"}

        provd.register(Molecule, Molecule.to_dict)

        @provd.task
        def fold(molecule):
            return [molecule]

        with provd.workflow("w"):
            fold(Molecule())
        """
    )

    (task,) = streams.tasks("fold")
    assert task["used"] == {"molecule": {"atoms": 3, "key": "O"}}
    assert task["generated"] == {"result": [{"atoms": 3, "key": "O"}]}


def test_a_value_that_changes_while_it_is_recorded_stops_nothing(script: Script, streams: Streams) -> None:
    """Another thread adds to the dict and the list all the while."""
    ended = script.run(
        """
        import threading, provd

        @provd.task
        def look(table, rows):
            return len(rows)

        table, rows, done = {}, [], threading.Event()

        def change():
            number = 0
            while not done.is_set():
                number += 1
                table[number % 977] = [number]
                rows.append({number: number})
                table.pop((number * 7) % 977, None)
                if number % 5_000 == 0:
                    rows.clear()

        thread = threading.Thread(target=change)
        thread.start()
        with provd.workflow("w"):
            for _ in range(200):
                look(table, rows)
        done.set()
        thread.join()
        """
    )

    assert (ended.returncode, ended.stderr) == (0, "")
    assert len(streams.tasks("look")) == 200


def test_binary_data_has_a_cap_of_its_own(script: Script, streams: Streams) -> None:
    script.run(
        """
        import provd

        with provd.workflow("w"):
            provd.Task("plot", used={"rows": ["x" * 1_000] * 900}).end(data=b"p" * (1 << 20))
        """
    )

    (task,) = streams.tasks("plot")
    assert len(task["data"]["bytes"]) == 1 << 20
    assert task["used"] == {"rows": ["x" * 1_000] * 900}
