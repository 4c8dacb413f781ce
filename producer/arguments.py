"""`--workflow-id` and `--campaign-id` for the user's own command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from provd.common.errors import InvalidId
from provd.common.ids import check_id

if TYPE_CHECKING:
    import argparse

_parsed: dict[str, str] = {}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `--workflow-id` and `--campaign-id` to a parser; `provd.workflow` honours what they are given.

    A value that cannot be an id ends the program like any other bad argument, before its work begins.
    """
    import argparse

    class Remember(argparse.Action):
        def __call__(
            self,
            parser: argparse.ArgumentParser,
            namespace: argparse.Namespace,
            values: Any,
            option_string: str | None = None,
        ) -> None:
            try:
                check_id(values, option_string or self.dest)
            except InvalidId as error:
                parser.error(str(error))
            _parsed[self.dest] = values
            setattr(namespace, self.dest, values)

    group = parser.add_argument_group("provenance")
    group.add_argument(
        "--workflow-id",
        action=Remember,
        metavar="ID",
        help="the workflow to join; `auto`: one workflow for all ranks of this job step",
    )
    group.add_argument(
        "--campaign-id", action=Remember, metavar="ID", help="the campaign the workflow belongs to"
    )


def parsed_ids() -> tuple[str | None, str | None]:
    """Workflow and campaign id as last parsed in this process."""
    return _parsed.get("workflow_id"), _parsed.get("campaign_id")
