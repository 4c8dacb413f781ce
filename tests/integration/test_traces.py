"""Traces of OpenTelemetry, by its real SDK, in programs that load it early, late or never."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from provd.common import names
from provd.common.record import Kind
from provd.store.interface import Store
from tests.streams import Script, Streams

pytest.importorskip("opentelemetry.sdk.trace")

TRACED = """
    import provd
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider

    trace.set_tracer_provider(TracerProvider())
    tracer = trace.get_tracer("test")

    @provd.task
    def plain(n, where):
        return n

    @provd.task
    def failing(n, where):
        raise ValueError("no")

    @provd.task(light=True)
    def light(n, where):
        return n

    def everything(where):
        plain(1, where)
        plain(n=1, where=where)
        light(1, where)
        try:
            failing(1, where)
        except ValueError:
            pass
        with provd.Task("by hand", used={"where": where}) as task:
            task.generated(x=1)
        for _ in provd.loop([where], name="loop", item="where"):
            pass
        for _ in provd.loop([where], name="light loop", item="where", light=True):
            pass

    with tracer.start_as_current_span("whole") as whole:
        with provd.workflow("w"):
            with tracer.start_as_current_span("span") as span:
                everything("inside")
    with provd.workflow("outside"):
        everything("outside")
        plain(2, "own campaign", campaign_id="c9")
        with tracer.start_as_current_span("another") as another:
            plain(3, "another", campaign_id="c9")
    print(format(whole.get_span_context().trace_id, "032x"), format(another.get_span_context().trace_id, "032x"))
"""


def test_what_begins_within_a_span_has_its_trace_and_what_does_not_has_none(
    script: Script, streams: Streams
) -> None:
    done = script.run(TRACED)
    assert done.returncode == 0, done.stderr
    whole, another = done.stdout.split()

    tasks = streams.tasks()
    traces = {where: {task.get("trace_id") for task in tasks if task["used"]["where"] == where} for where in (
        "inside", "outside", "own campaign", "another",
    )}  # fmt: skip
    assert traces == {"inside": {whole}, "outside": {None}, "own campaign": {None}, "another": {another}}
    assert len(tasks) == 16
    assert {w["name"]: w.get("trace_id") for w in streams.records(Kind.WORKFLOW)} == {
        "w": whole,
        "outside": None,
    }
    assert {t["campaign_id"] for t in tasks if "campaign_id" in t} == {"c9"}


def test_opentelemetry_may_be_loaded_after_the_workflow_has_begun(script: Script, streams: Streams) -> None:
    done = script.run(
        """
        import provd

        @provd.task
        def step(n):
            return n

        with provd.workflow("w"):
            step(0)
            from opentelemetry import trace
            from opentelemetry.sdk.trace import TracerProvider
            trace.set_tracer_provider(TracerProvider())
            step(1)
            provd.flush()
            with trace.get_tracer("test").start_as_current_span("span") as span:
                step(2)
            print(format(span.get_span_context().trace_id, "032x"))
        """
    )

    assert done.returncode == 0, done.stderr
    assert [task.get("trace_id") for task in streams.tasks()] == [None, None, done.stdout.strip()]


def test_opentelemetry_is_never_loaded_by_us(script: Script, streams: Streams) -> None:
    done = script.run(
        """
        import sys, provd

        @provd.task
        def step(n):
            return n

        with provd.workflow("w"):
            step(0)
            provd.flush()
        print([name for name in sys.modules if name.startswith("opentelemetry")])
        """
    )

    assert done.stdout == "[]\n"
    assert len(streams.tasks()) == 1


def test_a_trace_module_that_breaks_costs_the_trace_and_nothing_else(
    script: Script, streams: Streams
) -> None:
    done = script.run(
        """
        import sys, types, provd
        sys.modules["opentelemetry.trace"] = types.ModuleType("opentelemetry.trace")

        @provd.task
        def step(n):
            return n

        with provd.workflow("w"):
            step(0)
        """
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert ["trace_id" in task for task in streams.tasks()] == [False]


@pytest.mark.usefixtures("store")
def test_tasks_of_a_trace_are_found_in_the_store(
    script: Script, collect: Callable[[], None], store: Store
) -> None:
    whole, _ = script.run(TRACED).stdout.split()
    collect()

    found: list[Any] = list(store.find(names.TASKS, {"trace_id": whole}))

    assert len(found) == 7
    assert [w["name"] for w in store.find(names.WORKFLOWS, {"trace_id": whole})] == ["w"]
