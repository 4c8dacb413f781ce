"""Which links a record has."""

from __future__ import annotations

from typing import Any

import bson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from provd.common.record import Message
from provd.store.links import links_of
from tests.contract.messages import task

SUM = "0123456789abcdef" * 4
FILE = {"type": "provd.File", "path": "/data/a.csv", "size": 3, "sha256": SUM}
OBJECT = {"type": "job.Model", "object": "01kxt7aaaaaaaaaaaaaaaa#7", "version": 2}


def keys(message: Message) -> list[tuple[str, str]]:
    """Direction and key of a message's links."""
    return [(link["direction"], link["key"]) for link in links_of([message])]


@pytest.mark.parametrize(
    ("value", "key"),
    [
        (FILE, f"file:{SUM}:/data/a.csv"),
        ({"type": "provd.File", "path": "/a", "size": 3, "modified_ns": 17}, "file:3@17:/a"),
        ({"type": "provd.Key", "key": "model/3", "value": 0.5}, "key:workflow/w1:model/3"),
        (OBJECT, "object:01kxt7aaaaaaaaaaaaaaaa#7@2"),
        ([1, {"deep": [FILE]}], f"file:{SUM}:/data/a.csv"),
    ],
    ids=["checksum", "size and time", "key", "object", "inside"],
)
def test_a_value_that_can_be_followed_is_a_link(value: Any, key: str) -> None:
    assert keys(task(used={"x": value})) == [("used", key)]
    assert keys(task(used={}, generated={"x": value})) == [("generated", key)]


@pytest.mark.parametrize(
    "value",
    [
        {"type": "provd.File", "path": "/data/missing.csv"},
        {"type": "provd.File", "path": "/data/a.csv", "size": 3},
        {"type": "provd.File", "path": 7, "sha256": SUM},
        {"type": "provd.File", "path": "/a", "sha256": "\ud800"},
        {"type": "provd.File", "path": "/a", "size": 10**5000, "modified_ns": 1},
        {"type": "provd.Key", "key": None},
        {"type": "detection", "object": "car", "version": 1},
        {"type": "job.Model", "object": "01kxt7aaaaaaaaaaaaaaaa#7"},
        {"type": ["provd.Key"], "key": "x"},
        {"path": "/data/a.csv"},
    ],
    ids=[
        "a missing file",
        "no checksum and no time",
        "a path that is no text",
        "a checksum that is none",
        "a huge size",
        "a key that is no text",
        "another's object",
        "an object that no task made",
        "a type that is no text",
        "no type",
    ],
)
def test_what_cannot_be_followed_is_none(value: Any) -> None:
    assert keys(task(used={"x": value})) == []


def test_a_declared_key_means_one_value_within_its_campaign() -> None:
    key = {"type": "provd.Key", "key": "model"}

    assert keys(task(used={"x": key}, campaign_id="exp42")) == [("used", "key:campaign/exp42:model")]
    assert keys(task(used={"x": key}, workflow="w2")) == [("used", "key:workflow/w2:model")]


def test_what_a_task_depends_on_is_a_link_to_the_other_task() -> None:
    assert keys(task(depends_on=["p-00000001", "p-00000002"])) == [
        ("used", "task:p-00000001"),
        ("used", "task:p-00000002"),
    ]


def test_a_value_twice_is_one_link() -> None:
    assert len(keys(task(used={"x": FILE, "y": [FILE, FILE]}))) == 1


def test_a_link_says_of_which_message_it_is_and_whose_it_is() -> None:
    (link,) = links_of([task(4, used={"x": FILE}, tenant_id="lab")])

    assert {name: link[name] for name in ("workflow_id", "producer_id", "seq", "tenant_id")} == {
        "workflow_id": "w1",
        "producer_id": "p1",
        "seq": 4,
        "tenant_id": "lab",
    }


_TEXTS = st.text() | st.sampled_from(
    ["provd.File", "provd.Key", SUM, OBJECT["object"], "\ud800", "a\0b", "x" * 5000]
)
_VALUES = st.recursive(
    st.none() | st.integers() | _TEXTS | st.binary(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "path", "key", "object", "version", "size", "modified_ns", "sha256"])
            | st.integers(),
            inner,
            max_size=6,
        )
    ),
    max_leaves=10,
)


@given(used=_VALUES, generated=_VALUES, depends_on=_VALUES, campaign=_TEXTS | st.none(), tenant=_VALUES)
def test_whatever_a_record_holds_its_links_can_be_stored(
    used: Any, generated: Any, depends_on: Any, campaign: str | None, tenant: Any
) -> None:
    message = task(
        used={"x": used, "y": [used]},
        generated=generated,
        depends_on=depends_on,
        campaign_id=campaign,
        tenant_id=tenant,
    )

    found = links_of([message])

    assert all(bson.encode(link) for link in found)
    assert len({link["_id"] for link in found}) == len(found)
