"""The command ``drsow grpo``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from drsow_plugin.cli.configfile import merge_config
from drsow_plugin.cli.lines import DATA, data_options, load_rows
from drsow_plugin.cli.options import CONTEXT, EPILOG, config_options, grpo_options, pair_options
from drsow_plugin.cli.paths import require_paths
from drsow_plugin.config.parse import parse_positive
from drsow_plugin.errors import ConfigError
from drsow_plugin.tuning.online_options import OF_ONLINE, parse_online
from drsow_plugin.tuning.options import NAME

RUN = ("input", "output", "limit", *DATA)
VALID = frozenset((*OF_ONLINE, *RUN))
_USAGE = "Give PROMPTS and OUTPUT, such as: drsow grpo prompts.jsonl trained --policy …"


@click.command(
    context_settings=CONTEXT,
    epilog=f"{EPILOG} Options of the policy as a model begin with --policy-.",
)
@click.argument("paths", nargs=-1, metavar="PROMPTS... OUTPUT")
@grpo_options
@pair_options
@data_options
@click.option("--limit", help="Prompts that are read, from the first. [all of them]")
@config_options
def grpo(paths: tuple[str, ...], config: str | None, **options: Any) -> None:
    """Train a policy on the rewards of its own responses, with TRL's GRPOTrainer.

    PROMPTS is a Hub id, the folder of a saved data set, or parquet, jsonl, csv or tsv files with a
    column of prompts. OUTPUT is a new folder: the model, or an adapter of the policy.

    An interrupted training goes on from its last checkpoint: run the same command again.

    For example:

      drsow grpo prompts.jsonl trained --policy org/model --strong org/model-dpo
      --weak org/model-sft
    """
    merged = merge_config(options, config, VALID)
    ours = {name: merged.pop(name) for name in RUN if name in merged}
    policy = merged.pop(NAME, None)
    if policy is None:
        raise ConfigError("No policy was given. Name the model to train with --policy MODEL.")
    setup = parse_online(policy, merged)
    inputs, folder = require_paths(paths, ours, _USAGE)
    limit = parse_positive("limit", ours.get("limit"))

    from drsow_plugin.tuning.online import train_online

    data = load_rows(inputs, ours, limit)
    trained = train_online(data, Path(folder).expanduser(), setup)
    click.echo(str(trained))
    click.echo(f"Wrote {trained.folder}")
