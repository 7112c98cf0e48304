"""The command ``drsow split``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from drsow_plugin.cli.lines import data_options, load_rows
from drsow_plugin.cli.options import CONTEXT
from drsow_plugin.config.parse import parse_flag, parse_positive
from drsow_plugin.errors import ConfigError


@click.command(context_settings=CONTEXT)
@click.argument("paths", nargs=-1, required=True, metavar="PROMPTS... OUTPUT")
@click.option("--held-out", help="Prompts that are kept for measuring.")
@click.option("--prompt-column", default="prompt", help="The column with the prompts. [prompt]")
@click.option("--unique", help="true leaves out prompts that were there before. [false: an error]")
@click.option("--limit", help="Prompts that are read, from the first. [all of them]")
@data_options
def split(paths: tuple[str, ...], prompt_column: str, **options: Any) -> None:
    """Split prompts in two: train.jsonl and held_out.jsonl in the folder OUTPUT.

    No prompt is in both. Which are held out depends on their texts alone, not on their order.

    For example:

      drsow split prompts.jsonl prompts --held-out 100
    """
    if len(paths) < 2:
        raise ConfigError("Give PROMPTS and OUTPUT, such as: drsow split prompts.jsonl prompts.")
    held_out = parse_positive("held_out", options["held_out"])
    if held_out is None:
        raise ConfigError("Say how many prompts are held out, with --held-out NUMBER.")
    unique = parse_flag("unique", options["unique"] or False)
    limit = parse_positive("limit", options["limit"])

    from drsow_plugin.pipeline.splitting import split_prompts

    data = load_rows([*paths[:-1]], options, limit)
    folder = Path(paths[-1]).expanduser()
    click.echo(str(split_prompts(data, folder, held_out, prompt_column, unique=unique)))
    click.echo(f"Wrote {folder}")
