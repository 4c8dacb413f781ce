"""Credentials do not leave the process, and what merely sounds like one does (G8)."""

from __future__ import annotations

import time

import pytest

from provd.producer.secrets import Secrets, hide


@pytest.mark.parametrize(
    "name",
    [
        "password", "PASSWORD", "db_password", "dbPassword", "password2", "old_password_hash", "passwd", "passphrase",
        "secret", "client_secret", "secrets", "AWS_SECRET_ACCESS_KEY", "token", "api_token", "apiToken", "HF_TOKEN",
        "token_value", "token2", "access_token", "OAuth2Token", "auth", "http_auth", "auth_header", "Authorization",
        "auth_token", "api_key", "apikey", "apiKey", "APIKey", "X-Api-Key", "OPENAI_API_KEY", "api-key", "credential",
        "aws_credentials", "private_key", "privateKey", "private_key_pem", "access_key", "accesskey", "ssh_key",
        "dbpassword", "bearer", "session_cookie", "jwt", "pwd",
    ],
)  # fmt: skip
def test_a_name_that_says_credential_is_one(name: str) -> None:
    assert Secrets().is_secret(name)


@pytest.mark.parametrize(
    "name",
    [
        "tokens", "n_tokens", "max_tokens", "tokenizer", "secretary", "author", "authors", "authority", "pad_token",
        "eos_token", "next_token", "token_ids", "token_type", "token_count", "key", "keys", "primary_key", "keyword",
        "monkey", "bypass", "passes", "compass", "n_passes", "lr", "epochs", "", "x", "num_tokens", "tokenize",
        "auth_method", "sort_key", "passenger", "cooking",
    ],
)  # fmt: skip
def test_a_name_that_only_sounds_like_it_is_none(name: str) -> None:
    assert not Secrets().is_secret(name)


def test_the_list_is_extended_by_settings() -> None:
    secrets = Secrets("PIN, patient name")

    assert secrets.is_secret("pin")
    assert secrets.is_secret("card_pin")
    assert secrets.is_secret("patientName")
    assert not secrets.is_secret("spinning")
    assert not secrets.is_secret("name")
    assert secrets.is_secret("password")


def test_masking_can_be_turned_off() -> None:
    secrets = Secrets(masked=False)

    assert not secrets.is_secret("password")
    assert secrets.text("redis://:hunter2@db") == "redis://:hunter2@db"
    assert secrets.output("password=hunter2") == "password=hunter2"
    assert secrets.argv(["--password", "hunter2"]) == ["--password", "hunter2"]


def test_that_no_password_was_given_is_no_secret() -> None:
    assert (hide(None), hide(True), hide("x"), hide(1234)) == (None, True, "***", "***")


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("redis://:hunter2@db:6379/0", "redis://:***@db:6379/0"),
        ("mongodb+srv://me:hunter2@db/x?retryWrites=true", "mongodb+srv://me:***@db/x?retryWrites=true"),
        ("see https://me:hunter2@a.org/b and ftp://u:p@c.", "see https://me:***@a.org/b and ftp://u:***@c."),
        ("https://me:hun@ter2@a.org/", "https://me:***@a.org/"),
        ("redis://:hunt/er2@db", "redis://:***@db"),
        ("redis://:hunt#er2@db", "redis://:***@db"),
        ("https://ghp_abcdefghijklmnop1234@github.com/x/y", "https://***@github.com/x/y"),
        ("https://a.org/x?token=hunter2&n=1", "https://a.org/x?token=***&n=1"),
        ("https://a.org/x?n=1&api_key=hunter2#top", "https://a.org/x?n=1&api_key=***#top"),
    ],
)
def test_passwords_in_urls_are_masked_wherever_they_stand(text: str, masked: str) -> None:
    assert Secrets().text(text) == masked


@pytest.mark.parametrize(
    "text",
    [
        "http://host:8080/path", "http://host:8080/path?mail=a@b.c", "https://a.org/x?max_tokens=5", "git@github.com:x/y",
        "ssh://git@github.com/x", "at 10:30 mail a@b.c", "password=hunter2 is just text", "s3://bucket/key", "://",
        "file:///data/run:3/a@b",
    ],
)  # fmt: skip
def test_text_without_credentials_stays_as_it_is(text: str) -> None:
    assert Secrets().text(text) == text


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("ValueError: password=hunter2", "ValueError: password=***"),
        ("connect(host='db', password='hun ter2', port=1)", "connect(host='db', password=***, port=1)"),
        ("""{'user': 'me', 'api_key': 'hunter2'}""", """{'user': 'me', 'api_key': '***'}"""),
        ('{"token": "hunter2", "n": 1}', '{"token": "***", "n": 1}'),
        ("Authorization: Bearer hunter2", "Authorization: ***"),
        ("PGPASSWORD=hunter2 psql", "PGPASSWORD=*** psql"),
        ("cannot reach redis://:hunter2@db", "cannot reach redis://:***@db"),
    ],
)
def test_what_a_program_writes_is_masked(text: str, masked: str) -> None:
    assert Secrets().output(text) == masked


