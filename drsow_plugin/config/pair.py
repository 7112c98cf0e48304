"""Options, from strings or Python values, as frozen and checked configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from drsow_plugin.config.model import (
    RENDERED,
    SIDE_OPTIONS,
    ModelConfig,
    check_servers,
    parse_model,
)
from drsow_plugin.config.options import given_options, options_of, parse_options
from drsow_plugin.config.parse import parse_text
from drsow_plugin.config.routing import RoutingConfig, parse_routing, routing_options
from drsow_plugin.errors import ConfigError, unknown_name
from drsow_plugin.option import Values, described, documented, option
from drsow_plugin.records import SIDES, Batching, Scoring

_MODEL = Values(parse_text, "a model", "str | ModelObject")


@documented
@dataclass(frozen=True)
class PairConfig:
    """A strong and a weak model, the scoring policies and how the work is batched.

    Attributes:
        scoring: The policies that decide what is scored.
        routing: How prompts are sent to domains; off by default.
    """

    strong: ModelConfig = field(
        metadata=described(
            "The better-aligned model: a Hub id, a folder, a .gguf file or `demo`.",
            "In Python also a model of transformers, which is used as it is and left so, or an "
            "engine.",
            values=_MODEL,
        )
    )
    weak: ModelConfig = field(metadata=described("The less-aligned model.", values=_MODEL))
    scoring: Scoring = field(default_factory=Scoring)
    batch_tokens: int | None = option(
        None,
        "Maximum of tokens computed at once.",
        "Rewards do not depend on it.",
        unset="fits the free memory",
    )
    batch_size: int | None = option(None, "Maximum of rows in a batch.", unset="no limit")
    routing: RoutingConfig = field(default_factory=RoutingConfig)

    @property
    def computes_here(self) -> bool:
        """Whether weights of any model are loaded in this process."""
        models = (self.strong, self.weak, self.routing.router_model)
        return any(model.computes_here for model in models if isinstance(model, ModelConfig))


PREFIXES = ("", "strong_", "weak_", "router_")
"""What the options of a model begin with: for both sides, for one, for a router's own model."""

OPTIONS = frozenset(
    (
        *(name for group in (PairConfig, Scoring, RoutingConfig) for name in options_of(group)),
        *(f"{prefix}{name}" for prefix in PREFIXES for name in SIDE_OPTIONS),
    )
)


OF_ONE_MODEL = frozenset(
    (
        *(*SIDE_OPTIONS, *(f"model_{name}" for name in SIDE_OPTIONS)),
        *("batch_tokens", "batch_size"),
        *("end_of_turn", "overflow", "max_length", "control_tokens"),
    )
)
"""The options of a model that is opened alone, as errors spell them too."""


def parse_single(
    source: object, options: Mapping[str, Any]
) -> tuple[ModelConfig, Scoring, Batching]:
    """Turn the options of a model that is opened alone into checked configuration.

    Args:
        source: The model.
        options: Those in ``OF_ONE_MODEL``; values may be strings.

    Raises:
        ConfigError: A name is unknown, or a value is invalid.
    """
    for name in options:
        if name not in OF_ONE_MODEL:
            raise ConfigError(unknown_name("option", name, OF_ONE_MODEL))
    batches = parse_options(PairConfig, options)
    batching = Batching(batches.get("batch_tokens"), batches.get("batch_size"))
    scoring = Scoring(**parse_options(Scoring, options))
    model = parse_model("model", source, options)
    check_rendered(model, scoring)
    check_servers(options, [model])
    return model, scoring, batching


def parse_pair(options: Mapping[str, Any]) -> PairConfig:
    """Turn options into a checked configuration.

    Args:
        options: ``strong`` and ``weak`` (sources), their options spelled ``strong_…`` and
            ``weak_…`` (without the prefix an option holds for both), and the options of
            the pair. Values may be strings, as they come from a command line.

    Raises:
        ConfigError: A name is unknown, a value is invalid, a side is missing, or both sides
            are the same in every option.
    """
    for name in options:
        if name not in OPTIONS:
            raise ConfigError(unknown_name("option", name, OPTIONS))
    shared = {name: value for name, value in options.items() if name not in SIDES}
    config = PairConfig(
        strong=parse_model("strong", options.get("strong"), options),
        weak=parse_model("weak", options.get("weak"), options),
        scoring=Scoring(**parse_options(Scoring, options)),
        routing=parse_routing(options),
        **parse_options(PairConfig, shared),
    )
    for model in (config.strong, config.weak):
        check_rendered(model, config.scoring)
        if model.template == RENDERED and config.routing.is_on:
            raise ConfigError(
                "template=rendered has no place for what a domain adds to a prompt. Leave out "
                "router=… and domains=…, or give prompts as messages."
            )
    check_servers(options, [config.strong, config.weak])
    if config.strong == config.weak and not config.routing.is_on:
        raise ConfigError(
            f"strong and weak are the same model in every option ({config.strong.source!r}), "
            "so every reward would be 0. Give another weak model, or set it apart, for "
            "example by weak_template=none, weak_revision=…, strong_adapter=… or a domain with a "
            "weak_instruction."
        )
    return config


def check_rendered(model: ModelConfig, scoring: Scoring) -> None:
    """Check that the policies go with a model that reads rendered prompts.

    Raises:
        ConfigError: They do not.
    """
    if model.template == RENDERED and (scoring.control_tokens != "parse" or scoring.end_of_turn):
        raise ConfigError(
            "template=rendered reads prompts and responses as they stand, control tokens and ends "
            "of turns included. Set control_tokens=parse and end_of_turn=false beside it."
        )


def as_options(config: PairConfig) -> dict[str, Any]:
    """Return the options that :func:`parse_pair` makes this configuration of; no defaults."""
    return {
        "strong": config.strong.source,
        **given_options(config.strong, "strong_"),
        "weak": config.weak.source,
        **given_options(config.weak, "weak_"),
        **given_options(config.scoring),
        **{n: v for n, v in given_options(config).items() if n not in SIDES},
        **routing_options(config.routing),
    }
