"""One tree under three views: the folders, the links in `src/provd/`, and the wheel."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
FACADE = ROOT / "src" / "provd"

#: The sub-packages of `provd`, each a top-level folder.
PACKAGES = {"cli", "common", "consumer", "producer", "query", "store"}

#: Reached through a link like the packages, so that `provd demo` finds it in a checkout as in a wheel.
LINKED_DATA = {"examples"}

#: Folders at the top that are no part of `provd`.
OTHER_FOLDERS = {"benchmarks", "deploy", "docs", "examples", "src", "tests"}


def tool_settings() -> dict[str, Any]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    settings: dict[str, Any] = project["tool"]
    return settings


def wheel_settings() -> dict[str, Any]:
    settings: dict[str, Any] = tool_settings()["hatch"]["build"]["targets"]["wheel"]
    return settings


def facade_links() -> dict[str, Path]:
    return {path.name: path for path in FACADE.iterdir() if path.is_symlink()}


def test_every_folder_with_an_init_file_is_a_sub_package_and_every_sub_package_has_one() -> None:
    found = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests", "benchmarks"}

    assert PACKAGES == found


def test_no_folder_at_the_top_is_unknown() -> None:
    built = {"dist", "build", "__pycache__"}
    found = {path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")}

    assert found - built <= PACKAGES | OTHER_FOLDERS


def test_the_facade_has_one_relative_link_per_package() -> None:
    links = facade_links()

    assert PACKAGES | LINKED_DATA == links.keys()
    for name, link in links.items():
        assert os.readlink(link) == f"../../{name}"


def test_the_wheel_takes_every_package_and_maps_it_into_provd() -> None:
    sources = dict(wheel_settings()["sources"])

    assert sources.pop("src/provd") == "provd"
    assert {source.split("/")[0] for source in sources} == PACKAGES | LINKED_DATA
    for source, target in sources.items():
        assert target == f"provd/{source}"


def test_the_wheel_includes_what_it_maps_and_every_file_of_the_facade() -> None:
    settings = wheel_settings()
    facade_files = {
        f"src/provd/{path.name}" for path in FACADE.iterdir() if path.is_file() and not path.is_symlink()
    }

    assert sorted(settings["only-include"]) == sorted({*settings["sources"], *facade_files} - {"src/provd"})


def test_everything_the_wheel_includes_exists() -> None:
    missing = [path for path in wheel_settings()["only-include"] if not (ROOT / path).exists()]

    assert missing == []


def test_pyright_is_given_every_link() -> None:
    """It does not find them by itself, and would pass over a package in silence."""
    given = {path.removeprefix("src/provd/") for path in tool_settings()["pyright"]["include"]}

    assert given == PACKAGES | LINKED_DATA | {"*.py", "tests", "benchmarks"}


def test_the_bare_name_of_every_package_is_banned() -> None:
    banned = tool_settings()["ruff"]["lint"]["flake8-tidy-imports"]["banned-api"]

    assert banned.keys() >= PACKAGES
