"""The commands plugins, domains and route: what is loaded, and where prompts would go."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from drsow_plugin.cli.configfile import merge_config
from drsow_plugin.cli.lines import DATA, data_options, read_lines, write_line
from drsow_plugin.cli.options import CONTEXT, config_options, router_options
from drsow_plugin.config.model import parse_model
from drsow_plugin.config.routing import ROUTER_OPTIONS, SHARED, parse_routing
from drsow_plugin.errors import ConfigError, DataError
from drsow_plugin.printable import json_line, printable
from drsow_plugin.prompts import as_messages, as_preference
from drsow_plugin.records import NO_DOMAIN, Batching, Route

if TYPE_CHECKING:
    from drsow_plugin.routing.hookspecs import RouterInput
    from drsow_plugin.routing.plugins import Plugins
    from drsow_plugin.routing.routing import Routing

VALID = frozenset((*ROUTER_OPTIONS, *SHARED, *DATA, "strong"))

_plugin = click.option(
    "--plugin", help="A module or a Python file with domains and routers; a+b for several."
)


@click.command(context_settings=CONTEXT)
@_plugin
def plugins(plugin: str | None) -> None:
    """List the loaded plugins, where they came from and what they offer."""
    from drsow_plugin.routing.hookspecs import RouterContext

    def no_model(prompts: object, responses: object) -> list[float | None]:
        raise ConfigError("There is no model here.")

    loaded = _load(plugin)
    values = {name: offer.value for name, offer in loaded.domains.items()}
    offers = {"domain": loaded.domains, "router": loaded.routers(RouterContext(values, no_model))}
    for name, owner in sorted(loaded.loaded.items()):
        module = owner.module
        place = getattr(module, "__file__", None) or getattr(module, "__name__", module)
        _echo(f"{name}  ({owner.source}: {place})" if owner.origin else f"{name}  ({place})")
        names = [
            f"{kind} {offered}"
            for kind, by_name in offers.items()
            for offered, offer in sorted(by_name.items())
            if offer.plugin is owner
        ]
        _echo(f"    {', '.join(names) or 'nothing'}")


@click.command(context_settings=CONTEXT)
@_plugin
@click.option("--json", "as_json", is_flag=True, help="All of it, one JSON object a line.")
def domains(plugin: str | None, as_json: bool) -> None:
    """Show the domains: which prompts belong to each, and what the models are told."""
    loaded = _load(plugin)
    for name, offer in sorted(loaded.domains.items()):
        domain = offer.value
        if as_json:
            write_line(json_line({**domain.describe(), "plugin": offer.plugin.describe()}))
            continue
        used = len(domain.examples) if domain.shots is None else domain.shots
        _echo(f"{name}  (plugin {offer.plugin.name}, {offer.plugin.source})")
        _echo(click.wrap_text(domain.description, 96, "    ", "    "))
        parts = "instruction and examples" if domain.parts == "both" else domain.parts
        models = "both models" if domain.side == "both" else "the strong model"
        applies = "nothing" if parts == "none" else f"{parts}, to {models}"
        _echo(f"    applied unless domain_parts= asks otherwise: {applies}")
        if domain.instruction:
            _echo(click.wrap_text(f"instruction: {domain.instruction}", 96, "    ", "      "))
        if domain.weak_instruction is not None:
            told = f"the weak model's instead: {domain.weak_instruction or 'none'}"
            _echo(click.wrap_text(told, 96, "    ", "      "))
        _echo(f"    examples: {len(domain.examples)}, of which a prompt gets {used} (see --json)")


@click.command(context_settings=CONTEXT)
@click.argument("file", default="-")
@router_options
@data_options
@click.option("--strong", metavar="MODEL", help="The same as --router-model MODEL.")
@click.option("--dtype", help="Of the router's model. [float32 on a CPU, else auto]")
@click.option("--device", help="Of the router's model. [the first GPU, or the CPU]")
@click.option("--json", "as_json", is_flag=True, help="One object a line: prompt and domain.")
@config_options
def route(file: str, as_json: bool, config: str | None, **options: Any) -> None:
    """Send prompts to domains: prompts in, a table of counts out.

    FILE, or the standard input, has one prompt a line: as it is, or as a JSON object with a prompt
    (a text, or a list of messages). FILE may be compressed (.gz), or anything that annotate reads,
    with a column prompt. With --domain-column such an object or row also names the domain that is
    known to be right, and the table says how often the router agrees.

    For example:

      echo 'Write a Python function that adds two numbers.' | drsow route --router keyword
    """
    options = merge_config(options, config, VALID)
    lines = read_lines(file, options)
    routing = _open(options)
    inputs = _read(lines, routing)
    routes = routing.route(inputs)
    if as_json:
        for line in map(_as_json, inputs, routes):
            write_line(line)
    else:
        for line in _table(inputs, routes):
            _echo(line)


def _open(options: dict[str, Any]) -> Routing:
    from drsow_plugin.models.pool import ModelPool
    from drsow_plugin.routing.opening import open_routing

    config = parse_routing(options)
    if config.router is None:
        raise ConfigError("Which router? Give --router keyword, for example; see drsow plugins.")
    if config.router_model == "weak":
        raise ConfigError("router_model=weak: there is no pair here. Name the model.")
    strong = options.get("strong")
    pair = {"strong": parse_model("router", strong, options, SHARED)} if strong else {}
    return open_routing(config, pair, ModelPool(), Batching())


def _read(lines: Iterable[bytes], routing: Routing) -> list[RouterInput]:
    from drsow_plugin.routing.hookspecs import RouterInput

    column = routing.config.known_column
    inputs = []
    has_column = False
    for number, line in enumerate(lines, start=1):
        where = f"line {number}"
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip("\r\n")
        except UnicodeDecodeError as error:
            raise DataError(f"{where} is not UTF-8: {error}.") from error
        if not text.strip():
            continue
        row = _row(text, where)
        if row is None and column is not None:
            raise DataError(f"{where} is no JSON object with 'prompt' and {column!r}.")
        row = row or {"prompt": text}
        label = row.get(column) or None if column is not None else None
        if not isinstance(label, str | None):
            raise DataError(f"{where}: {column!r} is to name a domain, got {label!r:.80}.")
        if problem := routing.problem_with(label):
            raise DataError(f"{where}: {problem}")
        has_column = has_column or column in row
        inputs.append(RouterInput(as_messages(row["prompt"], where), label))
    if column is not None and inputs and not has_column:
        raise DataError(f"Not one line has the field {column!r}, which is to name the domain.")
    return inputs


def _row(text: str, where: str) -> dict[str, Any] | None:
    """Return a JSON object with its prompt as annotate finds it; ``None`` for any other text."""
    try:
        row = json.loads(text)
    except (ValueError, RecursionError):
        return None
    prompt = None
    if isinstance(row, dict) and "prompt" not in row and {"chosen", "rejected"} <= set(row):
        prompt = as_preference(row, where).prompt
    elif isinstance(row, dict):
        prompt = row.get("prompt", row.get("instruction"))
    elif not isinstance(row, list):
        return None  # a number, or a text in quotation marks
    if prompt is None:
        raise DataError(f"{where} is JSON, and no object with a 'prompt': {text:.80}")
    return {**row, "prompt": prompt}


def _as_json(prompt: RouterInput, answer: Route) -> str:
    is_single = len(prompt.messages) == 1 and prompt.messages[0]["role"] == "user"
    messages = [dict(message) for message in prompt.messages]
    row: dict[str, Any] = {
        "prompt": prompt.text if is_single else messages,
        "domain": answer.domain,
    }
    if answer.confidence is not None:
        row["confidence"] = answer.confidence
    if answer.note:
        row["note"] = answer.note
    return json_line(row)


def _table(inputs: Sequence[RouterInput], routes: Sequence[Route]) -> Iterable[str]:
    counts = Counter(answer.domain or NO_DOMAIN for answer in routes)
    width = max([6, *map(len, counts)])
    yield f"{'domain':{width}}  {'prompts':>9}"
    for name, number in counts.most_common():
        yield f"{name:{width}}  {number:9,}  {number / len(routes):6.1%}"
    yield f"{'all':{width}}  {len(routes):9,}"
    pairs = zip(inputs, routes, strict=True)
    matches = [prompt.known == answer.domain for prompt, answer in pairs if prompt.known]
    if matches:
        yield f"agrees with the known domain: {sum(matches) / len(matches):.1%} of {len(matches):,}"
    for note, number in Counter(answer.note for answer in routes if answer.note).items():
        yield f"{number:,} with the note: {note}"


def _echo(text: str) -> None:
    """Print what plugins and their files say, without what would steer the terminal."""
    write_line(printable(text, lines=True))


def _load(plugin: str | None) -> Plugins:
    from drsow_plugin.routing.plugins import Plugins

    return Plugins(parse_routing({"router": "any", "plugin": plugin}).plugin)
