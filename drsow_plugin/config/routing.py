"""Which router and which domains, as frozen and checked configuration."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from drsow_plugin.config.in_memory import is_model
from drsow_plugin.config.model import SIDE_OPTIONS, ModelConfig, parse_model
from drsow_plugin.config.options import given_options, options_of, parse_options
from drsow_plugin.config.parse import parse_probability, parse_text
from drsow_plugin.errors import ConfigError
from drsow_plugin.option import Values, documented, option
from drsow_plugin.records import SIDES, DomainParts, DomainSide

COLUMN = "column"
"""The router that goes by what the data names."""

KNOWN = "domain"
"""Where it goes by, unless ``domain_column`` says otherwise."""

SHARED = ("dtype", "device", "device_map", "attn_implementation", "compile")


@documented
@dataclass(frozen=True)
class RoutingConfig:
    """How a prompt's domain is found, and what of it is applied."""

    router: str | None = option(
        None,
        "Sends each prompt to a domain: `keyword`, `model`, `column` or a plugin's.",
        unset="none",
    )
    domains: tuple[str, ...] | None = option(
        None,
        "The domains that are applied, such as `safety+reasoning`; a single one without a router "
        "is applied to every prompt.",
        "A prompt that is sent to another one is scored as it is.",
        unset="all that are loaded",
    )
    plugin: tuple[str, ...] = option(
        (), "A module or a Python file with domains and routers of yours; `a+b` for several."
    )
    domain_column: str | None = option(
        None,
        "Where the data says a prompt's domain: router `column` goes by it, others are compared "
        "with it.",
        "A column, or a field of an lm-eval document.",
        unset="domain, for router column",
    )
    domain_parts: DomainParts | None = option(
        None,
        "`none`, `instruction`, `examples` or `both`, of every domain.",
        unset="each domain's own",
    )
    domain_side: DomainSide | None = option(
        None,
        "`both` models read the domain's parts, or the `strong` one only.",
        unset="each domain's own",
    )
    domain_shots: int | None = option(
        None,
        "Maximum of examples that a prompt gets.",
        "Which ones depends on its content alone.",
        unset="each domain's own",
    )
    router_model: str | ModelConfig = option(
        "strong",
        "The model that router `model` asks: `strong`, `weak` or another.",
        "The options of another one begin with `router_`.",
        values=Values(parse_text, "`strong`, `weak` or a model", "str | ModelObject"),
    )
    router_confidence: float | None = option(
        None,
        "Minimum probability of a choice of router `model`; else it is `chat`.",
        "The row's notes say so.",
        unset="0.4",
        values=Values(parse_probability, "0 to 1", "float"),
    )

    @property
    def is_on(self) -> bool:
        """Whether prompts are routed, or one domain is applied to all."""
        return self.router is not None or self.domains is not None

    @property
    def known_column(self) -> str | None:
        """Where the data says a prompt's domain, if that is read; see ``domain_column``."""
        return self.domain_column or (KNOWN if self.router == COLUMN else None)


_OF_THE_MODEL = tuple(f"router_{name}" for name in SIDE_OPTIONS)
DOMAIN_OPTIONS = ("domains", "domain_parts", "domain_side", "domain_shots")
"""What is applied of a domain, not how it is found."""

ROUTER_OPTIONS = tuple(
    n for n in (*options_of(RoutingConfig), *_OF_THE_MODEL) if n not in DOMAIN_OPTIONS
)
"""How a domain is found, the options of a router's own model included."""


def parse_routing(options: Mapping[str, Any]) -> RoutingConfig:
    """Turn the options of routing, out of all options, into a checked configuration.

    Raises:
        ConfigError: A value is invalid, or has no effect.
    """
    names = [*options_of(RoutingConfig), *_OF_THE_MODEL]
    given = {name: options[name] for name in names if options.get(name) is not None}
    if given.get("router") == "none":
        del given["router"]
    named = {name: value for name, value in given.items() if name != "router_model"}
    config = RoutingConfig(
        **parse_options(RoutingConfig, named), router_model=_router_model(options)
    )
    for name in given:
        if name not in ("router", "domains") and not config.is_on:
            raise ConfigError(f"{name} has no effect without router=… or domains=….")
        if name.startswith(("router_", "domain_column")) and config.router is None:
            raise ConfigError(f"{name} has no effect without router=….")
    return config


def routing_options(config: RoutingConfig) -> dict[str, Any]:
    """Return the options that :func:`parse_routing` makes this configuration of; no defaults."""
    options: dict[str, Any] = {}
    for name, value in given_options(config).items():
        if isinstance(value, ModelConfig):
            options |= {"router_model": value.source, **given_options(value, "router_")}
        else:
            options[name] = list(value) if isinstance(value, tuple) else value
    return options


def _router_model(options: Mapping[str, Any]) -> str | ModelConfig:
    source = options.get("router_model")
    source = "strong" if source is None else source
    is_named = isinstance(source, (str, os.PathLike)) and str(source) != ""
    if not is_named and not is_model(source):
        raise ConfigError(f"router_model is strong, weak or a model, got {source!r:.80}.")
    if source not in SIDES:
        is_here = is_named and not options.get("router_server")
        return parse_model("router", source, options, SHARED if is_here else ())
    for name in _OF_THE_MODEL:
        if options.get(name) is not None:
            raise ConfigError(
                f"{name} has no effect with router_model={source}, which is loaded as the pair's. "
                "Name another model with router_model=…."
            )
    return str(source)
