"""Values of options, as they come from a command line or from Python, checked."""

from __future__ import annotations

import math
from collections.abc import Mapping

from drsow_plugin.errors import ConfigError, unknown_name


def parse_choice(name: str, value: object, valid: tuple[str, ...]) -> str:
    """Return an option that is one of a few words.

    Raises:
        ConfigError: It is not.
    """
    text = str(value)
    if text not in valid:
        raise ConfigError(unknown_name(f"value of {name}", text, valid))
    return text


def parse_flag(name: str, value: object) -> bool:
    """Return an option that is true or false, or those words, or 1 or 0.

    Raises:
        ConfigError: It is none of them.
    """
    text = str(value).lower()
    if text not in ("true", "false", "1", "0"):
        raise ConfigError(f"{name} is true or false, got {value!r}.")
    return text in ("true", "1")


def parse_positive(name: str, value: object) -> int | None:
    """Return an option that is a whole number of at least 1, or ``None`` for ``None``.

    Raises:
        ConfigError: It is something else.
    """
    if value is None:
        return None
    text = str(value)
    if isinstance(value, bool) or not text.isdecimal() or int(text) < 1:
        raise ConfigError(f"{name} is a whole number of at least 1, got {value!r}.")
    return int(text)


def parse_nats(name: str, value: object) -> float:
    """Return an option that is a finite number of nats, at least 0.

    Raises:
        ConfigError: It is something else.
    """
    try:
        number = math.nan if isinstance(value, bool) else float(str(value))
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise ConfigError(f"{name} is a number of nats, at least 0, got {value!r}.")
    return number


def call_text(name: str, arguments: Mapping[str, object]) -> str:
    """Return a call as it is written, for a short ``repr``; long values are cut."""
    return f"{name}({', '.join(f'{key}={value!r:.80}' for key, value in arguments.items())})"
