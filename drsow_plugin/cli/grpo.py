"""The command ``drsow grpo``."""

from __future__ import annotations

from typing import Any

import click

from drsow_plugin.cli.lines import data_options
from drsow_plugin.cli.options import CONTEXT, EPILOG, config_options, grpo_options, pair_options
from drsow_plugin.cli.training import Training
from drsow_plugin.tuning.online_options import OF_ONLINE, parse_online

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
def grpo(paths: tuple[str, ...], **options: Any) -> None:
    """Train a policy on the rewards of its own responses, with TRL's GRPOTrainer.

    PROMPTS is a Hub id, the folder of a saved data set, or parquet, jsonl, csv or tsv files with a
    column of prompts. OUTPUT is a new folder: the model, or an adapter of the policy.

    An interrupted training goes on from its last checkpoint: run the same command again.

    For example:

      drsow grpo prompts.jsonl trained --policy org/model --strong org/model-dpo
      --weak org/model-sft
    """
    asked = Training.read(paths, options, OF_ONLINE, parse_online, _USAGE)

    from drsow_plugin.tuning.online import train_online

    asked.tell(train_online(asked.rows(), asked.folder, asked.setup))
