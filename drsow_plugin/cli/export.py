"""The command ``drsow export``."""

from __future__ import annotations

from typing import Any

import click

from drsow_plugin.cli.options import CONTEXT
from drsow_plugin.errors import ConfigError

FORMATS = ("every-eval-ever", "hub")
RELATIONSHIPS = ("first_party", "third_party", "collaborative", "other")


@click.command(context_settings=CONTEXT)
@click.argument("results")
@click.argument("output")
@click.option("--format", "format_", type=click.Choice(FORMATS), default=FORMATS[0])
@click.option("--organization", required=True, help="Who ran the evaluation.")
@click.option(
    "--model-id",
    metavar="ORG/NAME",
    help="What the model or the pair is called there. [the Hub id of a single model]",
)
@click.option(
    "--relationship",
    type=click.Choice(RELATIONSHIPS),
    default="third_party",
    help="What they are to those who made the model. [third_party]",
)
@click.option(
    "--task-id",
    multiple=True,
    metavar="TASK=ID",
    help="What a benchmark's page on the Hub calls a task, if not the same. Repeat it.",
)
def export(results: str, output: str, format_: Any, task_id: tuple[str, ...], **said: Any) -> None:
    """Write RESULTS of lm-eval, a results_….json or a folder with such, for a store into OUTPUT.

    --format every-eval-ever writes records of that schema, at their places in its store;
    --format hub writes .eval_results/NAME.yaml, as the Hub takes them in a model's repository.
    Nothing is sent.
    """
    from drsow_plugin.harness.exporting import export as write

    pairs = [text.partition("=") for text in task_id]
    for name, sign, value in pairs:
        if not (name and sign and value):
            raise ConfigError(f"--task-id is TASK=ID, got {name + sign + value!r}.")
    task_ids = {name: value for name, _, value in pairs}
    files, left = write(results, output, format=format_, task_ids=task_ids, **said)
    for text in left:
        click.echo(f"Left out {text}", err=True)
    click.echo(f"Wrote {len(files)} file{'s' if len(files) > 1 else ''} into {output}")
