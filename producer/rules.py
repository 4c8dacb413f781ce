"""The rules that values are recorded by in this process: caps, and what is a credential.

Those of the settings once a producer has read them, the defaults before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from provd.producer.secrets import Secrets

if TYPE_CHECKING:
    from provd.common.settings import Settings

#: Most items that one row of values takes in all.
WALK_MAX = 100_000


class Rules(NamedTuple):
    """How large a value may be, and what of it is masked."""

    #: Characters of a text, or bytes.
    text_max: int
    #: Items of one container.
    items_max: int
    #: Containers inside one another.
    depth_max: int
    #: Bytes of a whole message, packed.
    message_max: int
    secrets: Secrets


def rules_of(settings: Settings) -> Rules:
    """The rules that these settings make."""
    return Rules(
        settings.value_text_max,
        settings.value_items_max,
        settings.value_depth_max,
        settings.message_bytes_max,
        Secrets(settings.secret_names or "", masked=settings.mask_secrets),
    )


#: The rules in force, once something is recorded; `current_rules` makes them.
current: Rules | None = None


def current_rules() -> Rules:
    """The rules in force."""
    return current or _default_rules()


def _default_rules() -> Rules:
    from provd.common.settings import Settings  # it takes long to import, and a producer has it

    return use_rules(Settings())


def use_rules(settings: Settings) -> Rules:
    """Put the rules of these settings in force."""
    global current
    current = rules_of(settings)
    return current
