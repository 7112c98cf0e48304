"""The command ``drsow annotate``."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from drsow_plugin.addresses import is_address
from drsow_plugin.annotate.drivers import DriverOptions, Where
from drsow_plugin.annotate.options import LABEL_OPTIONS, parse_labelling
from drsow_plugin.annotate.parts.part import Part, parse_part
from drsow_plugin.cache import scores_place
from drsow_plugin.cli.configfile import merge_config
from drsow_plugin.cli.lines import DATA, data_options
from drsow_plugin.cli.options import CONTEXT, EPILOG, config_options, label_options, pair_options
from drsow_plugin.cli.outputs import HubOutput, open_target
from drsow_plugin.cli.paths import require_apart, require_paths
from drsow_plugin.cli.remote import annotate_addresses
from drsow_plugin.config.pair import OPTIONS
from drsow_plugin.config.parse import parse_flag, parse_positive
from drsow_plugin.errors import ConfigError
from drsow_plugin.hashing import text_sha256
from drsow_plugin.records import SIDES

if TYPE_CHECKING:
    from drsow_plugin.annotate.outputs import Output
    from drsow_plugin.annotate.report import Report

RUN = (
    *("input", "output", "num_proc", "driver", "num_actors", "gpus_per_actor"),
    *("shard_rows", "shard", "cache_dir", "keep_unusable", "page", "limit"),
    *DATA,
)
PUBLISH = ("push", "public", "license", "language", "branch")
VALID = frozenset((*OPTIONS, *LABEL_OPTIONS, *RUN, *PUBLISH))
_USAGE = (
    "Give INPUT and OUTPUT, such as: drsow annotate pairs.jsonl labelled --strong … --weak …; or a "
    "file with both, as --config FILE."
)


@click.command(context_settings=CONTEXT, epilog=EPILOG)
@click.argument("paths", nargs=-1, metavar="INPUT... OUTPUT")
@pair_options
@label_options
@data_options
@click.option("--limit", help="Rows of each split that are read, from the first. [all of them]")
@click.option("--num-proc", help="Processes to score with, each on its own GPU. [1]")
@click.option("--driver", help="Where rows are scored: processes (here) or ray. [processes]")
@click.option("--num-actors", help="With --driver ray: actors. [one a GPU, or else one a node]")
@click.option("--gpus-per-actor", help="With --driver ray. [1 where there are any]")
@click.option(
    "--shard-rows",
    help="Rows that are scored, and kept, together. [128; 512 for small models on a GPU]",
)
@click.option(
    "--shard",
    metavar="K/N",
    help="Label the K-th of N shards of the rows into OUTPUT.shards; 'drsow merge' joins them.",
)
@click.option(
    "--cache-dir",
    help="Where finished work is kept: a folder, or an address such as s3://bucket/scores. "
    "[DRSOW_CACHE or ~/.cache/drsow]",
)
@click.option("--keep-unusable", help="true keeps rows without a reward or a pair. [false]")
@click.option("--page", help="true writes report.html too, a page to look at the rows. [false]")
@click.option("--push", is_flag=True, default=None, help="OUTPUT is a Hub id to publish to.")
@click.option("--public", is_flag=True, default=None, help="With --push: for all to see.")
@click.option("--license", help="With --push: licence of the data, as the Hub knows it.")
@click.option("--language", help="With --push: language of the texts, such as en.")
@click.option("--branch", help="With --push: branch to publish on. [the main one]")
@config_options
def annotate(paths: tuple[str, ...], config: str | None, **options: Any) -> None:
    """Label preference data with the reward of a pair of models.

    INPUT is a Hub id, the folder of a saved data set, or parquet, jsonl, csv or tsv files. It holds
    pairs (prompt, chosen, rejected), candidates (prompt and a list of responses), of which a
    pair is made, or single responses (prompt, response). OUTPUT is a folder, a .parquet or
    .jsonl file, or with --push a Hub id.

    Finished work is kept: run the same command again after an interruption, and it goes on. The
    options are written beside the output; 'drsow annotate --config FILE' repeats the run.

    For example:

      drsow annotate pairs.jsonl labelled --strong org/model-dpo --weak org/model-sft
    """
    options = merge_config(options, config, VALID)
    inputs, target = require_paths(paths, options, _USAGE)
    ours = {name: options.pop(name) for name in (*RUN, *PUBLISH) if name in options}
    pair, labels = parse_labelling(options)
    push = parse_flag("push", ours.get("push", False))
    for name in PUBLISH[1:]:
        if name in ours and not push:
            raise ConfigError(f"--{name} has no effect without --push.")
    if any(map(is_address, (*inputs, target))):
        complete = partial(_complete, inputs=inputs, output=target, ours=ours)
        annotate_addresses(inputs, target, pair, labels, ours, complete)
        return
    part = parse_part(ours.get("shard"))
    output = open_target(target, push=push, options=ours)
    for name in () if isinstance(output, HubOutput) else (output.name, str(output.shards)):
        require_apart(inputs, name)
    keep = parse_flag("keep_unusable", ours.get("keep_unusable", False))
    where: Any = {name: ours.get(name) for name in DriverOptions.__annotations__}
    Where.of(where)
    shard_rows = parse_positive("shard_rows", ours.get("shard_rows"))
    page = parse_flag("page", ours.get("page", False))
    if page and part is not None:
        raise ConfigError(
            "--page has no effect with --shard: call drsow report when all is merged."
        )
    limit = parse_positive("limit", ours.get("limit"))
    scores_place(ours.get("cache_dir"))

    from drsow_plugin.annotate.annotator import Annotator
    from drsow_plugin.data.loading import first_rows, load_data

    data = first_rows(
        load_data(inputs, **{name.removeprefix("data_"): ours.get(name) for name in DATA}), limit
    )
    output.check(data)
    place = output if part is None else _of_part(output, part)
    annotator = Annotator.from_config(pair, labels)
    source = [[_absolute(name) for name in inputs], *map(ours.get, DATA[:2])]
    with place.reserved(text_sha256(json.dumps(source))) as folder:
        labelled = annotator.run(
            data,
            keep_unusable=keep,
            shard_rows=shard_rows,
            shard=None if part is None else (part.number, part.of),
            cache_dir=ours.get("cache_dir"),
            rows_dir=str(folder),
            **where,
        )
        assert annotator.report is not None
        report = _complete(annotator.report, inputs, output.name, ours)
        if page:
            from drsow_plugin.report.write import page_files

            report = replace(report, page=page_files(labelled, report, output.name))
        written = place.write(labelled, report, folder)
    click.echo(str(report))
    click.echo(f"Wrote {written}")


def _of_part(output: Output | HubOutput, part: Part) -> Output:
    """Return where a shard is written."""
    if isinstance(output, HubOutput):
        raise ConfigError(
            "--shard has no effect with --push: shards go on the Hub as one. Give a folder as "
            "OUTPUT, then 'drsow merge' and 'drsow publish' it."
        )
    return output.part(part.folder)


def _complete(report: Report, inputs: list[str], output: str, ours: dict[str, Any]) -> Report:
    """Return the report with what the command line knows, so that it can be repeated anywhere."""
    options: dict[str, Any] = {
        "input": [_absolute(name) for name in inputs],
        "output": output,
        **{name: ours[name] for name in (*RUN[2:], *PUBLISH) if name in ours},
        **report.options,
    }
    if len(inputs) == 1:
        options["input"] = options["input"][0]
    files = ("adapter", "tokenizer", "template")
    keys = [*SIDES, "router_model", *(f"{side}_{n}" for side in (*SIDES, "router") for n in files)]
    for key in keys:
        if isinstance(options.get(key), str) and options[key] not in ("demo", "none", *SIDES):
            options[key] = _absolute(options[key])
    if "plugin" in options:
        options["plugin"] = [
            _absolute(name) if Path(name).expanduser().is_file() else name
            for name in options["plugin"]
        ]
    called = Path(sys.argv[0]).name == "drsow"
    return replace(
        report,
        options=options,
        input=", ".join(inputs),
        command=shlex.join(["drsow", *sys.argv[1:]]) if called else None,
    )


def _absolute(name: str) -> str:
    path = Path(name).expanduser()
    return str(path.resolve()) if path.exists() else name
