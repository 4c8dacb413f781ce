"""The commented sample of a settings file, made from the settings themselves so that it cannot drift."""

from __future__ import annotations

import dataclasses
import textwrap

from provd.common.settings import Settings
from provd.common.sources import PREFIX

_HEAD = """\
# Settings of provd. Every key stands here with its default, commented out: remove the `# ` before what you change.
#
# A value is taken from the first of: the command line, the environment (PROVD_ and the key in capitals), the file that
# PROVD_<KEY>_FILE names, a file named after the key in the folder PROVD_SECRETS_DIR, this file (--settings FILE, else
# PROVD_SETTINGS, else ./provd.yaml), the default.
"""

_WIDTH = 110


def sample_text() -> str:
    """The sample, ending in a newline."""
    return _HEAD + "".join(_entry(item) for item in dataclasses.fields(Settings))


def _entry(item: dataclasses.Field[object]) -> str:
    words = f"{item.metadata['help']} [{PREFIX}{item.name.upper()}]"
    if "://" not in words.split(maxsplit=1)[0]:
        words = words[:1].upper() + words[1:]
    lines = textwrap.wrap(words, _WIDTH, break_long_words=False, break_on_hyphens=False)
    comment = "".join(f"# {line}\n" for line in lines)
    return f"\n{comment}# {item.name}:{_default(item)}\n"


def _default(item: dataclasses.Field[object]) -> str:
    if item.default is dataclasses.MISSING:
        return " ~/.local/share/provd"  # stated as it is without XDG_DATA_HOME, so that the sample is the same everywhere
    if item.default is None:
        return ""
    if isinstance(item.default, bool):
        return f" {str(item.default).lower()}"
    return f" {item.default}"
