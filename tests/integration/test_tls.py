"""TLS to Redis and to MongoDB: end to end with a private authority, and refused where the other side is a stranger.

G8: safe by default. Nothing here turns the check of a certificate off.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from provd.common.errors import BrokerUnavailable, StoreUnavailable
from provd.consumer.broker import Broker as ConsumersBroker
from provd.producer.broker import Broker as ProducersBroker
from provd.store.open import open_store
from tests.conftest import RunProvd
from tests.services.certificates import Authority, mongod_over_tls, redis_over_tls
from tests.services.mongo_server import MongoServer
from tests.services.redis_server import RedisServer
from tests.streams import Script

WORK = """
    import provd

    @provd.task
    def train(n):
        return {"loss": n}

    with provd.workflow("sweep", workflow_id="w1"):
        for n in range(10):
            train(n)
"""

StartRedis = Callable[..., str]
StartMongo = Callable[..., MongoServer]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ours")


@pytest.fixture
def stranger(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "theirs")


@pytest.fixture
def tls_redis(private_redis: Callable[..., RedisServer], authority: Authority) -> StartRedis:
    """Start a Redis that speaks TLS; returns the address without options."""

    def start(*names: str, asks_clients: bool = False) -> str:
        config = redis_over_tls(authority.server(*names), authority, asks_clients=asks_clients)
        private_redis(config=config)
        return f"rediss://127.0.0.1:{config['tls-port']}/0"

    return start


@pytest.fixture
def tls_mongo(private_mongo: StartMongo, authority: Authority) -> StartMongo:
    """Start a MongoDB that speaks TLS."""

    def start(*names: str, asks_clients: bool = False) -> MongoServer:
        server = authority.server(*names)
        return private_mongo(options=mongod_over_tls(server, authority, asks_clients=asks_clients))

    return start


@pytest.fixture
def script(clean_env: Path, tmp_path: Path) -> Script:
    folder = tmp_path / "job"
    folder.mkdir()
    return Script(folder, dict(os.environ))


@pytest.mark.parametrize(
    "asks_clients",
    [
        pytest.param(False, id="server-certificate", marks=pytest.mark.long),
        pytest.param(True, id="both-certificates"),
    ],
)
def test_a_workflow_goes_over_tls_from_the_program_to_the_reader(
    asks_clients: bool,
    tls_redis: StartRedis,
    tls_mongo: StartMongo,
    authority: Authority,
    script: Script,
    run_provd: RunProvd,
) -> None:
    own = authority.client()
    broker = f"{tls_redis(asks_clients=asks_clients)}?ssl_ca_certs={authority.file}"
    store = (
        f"{tls_mongo(asks_clients=asks_clients).database_url('provd')}?tls=true&tlsCAFile={authority.file}"
    )
    if asks_clients:
        broker += f"&ssl_certfile={own.certificate}&ssl_keyfile={own.key}"
        store += f"&tlsCertificateKeyFile={own.both}"
    env = {"PROVD_BROKER_URL": broker, "PROVD_STORE_URL": store}

    produced = script.run(WORK, env=env)
    consumed = run_provd("consume", "--workflow-id", "w1", "--exit-when-done", "--grace", "20", env=env)
    verified = run_provd("runs", "verify", "w1", "--json", env=env)
    checked = run_provd("doctor", "--json", env=env)

    assert (produced.returncode, produced.stderr) == (0, "")
    assert consumed.returncode == 0, consumed.stderr
    assert json.loads(verified.stdout)["complete"] is True
    levels = {check["check"]: check["level"] for check in map(json.loads, checked.stdout.splitlines())}
    assert (levels["broker"], levels["store"]) == ("ok", "ok")


def _redis_cases() -> list[object]:
    return [
        pytest.param("ours", {}, "", "ssl_ca_certs=FILE", id="no-authority-named"),
        pytest.param("theirs", {}, "", "ssl_ca_certs=FILE", id="another-authority"),
        pytest.param(
            "ours", {"names": ("elsewhere.example",)}, "named", "in its certificate", id="another-name"
        ),
        pytest.param(
            "ours", {"asks_clients": True}, "named", "ssl_certfile=FILE", id="no-client-certificate"
        ),
    ]


@pytest.mark.parametrize(("whose", "how", "option", "advice"), _redis_cases())
def test_a_redis_that_cannot_be_trusted_is_refused_with_what_mends_it(
    whose: str,
    how: dict[str, object],
    option: str,
    advice: str,
    tls_redis: StartRedis,
    authority: Authority,
    stranger: Authority,
    script: Script,
    run_provd: RunProvd,
) -> None:
    names = how.get("names", ())
    assert isinstance(names, tuple)
    url = tls_redis(*names, asks_clients=bool(how.get("asks_clients")))
    if option or whose == "theirs":
        url += f"?ssl_ca_certs={(authority if whose == 'ours' else stranger).file}"

    producer = ProducersBroker(url, namespace="n", buckets=1, timeout_s=5)
    with pytest.raises(BrokerUnavailable, match=advice):
        producer.open()
    consumer = ConsumersBroker(url, connect_timeout_s=5)
    with pytest.raises(BrokerUnavailable, match=advice):
        consumer.ping()
    consumer.close()
    produced = script.run(WORK, env={"PROVD_BROKER_URL": url})
    checked = run_provd(
        "doctor", env={"PROVD_BROKER_URL": url, "PROVD_STORE_URL": "sqlite:///none.db", "COLUMNS": "1000"}
    )

    assert produced.returncode == 0
    assert advice in produced.stderr
    assert list((Path(os.environ["HOME"]) / "data" / "spool").rglob("*.jsonl"))
    assert checked.returncode == 3
    assert advice in " ".join(checked.stdout.split())


@pytest.mark.parametrize(
    ("whose", "names", "asks_clients", "advice"),
    [
        pytest.param("", (), False, "tlsCAFile=FILE", id="no-authority-named", marks=pytest.mark.long),
        pytest.param("theirs", (), False, "tlsCAFile=FILE", id="another-authority"),
        pytest.param("ours", ("elsewhere.example",), False, "in its certificate", id="another-name"),
        pytest.param("ours", (), True, "tlsCertificateKeyFile=FILE", id="no-client-certificate"),
    ],
)
def test_a_mongodb_that_cannot_be_trusted_is_refused_with_what_mends_it(
    whose: str,
    names: tuple[str, ...],
    asks_clients: bool,
    advice: str,
    tls_mongo: StartMongo,
    authority: Authority,
    stranger: Authority,
    run_provd: RunProvd,
) -> None:
    server = tls_mongo(*names, asks_clients=asks_clients)
    url = f"mongodb://{urlsplit(server.url).netloc}/provd?tls=true"
    if whose:
        url += f"&tlsCAFile={(authority if whose == 'ours' else stranger).file}"

    store = open_store(url, timeout_s=1)
    with pytest.raises(StoreUnavailable, match=advice):
        store.ping()
    store.close()
    listed = run_provd("runs", "tail", "--store", f"{url}&serverSelectionTimeoutMS=1000")

    assert listed.returncode == 3
    assert advice in listed.stderr


def test_a_port_that_speaks_no_tls_is_refused_and_nothing_is_sent_in_the_clear(
    private_redis: Callable[..., RedisServer],
) -> None:
    port = urlsplit(private_redis().url).port

    broker = ProducersBroker(f"rediss://:hunter2@127.0.0.1:{port}/0", namespace="n", buckets=1, timeout_s=5)

    with pytest.raises(BrokerUnavailable, match="check that this port speaks it") as caught:
        broker.open()
    assert "hunter2" not in str(caught.value)


def test_a_certificates_file_that_is_not_there_is_named(tls_redis: StartRedis, run_provd: RunProvd) -> None:
    url = f"{tls_redis()}?ssl_ca_certs=/nowhere/ca.pem"

    broker = ProducersBroker(url, namespace="n", buckets=1, timeout_s=5)
    with pytest.raises(BrokerUnavailable, match="No such file"):
        broker.open()
    checked = run_provd("doctor", env={"PROVD_BROKER_URL": url, "PROVD_STORE_URL": "sqlite:///none.db"})

    assert checked.returncode == 3
    assert "Traceback" not in checked.stderr
