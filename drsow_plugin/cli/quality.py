"""The commands ``drsow check``, ``drsow compare`` and ``drsow quality``."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from drsow_plugin.cache import storage_errors
from drsow_plugin.cli.configfile import merge_config
from drsow_plugin.cli.lines import DATA, data_options, write_line
from drsow_plugin.cli.options import (
    CONTEXT,
    check_options,
    compare_options,
    config_options,
    quality_options,
)
from drsow_plugin.config.parse import parse_positive
from drsow_plugin.errors import ConfigError
from drsow_plugin.printable import finite, json_line, printable
from drsow_plugin.quality.options import (
    CHECK_OPTIONS,
    COMPARE_OPTIONS,
    READ,
    ROWS_OPTIONS,
    QualityConfig,
    parse_quality,
)

F = TypeVar("F", bound=Callable[..., Any])

FAILED = 3
"""Exit status where rows do not pass."""

_VALID = frozenset((*READ, *ROWS_OPTIONS, *DATA, "json"))
_JSON = "Also write it as JSON into FILE; - writes it, and nothing else, to the standard output."


def json_option(command: F) -> F:
    """Add the option that writes JSON to a command."""
    return click.option("--json", "json", metavar="FILE", help=_JSON)(command)


@click.command(context_settings=CONTEXT)
@click.argument("data", nargs=-1, required=True)
@check_options
@quality_options
@data_options
@json_option
@config_options
def check(data: tuple[str, ...], config: str | None, **options: Any) -> None:
    """Hold labelled rows to bounds before they are trained on; exit status 3 where one is broken.

    DATA is what 'drsow annotate' wrote, or another data set with its columns: a folder, a parquet
    or jsonl file, or a Hub id. Checked are rows without a reward, ties, margins within the noise of
    the dtype, reward and length, accuracy where it is known which response is better, and rows that
    are in two splits, or in two of several DATA.

    For example:

      drsow check labelled --min-accuracy 0.6 --json verdict.json
    """
    parsed, ours = _parsed(options, config, CHECK_OPTIONS)

    from drsow_plugin.quality.check import check as held
    from drsow_plugin.quality.labelled import open_labelled

    gold, source = parsed.rows.gold_column, _source(ours)
    opened = [open_labelled(n, parsed.columns, gold_column=gold, **source) for n in data]
    verdict = held(opened, parsed)
    _write(str(verdict), verdict.values(), ours.get("json"))
    if not verdict.passed:
        raise SystemExit(FAILED)


@click.command(context_settings=CONTEXT)
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@click.option("--rows", help="Rows on which the runs differ that are shown. [10]")
@click.option("--output", metavar="FILE", help="Write all of these rows, as JSON lines.")
@compare_options
@quality_options
@data_options
@json_option
@config_options
def compare(first: str, second: str, config: str | None, **options: Any) -> None:
    """Hold two runs over the same rows against each other.

    A and B are what 'drsow annotate' wrote (pairs, or candidates with ratings), or what 'drsow eval
    --log_samples' wrote, with whatever model: a file samples_….jsonl, or a folder of such, of which
    the newest of each task is taken. A row is the same prompt with the same responses.

    For example:

      drsow compare labelled-by-dpo labelled-by-sft --output differing.jsonl
    """
    parsed, ours = _parsed(options, config, COMPARE_OPTIONS, ("rows", "output"))
    shown = 10 if ours.get("rows") is None else _count("rows", ours["rows"])

    from drsow_plugin.quality.compare import Comparer
    from drsow_plugin.quality.opened import open_run

    source = _source(ours)
    runs = [open_run(name, parsed, **source) for name in (first, second)]
    comparer = Comparer(runs[0], runs[1], parsed)
    found = comparer.compare()
    text, listed = str(found), found.differing[:shown]
    if listed:
        number = f"{len(found.differing):,}"
        text += f"\n\n{number} rows that one of them gets right, {len(listed)} shown:"
        text += "".join(f"\n{json_line(finite(row))}" for row in comparer.told(listed))
    if output := ours.get("output"):
        _write_file(str(output), (json_line(finite(row)) for row in comparer.told(found.differing)))
        text += f"\n\nWrote {output}: {len(found.differing):,} rows on which they differ"
    _write(text, found.values(), ours.get("json"))


@click.command(context_settings=CONTEXT)
@click.argument("data")
@quality_options
@data_options
@json_option
@config_options
def quality(data: str, config: str | None, **options: Any) -> None:
    """Say how far the margins of labelled rows can be believed, and what they owe to length.

    DATA is what 'drsow annotate' wrote, or another data set with its columns. Shown are the
    temperature that turns margins into probabilities, and how well it does; how reward and length
    go together; and how the sum and the mean of log-probs do.

    For example:

      drsow quality labelled --json quality.json
    """
    parsed, ours = _parsed(options, config, {})

    from drsow_plugin.quality.examine import examine
    from drsow_plugin.quality.labelled import open_labelled

    opened = open_labelled(
        data, parsed.columns, gold_column=parsed.rows.gold_column, **_source(ours)
    )
    found = examine(opened, parsed.rows)
    _write(str(found), found.values(), ours.get("json"))


def _parsed(
    options: Mapping[str, Any],
    config: str | None,
    own: Mapping[str, Any],
    beside: tuple[str, ...] = (),
) -> tuple[QualityConfig, dict[str, Any]]:
    """Return the checked options of a command, and those that are not of the configuration."""
    merged = merge_config(options, config, frozenset((*_VALID, *own, *beside)))
    names = (*DATA, "json", *beside)
    ours = {name: merged.pop(name) for name in names if name in merged}
    return parse_quality(merged), ours


def _source(ours: Mapping[str, Any]) -> dict[str, Any]:
    return {n.removeprefix("data_"): ours[n] for n in DATA if ours.get(n) is not None}


def _count(name: str, value: object) -> int:
    return 0 if str(value) == "0" else parse_positive(name, value) or 0


def _write(text: str, values: Mapping[str, Any], file: str | None) -> None:
    """Write lines for people to the standard output, and JSON to a file, or in their place."""
    made = json.dumps(finite(values), indent=2, ensure_ascii=False)
    if file == "-":
        write_line(made)
        return
    if file is not None:
        _write_file(file, [made])
    write_line(printable(text, lines=True))


def _write_file(file: str, lines: Any) -> None:
    path = Path(file).expanduser()
    if path.is_dir():
        raise ConfigError(f"{file} is a folder. Give the name of a file.")
    with (
        storage_errors(f"{file} cannot be written", "Give another FILE."),
        path.open("w", encoding="utf-8") as opened,
    ):
        opened.writelines(f"{line}\n" for line in lines)
