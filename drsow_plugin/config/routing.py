"""Which router and which domains, as frozen and checked configuration."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypedDict, cast, get_args

from drsow_plugin.config.in_memory import is_model
from drsow_plugin.config.model import SIDE_OPTIONS, ModelConfig, model_options, parse_model
from drsow_plugin.config.parse import parse_choice, parse_positive
from drsow_plugin.errors import ConfigError
from drsow_plugin.records import SIDES, DomainParts, DomainSide

COLUMN = "column"
"""The router that goes by what the data names."""

KNOWN = "domain"
"""Where it goes by, unless ``domain_column`` says otherwise."""

SHARED = ("dtype", "device", "device_map", "attn_implementation")


@dataclass(frozen=True)
class RoutingConfig:
    """How a prompt's domain is found, and what of it is applied.

    Attributes:
        router: Name of the router; ``None`` with one domain applies that to every prompt.
        domains: The domains that are applied; ``None`` is all that are loaded. A prompt that
            is sent to another one is scored as it is.
        plugin: Module paths or Python files of plugins, beside the installed ones.
        domain_column: Where the data says a prompt's domain: a column, or a field of an
            lm-eval document. The router ``column`` goes by it (``None`` is ``domain``), others
            are compared with it.
        domain_parts: ``none``, ``instruction``, ``examples`` or ``both``, of every domain;
            ``None`` is each domain's own default.
        domain_side: ``both`` models read the domain's parts, or the ``strong`` one only;
            ``None`` is each domain's own default.
        domain_shots: Most examples a prompt gets; ``None`` is each domain's own number.
        router_model: The model that a router asks: ``strong``, ``weak`` or another one.
        router_confidence: Least probability at which the ``model`` router keeps its choice,
            from 0 to 1; ``None`` is its default.
    """

    router: str | None = None
    domains: tuple[str, ...] | None = None
    plugin: tuple[str, ...] = ()
    domain_column: str | None = None
    domain_parts: DomainParts | None = None
    domain_side: DomainSide | None = None
    domain_shots: int | None = None
    router_model: str | ModelConfig = "strong"
    router_confidence: float | None = None

    @property
    def is_on(self) -> bool:
        """Whether prompts are routed, or one domain is applied to all."""
        return self.router is not None or self.domains is not None

    @property
    def known_column(self) -> str | None:
        """Where the data says a prompt's domain, if that is read; see ``domain_column``."""
        return self.domain_column or (KNOWN if self.router == COLUMN else None)


class RoutingOptions(TypedDict, total=False):
    """The options of :class:`RoutingConfig`; those of another router model begin with router."""

    router: str | None
    domains: str | list[str] | None
    plugin: str | list[str] | None
    domain_column: str | None
    domain_parts: DomainParts | None
    domain_side: DomainSide | None
    domain_shots: int | None
    router_model: str | None
    router_confidence: float | None
    router_revision: str
    router_dtype: object
    router_device: str
    router_device_map: str | Mapping[str, Any]
    router_attn_implementation: str
    router_quantization: str | Mapping[str, Any]
    router_adapter: str
    router_adapter_revision: str
    router_template: str | None
    router_template_args: str | Mapping[str, Any]
    router_template_date: object
    router_tokenizer: str
    router_trust_remote_code: bool


def parse_routing(options: Mapping[str, Any]) -> RoutingConfig:
    """Turn the options of routing, out of all options, into a checked configuration.

    Raises:
        ConfigError: A value is invalid, or has no effect.
    """
    names = [*(f.name for f in fields(RoutingConfig)), *OWN]
    given = {name: options[name] for name in names if options.get(name) is not None}
    if given.get("router") == "none":
        del given["router"]
    config = RoutingConfig(
        router=_name("router", given.get("router")),
        domains=_names("domains", given["domains"]) if "domains" in given else None,
        plugin=_names("plugin", given["plugin"]) if "plugin" in given else (),
        domain_column=_name("domain_column", given.get("domain_column")),
        domain_parts=cast(Any, _choice("domain_parts", given, get_args(DomainParts))),
        domain_side=cast(Any, _choice("domain_side", given, get_args(DomainSide))),
        domain_shots=parse_positive("domain_shots", options.get("domain_shots")),
        router_model=_router_model(options),
        router_confidence=_probability(options.get("router_confidence")),
    )
    for name in given:
        if name not in ("router", "domains") and not config.is_on:
            raise ConfigError(f"{name} has no effect without router=… or domains=….")
        if name.startswith(("router_", "domain_column")) and config.router is None:
            raise ConfigError(f"{name} has no effect without router=….")
    return config


OWN = tuple(f"router_{name}" for name in SIDE_OPTIONS)


def routing_options(config: RoutingConfig) -> dict[str, Any]:
    """Return the options that :func:`parse_routing` makes this configuration of; no defaults."""
    options: dict[str, Any] = {}
    for entry in fields(RoutingConfig):
        value = getattr(config, entry.name)
        if value == entry.default:
            continue
        if isinstance(value, ModelConfig):
            options |= {"router_model": value.source, **model_options("router", value)}
        else:
            options[entry.name] = list(value) if isinstance(value, tuple) else value
    return options


def _router_model(options: Mapping[str, Any]) -> str | ModelConfig:
    source = options.get("router_model")
    source = "strong" if source is None else source
    is_named = isinstance(source, (str, os.PathLike)) and str(source) != ""
    if not is_named and not is_model(source):
        raise ConfigError(f"router_model is strong, weak or a model, got {source!r:.80}.")
    if source not in SIDES:
        return parse_model("router", source, options, SHARED if is_named else ())
    for name in OWN:
        if options.get(name) is not None:
            raise ConfigError(
                f"{name} has no effect with router_model={source}, which is loaded as the pair's. "
                "Name another model with router_model=…."
            )
    return str(source)


def _choice(name: str, given: Mapping[str, Any], valid: tuple[str, ...]) -> str | None:
    return parse_choice(name, given[name], valid) if name in given else None


def _name(option: str, value: object) -> str | None:
    if value is not None and not isinstance(value, str):
        raise ConfigError(f"{option} is a name, got {value!r:.80}.")
    return value


def _names(option: str, value: object) -> tuple[str, ...]:
    """Return names, given as a list or as one text with commas or plus signs between them."""
    if isinstance(value, os.PathLike) or (isinstance(value, str) and Path(value).is_file()):
        value = [os.fspath(value)]
    listed = re.split(r"[,+]", value) if isinstance(value, str) else value
    if not isinstance(listed, (list, tuple)) or not all(isinstance(n, str) for n in listed):
        raise ConfigError(f"{option} is a list of names, or a text such as a+b, got {value!r:.80}.")
    names = tuple(name.strip() for name in listed)
    if not names or not all(names) or len(set(names)) < len(names):
        raise ConfigError(f"{option}: a name is missing or given twice in {value!r:.80}.")
    return names


def _probability(value: object) -> float | None:
    if value is None:
        return None
    try:
        number = float(str(value))
    except ValueError:
        number = -1.0
    if isinstance(value, bool) or not 0 <= number <= 1:
        raise ConfigError(f"router_confidence is a number from 0 to 1, got {value!r}.")
    return number
