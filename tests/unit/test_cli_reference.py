"""The command reference and the help texts, against the commands themselves."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from provd.cli import exits
from provd.cli.main import ProvdGroup, app
from provd.common import errors, names

REFERENCE = Path(__file__).parents[2] / "docs" / "commands.md"


def commands() -> dict[str, Any]:
    """Every command by its full name."""

    def below(name: str, command: Any) -> Iterator[tuple[str, Any]]:
        inner = getattr(command, "commands", None)
        if inner is None:
            yield name, command
            return
        for short, sub in inner.items():
            yield from below(f"{name} {short}", sub)

    return dict(below("provd", typer.main.get_command(app)))


def section(name: str) -> str:
    """The text below a command's heading."""
    _, found, rest = REFERENCE.read_text(encoding="utf-8").partition(f"\n## {name}\n")
    assert found, f"docs/commands.md has no section {name!r}"
    return rest.partition("\n## ")[0]


def test_the_help_of_query_names_every_collection() -> None:
    (collection,) = (one for one in commands()["provd query"].params if one.name == "collection")

    told = (getattr(collection, "help", "") or "").rstrip(".").replace(" or ", ", ").split(", ")
    assert sorted(told) == sorted(names.COLLECTIONS)


@pytest.mark.parametrize("name", sorted(commands()))
def test_every_command_has_help_and_every_option_of_it_too(name: str) -> None:
    command = commands()[name]

    assert command.help
    for parameter in command.params:
        if parameter.param_type_name == "option":
            assert parameter.help, f"{name} {parameter.opts}"


@pytest.mark.parametrize("name", sorted(commands()))
def test_every_command_and_option_is_in_the_reference(name: str) -> None:
    text = section(name)

    for parameter in commands()[name].params:
        for option in parameter.opts if parameter.param_type_name == "option" else ():
            if option != "--help":
                assert re.search(rf"`{re.escape(option)}[` ]", text), f"{name}: {option}"


def test_the_reference_names_no_command_or_option_that_is_not_there() -> None:
    headings = set(re.findall(r"^## (provd .+)$", REFERENCE.read_text(encoding="utf-8"), re.MULTILINE))

    assert headings == set(commands())
    for name, command in commands().items():
        known = {option for parameter in command.params for option in parameter.opts}
        told = set(re.findall(r"^\| (?:`-\w`, )?`(--[\w-]+)", section(name), re.MULTILINE))
        assert told <= known, name


def test_the_global_options_are_in_the_reference() -> None:
    text = section("provd")

    for parameter in typer.main.get_command(app).params:
        for option in parameter.opts:
            assert f"`{option}" in text


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.SettingsError("x"), 2),
        (errors.InvalidId("x"), 2),
        (errors.UsageError("x"), 2),
        (errors.Ambiguous("x"), 2),
        (errors.UnsupportedQuery("x"), 2),
        (errors.UnsafeStore("x"), 2),
        (errors.NotFound("x"), 1),
        (errors.MissingExtra("x", "consumer"), 1),
        (errors.StoreError("x"), 1),
        (errors.SpoolError("x"), 1),
        (errors.OutputError("x"), 1),
        (errors.BadExport("x"), 1),
        (errors.BadBackup("x"), 1),
        (errors.StoreUnavailable("x", "y"), 3),
        (errors.BrokerUnavailable("x", "y"), 3),
    ],
)
def test_each_kind_of_error_has_its_exit_status(error: errors.ProvdError, status: int) -> None:
    assert exits.exit_status(error) == status


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["runs", "tail", "--limt", "3"], ["--limt", "--limit", "`provd runs tail -h`"]),
        (["runs", "tail", "-n", "many"], ["--limit", "'many'", "integer", "`provd runs tail -h`"]),
        (["runs", "tial"], ["'tial'", "`provd runs -h`"]),
        (["query"], ["COLLECTION", "`provd query -h`"]),
    ],
)
def test_wrong_usage_is_one_line_with_the_option_the_value_and_where_to_read_on(
    arguments: list[str], words: list[str]
) -> None:
    result = CliRunner().invoke(app, arguments, prog_name="provd")

    assert (result.exit_code, result.stdout) == (2, "")
    assert re.fullmatch(r"provd: [^\n]+\n", result.stderr)
    assert all(word in result.stderr for word in words), result.stderr


@pytest.mark.parametrize(
    ("raised", "status", "said"),
    [
        (errors.NotFound("no such run"), 1, "provd: no such run\n"),
        (errors.StoreUnavailable("mongodb://h", "refused"), 3, "provd: mongodb://h: refused\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_what_a_command_raises_becomes_one_line_and_its_status(
    raised: BaseException, status: int, said: str
) -> None:
    program = typer.Typer(cls=ProvdGroup)

    @program.callback()
    def root() -> None:
        """Make a group of it."""

    @program.command()
    def work() -> None:
        raise raised

    result = CliRunner().invoke(program, ["work"])

    assert (result.exit_code, result.stdout, result.stderr) == (status, "", said)