def test_urls_in_bytes_are_masked_and_other_bytes_stay() -> None:
    assert Secrets().raw(b"\xff\x00 redis://:hunter2@db \xfe") == b"\xff\x00 redis://:***@db \xfe"
    assert Secrets().raw(bytes(range(256))) == bytes(range(256))


def test_names_and_labels_of_a_record_are_masked() -> None:
    record = {
        "name": "from https://me:hunter2@a.org", "tags": ["db=x", "token=hunter2", "redis://:hunter2@db"],
        "activity_id": "get https://me:hunter2@a.org/x", "seq": 1,
    }  # fmt: skip

    assert Secrets().fields(record) == {
        "name": "from https://me:***@a.org", "tags": ["db=x", "token=***", "redis://:***@db"],
        "activity_id": "get https://me:***@a.org/x", "seq": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "SyntaxError: invalid token: foo",
        "if token == 'x':",
        "KeyError: 'password'",
        "max_tokens=5",
        "loss=0.3",
        "a = b",
    ],
)
def test_error_messages_keep_their_meaning(text: str) -> None:
    assert Secrets().output(text) == text


@pytest.mark.parametrize(
    "text",
    ["://:hunter2@", "redis://u:hunter2@db password=hunter2 {'token': 'hunter2'} Authorization: hunter2"],
)
def test_masking_twice_is_masking_once(text: str) -> None:
    once = Secrets().output(text)

    assert "hunter2" not in once
    assert Secrets().output(once) == once


@pytest.mark.parametrize(
    ("argv", "masked"),
    [
        (["x.py", "--password", "hunter2", "--lr", "0.1"], ["x.py", "--password", "***", "--lr", "0.1"]),
        (["x.py", "--password=hunter2"], ["x.py", "--password=***"]),
        (["x.py", "--api-key", "hunter2"], ["x.py", "--api-key", "***"]),
        (["x.py", "-p", "8080"], ["x.py", "-p", "8080"]),
        (["x.py", "--use-token", "--verbose"], ["x.py", "--use-token", "--verbose"]),
        (["x.py", "--no-auth", "data.csv"], ["x.py", "--no-auth", "data.csv"]),
        (["x.py", "DB_PASSWORD=hunter2"], ["x.py", "DB_PASSWORD=***"]),
        (["x.py", "--max-tokens", "5"], ["x.py", "--max-tokens", "5"]),
        (["x.py", "--db", "redis://:hunter2@db"], ["x.py", "--db", "redis://:***@db"]),
        (["x.py", "--config", '{"password": "hunter2"}'], ["x.py", "--config", '{"password": "***"}']),
        (["curl", "-H", "Authorization: Bearer hunter2"], ["curl", "-H", "Authorization: ***"]),
    ],
)
def test_a_command_line_is_masked(argv: list[str], masked: list[str]) -> None:
    assert Secrets().argv(argv) == masked


def test_the_programs_own_record_is_not_changed() -> None:
    record = {"argv": ["--password", "hunter2"], "stderr": "token=hunter2", "name": "n"}

    masked = Secrets().fields(record)

    assert masked == {"argv": ["--password", "***"], "stderr": "token=***", "name": "n"}
    assert record["argv"] == ["--password", "hunter2"]


def cost_s(text: str) -> float:
    """Processor time of this thread, the least of three: whatever else a machine does only adds to it."""
    costs = []
    for _ in range(3):
        secrets, before = Secrets(), time.thread_time()
        secrets.output(text)
        costs.append(time.thread_time() - before)
    return min(costs)


@pytest.mark.parametrize(
    ("head", "piece", "tail"),
    [
        ("", "://a:", ""),
        ("", "a", ""),
        ("", "password=", ""),
        ("", "'a':", ""),
        ("://", "a:", ""),
        ("", "?a=", "://"),
    ],
)
def test_hostile_text_costs_time_in_proportion_to_its_length(head: str, piece: str, tail: str) -> None:
    """Four times the text costs four times as much, not sixteen: the limit is halfway, and the same on any machine."""
    quarter, whole = (head + piece * (length // len(piece)) + tail for length in (20_000, 80_000))

    assert cost_s(whole) < 8 * cost_s(quarter) + 0.05


def test_ever_new_names_do_not_fill_the_memory() -> None:
    secrets = Secrets()

    for number in range(30_000):
        secrets.is_secret(f"metric_{number}")

    assert len(secrets.innocent) <= 10_000
