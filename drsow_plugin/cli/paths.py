"""What a command reads and where it writes to: words of the command line, or of a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from drsow_plugin.errors import ConfigError


def named_paths(paths: tuple[str, ...], options: Mapping[str, Any]) -> tuple[list[str], str]:
    """Return inputs and output: of the command line, or else of the file; empty where not given.

    Args:
        paths: Words of the command line: inputs, if any, and the output.
        options: Of these, ``input`` and ``output`` count.
    """
    listed = options.get("input") or []
    inputs = [listed] if isinstance(listed, str) else [str(name) for name in listed]
    output = options.get("output") or ""
    if paths:
        inputs, output = list(paths[:-1]) or inputs, paths[-1]
    return inputs, str(output)


def require_paths(
    paths: tuple[str, ...], options: Mapping[str, Any], usage: str
) -> tuple[list[str], str]:
    """Return inputs and output, as :func:`named_paths` does.

    Args:
        paths: Words of the command line.
        options: Those of the command.
        usage: What to say where there are not both.

    Raises:
        ConfigError: Inputs, or the output, are not given.
    """
    inputs, output = named_paths(paths, options)
    if not inputs or not output:
        raise ConfigError(usage)
    return inputs, output


def require_apart(inputs: list[str], output: str) -> None:
    """Refuse to write over, into or around what is read.

    Raises:
        ConfigError: An input and the output are one, or one is inside the other.
    """
    target = Path(output)
    for name in inputs:
        source = Path(name).expanduser().absolute()
        if source.exists() and (source in (target, *target.parents) or target in source.parents):
            raise ConfigError(
                f"OUTPUT {output!r} and INPUT {name!r} are one, or one is inside the other. Give "
                "another OUTPUT."
            )
