"""The command ``drsow``."""

from __future__ import annotations

import sys
import sysconfig
from importlib import metadata
from pathlib import Path

import click

from drsow_plugin.cli.annotate import annotate
from drsow_plugin.cli.plugins import domains, plugins, route
from drsow_plugin.cli.publish import publish
from drsow_plugin.cli.score import score
from drsow_plugin.cli.signals import signals_told
from drsow_plugin.errors import DrSoWError
from drsow_plugin.printable import printable

_PTH_NAME = "drsow_autoload.pth"
# One line, as .pth files require; says nothing if the package is gone.
_PTH_LINE = (
    'import sys; exec("try:\\n import drsow_plugin._autoload\\nexcept ImportError:\\n pass")\n'
)


class _Group(click.Group):
    """Shows this package's errors, and signals, without a traceback; status 1, or 128 + number."""

    def invoke(self, ctx: click.Context) -> object:
        with signals_told():
            try:
                return super().invoke(ctx)
            except DrSoWError as error:
                raise click.ClickException(printable(str(error), lines=True)) from error


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="drsow-plugin", prog_name="drsow")
def main() -> None:
    """Any two causal language models as a reward model (Dr. SoW)."""


main.add_command(annotate)
main.add_command(score)
main.add_command(publish)
main.add_command(plugins)
main.add_command(domains)
main.add_command(route)


@main.command(
    "eval",
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def evaluate(arguments: tuple[str, ...]) -> None:
    """Run lm-eval with the model and the tasks of this package; takes lm-eval's arguments.

    For example:

      drsow eval --model drsow --model_args strong=demo,weak=demo,weak_template=none
      --tasks llmbar_natural
    """
    from drsow_plugin import _autoload

    _autoload.install()
    from lm_eval.__main__ import cli_evaluate

    sys.argv = ["lm_eval", *(arguments or ("--help",))]
    cli_evaluate()


@main.command()
def enable() -> None:
    """Make the plain command lm_eval know the model drsow and its tasks.

    Writes one small file into this Python environment. 'drsow disable' removes it.
    """
    path = _pth_path()
    try:
        path.write_text(_PTH_LINE, encoding="utf-8")
    except OSError as error:
        raise click.ClickException(
            f"{path} cannot be written: {error.strerror}. Use a virtual environment of your "
            "own, or 'drsow eval', which needs no file."
        ) from error
    click.echo(f"Enabled: lm_eval in this environment now knows drsow. Wrote {path}")


@main.command()
def disable() -> None:
    """Undo 'drsow enable'."""
    path = _pth_path()
    if path.exists():
        try:
            path.unlink()
        except OSError as error:
            raise click.ClickException(f"{path} cannot be removed: {error.strerror}.") from error
        click.echo(f"Disabled: removed {path}")
    else:
        click.echo(f"Not enabled: there is no {path}")


@main.command()
def status() -> None:
    """Tell whether the plain command lm_eval knows drsow, and which versions are here."""
    path = _pth_path()
    enabled = path.exists()
    hint = f"({path})" if enabled else "(run 'drsow enable')"
    click.echo(f"lm_eval knows drsow: {'yes' if enabled else 'no'} {hint}")
    for name in ("drsow-plugin", "lm-eval", "torch", "transformers", "datasets"):
        click.echo(f"{name}: {metadata.version(name)}")


def _pth_path() -> Path:
    return Path(sysconfig.get_path("purelib")) / _PTH_NAME
