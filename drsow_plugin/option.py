"""Options are declared where they are kept: as fields of a dataclass, each with what it does.

All else about an option follows from that one place: how it is read from strings and Python values
(:mod:`drsow_plugin.config.options`), the command line, and ``docs/options.md``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

KEY = "option"
T = TypeVar("T")


class Values(NamedTuple):
    """What an option takes.

    Attributes:
        parse: Given the option's name and a value, a string or of Python, returns it checked.
        words: The same in words, for the reference.
        python: The same as a type, for type checkers.
    """

    parse: Callable[[str, Any], Any]
    words: str
    python: str


@dataclasses.dataclass(frozen=True)
class Option:
    """One option; texts may hold code in backticks.

    Attributes:
        help: What it does, for the command line and the reference.
        more: What only the reference says.
        unset: What holds where it is not given; by default the default, if that says something.
        values: What it takes; by default it follows from the type of the field.
        kinds: The kinds of data that it has an effect on; empty is all.
        name: As it is spelled everywhere; one of a model also with that model's prefix.
        default: Its value where it is not given.
    """

    help: str
    more: str = ""
    unset: str = ""
    values: Values | None = None
    kinds: tuple[str, ...] = ()
    name: str = ""
    default: Any = None


def option(default: Any, help: str, more: str = "", **about: Any) -> Any:
    """Declare a field of a dataclass as an option; see :class:`Option`."""
    return dataclasses.field(default=default, metadata=described(help, more, **about))


def described(help: str, more: str = "", **about: Any) -> dict[str, Option]:
    """Return the metadata of a field that is an option; see :class:`Option`."""
    return {KEY: Option(help, more, **about)}


def documented(config: type[T]) -> type[T]:
    """Add a dataclass's options to its docstring, at the end of its attributes."""
    text = (config.__doc__ or "").rstrip()
    lines = [text] if "Attributes:" in text else [text, "", "    Attributes:"]
    for entry in dataclasses.fields(config):  # type: ignore[arg-type]
        if declared := entry.metadata.get(KEY):
            lines.append(f"        {entry.name}: {declared.help} {declared.more}".rstrip())
    config.__doc__ = "\n".join(lines) + "\n"
    return config
