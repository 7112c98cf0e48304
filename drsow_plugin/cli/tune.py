"""The command ``drsow tune``."""

from __future__ import annotations

from typing import Any

import click

from drsow_plugin.cli.lines import data_options
from drsow_plugin.cli.options import CONTEXT, config_options, tune_options
from drsow_plugin.cli.training import Training
from drsow_plugin.tuning.options import OF_TUNING, parse_tuning

_USAGE = "Give PAIRS and OUTPUT, such as: drsow tune labelled tuned --policy …"


@click.command(context_settings=CONTEXT)
@click.argument("paths", nargs=-1, metavar="PAIRS... OUTPUT")
@tune_options
@data_options
@click.option("--limit", help="Pairs that are read, from the first. [all of them]")
@config_options
def tune(paths: tuple[str, ...], **options: Any) -> None:
    """Tune a policy, or a reward model, on labelled pairs, with TRL's trainers.

    PAIRS is what 'drsow annotate' wrote, or any pairs of prompt, chosen and rejected. OUTPUT is a
    new folder: the model, or an adapter of the policy, which opens as a side of a pair. With
    --method reward it is a reward model, which opens with lm_eval --model reward.

    An interrupted training goes on from its last checkpoint: run the same command again.

    For example:

      drsow tune labelled tuned --policy org/model --method simpo
    """
    asked = Training.read(paths, options, OF_TUNING, parse_tuning, _USAGE)

    from drsow_plugin.tuning.train import tune as run

    asked.tell(run(asked.rows(), asked.folder, asked.setup))
