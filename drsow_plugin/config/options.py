"""The options that a configuration declares: read, checked, and given back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields, replace
from functools import cache
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from drsow_plugin.config.parse import (
    parse_choice,
    parse_flag,
    parse_names,
    parse_nats,
    parse_positive,
    parse_text,
)
from drsow_plugin.option import KEY, Option, Values

_BY_TYPE: Mapping[type, Values] = {
    bool: Values(parse_flag, "`true` or `false`", "bool"),
    int: Values(parse_positive, "whole number", "int"),
    float: Values(parse_nats, "nats", "float"),
    str: Values(parse_text, "text", "str"),
    tuple: Values(parse_names, "names, such as `a+b`", "str | list[str]"),
}


def choice(words: Iterable[str]) -> Values:
    """Return what an option takes that is one of a few words."""
    valid = tuple(words)
    python = f"Literal[{', '.join(f'{word!r}' for word in valid)}]"
    return Values(
        lambda name, value: parse_choice(name, value, valid),
        ", ".join(f"`{word}`" for word in valid),
        python,
    )


@cache
def options_of(config: type) -> Mapping[str, Option]:
    """Return the options that a dataclass declares, by name and in order."""
    hints = get_type_hints(config)
    return {
        entry.name: replace(
            declared,
            name=entry.name,
            default=entry.default,
            values=declared.values or _values_of(hints[entry.name]),
            unset=declared.unset or _unset(entry.default),
        )
        for entry in fields(config)
        if (declared := entry.metadata.get(KEY)) is not None
    }


def _unset(default: Any) -> str:
    """Return a default in words; empty if that goes without saying."""
    if default in (None, (), MISSING):
        return ""
    if isinstance(default, bool):
        return str(default).lower()
    return f"{default:g}" if isinstance(default, float) else str(default)


def _values_of(hint: Any) -> Values:
    """Return what a field of a type takes; ``None`` may be beside it."""
    if get_origin(hint) in (Union, UnionType):
        return _values_of(get_args(hint)[0])
    if get_origin(hint) is Literal:
        return choice(get_args(hint))
    return _BY_TYPE[get_origin(hint) or hint]


def parse_options(config: type, options: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the options of a configuration that were given, checked.

    Args:
        config: The class that declares them.
        options: Values by name; what is declared elsewhere is left out. ``None`` is not given
            where that is the default.
        prefix: What the names are spelled with in an error.

    Raises:
        ConfigError: A value is wrong.
    """
    return {
        name: option.values.parse(f"{prefix}{name}", options[name])
        for name, option in options_of(config).items()
        if option.values and name in options
        if options[name] is not None or option.default is not None
    }


def given_options(config: Any, prefix: str = "") -> dict[str, Any]:
    """Return the options that make a configuration; no defaults."""
    declaring: type = type(config)
    return {
        f"{prefix}{name}": getattr(config, name)
        for name, option in options_of(declaring).items()
        if getattr(config, name) != option.default
    }
