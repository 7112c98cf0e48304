"""The command ``drsow evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from drsow_plugin.cache import cache_folder, storage_errors
from drsow_plugin.cli.configfile import merge_config
from drsow_plugin.cli.lines import DATA, data_options
from drsow_plugin.cli.options import CONTEXT, config_options, evaluate_options
from drsow_plugin.config.parse import parse_positive
from drsow_plugin.errors import ConfigError, DataError

RUN = ("pairs", "limit", "cache_dir", *DATA)


@click.command(context_settings=CONTEXT)
@click.argument("paths", nargs=-1, required=True, metavar="ANSWERS... OUTPUT")
@evaluate_options
@click.option("--pairs", metavar="DATA", help="Pairs that people labelled: accuracy on them.")
@click.option("--limit", help="Pairs that are read, from the first. [all of them]")
@data_options
@click.option(
    "--cache-dir", help="Where log-probs of the pairs are kept. [DRSOW_CACHE or ~/.cache/drsow]"
)
@config_options
def evaluate(paths: tuple[str, ...], config: str | None, **options: Any) -> None:
    """Measure a policy by its answers to held-out prompts.

    ANSWERS is what 'drsow generate' wrote with the policy. OUTPUT is a .json file: for each answer
    its reward by a trained judge (--judge) and by a pair (--strong, --weak), its divergence from
    the model that the policy began as (--policy over --start), and how many tokens it has; for each
    of the pairs of --pairs which response the policy over its start prefers, or without a policy
    the judge.

    The options of a model stand behind its name: --policy-adapter, --start-revision, --judge-dtype.

    For example:

      drsow evaluate answers.jsonl measured.json --judge judge --policy tuned --start org/model
    """
    from drsow_plugin.pipeline.evaluation import OF_EVALUATION, parse_evaluation

    merged = merge_config(options, config, frozenset((*OF_EVALUATION, *RUN)))
    ours = {name: merged.pop(name) for name in RUN if name in merged}
    if len(paths) < 2 or not paths[-1].endswith(".json"):
        raise ConfigError("Give ANSWERS and OUTPUT, a .json file: drsow evaluate answers out.json.")
    setup = parse_evaluation(merged)
    limit = parse_positive("limit", ours.get("limit"))
    if not ours.get("pairs"):
        for name in ("limit", *DATA):
            if ours.get(name) is not None:
                raise ConfigError(f"{name} has no effect without pairs.")
    elif setup.tuned is None and setup.judge is None:
        raise ConfigError("pairs are judged by a policy over its start, or by a judge: name one.")
    file = Path(paths[-1]).expanduser()
    if file.is_dir() or not file.parent.is_dir():
        raise ConfigError(f"{file} cannot be a file: make its folder, or give another OUTPUT.")
    cache = cache_folder(ours.get("cache_dir"))

    from drsow_plugin.data.loading import first_rows, load_data
    from drsow_plugin.pipeline.measuring import evaluate as run

    source = {name.removeprefix("data_"): ours.get(name) for name in DATA}
    answers = _one_split(load_data([*paths[:-1]]), "ANSWERS")
    pairs = None
    if ours.get("pairs"):
        pairs = _one_split(first_rows(load_data([str(ours["pairs"])], **source), limit), "pairs")
    found = run(answers, setup, merged, pairs, cache)
    with storage_errors(f"{file} cannot be written", "Make room, and run again."):
        part = file.with_name(f".{file.name}.part")  # what has its name is whole
        part.write_text(found.json(), encoding="utf-8")
        part.replace(file)
    click.echo(str(found))
    click.echo(f"Wrote {file}")


def _one_split(data: Any, name: str) -> Any:
    from datasets import DatasetDict

    if isinstance(data, DatasetDict):
        raise DataError(f"{name} has the splits {', '.join(data)}. Give one of them.")
    return data
