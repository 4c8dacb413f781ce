"""Which addresses are plain: those of a Redis that the producer talks to without a library."""

from __future__ import annotations

import pytest

from provd.producer.resp import Address, plain_address


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://head", Address("head", 6379, "", "", "", 0)),
        ("redis://head:7000/3", Address("head", 7000, "", "", "", 3)),
        ("redis://head/", Address("head", 6379, "", "", "", 0)),
        ("redis://:se%2Fcret@head:7000/0", Address("head", 7000, "", "", "se/cret", 0)),
        ("redis://jo:secret@[::1]:7000/0", Address("::1", 7000, "", "jo", "secret", 0)),
        ("unix:///run/redis.sock", Address("", 0, "/run/redis.sock", "", "", 0)),
        ("unix://jo:secret@/run/redis.sock", Address("", 0, "/run/redis.sock", "jo", "secret", 0)),
    ],
)
def test_a_plain_address_is_read(url: str, address: Address) -> None:
    assert plain_address(url) == address


@pytest.mark.parametrize(
    "url",
    [
        "rediss://head:7000/0",
        "redis+sentinel://one,two/service",
        "redis+cluster://one,two",
        "redis://head:7000/0?client_name=me",
        "unix:///run/redis.sock?db=2",
        "redis://jo@head:7000/0",
        "redis://head:7000/zero",
        "redis://head:port/0",
        "redis://head/0#top",
        "unix://head/run/redis.sock",
        "unix://",
        "",
    ],
)
def test_every_other_one_is_left_to_the_library(url: str) -> None:
    assert plain_address(url) is None
