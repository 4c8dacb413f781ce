"""`provd runs timeline`: when each producer was at work, in the terminal and as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Optional

import typer

from provd.cli.options import JsonOption, RunArgument, StoreOption, settings_of
from provd.common.errors import UsageError

if TYPE_CHECKING:
    from rich.text import Text

    from provd.query.timeline import Lane, Timeline

#: Producers that are shown unless all are asked for, and spans of a picture.
_LANES = 30
_PICTURE_SPANS = 450

_BLOCKS = " ▁▂▃▄▅▆▇█"
_STYLES = ("blue", "yellow", "green", "magenta", "cyan", "red", "bright_yellow")
_OTHER_STYLE = "bright_black"


def timeline(
    context: typer.Context,
    run: RunArgument,
    all_producers: Annotated[
        bool, typer.Option("--all", help="All producers, not only those with the most tasks.")
    ] = False,
    by: Annotated[
        str, typer.Option("--by", metavar="WHAT", help="Colours by activity or by status.")
    ] = "activity",
    output: Annotated[
        Optional[str], typer.Option("--output", "-o", metavar="FILE.svg", help="Write a picture instead.")
    ] = None,
    store: StoreOption = None,
    json: JsonOption = False,
) -> None:
    """Show when each producer of a run was at work, and at what."""
    from provd.cli import output as screen
    from provd.cli.services import open_store
    from provd.query.find import find_run
    from provd.query.timeline import BY_ACTIVITY, BY_STATUS, read_timeline

    if by not in (BY_ACTIVITY, BY_STATUS):
        raise UsageError(f"unknown --by {by!r}; there are {BY_ACTIVITY} and {BY_STATUS}")
    if output is not None:
        check_picture(output)
    settings = settings_of(context, store_url=store)
    with open_store(settings) as opened:
        found = read_timeline(
            opened,
            find_run(opened, run),
            spans=_PICTURE_SPANS if output is not None else _chart_width(),
            lanes=0 if all_producers else _LANES,
            by=by,
            lost_after_s=settings.lost_after_s,
        )
    if output is not None:
        from provd.query.timeline_picture import picture

        write_text(output, picture(found))
    if json:
        screen.print_json(found.to_document())
    elif output is None:
        _print(found)


def check_picture(output: str) -> None:
    """Raise `UsageError` unless the file is to be an SVG and can be written."""
    from provd.query.output_file import check_output

    if not output.lower().endswith(".svg"):
        raise UsageError(f"{output!r}: pictures are SVG; name a file that ends in .svg")
    check_output(output)


def write_text(output: str, text: str) -> None:
    """Write a file, whole or not at all."""
    from provd.query.output_file import replaced

    with replaced(output) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _label_width() -> int:
    from provd.cli import output

    return 24 if output.width() >= output.WIDE else 14


def _chart_width() -> int:
    from provd.cli import output

    return max(10, min(200, output.width() - _label_width() - 16))


def _print(found: Timeline) -> None:
    from rich.text import Text

    from provd.cli import human, output
    from provd.query.pictures import shortened
    from provd.query.timeline_picture import GROUP_CHARS

    if found.start is None or found.end is None:
        output.print_line("no task has begun")
        return
    styles = _group_styles(found)
    width = _label_width()
    legend = Text(" " * (width + 1))
    for group in found.groups:
        legend.append("█ ", style=styles[group])
        legend.append(output.one_line(shortened(group or "(no activity)", GROUP_CHARS)) + "  ")
    output.show(legend)
    for lane in found.lanes:
        output.show(_row(lane, found.spans, width, styles))
    axis = human.duration((found.end - found.start).total_seconds())
    output.print_line(" " * (width + 1) + "0s" + axis.rjust(found.spans - 2))
    output.print_line(f"from {human.moment(found.start)}", style="dim")
    if found.more:
        output.say(f"and {human.many(found.more, 'producer')} with fewer tasks: --all shows them")


def _group_styles(found: Timeline) -> dict[str, str]:
    from provd.cli.output import STATUS_STYLES
    from provd.query.timeline import BY_STATUS, OTHER

    if found.by == BY_STATUS:
        return {group: STATUS_STYLES.get(group, "") for group in found.groups}
    named = [group for group in found.groups if group != OTHER]
    return {OTHER: _OTHER_STYLE} | {group: _STYLES[place % len(_STYLES)] for place, group in enumerate(named)}


def _row(lane: Lane, spans: int, width: int, styles: dict[str, str]) -> Text:
    from rich.text import Text

    from provd.cli import human, output
    from provd.query.timeline_picture import label

    row = Text(output.one_line(label(lane))[:width].ljust(width + 1), no_wrap=True)
    for span in range(spans):
        share, group = lane.share(span), lane.group(span)
        # Whatever little was done is seen.
        level = 0 if group is None else max(1, min(len(_BLOCKS) - 1, round(share * (len(_BLOCKS) - 1))))
        row.append(_BLOCKS[level], style=styles.get(group or "", ""))
    row.append(f" {lane.tasks:,} ".rjust(8))
    row.append(human.duration(lane.seconds), style="dim")
    return row
