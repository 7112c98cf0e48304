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
from drsow_plugin.config.routing import SHARED, RoutingConfig, RoutingOptions, parse_routing
from drsow_plugin.errors import ConfigError, DataError
from drsow_plugin.printable import json_line, printable
from drsow_plugin.prompts import as_messages, as_preference
from drsow_plugin.records import NO_DOMAIN, Route

if TYPE_CHECKING:
    from drsow_plugin.routing.hookspecs import RouterInput
    from drsow_plugin.routing.plugins import Offer, Plugins
    from drsow_plugin.routing.routing import Routing

_OF_CONDITIONING = {"domains", "domain_parts", "domain_side", "domain_shots"}
VALID = frozenset((*RoutingOptions.__optional_keys__, *SHARED, *DATA, "strong")) - _OF_CONDITIONING

_plugin = click.option(
    "--plugin", help="A module or a Python file with domains and routers; a+b for several."
)


@click.command(context_settings=CONTEXT)
@_plugin
def plugins(plugin: str | None) -> None:
    """List the loaded plugins, where they came from and what they offer."""
    loaded = _load(plugin)
    routers = _routers(loaded)
    for found in sorted(loaded.loaded.values(), key=lambda found: found.name):
        offers = [f"domain {name}" for name in _offered(loaded.domains, found)]
        offers += [f"router {name}" for name in _offered(routers, found)]
        where = f"{found.source}: {_place(found.module)}" if found.origin else _place(found.module)
        _echo(f"{found.name}  ({where})")
        _echo(f"    {', '.join(offers) or 'nothing'}")


@click.command(context_settings=CONTEXT)
@_plugin
@click.option("--json", "as_json", is_flag=True, help="All of it, one JSON object a line.")
def domains(plugin: str | None, as_json: bool) -> None:
    """Show the domains: which prompts belong to each, and what the models are told."""
    loaded = _load(plugin)
    for name, offer in sorted(loaded.domains.items()):
        domain = offer.value
        if as_json:
            described = {**domain.describe(), "plugin": offer.plugin.describe()}
            write_line(json_line(described))
            continue
        used = len(domain.examples) if domain.shots is None else domain.shots
        _echo(f"{name}  (plugin {offer.plugin.name}, {offer.plugin.source})")
        _echo(click.wrap_text(domain.description, 96, "    ", "    "))
        applied = {"none": "nothing", "both": "instruction and examples"}
        parts = f"{applied.get(domain.parts, domain.parts)}, to "
        parts += "both models" if domain.side == "both" else "the strong model"
        applies = "nothing" if domain.parts == "none" else parts
        _echo(f"    applied unless domain_parts= asks otherwise: {applies}")
        if domain.instruction:
            _echo(click.wrap_text(f"instruction: {domain.instruction}", 96, "    ", "      "))
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
def route(file: str, as_json: bool, config: str | None, **given: Any) -> None:
    """Send prompts to domains: prompts in, a table of counts out.

    FILE, or the standard input, has one prompt a line: as it is, or as a JSON object with a prompt
    (a text, or a list of messages). FILE may be compressed (.gz), or anything that annotate reads,
    with a column prompt. With --domain-column such an object or row also names the domain that is
    known to be right, and the table says how often the router agrees.

    For example:

      echo 'Write a Python function that adds two numbers.' | drsow route --router keyword
    """
    options = merge_config(given, config, VALID)
    lines = read_lines(file, options)
    routing, routing_config = _open(options)
    inputs = _read(lines, routing_config, routing)
    routes = routing.route(inputs)
    if as_json:
        for line in map(_as_json, inputs, routes):
            write_line(line)
    else:
        for line in _table(inputs, routes):
            _echo(line)


def _open(options: dict[str, Any]) -> tuple[Routing, RoutingConfig]:
    from drsow_plugin.models.language_model import Batching
    from drsow_plugin.models.pool import Shared
    from drsow_plugin.routing.router_model import RouterModel
    from drsow_plugin.routing.routing import Routing

    config = parse_routing(options)
    if config.router is None:
        raise ConfigError("Which router? Give --router keyword, for example; see drsow plugins.")
    model = config.router_model if not isinstance(config.router_model, str) else None
    if model is None and (options.get("router_model") or "strong") == "weak":
        raise ConfigError("router_model=weak: there is no pair here. Name the model.")
    if model is None and options.get("strong"):
        model = parse_model("router", options["strong"], options, SHARED)
    asked = RouterModel(model, Shared(), Batching())
    return Routing(config, asked.logprobs), config


