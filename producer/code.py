"""Which code runs: the script, its checksum, and the commit of the repository it lies in.

Git facts are read from `.git`; no subprocess is started.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from provd.common.settings import mask_url

#: Scripts larger than this are not read for their checksum.
_SCRIPT_MAX = 8 << 20


def read_code(file: str | None = None) -> dict[str, Any]:
    """The facts that are there to read of a file, by default this program's script.

    `file`, `sha256`, `repository`, `commit`, `branch`; what cannot be read is absent.
    """
    script = _script() if file is None else Path(os.path.abspath(file))
    if script is None:
        return {}
    code: dict[str, Any] = {"file": str(script)}
    try:
        if script.stat().st_size <= _SCRIPT_MAX:
            import hashlib

            code["sha256"] = hashlib.sha256(script.read_bytes()).hexdigest()
        code.update(_read_git(script.parent))
    except (OSError, ValueError):
        pass  # an unreadable repository is no reason to trouble the science
    return code


def _script() -> Path | None:
    name = getattr(sys.modules.get("__main__"), "__file__", None)
    return Path(os.path.abspath(name)) if name else None


def _read_git(folder: Path) -> dict[str, str]:
    git = _git_folder(folder)
    if git is None:
        return {}
    facts: dict[str, str] = {}
    common = git / _first_line(git / "commondir") if (git / "commondir").exists() else git
    head = _first_line(git / "HEAD")
    if head.startswith("ref: "):
        reference = head[len("ref: ") :]
        facts["branch"] = reference.removeprefix("refs/heads/")
        head = _resolve(git, common, reference)
    if head:
        facts["commit"] = head
    url = _origin(common / "config")
    if url:
        facts["repository"] = mask_url(url)
    return facts


def _git_folder(folder: Path) -> Path | None:
    for place in (folder, *folder.parents):
        git = place / ".git"
        if git.is_dir():
            return git
        if git.is_file():  # a worktree or submodule: a file that names the folder
            return (place / _first_line(git).removeprefix("gitdir: ")).resolve()
    return None


def _first_line(file: Path) -> str:
    with file.open(encoding="utf-8") as stream:
        return stream.readline().strip()


def _resolve(git: Path, common: Path, reference: str) -> str:
    for base in (git, common):
        if (base / reference).is_file():
            return _first_line(base / reference)
    packed = common / "packed-refs"
    if packed.is_file():
        with packed.open(encoding="utf-8") as stream:
            for line in stream:
                commit, _, name = line.strip().partition(" ")
                if name == reference:
                    return commit
    return ""


def _origin(config: Path) -> str:
    section = ""
    with config.open(encoding="utf-8") as stream:
        for line in map(str.strip, stream):
            if line.startswith("["):
                section = line
            elif section == '[remote "origin"]' and line.partition("=")[0].strip() == "url":
                return line.partition("=")[2].strip()
    return ""
