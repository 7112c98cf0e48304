"""The command ``drsow generate``."""

from __future__ import annotations

import json
from typing import Any

import click

from drsow_plugin.annotate.outputs import open_output
from drsow_plugin.annotate.parts.part import parse_part
from drsow_plugin.cache import cache_folder
from drsow_plugin.cli.configfile import merge_config
from drsow_plugin.cli.lines import DATA, data_options
from drsow_plugin.cli.options import CONTEXT, config_options, generate_options
from drsow_plugin.cli.paths import require_apart, require_paths
from drsow_plugin.config.parse import parse_positive
from drsow_plugin.errors import ConfigError
from drsow_plugin.generation.options import NAME, OF_GENERATION, parse_generation
from drsow_plugin.hashing import text_sha256

RUN = ("input", "output", "limit", "shard", "cache_dir", *DATA)
VALID = frozenset((*OF_GENERATION, *RUN))
_USAGE = (
    "Give PROMPTS and OUTPUT, such as: drsow generate prompts.jsonl candidates.jsonl --policy …; "
    "or a file with both, as --config FILE."
)


@click.command(context_settings=CONTEXT)
@click.argument("paths", nargs=-1, metavar="PROMPTS... OUTPUT")
@generate_options
@data_options
@click.option("--limit", help="Prompts of each split that are read, from the first. [all of them]")
@click.option(
    "--shard",
    metavar="K/N",
    help="Answer the K-th of N shards of the prompts into OUTPUT.shards; 'drsow merge' joins them.",
)
@click.option("--cache-dir", help="Where finished work is kept. [DRSOW_CACHE or ~/.cache/drsow]")
@config_options
def generate(paths: tuple[str, ...], config: str | None, **options: Any) -> None:
    """Sample candidate responses from a policy model, for 'drsow annotate' to label.

    PROMPTS is a Hub id, the folder of a saved data set, or parquet, jsonl, csv or tsv files with a
    column of prompts. OUTPUT is a folder, a .parquet or a .jsonl file: the same rows with a list of
    responses, the tokens of each, and whether it was cut or repeats one before.

    Finished work is kept: run the same command again after an interruption, and it goes on.

    For example:

      drsow generate prompts.jsonl candidates.jsonl --policy org/model --candidates 4
    """
    merged = merge_config(options, config, VALID)
    ours = {name: merged.pop(name) for name in RUN if name in merged}
    inputs, target = require_paths(paths, ours, _USAGE)
    policy = merged.pop(NAME, None)
    if policy is None:
        raise ConfigError("No policy was given. Name the model to sample from with --policy MODEL.")
    parse_generation(policy, merged)
    part = parse_part(ours.get("shard"))
    output = open_output(target)
    for name in (output.name, str(output.shards)):
        require_apart(inputs, name)
    limit = parse_positive("limit", ours.get("limit"))
    cache_folder(ours.get("cache_dir"))

    from drsow_plugin.data.loading import first_rows, load_data
    from drsow_plugin.generation.runner import generate as run

    source = {name.removeprefix("data_"): ours.get(name) for name in DATA}
    data = first_rows(load_data(inputs, **source), limit)
    output.check(data)
    place = output if part is None else output.part(part.folder)
    with place.reserved(text_sha256(json.dumps([inputs, source]))) as folder:
        made, report = run(
            data,
            policy,
            shard=None if part is None else (part.number, part.of),
            cache_dir=ours.get("cache_dir"),
            rows_dir=str(folder),
            **merged,
        )
        where = place.write(made, report, folder)
    click.echo(str(report))
    click.echo(f"Wrote {where}")
