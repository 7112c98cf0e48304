"""Options from a file, with those of the command line before them; no code runs unasked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from drsow_plugin.config.files import code_in, read_options
from drsow_plugin.errors import ConfigError, unknown_name
from drsow_plugin.printable import printable


def merge_config(
    options: Mapping[str, Any], file: str | None, valid: frozenset[str]
) -> dict[str, Any]:
    """Return the options of a file, with those of the command line before them.

    Args:
        options: Those of the command line; ``None`` where one was not given. With
            ``allow_code`` the file may run code, which is then said on stderr.
        file: The file, or ``None``.
        valid: The names that it may have.

    Raises:
        ConfigError: The file cannot be read, names an unknown option, or would run code.
    """
    typed = {name: value for name, value in options.items() if value is not None}
    allow_code = typed.pop("allow_code", False)
    if file is None:
        if allow_code:
            raise ConfigError("--allow-code has no effect without --config.")
        return typed
    read = read_options(file, f"--config {file}")
    for name in read:
        if name not in valid:
            raise ConfigError(f"--config {file}: {unknown_name('option', name, valid)}")
    merged = {**read, **typed}
    if code := "; ".join(code_in({n: v for n, v in read.items() if n not in typed}, merged)):
        if not allow_code:
            raise ConfigError(
                f"--config {file} would run code: {code}. Look at it, and add --allow-code if "
                "you trust it."
            )
        click.echo(printable(f"drsow: --config {file} runs code: {code}"), err=True)
    return merged
