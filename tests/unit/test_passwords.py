"""Passwords never reach a log (G8): URLs are shown masked, and what clients say about them, too."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provd.common.passwords import hide, mask_url, passwords_of, with_password


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("redis://:pw@h:6379/0", "redis://:***@h:6379/0"),
        ("redis://ada:p%40w@h", "redis://ada:***@h"),
        ("redis://:12345@h", "redis://:***@h"),
        ("redis://:123/45@h", "redis://:***@h"),
        ("redis://:a:b@h", "redis://:***@h"),
        ("redis://ada:pa/ss@h:1", "redis://ada:***@h:1"),
        ("rediss://h/0?password=pw&ssl_ca_certs=/x.pem", "rediss://h/0?password=***&ssl_ca_certs=/x.pem"),
        ("rediss://h/0?ssl_keyfile=/k.pem&ssl_password=pw", "rediss://h/0?ssl_keyfile=/k.pem&ssl_password=***"),
        ("redis+sentinel://u:pw@h1:1,h2:2/s", "redis+sentinel://u:***@h1:1,h2:2/s"),
        ("redis+sentinel://h1:1,h2:2/s?sentinel_password=pw", "redis+sentinel://h1:1,h2:2/s?sentinel_password=***"),
        (
            "mongodb://h/?tlsCertificateKeyFile=/k.pem&tlsCertificateKeyFilePassword=pw",
            "mongodb://h/?tlsCertificateKeyFile=/k.pem&tlsCertificateKeyFilePassword=***",
        ),
        (
            "mongodb://u:pw@h/?authMechanismProperties=AWS_SESSION_TOKEN:pw",
            "mongodb://u:***@h/?authMechanismProperties=***",
        ),
        ("cannot reach redis://:pw@h and mongodb://u:pw@g", "cannot reach redis://:***@h and mongodb://u:***@g"),
    ],
)  # fmt: skip
def test_a_url_is_shown_without_its_passwords(url: str, masked: str) -> None:
    assert mask_url(url) == masked


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost:6379/0",
        "unix:///run/a@b/redis.sock",
        "mongodb://h1:1,h2:2/db?authSource=admin",
        "a:b@c",
    ],
)
def test_what_has_no_password_is_shown_as_it_is(url: str) -> None:
    assert mask_url(url) == url


def test_what_a_client_quotes_of_the_password_is_hidden() -> None:
    url = "redis://ada:p%40ss-word@h:6379/0"

    assert hide("cannot use 'p@ss-word' nor p%40ss-word", url) == "cannot use '***' nor ***"


def test_a_short_password_does_not_garble_the_words_it_is_in() -> None:
    assert (
        hide("Error while connecting: e is wrong", "redis://:e@h") == "Error while connecting: *** is wrong"
    )


passwords = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)


@given(passwords)
def test_whatever_the_password_is_it_is_put_in_found_and_hidden(password: str) -> None:
    url = with_password("redis://ada@host:6379/0", password)

    assert password in passwords_of(url)
    assert mask_url(url) == "redis://ada:***@host:6379/0"
    assert with_password(url, "another") == url
