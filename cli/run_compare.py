"""`provd runs compare`: what differs between two runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from provd.cli.options import JsonOption, StoreOption, settings_of
from provd.common.values import to_json

if TYPE_CHECKING:
    from provd.cli.output import Column
    from provd.query.compare import ActivityDifference, Comparison, Difference
    from provd.query.summary import ActivitySummary

#: Rows of a table; `--json` has them all.
_SHOWN = 30


def compare(
    context: typer.Context,
    a: Annotated[str, typer.Argument(metavar="A", help="A run's id, prefix or name, or `last`.")],
    b: Annotated[str, typer.Argument(metavar="B", help="The run to compare it with.")],
    store: StoreOption = None,
    json: JsonOption = False,
) -> None:
    """Compare two runs: arguments, code, environment, activities, results; only what differs."""
    from provd.cli import output
    from provd.cli.progress import progress_bar
    from provd.cli.services import open_store
    from provd.query.compare import compare_runs
    from provd.query.find import find_run

    settings = settings_of(context, store_url=store)
    with open_store(settings) as opened, progress_bar("reading tasks") as progress:
        found = compare_runs(
            opened,
            find_run(opened, a),
            find_run(opened, b),
            lost_after_s=settings.lost_after_s,
            progress=progress,
        )
    if json:
        output.print_json(comparison_document(found))
    else:
        _print(found)


def comparison_document(found: Comparison) -> dict[str, Any]:
    """The comparison as JSON has it."""
    return {**_plain(asdict(found)), "same": found.same}


def _plain(value: Any) -> Any:
    """Dataclasses as dicts hold mappings and tuples of ours; JSON has one kind of each."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _print(found: Comparison) -> None:
    from provd.cli import output

    output.print_fields([("A", found.a), ("B", found.b)])
    for title in ("run", "args", "code", "environment", "counts"):
        _print_differences(title, getattr(found, title))
    _print_activities(found.activities)
    _print_results(found)
    if found.same:
        output.print_line("\nnothing differs but times", style="bold green")


def _print_differences(title: str, differences: Sequence[Difference]) -> None:
    from provd.cli import human, output

    if not differences:
        return
    rows = [[one.name, _cell(one.name, one.a), _cell(one.name, one.b)] for one in differences[:_SHOWN]]
    output.print_table([_column(""), _column("A"), _column("B")], rows, title=title)
    if len(differences) > _SHOWN:
        output.print_line(f"and {human.many(len(differences) - _SHOWN, 'field')} more: --json lists all")


def _column(header: str) -> Column:
    from provd.cli.output import Column

    return Column(header, folds=True)


def _cell(name: str, value: Any) -> str:
    from provd.cli import human

    if value is None:
        return "-"
    if name == "duration" and isinstance(value, float):
        return human.duration(value)
    if name == "verdict":
        return "complete" if value else "incomplete"
    return human.cell(value)


def _print_activities(differences: Sequence[ActivityDifference]) -> None:
    from provd.cli import output
    from provd.cli.output import Column

    if not differences:
        return
    columns = [Column("activity"), Column("", firm=True), Column("tasks")]
    columns += [Column(name, right=True, firm=True) for name in ("median", "p95", "max")]
    rows = [
        [one.activity_id if run == "A" else "", run, *_figures(summary)]
        for one in differences[:_SHOWN]
        for run, summary in (("A", one.a), ("B", one.b))
    ]
    output.print_table(columns, rows, title="activities")


def _figures(summary: ActivitySummary | None) -> list[str]:
    from provd.cli import human

    if summary is None:
        return ["-", "", "", ""]
    counted = ", ".join(f"{count:,} {status}" for status, count in summary.tasks.items())
    told = (getattr(summary.durations, name, None) for name in ("median", "p95", "max"))
    return [counted, *map(human.duration, told)]


def _print_results(found: Comparison) -> None:
    from provd.cli import human, output
    from provd.cli.output import Column

    results = found.results
    if not results.compared:
        output.print_line("\nresults  not compared: the runs have too many tasks", style="bold yellow")
        return
    output.print_line("\nresults  " + "; ".join(_counted(found)), style="bold")
    if not results.examples:
        return
    columns = [Column("activity"), Column("used"), Column("A"), Column("B")]
    rows = [
        [
            one.activity_id,
            human.pairs(one.used) if isinstance(one.used, dict) else human.cell(one.used),
            _outcome(one.status_a, _only(one.generated_a, one.generated_b), one.status_a != one.status_b),
            _outcome(one.status_b, _only(one.generated_b, one.generated_a), one.status_a != one.status_b),
        ]
        for one in results.examples
    ]
    output.print_table(columns, rows)


def _only(generated: Any, other: Any) -> Any:
    """Of what a task generated the part that its counterpart did not: the whole is cut before it is seen."""
    if not isinstance(generated, dict) or not isinstance(other, dict):
        return generated
    return {
        name: value
        for name, value in generated.items()
        if name not in other or to_json(value) != to_json(other[name])
    }


def _outcome(status: str, generated: Any, with_status: bool) -> str:
    from provd.cli import human

    text = human.pairs(generated) if isinstance(generated, dict) else human.cell(generated)
    return f"{status} {text}".strip() if with_status else text


def _counted(found: Comparison) -> Iterator[str]:
    from provd.cli import human

    results = found.results
    matched = human.many(results.matched, "task")
    yield f"{matched} with equal inputs, {results.differing:,} came out differently"
    if results.only_a:
        yield f"{results.only_a:,} only in A"
    if results.only_b:
        yield f"{results.only_b:,} only in B"
