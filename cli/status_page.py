"""What `provd status` prints, and the same as one JSON object."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict

from provd.cli import human, output
from provd.cli.output import STATUS_STYLES, Column
from provd.common.record import Record, Status
from provd.consumer.broker import SAFE_POLICY
from provd.consumer.overview import ConsumerView, Overview, ServiceView, WorkflowView

#: Seconds after which a consumer that stopped is of no interest while others run.
_STALE_S = 3600.0

#: Share of Redis' memory from which on it is time to act.
_TIGHT = 0.8

_STATES = {"running": "green", "silent": "bold magenta", "stopped": "dim"}

_GOES_ON = (Status.SUBMITTED.value, Status.RUNNING.value)

#: What nobody could say.
_UNKNOWN = "?"


def overview_document(overview: Overview) -> Record:
    """The overview as JSON has it; what nobody could say is left out."""
    broker = _service_document(overview.broker)
    if overview.memory is not None:
        broker |= {
            "memory_used": overview.memory.used,
            "memory_limit": overview.memory.limit,
            "policy": overview.memory.policy,
        }
    document: Record = {
        "at": overview.at,
        "broker": broker,
        "store": _service_document(overview.store),
        "workflows": [_present(asdict(view)) for view in overview.workflows],
        "others": overview.others,
        "unseen": overview.unseen,
    }
    if overview.whole is not None:
        document["whole"] = overview.whole
    if overview.consumers is not None:
        document["consumers"] = [_present(asdict(view)) for view in overview.consumers]
    return document


def print_overview(overview: Overview, *, dated: bool = False) -> None:
    """The page."""
    if dated:
        output.print_line(human.moment(overview.at), style="bold")
    output.print_fields([("Redis", _redis_line(overview)), ("store", _service_line(overview.store))])
    _print_consumers(overview)
    _print_workflows(overview)
    _print_rest(overview)
    for line in _advice(overview):
        output.print_line(line, style="yellow")
    if dated:
        output.print_line("")


def _present(items: Record) -> Record:
    return {name: value for name, value in items.items() if value is not None and value not in ((), {})}


def _service_document(service: ServiceView) -> Record:
    return {"url": service.url, "up": service.up, **({"error": service.error} if service.error else {})}


def _service_line(service: ServiceView) -> str:
    return f"{service.url}  away: {service.error}" if service.error else f"{service.url}  answers"


def _redis_line(overview: Overview) -> str:
    if not overview.broker.url:
        return "none: producers spool"
    line, memory = _service_line(overview.broker), overview.memory
    if memory is None:
        return line
    room = f"{human.size(memory.used)} of {human.size(memory.limit)} ({memory.share:.0%})"
    return f"{line}, {room if memory.limit else human.size(memory.used) + ', no maxmemory'}, {memory.policy}"


def _print_consumers(overview: Overview) -> None:
    if overview.consumers is None:
        return
    shown = [one for one in overview.consumers if one.state != "stopped" or one.seen_s < _STALE_S]
    if not shown:
        return
    wide = output.width() >= output.WIDE
    columns = [
        Column("consumer"),
        Column("state", firm=True, styles=_STATES),
        Column("seen", right=True, firm=True),
        Column("stored", right=True, firm=True),
        Column("rate", right=True, firm=True),
        Column("its spool", right=True, firm=True),
        *(
            [Column("serves", folds=True), Column("pid", right=True, firm=True), Column("version")]
            if wide
            else []
        ),
    ]
    rows = [_consumer_row(one, wide=wide) for one in shown]
    output.print_table(columns, rows, title="consumers")


def _consumer_row(one: ConsumerView, *, wide: bool) -> list[str]:
    figures, running = one.figures, one.state == "running"
    row = [
        one.name,
        one.state,
        f"{human.duration(one.seen_s)} ago",
        f"{figures.get('stored', 0):,}",
        f"{figures.get('rate', 0):,.0f}/s" if running else "",
        human.size(figures["backlog_bytes"]) if figures.get("backlog_bytes") else "",
    ]
    return row + ([", ".join(one.workflow_ids) or "all", str(one.pid), one.version] if wide else [])


def _print_workflows(overview: Overview) -> None:
    if not overview.workflows:
        output.print_line(f"\n{_nothing(overview)}")
        return
    views = overview.workflows
    wide = output.width() >= output.WIDE
    columns = [Column("workflow", folds=True)]
    cells: list[Callable[[WorkflowView], str]] = [lambda view: view.workflow_id]
    if any(view.status for view in views):
        columns.append(Column("status", firm=True, styles=STATUS_STYLES))
        cells.append(lambda view: view.status or "")
    waits = any(view.frames is not None for view in views)
    for header, cell, always in _figures(wide=wide, waits=waits):
        if always or any(cell(view) not in ("", "0") for view in views):
            columns.append(Column(header, right=header != "campaign", firm=header != "campaign"))
            cells.append(cell)
    output.print_table(columns, [[cell(view) for cell in cells] for view in views], title="workflows")
    if overview.others:
        output.print_line(
            f"and {human.many(overview.others, 'workflow')} more: --limit 0 lists all", style="dim"
        )


def _nothing(overview: Overview) -> str:
    if overview.reachable:
        return "nothing is under way"
    return "the store knows of nothing under way" if overview.store.up else "nothing is known of any workflow"


def _print_rest(overview: Overview) -> None:
    """What is not listed."""
    if overview.whole:
        ended = human.many(overview.whole, "run")
        output.print_line(f"{ended} ended and wholly stored: `-w ID` shows any one", style="dim")
    if overview.unseen:
        older = human.many(overview.unseen, "older run")
        output.print_line(f"{older} not looked at: --limit 0 does", style="dim")


def _figures(*, wide: bool, waits: bool) -> list[tuple[str, Callable[[WorkflowView], str], bool]]:
    """Header, cell, and whether the column stands also where it is empty throughout; `waits`: there are streams."""
    spools: list[tuple[str, Callable[[WorkflowView], str], bool]] = [
        ("in producers' spools", lambda view: _count(view.spooled), False),
        ("in consumers' spools", lambda view: _count(view.held), False),
    ]
    absent: list[tuple[str, Callable[[WorkflowView], str], bool]] = [
        ("unclosed", lambda view: _after_end(view, view.unclosed), False),
        ("ranks unseen", lambda view: _after_end(view, view.missing_ranks), False),
    ]
    if not wide:
        spools = [("spooled", lambda view: _count(_sum(view.spooled, view.held)), False)]
        # A rank that never appeared has not closed either.
        absent = [("unclosed", lambda view: _after_end(view, _sum(view.unclosed, view.missing_ranks)), False)]
    return [
        *([("campaign", lambda view: view.campaign_id or "", False)] if wide else []),
        ("frames", lambda view: "" if view.frames is None else f"{view.frames:,}", waits),
        *(
            [("pending", lambda view: "" if view.pending is None else f"{view.pending:,}", waits)]
            if wide
            else []
        ),
        ("oldest", lambda view: human.duration(view.oldest_s) if view.frames else "", waits),
        *([("produced", lambda view: _count(view.produced), wide)] if wide or not waits else []),
        ("stored", lambda view: _count(view.stored), True),
        *spools,
        ("quarantined", lambda view: _count(view.quarantined), False),
        ("dropped", lambda view: _count(view.dropped), False),
        # What waits in a stream is not missing.
        ("missing", lambda view: "" if view.frames is not None else _count(view.missing), False),
        *absent,
    ]


def _after_end(view: WorkflowView, number: int | None) -> str:
    """What is in order while a run goes on."""
    return f"{number:,}" if number is not None and view.status not in (None, *_GOES_ON) else ""


def _count(number: int | None) -> str:
    return _UNKNOWN if number is None else f"{number:,}"


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other


def _advice(overview: Overview) -> list[str]:
    lines = []
    if not overview.broker.up:
        lines.append("Redis cannot be asked: what waits there is not known")
    if not overview.store.up:
        lines.append("the store cannot be asked: what is stored, and who consumes, is not known")
    memory = overview.memory
    if memory is not None and memory.policy not in ("", SAFE_POLICY):
        lines.append(f"Redis may throw frames away: maxmemory-policy is {memory.policy}, set {SAFE_POLICY}")
    if memory is not None and memory.share > _TIGHT:
        lines.append("Redis is nearly full: producers will spool; start more consumers, or raise maxmemory")
    if overview.consumers is not None and not any(one.state == "running" for one in overview.consumers):
        lines.append("no consumer runs: `provd consume` stores what waits")
    if any(view.spooled for view in overview.workflows):
        lines.append(
            "in producers' spools: they ship it themselves; of ended ones `provd replay --recover DIR` does"
        )
    if any(view.missing for view in overview.workflows):
        lines.append(
            "missing: `provd runs verify ID` names them; what a producer kept on its disk,"
            " `provd replay --recover DIR` brings in"
        )
    if any(view.quarantined for view in overview.workflows):
        lines.append("quarantined: `provd quarantine list` says why, `provd quarantine retry` tries again")
    return lines + _dropped(overview.workflows)


def _dropped(views: Sequence[WorkflowView]) -> list[str]:
    counts: dict[str, int] = {}
    for view in views:
        for reason, count in view.dropped_reasons.items():
            counts[reason] = counts.get(reason, 0) + count
    return (
        ["dropped: " + ", ".join(f"{count:,} {reason}" for reason, count in counts.items())] if counts else []
    )
