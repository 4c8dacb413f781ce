"""Lineage on both stores, against a graph in plain Python."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from provd.common.errors import Ambiguous, NotFound
from provd.common.record import Message
from provd.query.lineage import DOWN, UP, Lineage, Node, Stop, find_task, follow, trace
from provd.query.neighbours import Edge
from provd.store.interface import Store
from tests.contract.messages import START_MS, task
from tests.contract.test_links import file

NOW_MS = START_MS + 1_000_000

#: Every example of a property has workflows and files of its own.
_fresh = itertools.count()


@dataclass
class Plan:
    """What one task does: indexes of its caller and dependencies, numbers of the files it uses and makes."""

    workflow: int
    parent: int | None
    depends_on: list[int]
    used: list[int]
    made: list[int]


@st.composite
def plans(draw: st.DrawFn) -> list[Plan]:
    """Tasks with edges between them: cycles, and values made twice or by nobody, included."""
    size = draw(st.integers(1, 9))
    indexes, files = st.integers(0, size - 1), st.lists(st.integers(0, 5), max_size=3)
    found = []
    for _ in range(size):
        plan = Plan(
            draw(st.integers(0, 1)),
            draw(st.none() | indexes),
            draw(st.lists(indexes, max_size=2)),
            draw(files),
            draw(files),
        )
        found.append(plan)
    for plan in found:  # who called a task did so in the same workflow
        if plan.parent is not None and found[plan.parent].workflow != plan.workflow:
            plan.parent = None
    return found


class Graph:
    """The plans as messages, and as edges."""

    def __init__(self, plans: list[Plan]) -> None:
        mark = next(_fresh)
        self.ids = [f"w{mark}-{plan.workflow}-{number:08x}" for number, plan in enumerate(plans)]
        self.messages = [self._message(number, plan, mark) for number, plan in enumerate(plans)]
        self.edges: set[tuple[str, str, str, str | None]] = set()
        for target, plan in zip(self.ids, plans):
            if plan.parent is not None:
                self.edges.add((self.ids[plan.parent], target, "call", None))
            self.edges |= {(self.ids[other], target, "dependency", None) for other in plan.depends_on}
            for number in plan.used:
                key = f"file:{number:064x}:/data/{mark}"
                makers = [name for name, one in zip(self.ids, plans) if number in one.made]
                self.edges |= {(maker, target, "value", key) for maker in makers}
        self.edges = {edge for edge in self.edges if edge[0] != edge[1]}

    def _message(self, number: int, plan: Plan, mark: int) -> Message:
        fields: dict[str, Any] = {
            "used": {"files": [file(f"{mark}", one) for one in plan.used]},
            "generated": {"files": [file(f"{mark}", one) for one in plan.made]},
            "task_id": self.ids[number],
            "parent_task_id": self.ids[plan.parent] if plan.parent is not None else None,
            "depends_on": [self.ids[other] for other in plan.depends_on] or None,
        }
        return task(number + 1, workflow=f"w{mark}-{plan.workflow}", **fields)

    def search(
        self, start: str, direction: str, depth: int
    ) -> tuple[dict[str, int], set[tuple[str, str, str, str | None]], bool]:
        """Hops by task, edges, and whether there is more beyond the depth."""
        near, far = (1, 0) if direction == UP else (0, 1)
        hops, frontier = {start: 0}, {start}
        edges: set[tuple[str, str, str, str | None]] = set()
        for hop in itertools.count(1):
            ways = {edge for edge in self.edges if edge[near] in frontier}
            frontier = {edge[:2][far] for edge in ways} - hops.keys()
            if depth and hop > depth:
                return hops, edges, bool(frontier)
            edges |= ways
            hops |= dict.fromkeys(frontier, hop if direction == DOWN else -hop)
            if not frontier:
                return hops, edges, False
        raise AssertionError


def facts(edges: tuple[Edge, ...]) -> list[tuple[str, str, str, str | None]]:
    """Edges as the graph has them."""
    return [(edge.source, edge.target, edge.kind, edge.key) for edge in edges]


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    derandomize=True,
)
@given(plans=plans(), data=st.data())
def test_lineage_is_what_the_graph_says(store: Store, plans: list[Plan], data: st.DataObject) -> None:
    graph = Graph(plans)
    start = data.draw(st.sampled_from(graph.ids))
    depth = data.draw(st.integers(0, 3))
    store.write(graph.messages, received_at=NOW_MS)

    found = trace(store, start, up=True, down=True, depth=depth)

    ups, ways_up, more_up = graph.search(start, UP, depth)
    downs, ways_down, more_down = graph.search(start, DOWN, depth)
    assert {node.task_id: node.hop for node in found.nodes} == {**downs, **ups}
    assert len(found.nodes) == len({node.task_id for node in found.nodes})
    assert set(facts(found.edges)) == ways_up | ways_down
    assert len(found.edges) == len(set(facts(found.edges)))
    assert {stop.direction for stop in found.stopped_at} == (
        ({UP} if more_up else set()) | ({DOWN} if more_down else set())
    )
    for edge in found.edges:
        if edge.kind == "value":
            makers = {one[0] for one in graph.edges if one[3] == edge.key} | {
                name
                for name, plan in zip(graph.ids, plans)
                if any(edge.key and edge.key.startswith(f"file:{number:064x}:") for number in plan.made)
            }
            assert edge.candidates == max(1, len(makers - {edge.target}))


def chain(length: int) -> list[Message]:
    """Tasks each of which uses what the one before it made."""
    return [
        task(number, used={"in": file(f"{number}")}, generated={"out": file(f"{number + 1}")})
        for number in range(1, length + 1)
    ]


def test_an_answer_says_where_it_stopped(store: Store) -> None:
    store.write(chain(30), received_at=NOW_MS)

    whole = trace(store, "w1-0000001e", depth=0)
    shallow = trace(store, "w1-0000001e", depth=7)
    exact = trace(store, "w1-0000001e", depth=29)
    small = trace(store, "w1-0000001e", depth=0, limit=12)

    assert (len(whole.nodes), whole.stopped_at) == (30, ())
    assert (len(shallow.nodes), shallow.stopped_at) == (8, (Stop(UP, 7, "depth"),))
    assert (len(exact.nodes), exact.stopped_at) == (30, ())
    assert (len(small.nodes), small.stopped_at) == (13, (Stop(UP, 13, "limit"),))


def test_a_wide_answer_stops_after_as_many_tasks_as_were_asked_for(store: Store) -> None:
    readers = [task(number, used={"in": file("a")}) for number in range(2, 3000)]
    store.write([task(1, generated={"out": file("a")}), *readers], received_at=NOW_MS)

    found = trace(store, "w1-00000001", up=False, down=True, limit=700)
    everything = trace(store, "w1-00000001", up=False, down=True, limit=0)

    assert (len(found.nodes), found.stopped_at) == (701, (Stop(DOWN, 1, "limit"),))
    assert (len(everything.nodes), everything.stopped_at) == (2999, ())


def test_an_answer_comes_as_it_is_found(store: Store) -> None:
    store.write(chain(30), received_at=NOW_MS)

    flow = follow(store, "w1-0000001e", depth=0)
    first = list(itertools.islice(flow, 3))
    store.write([task(31, used={"in": file("1")})], received_at=NOW_MS)

    assert [type(item) for item in first] == [Node, Node, Edge]
    assert sum(isinstance(item, Node) for item in flow) == 28


@pytest.mark.parametrize("kind", ["call", "dependency", "value"])
def test_one_kind_of_edge_can_be_followed_alone(store: Store, kind: str) -> None:
    messages = [
        task(1, activity_id="caller"),
        task(2, activity_id="needed"),
        task(3, activity_id="maker", generated={"out": file("a")}),
        task(4, parent_task_id="w1-00000001", depends_on=["w1-00000002"], used={"in": file("a")}),
    ]
    store.write(messages, received_at=NOW_MS)

    found = trace(store, "w1-00000004", kinds=[kind])

    assert [edge.kind for edge in found.edges] == [kind]
    activity = {"call": "caller", "dependency": "needed", "value": "maker"}[kind]
    assert [node.activity_id for node in found.nodes[1:]] == [activity]


def test_a_node_whose_clock_is_off_changes_no_lineage(store: Store) -> None:
    """The maker says that it ended five minutes after its reader began."""
    late: dict[str, Any] = {"started_at": START_MS + 300_000, "ended_at": START_MS + 300_500}
    maker = task(1, producer="p2", generated={"out": file("a")}, **late)
    store.write([maker, task(2, used={"in": file("a")})], received_at=NOW_MS)

    assert [edge.source for edge in trace(store, "w1-00000002").edges] == ["w1-00000001"]


def test_a_value_that_several_tasks_made_has_all_of_them_as_candidates(store: Store) -> None:
    messages = [
        *(task(number, generated={"out": file("a")}) for number in (1, 2, 3)),
        task(4, used={"in": file("a")}),
    ]
    store.write(messages, received_at=NOW_MS)

    up: Lineage = trace(store, "w1-00000004")
    down = trace(store, "w1-00000002", up=False, down=True)

    assert [edge.candidates for edge in up.edges] == [3, 3, 3]
    assert [edge.candidates for edge in down.edges] == [3]


def test_a_task_that_was_never_stored_stands_as_its_id(store: Store) -> None:
    store.write([task(1, depends_on=["gone"], parent_task_id="lost")], received_at=NOW_MS)

    found = trace(store, "w1-00000001")

    assert {node.task_id: node.record for node in found.nodes[1:]} == {"gone": {}, "lost": {}}


def test_files_lead_from_one_workflow_to_another_and_declared_keys_within_a_campaign(store: Store) -> None:
    key = {"type": "provd.Key", "key": "model"}
    store.write(
        [
            task(1, workflow="w1", generated={"out": file("a"), "model": key}, campaign_id="c"),
            task(1, workflow="w2", producer="p2", used={"in": file("a")}),
            task(1, workflow="w3", producer="p3", used={"model": key}, campaign_id="c"),
            task(1, workflow="w4", producer="p4", used={"model": key}, campaign_id="d"),
        ],
        received_at=NOW_MS,
    )

    found = trace(store, "w1-00000001", up=False, down=True)

    assert {node.task_id for node in found.nodes[1:]} == {"w2-00000001", "w3-00000001"}


class TestFindTask:
    """Which task a text means."""

    def test_an_id_or_a_unique_prefix_finds_it(self, store: Store) -> None:
        store.write([task(1), task(1, workflow="w2")], received_at=NOW_MS)

        assert find_task(store, "w1-00000001") == "w1-00000001"
        assert find_task(store, "w2") == "w2-00000001"

    def test_a_prefix_of_several_lists_them(self, store: Store) -> None:
        store.write([task(number) for number in range(1, 21)], received_at=NOW_MS)

        with pytest.raises(Ambiguous, match=r"fits several tasks.*\n  w1-00000001\n(.*\n)*  and more"):
            find_task(store, "w1-")

    def test_none_names_the_nearest(self, store: Store) -> None:
        store.write([task(1), task(1, workflow="w2")], received_at=NOW_MS)

        with pytest.raises(NotFound, match="the nearest is 'w2-00000001'"):
            find_task(store, "w2-000x")

    def test_none_at_all_says_so(self, store: Store) -> None:
        with pytest.raises(NotFound, match="no tasks yet"):
            find_task(store, "w")

    def test_tracing_one_that_is_not_there_raises(self, store: Store) -> None:
        with pytest.raises(NotFound, match="'nothing'"):
            trace(store, "nothing")
