"""A timeline as a picture: a bar a producer, coloured by what it did, as strong as it was busy."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from provd.query.pictures import (
    COLOURS,
    GREY,
    LETTER,
    STATUS_COLOURS,
    document,
    plain,
    rect,
    shortened,
    text,
    width_of,
)
from provd.query.timeline import BY_STATUS, OTHER, Lane, Timeline

_CHART = 900.0
_ROW = 18.0
_TOP = 56.0
_TICKS_MAX = 8
_LABEL_CHARS = 32

#: Characters of a group's name in a legend.
GROUP_CHARS = 40

#: Units of time in seconds, and the steps that an axis has of each.
_THOUSAND = (1, 2, 5, 10, 20, 50, 100, 200, 500)
_UNITS = (
    (1e-6, "µs", _THOUSAND), (1e-3, "ms", _THOUSAND), (1.0, "s", (1, 2, 5, 10, 30)), (60.0, "min", (1, 2, 5, 10, 30)),
    (3600.0, "h", (1, 2, 6, 12)), (86400.0, "d", (*_THOUSAND, 1000, 2000, 5000)),
)  # fmt: skip

#: Steps of strength: neighbours of one strength are one box.
_STEPS = 8


def picture(timeline: Timeline) -> str:
    """The SVG file."""
    left = 16 + LETTER * max([len(label(lane)) for lane in timeline.lanes] or [0])
    height = _TOP + _ROW * len(timeline.lanes) + 40
    title = f"timeline of run {timeline.workflow_id}"
    return document(left + _CHART + 24, height, _parts(timeline, left, title), title)


def label(lane: Lane) -> str:
    """What a lane is called: host and rank, or the producer."""
    place = lane.hostname or lane.producer_id
    return shortened(plain(place if lane.rank is None else f"{place} {lane.rank}"), _LABEL_CHARS)


def colours(timeline: Timeline) -> dict[str, str]:
    """The colour of each group."""
    if timeline.by == BY_STATUS:
        return {group: STATUS_COLOURS.get(group, GREY) for group in timeline.groups}
    named = [group for group in timeline.groups if group != OTHER]
    return {OTHER: GREY} | {group: COLOURS[place % len(COLOURS)] for place, group in enumerate(named)}


def _parts(timeline: Timeline, left: float, title: str) -> Iterator[str]:
    fills = colours(timeline)
    yield text(8, 18, title, bold=True)
    x = left
    for group in timeline.groups:
        yield rect(x, 28, 12, 12, fills[group])
        words = shortened(group or "(no activity)", GROUP_CHARS)
        yield text(x + 16, 38, words)
        x += 28 + width_of(words)
    for number, lane in enumerate(timeline.lanes):
        y = _TOP + _ROW * number
        yield text(left - 8, y + 12, label(lane), anchor="end")
        yield rect(left, y + 1, _CHART, _ROW - 3, "#f3f3f3")
        yield from _boxes(lane, timeline.spans, left, y, fills)
    yield from _axis(timeline, left)


def _boxes(lane: Lane, spans: int, left: float, y: float, fills: dict[str, str]) -> Iterator[str]:
    width = _CHART / spans
    cells = ((lane.group(span), _strength(lane.share(span))) for span in range(spans))
    span = 0
    for (group, strength), run in groupby(cells):
        length = sum(1 for _ in run)
        if group is not None:
            title = f"{group}: {strength / _STEPS:.0%} busy"
            opacity = 0.25 + 0.75 * strength / _STEPS
            fill = fills.get(group, GREY)
            yield rect(
                left + span * width, y + 1, length * width, _ROW - 3, fill, opacity=opacity, title=title
            )
        span += length


def _strength(share: float) -> int:
    return min(_STEPS, round(share * _STEPS))


def _axis(timeline: Timeline, left: float) -> Iterator[str]:
    y = _TOP + _ROW * len(timeline.lanes) + 16
    if timeline.start is None or timeline.end is None:
        yield text(left, y, "no task has begun")
        return
    seconds = (timeline.end - timeline.start).total_seconds()
    for at, words in _ticks(seconds):
        yield text(left + _CHART * at, y, words, anchor="middle" if at else "start")
    note = f"from {timeline.start:%Y-%m-%d %H:%M:%S} UTC"
    if timeline.more:
        note += f"; {timeline.more:,} more producers with fewer tasks"
    yield text(left, y + 16, note)


def _ticks(seconds: float) -> Iterator[tuple[float, str]]:
    """Where along the axis something is written, as a share of it, and what: round numbers of one unit."""
    yield 0.0, "0"
    step, size, unit = next(
        (one for one in _steps() if one[0] * _TICKS_MAX >= seconds), (max(seconds, 1e-6), 1.0, "s")
    )
    number = 1
    while step * number <= seconds * 1.000001:
        yield step * number / seconds, f"{step * number / size:g} {unit}"
        number += 1


def _steps() -> Iterator[tuple[float, float, str]]:
    """Steps in rising order: their seconds, those of their unit, and its name."""
    for size, unit, steps in _UNITS:
        for step in steps:
            yield step * size, size, unit
