"""The commands enable, disable and status: the file that makes plain lm_eval know drsow."""

from __future__ import annotations

import os
import sysconfig
import tempfile
from importlib import metadata
from pathlib import Path

import click

_PTH_NAME = "drsow_autoload.pth"
# One line, as .pth files require. A package that is gone or broken says nothing here: this runs
# whenever Python starts.
_PTH_LINE = (
    'import sys; exec("try:\\n import drsow_plugin._autoload\\nexcept Exception:\\n pass")\n'
)
_READABLE_BY_ALL = 0o644  # as packages are; others may share the environment, and must not write


@click.command()
def enable() -> None:
    """Make the plain command lm_eval know the model drsow and its tasks.

    Writes one small file into this Python environment. 'drsow disable' removes it.
    """
    path = _pth_path()
    try:
        _replace(path, _PTH_LINE)
    except OSError as error:
        raise click.ClickException(
            f"{path} cannot be written: {error.strerror}. Use a virtual environment of your "
            "own, or 'drsow eval', which needs no file."
        ) from error
    click.echo(f"Enabled: lm_eval in this environment now knows drsow. Wrote {path}")


@click.command()
def disable() -> None:
    """Undo 'drsow enable'."""
    path = _pth_path()
    if os.path.lexists(path):
        try:
            path.unlink()
        except OSError as error:
            raise click.ClickException(f"{path} cannot be removed: {error.strerror}.") from error
        click.echo(f"Disabled: removed {path}")
    else:
        click.echo(f"Not enabled: there is no {path}")


@click.command()
def status() -> None:
    """Tell whether the plain command lm_eval knows drsow, and which versions are here."""
    click.echo(f"lm_eval knows drsow: {_state(_pth_path())}")
    for name in ("drsow-plugin", "lm-eval", "torch", "transformers", "datasets"):
        click.echo(f"{name}: {_version(name)}")


def _state(path: Path) -> str:
    try:
        if path.read_text(encoding="utf-8") == _PTH_LINE:
            return f"yes ({path})"
    except (FileNotFoundError, NotADirectoryError):
        return "no (run 'drsow enable')"
    except (OSError, UnicodeDecodeError) as error:
        return f"no ({path} cannot be read: {error}; run 'drsow enable')"
    return f"no ({path} is not what 'drsow enable' writes; run it again)"


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _pth_path() -> Path:
    return Path(sysconfig.get_path("purelib")) / _PTH_NAME


def _replace(path: Path, text: str) -> None:
    """Put a file in place at once: never half written, never through a link that is there."""
    handle, name = tempfile.mkstemp(prefix=".drsow-", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        temporary = Path(name)
        temporary.chmod(_READABLE_BY_ALL)
        temporary.replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
