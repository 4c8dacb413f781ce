"""A broker's URL: what it leads to, and what an error says of a wrong one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from provd.common.broker_nodes import SLOTS, slot_of
from provd.common.broker_url import BrokerKind, parse_broker_url
from provd.common.errors import SettingsError
from provd.common.passwords import mask_url
from provd.common.settings import Settings, load
from provd.consumer.broker import key_of

ROOT = Path(__file__).parents[2]

SENTINEL = "redis+sentinel://h1:26379,h2:26380,h3/master1"
CLUSTER = "redis+cluster://h1:7000,h2:7001,h3"


def test_sentinels_are_read_with_their_service() -> None:
    address = parse_broker_url(SENTINEL)

    assert address.kind is BrokerKind.SENTINEL
    assert address.hosts == (("h1", 26379), ("h2", 26380), ("h3", 26379))
    assert address.service == "master1"
    assert address.server_url("10.0.0.1", 6380) == "redis://10.0.0.1:6380/0"
    assert address.sentinel_url("h1", 26379) == "redis://h1:26379/"


def test_user_and_password_are_those_of_the_servers_and_sentinels_have_their_own() -> None:
    address = parse_broker_url(
        "redis+sentinel://ann:p%40ss@h1:1,h2:2/m/3?tls=true&ssl_ca_certs=/ca.pem"
        "&sentinel_username=watch&sentinel_password=s%2Fcret"
    )

    assert address.server_url("h9", 6379) == "rediss://ann:p%40ss@h9:6379/3?ssl_ca_certs=%2Fca.pem"
    assert address.sentinel_url("h1", 1) == "rediss://watch:s%2Fcret@h1:1/?ssl_ca_certs=%2Fca.pem"


def test_a_cluster_is_read_with_the_servers_to_ask_first() -> None:
    address = parse_broker_url(f"{CLUSTER}?tls=yes")

    assert address.kind is BrokerKind.CLUSTER
    assert address.hosts == (("h1", 7000), ("h2", 7001), ("h3", 6379))
    assert address.server_url("h1", 7000) == "rediss://h1:7000/0"


def test_addresses_of_ip_version_6_keep_their_brackets() -> None:
    address = parse_broker_url("redis+cluster://[::1]:7000,[fe80::2]:7001")

    assert address.hosts == (("::1", 7000), ("fe80::2", 7001))
    assert address.server_url("::1", 7000) == "redis://[::1]:7000/0"


@pytest.mark.parametrize(
    "url", ["redis://h:1/0", "rediss://u:p@h:1/0?ssl_ca_certs=/x", "unix:///run/redis.sock"]
)
def test_one_server_is_handed_to_the_client_as_it_is_written(url: str) -> None:
    address = parse_broker_url(url)

    assert address.kind is BrokerKind.SINGLE
    assert address.server_url() == url


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis+sentinel://h1:26379", "names no service"),
        ("redis+sentinel://h1:26379/", "names no service"),
        ("redis+sentinel://h1:x/m", "host 1 .* write redis\\+sentinel://HOST:26379"),
        ("redis+sentinel://h1:1,,h3:1/m", "host 2 .* is empty"),
        ("redis+sentinel://h1:99999/m", "host 1 .* write"),
        ("redis+sentinel://h1/m/zero", "database .* is not a number"),
        ("redis+sentinel://h1/m/0/1", "database"),
        ("redis+sentinel:///m", "host 1 .* is empty"),
        ("redis+sentinel://h1/m?sentinal_password=x", "did you mean 'sentinel_password'"),
        ("redis+sentinel://h1/m?tls=maybe", "use tls=true or tls=false"),
        ("redis+sentinel://h1/m?ssl_ca_certs=/x", "need tls=true"),
        ("redis+cluster://h1:7000/1", "database 0 only"),
        ("redis+cluster://h1:7000?sentinel_password=x", "no option 'sentinel_password'"),
        ("redis://h:port/0", "write redis://HOST:PORT/0"),
        ("amqp://h", "redis\\+sentinel://"),
        ("h:6379", "redis://"),
    ],
)
def test_a_wrong_url_is_refused_with_what_is_wrong_and_how_to_mend_it(url: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        parse_broker_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "redis+sentinel://u:geheim12@h1:1,h2:2/m?bad=1",
        "redis+sentinel://u:geheim12@h1:x/m",
        "redis+sentinel://h1:1/m?bad=1&sentinel_password=geheim12",
        "redis+cluster://:geheim12@h1:x,h2:2",
    ],
)
def test_passwords_are_shown_neither_in_errors_nor_in_texts(url: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(environ={"PROVD_BROKER_URL": url})

    assert "geheim12" not in str(caught.value)
    assert "PROVD_BROKER_URL" in str(caught.value)
    assert "geheim12" not in mask_url(url)


def test_an_address_does_not_show_its_passwords() -> None:
    address = parse_broker_url("redis+sentinel://u:geheim12@h1:1/m?sentinel_password=geheim34")

    assert "geheim" not in repr(address)


def test_a_password_of_its_own_setting_is_that_of_the_servers() -> None:
    settings = Settings(broker_url=SENTINEL, broker_password="geheim12")

    assert parse_broker_url(settings.resolved_broker_url()).server_url("h", 1) == "redis://:geheim12@h:1/0"


@pytest.mark.parametrize("scheme", ["redis+sentinel", "redis+cluster"])
def test_the_forms_in_the_documentation_are_taken(scheme: str) -> None:
    pages = [ROOT / "docs" / "deployment.md", ROOT / "docs" / "security.md", ROOT / "README.md"]
    found = [
        url.rstrip(".,")
        for page in pages
        for url in re.findall(rf"{re.escape(scheme)}://[^\s`')]+", page.read_text())
        if "..." not in url
    ]

    for url in found:
        assert parse_broker_url(url).hosts
    assert found


# --- slots ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "slot"), [("foo", 12182), ("{user1000}.following", 3443), ("", 0), ("a{}b", slot_of(b"a{}b"))]
)
def test_slots_are_those_of_the_redis_cluster_specification(key: str, slot: int) -> None:
    from redis.crc import key_slot

    assert slot_of(key) == slot == key_slot(key.encode())
    assert 0 <= slot < SLOTS


@pytest.mark.parametrize(
    ("command", "key"),
    [
        (("XLEN", "s"), "s"),
        (("xadd", "s", "*", "f", "v"), "s"),
        (("XREADGROUP", "GROUP", "g", "c", "COUNT", 1, "STREAMS", "s1", "s2", ">", ">"), "s1"),
        (("EVAL", "return 1", 2, "k1", "k2", "argument"), "k1"),
        (("XPENDING", "s", "g"), "s"),
        (("XINFO", "STREAM", "s"), "s"),
        (("PING",), None),
        (("INFO", "memory"), None),
    ],
)
def test_the_key_of_a_command_is_found_without_asking_redis(
    command: tuple[object, ...], key: str | None
) -> None:
    assert key_of(command) == key
