"""The commands ``drsow study`` and ``drsow pairs``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from drsow_plugin.cache import cache_folder
from drsow_plugin.cli.configfile import merge_config
from drsow_plugin.cli.lines import DATA, data_options
from drsow_plugin.cli.options import CONTEXT, config_options, study_options
from drsow_plugin.cli.paths import named_paths
from drsow_plugin.config.parse import parse_flag, parse_positive
from drsow_plugin.errors import ConfigError
from drsow_plugin.study.options import OF_STUDY, Setup, parse_study
from drsow_plugin.study.values import parse_model_text, parse_size

if TYPE_CHECKING:
    from drsow_plugin.study.rows import StudyData

RUN = ("input", "output", "models", "task", "limit", "cache_dir", "record", *DATA)
VALID = frozenset((*OF_STUDY, *RUN))


@click.command(context_settings=CONTEXT)
@click.argument("paths", nargs=-1, metavar="[INPUT...] OUTPUT")
@click.option(
    "--model",
    "model",
    multiple=True,
    metavar="NAME=SOURCE[,OPTION=VALUE...]",
    help="A model; options are those of a model, and memory and cost. Repeat it.",
)
@click.option("--task", help="Rows of a task instead of INPUT, such as llmbar.")
@study_options
@data_options
@click.option("--limit", help="Rows that are read, from the first; of each task of a group. [all]")
@click.option("--cache-dir", help="Where finished work is kept. [DRSOW_CACHE or ~/.cache/drsow]")
@click.option("--record", is_flag=True, default=None, help="Add the best pair to drsow pairs.")
@config_options
def study(
    paths: tuple[str, ...], model: tuple[str, ...], config: str | None, **options: Any
) -> None:
    """Compare all ordered pairs of N models, at the cost of N passes.

    INPUT is preference pairs: a Hub id, the folder of a saved data set, or parquet, jsonl, csv or
    tsv files; or --task names a benchmark. OUTPUT is a folder: a page as Markdown and as HTML,
    pictures, tables and all figures as JSON. Log-probs are kept by model: the same command goes on
    after an interruption, and a further model costs one pass.

    A file for --config holds these options, and models by name as 'models'.

    For example:

      drsow study --task llmbar study --model chat=demo --model plain=demo,template=none
    """
    merged = merge_config(options, config, VALID)
    ours = {name: merged.pop(name) for name in RUN if name in merged}
    setup = parse_study(_models(model, ours.get("models") or {}), merged)
    inputs, output = _paths(paths, ours)
    limit = parse_positive("limit", ours.get("limit"))
    record = parse_flag("record", ours.get("record", False))
    cache_folder(ours.get("cache_dir"))

    from drsow_plugin.study.analysis import analyse
    from drsow_plugin.study.known import record_best
    from drsow_plugin.study.output import check_folder
    from drsow_plugin.study.passes import measure

    data = _read(setup, inputs, ours, limit)
    check_folder(output, data.sha256)
    report = analyse(setup, data, measure(setup, data, cache_folder(ours.get("cache_dir"))))
    files = report.save(output)
    click.echo(str(report))
    click.echo(f"Wrote {len(files)} files into {output}: begin with study.html or study.md")
    if record:
        click.echo(f"Recorded in {record_best(report)}")


def _models(given: Sequence[str], in_file: Any) -> dict[str, Any]:
    """Return the models of a file and of the command line."""
    if not isinstance(in_file, Mapping):
        raise ConfigError(f"models is a mapping of names to models, got {in_file!r:.80}.")
    models = {str(name): model for name, model in in_file.items()}
    for text in given:
        name, model = parse_model_text(text)
        if name in models:
            raise ConfigError(f"The model {name!r} is given twice. Leave one out, or rename it.")
        models[name] = model
    return models


def _paths(paths: tuple[str, ...], ours: Mapping[str, Any]) -> tuple[list[str], Path]:
    """Return inputs and output: of the command line, or else of the file."""
    inputs, output = named_paths(paths, ours)
    if not output or bool(inputs) == bool(ours.get("task")):
        raise ConfigError(
            "Give INPUT and OUTPUT, or OUTPUT and --task, such as: drsow study --task llmbar "
            "OUTPUT --model …; or a file with them, as --config FILE."
        )
    return inputs, Path(output).expanduser()


def _read(
    setup: Setup, inputs: Sequence[str], ours: Mapping[str, Any], limit: int | None
) -> StudyData:
    """Return the rows of a task, or of files."""
    from drsow_plugin.study.rows import read_data, read_task

    source = {name: ours[name] for name in DATA if ours.get(name) is not None}
    if task := ours.get("task"):
        local = {"data": inputs[0], **source} if inputs else source
        return read_task(str(task), local, limit)
    from drsow_plugin.data.loading import load_data

    loaded = load_data(inputs, **{n.removeprefix("data_"): v for n, v in source.items()})
    return read_data(loaded, setup.columns, ", ".join(inputs), limit)


@click.command(context_settings=CONTEXT)
@click.option("--memory", help="Only pairs whose weights fit, such as 24GB.")
def pairs(memory: str | None) -> None:
    """Show pairs of models of which something is known, the best of each data set first.

    They are those that the package knows, published or measured, and those that 'drsow study
    --record' has added. Memory is that of both models' weights together; models that do not fit
    together take turns, which takes room for one.
    """
    from drsow_plugin.study.known import fitting, known_pairs, own_file, read_pairs, text_table

    own = own_file()
    listed = [*known_pairs(), *(read_pairs(own) if own.is_file() else [])]
    shown = fitting(listed, parse_size("memory", memory))
    click.echo(text_table(shown))
    if len(shown) < len(listed):
        click.echo(f"{len(listed) - len(shown)} of {len(listed)} left out: larger, or not known")
