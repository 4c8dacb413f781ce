"""The groups of readings that telemetry has, and how they are asked for.

`cpu`, `memory`, `disk`, `network` and `process` cost little and are what `true` means. `gpu` loads the vendor's
library into the program and asks its driver, so it has to be named.
"""

from __future__ import annotations

from collections.abc import Iterable

GROUPS = ("cpu", "memory", "disk", "network", "process", "gpu")

_ON = GROUPS[:-1]

#: What may stand for all or nothing instead of a list, as a settings file or a variable has it.
_WORDS: dict[str, tuple[str, ...]] = {
    "": (), "0": (), "false": (), "no": (), "off": (), "1": _ON, "true": _ON, "yes": _ON, "on": _ON,
}  # fmt: skip


def groups_of(asked: bool | str | Iterable[str]) -> tuple[str, ...]:  # noqa: FBT001 - users write True
    """The groups that `asked` names, in the order of `GROUPS`. Raises `ValueError` that names a group unknown here.

    `True` and `"true"` are all but `gpu`, `False` and `""` none; text is a list separated by commas.
    """
    if isinstance(asked, bool):
        return _ON if asked else ()
    if isinstance(asked, str):
        word = _WORDS.get(asked.strip().lower())
        if word is not None:
            return word
        asked = asked.split(",")
    names = {str(name).strip().lower() for name in asked}
    unknown = sorted(names.difference(GROUPS))
    if unknown:
        raise ValueError(f"{unknown[0]!r} is no group of readings: use {', '.join(GROUPS)}")
    return tuple(name for name in GROUPS if name in names)
