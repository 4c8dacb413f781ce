"""Which code runs: the script, its checksum, and the commit of the repository it lies in."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from provd.common.passwords import mask_url
from provd.producer.rules import current_rules

#: Scripts larger than this are not read for their checksum.
_SCRIPT_MAX = 8 << 20


def read_code(file: str | None = None) -> dict[str, Any]:
    """The facts that are there to read of a file, by default this program's script.

    `file`, `sha256`, `repository`, `commit`, `branch`, `dirty`; what cannot be read is absent.
    """
    code: dict[str, Any] = {}
    try:
        script = _script() if file is None else Path(os.path.abspath(file))
        if script is None:
            return {}
        code["file"] = str(script)
        about = script.stat()
        # Reading a pipe, such as `python /dev/stdin`, would take from the program what it is to read itself.
        if stat.S_ISREG(about.st_mode) and about.st_size <= _SCRIPT_MAX:
            import hashlib

            code["sha256"] = hashlib.sha256(script.read_bytes()).hexdigest()
        for facts in _repository_facts(script, with_modules=file is None):
            code.update(facts)  # one by one: what can be read stays when the next cannot
    except (OSError, ValueError):
        pass  # an unreadable repository is no reason to trouble the science
    return code


def _script() -> Path | None:
    name = getattr(sys.modules.get("__main__"), "__file__", None)
    return Path(os.path.abspath(name)) if name else None


def _repository_facts(script: Path, *, with_modules: bool) -> Iterator[dict[str, Any]]:
    from provd.producer import git

    repository = git.find_repository(script.parent)
    if repository is None:
        return
    yield dict(git.read_head(repository))
    dirty = git.is_dirty(repository, {script, *(_loaded_below(repository.root) if with_modules else ())})
    if dirty is not None:
        yield {"dirty": dirty}
    origin = git.read_origin(repository)
    if origin:
        yield {"repository": current_rules().secrets.text(mask_url(origin))}


def _loaded_below(root: Path) -> set[Path]:
    """Source files of the modules that are loaded now and lie in the repository, but for installed ones."""
    head = str(root) + os.sep
    found = set()
    for module in list(sys.modules.values()):
        name = getattr(module, "__file__", None)
        if (
            isinstance(name, str)
            and name.startswith(head)
            and name.endswith(".py")
            and "site-packages" not in name
        ):
            found.add(Path(name))
    return found
