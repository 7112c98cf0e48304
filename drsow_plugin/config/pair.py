"""Options, from strings or Python values, as frozen and checked configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, cast, get_args

from drsow_plugin.config.model import ModelConfig, model_options, parse_model
from drsow_plugin.config.parse import parse_choice, parse_flag, parse_nats, parse_positive
from drsow_plugin.config.routing import (
    RoutingConfig,
    RoutingOptions,
    parse_routing,
    routing_options,
)
from drsow_plugin.errors import ConfigError, unknown_name
from drsow_plugin.records import SIDES, ControlPolicy, Overflow, Reduction, Scoring

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class PairConfig:
    """A strong and a weak model, the scoring policies and how the work is batched.

    Attributes:
        strong: The better-aligned model.
        weak: The less-aligned model.
        scoring: The policies that decide what is scored.
        batch_tokens: Most tokens computed at once; ``None`` fits the free memory.
        batch_size: Most rows in a batch; ``None`` is no limit but ``batch_tokens``.
        routing: How prompts are sent to domains; off by default.
    """

    strong: ModelConfig
    weak: ModelConfig
    scoring: Scoring = field(default_factory=Scoring)
    batch_tokens: int | None = None
    batch_size: int | None = None
    routing: RoutingConfig = field(default_factory=RoutingConfig)


class PairOptions(RoutingOptions, total=False):
    """The options of :class:`~drsow_plugin.DrSoW`, spelled the same wherever strings are used."""

    reduction: Reduction
    end_of_turn: bool
    overflow: Overflow
    max_length: int | None
    refine: float
    control_tokens: ControlPolicy
    batch_tokens: int | None
    batch_size: int | None
    revision: str
    dtype: object
    device: str
    device_map: str | Mapping[str, Any]
    attn_implementation: str
    quantization: str | Mapping[str, Any]
    adapter: str
    adapter_revision: str
    template: str | None
    template_args: str | Mapping[str, Any]
    template_date: object
    tokenizer: str | PreTrainedTokenizerBase
    trust_remote_code: bool
    strong_revision: str
    strong_dtype: object
    strong_device: str
    strong_device_map: str | Mapping[str, Any]
    strong_attn_implementation: str
    strong_quantization: str | Mapping[str, Any]
    strong_adapter: str
    strong_adapter_revision: str
    strong_template: str | None
    strong_template_args: str | Mapping[str, Any]
    strong_template_date: object
    strong_tokenizer: str | PreTrainedTokenizerBase
    strong_trust_remote_code: bool
    weak_revision: str
    weak_dtype: object
    weak_device: str
    weak_device_map: str | Mapping[str, Any]
    weak_attn_implementation: str
    weak_quantization: str | Mapping[str, Any]
    weak_adapter: str
    weak_adapter_revision: str
    weak_template: str | None
    weak_template_args: str | Mapping[str, Any]
    weak_template_date: object
    weak_tokenizer: str | PreTrainedTokenizerBase
    weak_trust_remote_code: bool


OPTIONS = frozenset((*SIDES, *PairOptions.__optional_keys__))


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
    config = PairConfig(
        strong=parse_model("strong", options.get("strong"), options),
        weak=parse_model("weak", options.get("weak"), options),
        scoring=Scoring(
            reduction=cast(
                Reduction,
                parse_choice("reduction", options.get("reduction", "sum"), get_args(Reduction)),
            ),
            end_of_turn=parse_flag("end_of_turn", options.get("end_of_turn", True)),
            overflow=cast(
                Overflow,
                parse_choice("overflow", options.get("overflow", "error"), get_args(Overflow)),
            ),
            max_length=parse_positive("max_length", options.get("max_length")),
            refine=parse_nats("refine", options.get("refine", 0.0)),
            control_tokens=cast(
                ControlPolicy,
                parse_choice(
                    "control_tokens", options.get("control_tokens", "text"), get_args(ControlPolicy)
                ),
            ),
        ),
        batch_tokens=parse_positive("batch_tokens", options.get("batch_tokens")),
        batch_size=parse_positive("batch_size", options.get("batch_size")),
        routing=parse_routing(options),
    )
    if config.strong == config.weak:
        raise ConfigError(
            f"strong and weak are the same model in every option ({config.strong.source!r}), "
            "so every reward would be 0. Give another weak model, or set it apart, for "
            "example by weak_template=none, weak_revision=… or strong_adapter=…."
        )
    return config


def as_options(config: PairConfig) -> dict[str, Any]:
    """Return the options that :func:`parse_pair` makes this configuration of; no defaults."""
    options: dict[str, Any] = {}
    for side in SIDES:
        model: ModelConfig = getattr(config, side)
        options |= {side: model.source, **model_options(side, model)}
    for entry in fields(Scoring):
        if getattr(config.scoring, entry.name) != entry.default:
            options[entry.name] = getattr(config.scoring, entry.name)
    for name in ("batch_tokens", "batch_size"):
        if getattr(config, name) is not None:
            options[name] = getattr(config, name)
    return options | routing_options(config.routing)
