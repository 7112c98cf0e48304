"""The command ``drsow tune``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from drsow_plugin.cli.configfile import merge_config
from drsow_plugin.cli.lines import DATA, data_options, load_rows
from drsow_plugin.cli.options import CONTEXT, config_options, tune_options
from drsow_plugin.cli.paths import require_paths
from drsow_plugin.config.parse import parse_positive
from drsow_plugin.errors import ConfigError
from drsow_plugin.tuning.options import NAME, OF_TUNING, parse_tuning

RUN = ("input", "output", "limit", *DATA)
VALID = frozenset((*OF_TUNING, *RUN))
_USAGE = "Give PAIRS and OUTPUT, such as: drsow tune labelled tuned --policy …"


@click.command(context_settings=CONTEXT)
@click.argument("paths", nargs=-1, metavar="PAIRS... OUTPUT")
@tune_options
@data_options
@click.option("--limit", help="Pairs that are read, from the first. [all of them]")
@config_options
def tune(paths: tuple[str, ...], config: str | None, **options: Any) -> None:
    """Tune a policy, or a reward model, on labelled pairs, with TRL's trainers.

    PAIRS is what 'drsow annotate' wrote, or any pairs of prompt, chosen and rejected. OUTPUT is a
    new folder: the model, or an adapter of the policy, which opens as a side of a pair. With
    --method reward it is a reward model, which opens with lm_eval --model reward.

    An interrupted training goes on from its last checkpoint: run the same command again.

    For example:

      drsow tune labelled tuned --policy org/model --method simpo
    """
    merged = merge_config(options, config, VALID)
    ours = {name: merged.pop(name) for name in RUN if name in merged}
    policy = merged.pop(NAME, None)
    if policy is None:
        raise ConfigError("No policy was given. Name the model to tune with --policy MODEL.")
    setup = parse_tuning(policy, merged)
    inputs, folder = require_paths(paths, ours, _USAGE)
    limit = parse_positive("limit", ours.get("limit"))

    from drsow_plugin.tuning.train import tune as run

    data = load_rows(inputs, ours, limit)
    tuned = run(data, Path(folder).expanduser(), setup)
    click.echo(str(tuned))
    click.echo(f"Wrote {tuned.folder}")
