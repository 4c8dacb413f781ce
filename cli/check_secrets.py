"""Whether those who may read the settings file can read a password in it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from provd.cli.checks import Check, judge
from provd.common import settings as common_settings
from provd.common.passwords import passwords_of
from provd.common.sources import settings_file_of

#: Who a file that holds a password is not for: its group, and everybody else.
_OTHERS = stat.S_IRGRP | stat.S_IROTH


def check_secrets(settings_file: str | None) -> Iterator[Check]:
    """Look at the settings file in force; nothing when there is none, or it holds no password."""
    file = settings_file_of(settings_file)
    keys = _passwords_in(file) if file else []
    if file and keys:
        mode = stat.S_IMODE(os.stat(file).st_mode)
        yield judge(
            "settings file",
            not mode & _OTHERS,
            f"{file} holds a password ({', '.join(keys)}) and has mode {mode:04o}",
            fix=f"chmod 600 {file}, or put the password into a file of its own: PROVD_BROKER_PASSWORD_FILE and"
            " PROVD_STORE_PASSWORD_FILE name such",
        )


def _passwords_in(file: str) -> list[str]:
    """The keys of this file that are a password or a URL with one."""
    # Without the environment, which would hide what the file says.
    origins = common_settings.gather(settings_file=file, environ={})
    return sorted(
        key
        for key, origin in origins.items()
        if origin.value and (common_settings.is_secret(key) or passwords_of(str(origin.value)))
    )
