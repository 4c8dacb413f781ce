"""The client for a plain Redis: one connection, whose replies belong to what was asked."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress

import pytest

from provd.common.errors import BrokerUnavailable
from provd.producer.broker import Broker
from provd.producer.resp import PlainRedis, RedisRefused, plain_address
from tests.services.redis_server import RedisServer
from tests.services.waiting import wait_until
from tests.streams import Script

PrivateRedis = Callable[..., RedisServer]


class Client:
    """A client, and how often it was connected."""

    def __init__(self, url: str, timeout_s: float = 5.0) -> None:
        address = plain_address(url)
        assert address is not None
        self.connections = 0
        self.redis = PlainRedis(address, timeout_s, self._greet)

    def _greet(self, redis: PlainRedis) -> None:
        self.connections += 1
        redis.on_connect()


def test_every_kind_of_reply_is_read(private_redis: PrivateRedis) -> None:
    redis = Client(private_redis().url).redis

    replies = redis.execute_commands(
        [
            ("SET", "key", b"\r\n$3\r\n"),
            ("GET", "key"),
            ("GET", "absent"),
            ("RPUSH", "list", 1, "zwei", ""),
            ("LRANGE", "list", 0, -1),
            ("EVAL", "return {1, {'a', {}}, false}", 0),
        ]
    )

    assert replies == [b"OK", b"\r\n$3\r\n", None, 3, [b"1", b"zwei", b""], [1, [b"a", []], None]]
    redis.close()


def test_an_error_among_the_replies_is_raised_and_the_others_are_read(private_redis: PrivateRedis) -> None:
    redis = Client(private_redis().url).redis

    with pytest.raises(RedisRefused, match="WRONGTYPE"):
        redis.execute_commands([("SET", "key", 1), ("LPUSH", "key", 2), ("SET", "after", 3)])

    assert redis.get("after") == b"3"
    redis.close()


def test_user_password_and_database_are_those_of_the_url(private_redis: PrivateRedis) -> None:
    server = private_redis(config={"requirepass": "se/cret"}, credentials="default:se%2Fcret")
    port = server.port

    with_user = Client(f"redis://default:se%2Fcret@127.0.0.1:{port}/3").redis
    with_user.set("key", "here")
    without_user = Client(f"redis://:se%2Fcret@127.0.0.1:{port}/3").redis
    elsewhere = Client(f"redis://:se%2Fcret@127.0.0.1:{port}/0").redis

    assert without_user.get("key") == b"here"
    assert elsewhere.get("key") is None
    with pytest.raises(RedisRefused, match="NOAUTH"):
        Client(f"redis://127.0.0.1:{port}/0").redis.get("key")
    for redis in (with_user, without_user, elsewhere):
        redis.close()


def test_a_connection_that_was_closed_between_two_commands_is_made_again(private_redis: PrivateRedis) -> None:
    server = private_redis(unix_socket=True)
    client = Client(server.url)
    client.redis.set("key", "value")

    with server.client() as other:
        other.client_kill_filter(_type="normal", skipme=True)

    assert client.redis.get("key") == b"value"
    assert client.connections == 2
    client.redis.close()


def test_a_reply_that_comes_too_late_is_not_taken_for_another_one(private_redis: PrivateRedis) -> None:
    server = private_redis()
    client = Client(server.url)
    client.redis.set("key", "late")
    assert client.redis._socket is not None
    client.redis._socket.settimeout(0.2)  # of this connection, not of the next

    server.pause()
    with pytest.raises(TimeoutError):
        client.redis.get("key")
    server.resume()

    assert client.redis.exists("key") == 1
    client.redis.close()


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"$99999999999999\r\n",
        b"$99999999999999999999999\r\n",
        b"*99999999999999\r\n",
        b"*1\r\n" * 10_000,
        b"+" + b"x" * (1 << 20),
        b":" + b"9" * 5000 + b"\r\n",
        b"\r\n",
    ],
    ids=[
        "http",
        "a long value",
        "a longer one",
        "a long list",
        "lists in lists",
        "no end",
        "a number",
        "nothing",
    ],
)
def test_what_is_no_redis_is_a_broker_that_is_away(reply: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1024)
                with suppress(OSError):  # it hangs up
                    connection.sendall(reply)

        answering = threading.Thread(target=answer)
        answering.start()
        broker = Broker(
            f"redis://127.0.0.1:{listener.getsockname()[1]}/0", namespace="ns", buckets=16, timeout_s=5
        )
        with pytest.raises(BrokerUnavailable, match="not a reply of Redis"):
            broker.open()
        answering.join()
        broker.close()


def test_a_script_that_sends_to_a_plain_redis_never_loads_a_library_for_it(script: Script) -> None:
    """It would take longer than all the rest of the start, on every rank of a job."""
    done = script.run("""
        import sys
        import provd

        @provd.task
        def train(rate):
            return {"loss": rate}

        with provd.workflow("w"):
            train(0.1)
            print(provd.flush(10))
        print([name for name in ("asyncio", "redis", "ssl", "subprocess", "yaml") if name in sys.modules])
    """)

    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n[]\n", "")


def test_a_redis_that_refuses_is_left_with_one_connection_however_often_it_is_tried(
    private_redis: PrivateRedis, script: Script
) -> None:
    server = private_redis(config={"maxmemory": "1"})
    running = script.start(
        """
        import gc, sys, provd

        gc.disable()  # as programs do that count on it
        provd.workflow("w").start()
        sys.stdin.read()
        """,
        env={"PROVD_BROKER_URL": server.url},
    )
    with server.client() as client:
        before = client.info("stats")["total_connections_received"]

        wait_until(lambda: client.info("stats")["total_connections_received"] >= before + 4, 30)

        assert client.info("clients")["connected_clients"] <= 2
    running.communicate("")
