"""The command ``drsow``."""

from __future__ import annotations

import click

from drsow_plugin.cli.annotate import annotate
from drsow_plugin.cli.cache import cache
from drsow_plugin.cli.enabling import disable, enable, status
from drsow_plugin.cli.evaluate import evaluate
from drsow_plugin.cli.export import export
from drsow_plugin.cli.generate import generate
from drsow_plugin.cli.grpo import grpo
from drsow_plugin.cli.merge import merge
from drsow_plugin.cli.pipeline import pipeline
from drsow_plugin.cli.plugins import domains, plugins, route
from drsow_plugin.cli.publish import publish
from drsow_plugin.cli.quality import check, compare, quality
from drsow_plugin.cli.report import explain, report
from drsow_plugin.cli.score import score
from drsow_plugin.cli.serve import serve
from drsow_plugin.cli.signals import signals_told
from drsow_plugin.cli.split import split
from drsow_plugin.cli.study import pairs, study
from drsow_plugin.cli.tune import tune
from drsow_plugin.errors import DrSoWError
from drsow_plugin.printable import printable


class _Group(click.Group):
    """Shows this package's errors, and signals, without a traceback; status 1, or 128 + number."""

    def invoke(self, ctx: click.Context) -> object:
        with signals_told():
            try:
                return super().invoke(ctx)
            except DrSoWError as error:
                raise click.ClickException(printable(str(error), lines=True)) from error
            except MemoryError as error:
                raise click.ClickException(
                    "The memory of this machine ran out. Finished work is kept: run again with a "
                    "smaller batch_tokens or shard_rows, fewer processes, or where there is more."
                ) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands, each with the whole of its first sentence."""
        listed = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        said = [(n, c.get_short_help_str(limit=1000)) for n, c in listed if c and not c.hidden]
        with formatter.section("Commands"):
            formatter.write_dl(said)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="drsow-plugin", prog_name="drsow")
def main() -> None:
    """Any two causal language models as a reward model (Dr. SoW)."""


for command in (
    *(annotate, merge, generate, tune, grpo),
    *(pipeline, split, evaluate),
    *(score, serve, publish, cache),
    *(check, compare, quality, export),
    *(study, pairs),
    *(report, explain),
    *(plugins, domains, route),
    *(enable, disable, status),
):
    main.add_command(command)


@main.command(
    "eval",
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def run_lm_eval(arguments: tuple[str, ...]) -> None:
    """Run lm-eval with the model and the tasks of this package; takes lm-eval's arguments.

    For example:

      drsow eval --model drsow --model_args strong=demo,weak=demo,weak_template=none
      --tasks llmbar_natural
    """
    from drsow_plugin import _autoload

    _autoload.install()
    from drsow_plugin.harness.command import run

    run(arguments)
