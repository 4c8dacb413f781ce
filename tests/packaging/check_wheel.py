"""Build the sdist, and the wheel from it; then use the wheel where nothing but its base dependencies is installed.

A script rather than a test, because it needs an environment without the extras: `make wheel-check`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

#: Everything below `provd/` in the wheel.
CONTENTS = {
    "__init__.py", "__main__.py", "persisting.py", "py.typed", "testing.py",
    "cli", "common", "consumer", "examples", "producer", "query", "store",
}  # fmt: skip

#: Prints which third-party packages a program has loaded that names its tasks and its workflow.
IMPORTED = """
import sys
import provd
provd.task, provd.workflow, provd.Task
heavy = {"msgpack", "redis", "yaml", "typer", "rich", "click", "pydantic", "pymongo", "prometheus_client"}
print(" ".join(sorted(heavy & sys.modules.keys())))
"""


class WheelError(Exception):
    """The wheel is not what it should be."""


def main() -> int:
    """Exit 0 when the wheel is sound, 1 with one line when it is not."""
    try:
        with tempfile.TemporaryDirectory(prefix="provd-wheel-") as folder:
            wheel = build(Path(folder, "dist"))
            check_contents(wheel)
            check_installed(install(wheel, Path(folder, "venv")), Path(folder))
            print(f"wheel check: {wheel.name} is sound")
    except WheelError as error:
        print(f"wheel check: {error}", file=sys.stderr)
        return 1
    return 0


def build(folder: Path) -> Path:
    """Build both distributions and return the wheel."""
    run([sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)], ROOT)
    wheels, sdists = list(folder.glob("*.whl")), list(folder.glob("*.tar.gz"))
    if len(wheels) != 1 or len(sdists) != 1:
        raise WheelError(
            f"expected one wheel and one sdist, got {sorted(path.name for path in folder.iterdir())}"
        )
    return wheels[0]


def check_contents(wheel: Path) -> None:
    """The wheel holds `provd/` with its sub-packages, its metadata, and nothing else."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    strangers = [name for name in names if not name.startswith(("provd/", "provd-"))]
    inside = {name.split("/")[1] for name in names if name.startswith("provd/")}
    if strangers or inside != CONTENTS:
        raise WheelError(
            f"outside provd/: {strangers}; missing: {sorted(CONTENTS - inside)}; too much: {sorted(inside - CONTENTS)}"
        )
    caches = [name for name in names if "__pycache__" in name or "/tests/" in name]
    if caches:
        raise WheelError(f"holds {caches[0]}")


def install(wheel: Path, folder: Path) -> Path:
    """Install the wheel alone into a new environment, and return its `bin`."""
    venv.create(folder, with_pip=False)
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin/python")]
    run([*pip, "install", "-qq", "--disable-pip-version-check", str(wheel)], folder)
    return folder / "bin"


def check_installed(bin: Path, cwd: Path) -> None:
    """The installed wheel imports lightly, runs, and names the install line of a missing extra."""
    python = str(bin / "python")
    loaded = run([python, "-c", IMPORTED], cwd).strip()
    if loaded:
        raise WheelError(f"import provd loads {loaded}, where nothing is expected")
    for command in ([str(bin / "provd")], [python, "-m", "provd"]):
        if "Usage" not in run([*command, "--help"], cwd):
            raise WheelError(f"{' '.join(command)} --help shows no usage")
    # An address is given, so that the answer does not depend on what this machine has stored.
    done = subprocess.run(
        [bin / "provd", "runs", "tail"],
        capture_output=True, text=True, check=False, cwd=cwd, stdin=subprocess.DEVNULL,
        env={**os.environ, "HOME": str(cwd), "PROVD_STORE_URL": "mongodb://127.0.0.1:1/provd"},
    )  # fmt: skip
    if done.returncode not in (1, 2) or 'pip install "provd[' not in done.stderr:
        raise WheelError(
            f"provd runs tail without its extra: exit {done.returncode}, {done.stderr.strip()!r}"
        )


def run(command: list[str], cwd: Path) -> str:
    """The output of a command; raise `WheelError` with all it said when it fails."""
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=cwd, stdin=subprocess.DEVNULL
    )
    if done.returncode != 0:
        raise WheelError(
            f"{' '.join(command)} failed with exit {done.returncode}:\n{done.stdout}{done.stderr}"
        )
    return done.stdout


if __name__ == "__main__":
    raise SystemExit(main())
