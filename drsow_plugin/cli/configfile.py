"""Options from a file, which others may have written: bounded, and no code runs unasked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from drsow_plugin.bounded_yaml import load_yaml
from drsow_plugin.errors import ConfigError, unknown_name
from drsow_plugin.printable import printable
from drsow_plugin.records import SIDES

_OWNERS = {"": SIDES, "strong_": ("strong",), "weak_": ("weak",), "router_": ("router_model",)}
_OFF = {"", "0", "false", "none"}


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
    if file is None and allow_code:
        raise ConfigError("--allow-code has no effect without --config.")
    read = read_config(file)
    for name in read:
        if name not in valid:
            raise ConfigError(f"--config {file}: {unknown_name('option', name, valid)}")
    merged = {**read, **typed}
    if code := "; ".join(_code({n: v for n, v in read.items() if n not in typed}, merged)):
        if not allow_code:
            raise ConfigError(
                f"--config {file} would run code: {code}. Look at it, and add --allow-code if "
                "you trust it."
            )
        click.echo(printable(f"drsow: --config {file} runs code: {code}"), err=True)
    return merged


def _code(options: Mapping[str, Any], merged: Mapping[str, Any]) -> Iterator[str]:
    """Say of each option of a file that runs code what it would run."""
    if plugins := options.get("plugin"):
        listed = plugins if isinstance(plugins, (list, tuple)) else [plugins]
        yield f"the plugin {', '.join(map(str, listed))}"
    for owner, sources in _OWNERS.items():
        name = f"{owner}trust_remote_code"
        if str(options.get(name, "")).lower() not in _OFF:
            models = " and ".join(str(merged.get(source, source)) for source in sources)
            yield f"code from the repository of {models} ({name})"
        name = f"{owner}attn_implementation"
        if "/" in str(options.get(name, "")):
            yield f"the kernel {options[name]} from the Hub ({name})"


def read_config(file: str | None) -> dict[str, Any]:
    """Read options from a YAML or JSON file.

    Raises:
        ConfigError: It is not there, or not a mapping of names to values.
    """
    if file is None:
        return {}
    try:
        loaded = load_yaml(Path(file).expanduser().read_text(encoding="utf-8"))
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigError(f"--config {file} cannot be read: {error}") from error
    if not isinstance(loaded, Mapping):
        raise ConfigError(
            f"--config {file} holds a {type(loaded).__name__}; needed are names and values, such "
            "as 'strong: org/model'."
        )
    options = {str(name).replace("-", "_"): value for name, value in loaded.items()}
    if len(options) < len(loaded):
        twice = [n for n in loaded if "-" in str(n) and str(n).replace("-", "_") in loaded]
        raise ConfigError(f"--config {file} gives {', '.join(map(str, twice))} twice.")
    return options
