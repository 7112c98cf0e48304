"""The commands ``drsow report`` and ``drsow explain``."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from drsow_plugin.annotate.place import OPTIONS as OPTIONS_FILE
from drsow_plugin.annotate.place import Place
from drsow_plugin.cli.annotate import VALID
from drsow_plugin.cli.configfile import merge_config
from drsow_plugin.cli.lines import DATA, data_options, read_lines
from drsow_plugin.cli.options import (
    CONTEXT,
    EPILOG,
    config_options,
    page_options,
    pair_options,
)
from drsow_plugin.config.pair import OPTIONS
from drsow_plugin.config.parse import parse_flag, parse_positive
from drsow_plugin.errors import ConfigError, DataError

if TYPE_CHECKING:
    from drsow_plugin.scoring.drsow import DrSoW


@click.command(context_settings=CONTEXT, epilog=EPILOG)
@click.argument("labelled")
@click.option("-o", "--output", help="The page. [report.html]")
@page_options
@data_options
@pair_options
@config_options
def report(labelled: str, config: str | None, **options: Any) -> None:
    """Write a page to look at labelled rows: one HTML file that needs nothing else.

    LABELLED is what 'drsow annotate' wrote, or any data with the columns that labelling adds, or a
    folder or file of samples that lm-eval logged of our tasks (--log_samples). The page says how
    often the reward is right, beside picking the longer response, and whether it can be trusted,
    and has a table of rows to sort, filter and search. With --tokens true the row's tokens are
    coloured by what they add to the reward, which is computed with the models: those that the rows
    were labelled with, or the ones that are given.

    For example:

      drsow report labelled -o report.html --tokens true
    """
    from drsow_plugin.annotate.options import LABEL_OPTIONS, LabelConfig
    from drsow_plugin.config.options import parse_options
    from drsow_plugin.quality import READ_OPTIONS
    from drsow_plugin.report.options import PAGE_OPTIONS, parse_page
    from drsow_plugin.report.write import check_target, open_material, save, write_page

    ours = {name: options.pop(name) for name in ("output", *DATA, *PAGE_OPTIONS, *READ_OPTIONS)}
    page = parse_page({n: ours[n] for n in PAGE_OPTIONS if ours[n] is not None})
    given = {n: ours[n] for n in READ_OPTIONS if ours[n] is not None and n in LABEL_OPTIONS}
    labels = LabelConfig(**parse_options(LabelConfig, given))
    target = Path(ours["output"] or "report.html").expanduser()
    check_target(target)
    drsow = _pair(labelled, config, options) if page.tokens else None
    if drsow is None and (config or any(value is not None for value in options.values())):
        raise ConfigError("The options of a pair of models have no effect without --tokens true.")
    source = {n.removeprefix("data_"): ours[n] for n in DATA if ours[n] is not None}
    material = open_material(labelled, page, labels, **source)
    save(target, write_page(material, page, drsow).html)
    click.echo(f"Wrote {target}")


@click.command(context_settings=CONTEXT, epilog=EPILOG)
@click.argument("prompt")
@click.argument("responses", nargs=-1)
@click.option("--top", help="How many of the tokens that weigh most. [10]")
@click.option("--all-tokens", help="false leaves out the table of all tokens. [true]")
@pair_options
@config_options
def explain(prompt: str, responses: tuple[str, ...], config: str | None, **options: Any) -> None:
    """Show which tokens the rewards of responses come from.

    For each response its tokens with the log-prob under both models and their difference, coloured
    in a terminal unless NO_COLOR is set; then the tokens that made the difference between the two
    best ones. Where the models cut a response into other tokens, what is shown as one is the
    shortest part that both have bounds around.

    A PROMPT of - reads an object of JSON from the standard input: a prompt (a text, or a list of
    messages) and responses, or chosen and rejected, or a response.

    For example:

      drsow explain "Name a prime." "Seven." "Nine." --strong demo --weak demo --weak-template none
    """
    merged = merge_config(options, config, VALID.union(("top", "all_tokens")))
    top = parse_positive("top", merged.get("top", 10)) or 10
    tokens = parse_flag("all_tokens", merged.get("all_tokens", True))
    asked, texts = _read_stdin() if prompt == "-" and not responses else (prompt, [*responses])
    if not texts:
        raise DataError("Give a prompt and at least one response to it.")

    from drsow_plugin.config.pair import parse_pair
    from drsow_plugin.report.explain import explained
    from drsow_plugin.report.tokens import TokenReader
    from drsow_plugin.scoring.drsow import DrSoW

    drsow = DrSoW.from_config(parse_pair({n: merged[n] for n in OPTIONS if n in merged}))
    views = TokenReader(drsow).read([asked] * len(texts), texts)
    color = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    for line in explained(views, top=top, tokens=tokens, color=color):
        click.echo(line, color=color)


def _read_stdin() -> tuple[Any, list[str]]:
    """Return the prompt and the responses that the standard input holds as JSON."""
    text = b"".join(read_lines("-", {})).decode(errors="replace")
    try:
        given = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"The standard input is no JSON: {error}.") from error
    names = ("responses", "chosen", "rejected", "response")
    if not isinstance(given, dict) or "prompt" not in given or not {*names} & {*given}:
        raise DataError(
            "The standard input is to hold an object with a prompt and responses, or chosen and "
            f"rejected, or a response; got {text.strip()[:80]!r}."
        )
    found = [given[name] for name in names if name in given]
    listed = [*found[0], *found[1:]] if isinstance(found[0], list) else found
    if not all(isinstance(response, str) for response in listed):
        raise DataError("A response is a text. Give texts, and a conversation as the prompt.")
    return given["prompt"], listed


def _pair(labelled: str, config: str | None, options: dict[str, Any]) -> DrSoW:
    """Open the pair that is given, or else the one that the rows were labelled with."""
    noted = Place.of(Path(labelled).expanduser()).at(OPTIONS_FILE)
    allow = options.get("allow_code")
    typed = {name for name, value in options.items() if value is not None} - {"allow_code"}
    if config is None and not typed & {"strong", "weak"} and noted.is_file():
        config = str(noted)
    merged = merge_config({**options, "allow_code": allow}, config, VALID)
    pair = {name: merged[name] for name in OPTIONS if name in merged}
    if "strong" not in pair or "weak" not in pair:
        raise ConfigError(
            f"--tokens computes with the models, and {labelled!r} does not say which. Give "
            "--strong and --weak, and the options that the rows were labelled with."
        )
    from drsow_plugin.config.pair import parse_pair
    from drsow_plugin.scoring.drsow import DrSoW

    return DrSoW.from_config(parse_pair(pair))