def _read(lines: Iterable[bytes], config: RoutingConfig, routing: Routing) -> list[RouterInput]:
    from drsow_plugin.routing.hookspecs import RouterInput

    column = config.known_column
    inputs = []
    named = False
    for number, line in enumerate(lines, start=1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip("\r\n")
        except UnicodeDecodeError as error:
            raise DataError(f"line {number} is not UTF-8: {error}.") from error
        if not text.strip():
            continue
        prompt, known, has_field = _prompt(text, column, f"line {number}")
        named = named or has_field
        problem = routing.problem_with(known)
        if problem is not None:
            raise DataError(f"line {number}: {problem}")
        inputs.append(RouterInput(as_messages(prompt, f"line {number}"), known))
    if column is not None and inputs and not named:
        raise DataError(f"Not one line has the field {column!r}, which is to name the domain.")
    return inputs


def _prompt(text: str, column: str | None, where: str) -> tuple[Any, str | None, bool]:
    """Return a line's prompt, the domain that it names, and whether it has the field for it."""
    try:
        row = json.loads(text)
    except (ValueError, RecursionError):
        row = None
    prompt = _prompt_of(row, where) if isinstance(row, dict) else None
    if isinstance(row, list) or (isinstance(row, dict) and prompt is None):
        raise DataError(f"{where} is JSON, and no object with a 'prompt': {text:.80}")
    if not isinstance(row, dict):
        if column is not None:
            raise DataError(f"{where} is no JSON object with 'prompt' and {column!r}.")
        return text, None, False
    known = row.get(column) if column is not None else None
    if known is not None and not isinstance(known, str):
        raise DataError(f"{where}: {column!r} is to name a domain, got {known!r:.80}.")
    return prompt, known or None, column in row


def _prompt_of(row: dict[str, Any], where: str) -> Any:
    """Return the prompt of a row, as annotate finds it."""
    if "prompt" not in row and {"chosen", "rejected"} <= set(row):
        return as_preference(row, where).prompt
    return row.get("prompt", row.get("instruction"))


def _as_json(given: RouterInput, found: Route) -> str:
    single = len(given.messages) == 1 and given.messages[0]["role"] == "user"
    prompt = given.text if single else [dict(message) for message in given.messages]
    row: dict[str, Any] = {"prompt": prompt, "domain": found.domain}
    if found.confidence is not None:
        row["confidence"] = found.confidence
    if found.note:
        row["note"] = found.note
    return json_line(row)


def _table(inputs: Sequence[RouterInput], routes: Sequence[Route]) -> Iterable[str]:
    counts = Counter(found.domain or NO_DOMAIN for found in routes)
    width = max([6, *map(len, counts)])
    yield f"{'domain':{width}}  {'prompts':>9}"
    for name, number in counts.most_common():
        yield f"{name:{width}}  {number:9,}  {number / len(routes):6.1%}"
    yield f"{'all':{width}}  {len(routes):9,}"
    pairs = zip(inputs, routes, strict=True)
    agreed = [given.known == found.domain for given, found in pairs if given.known]
    if agreed:
        yield f"agrees with the known domain: {sum(agreed) / len(agreed):.1%} of {len(agreed):,}"
    for note, number in Counter(found.note for found in routes if found.note).items():
        yield f"{number:,} with the note: {note}"


def _echo(text: str) -> None:
    """Print what plugins and their files say, without what would steer the terminal."""
    write_line(printable(text, lines=True))


def _load(plugin: str | None) -> Plugins:
    from drsow_plugin.routing.plugins import Plugins

    config = parse_routing({"router": "any", "plugin": plugin})
    return Plugins(config.plugin)


def _routers(loaded: Plugins) -> dict[str, Offer]:
    from drsow_plugin.routing.hookspecs import RouterContext

    def no_model(prompts: object, responses: object) -> list[float | None]:
        raise ConfigError("There is no model here.")

    values = {name: offer.value for name, offer in loaded.domains.items()}
    return loaded.routers(RouterContext(values, no_model))


def _offered(offers: dict[str, Offer], plugin: object) -> list[str]:
    return [name for name, offer in sorted(offers.items()) if offer.plugin is plugin]


def _place(module: Any) -> str:
    return str(getattr(module, "__file__", None) or getattr(module, "__name__", module))
