"""A trained reward model: a classifier with one output, as frozen and checked configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from drsow_plugin.config.in_memory import is_object
from drsow_plugin.config.model import RENDERED, ModelConfig, parse_model
from drsow_plugin.config.options import options_of, parse_options
from drsow_plugin.errors import ConfigError, unknown_name
from drsow_plugin.option import documented, option

SIDE = "model"
"""What errors call the model, and its options may begin with."""

_OF_MODEL = (
    *("revision", "dtype", "device", "device_map", "attn_implementation", "quantization"),
    *("template", "template_args", "template_date", "tokenizer", "trust_remote_code"),
    "allow_pickle",
)


@documented
@dataclass(frozen=True)
class RewardModelConfig:
    """A trained reward model, and how its rows are read and batched.

    Attributes:
        model: The checkpoint, its tokenizer and its template.
    """

    model: ModelConfig
    overflow: Literal["error", "skip"] = option(
        "error",
        "Rows over `max_length`: `error`, or `skip` (no reward and a reason). None is ever cut.",
    )
    max_length: int | None = option(
        None, "Maximum of tokens, prompt and response together.", unset="the model's own limit"
    )
    add_special_tokens: bool = option(
        True,
        "Whether a rendered conversation gets what the tokenizer adds to any text, a BOS or an "
        "EOS, beside what the template writes.",
        "A BOS never stands there twice. So do the cards of published reward models and "
        "RewardBench; TRL trains without (`false`).",
    )
    batch_tokens: int | None = option(
        None,
        "Maximum of tokens computed at once, padding included.",
        "Rewards do not depend on it.",
        unset="2,048 on a CPU, 16,384 on a GPU, less where memory runs out",
    )
    batch_size: int | None = option(None, "Maximum of rows in a batch.", unset="no limit")


NAMES = frozenset(
    (
        *("pretrained", SIDE),
        *options_of(RewardModelConfig),
        *(f"{prefix}{name}" for prefix in ("", f"{SIDE}_") for name in _OF_MODEL),
    )
)


def parse_reward_model(options: Mapping[str, Any]) -> RewardModelConfig:
    """Turn options into a checked configuration.

    Args:
        options: ``pretrained`` (or ``model``), the options of the model, and those of
            :class:`RewardModelConfig`. Values may be strings, as they come from a command line.

    Raises:
        ConfigError: A name is unknown, a value is invalid, or no model is named.
    """
    for name in options:
        if name not in NAMES:
            raise ConfigError(unknown_name("option of a reward model", name, NAMES))
    named = [options[name] for name in ("pretrained", SIDE) if options.get(name)]
    if len(named) != 1 or is_object(named[0]):
        raise ConfigError(
            "A reward model is one Hub id or folder of a checkpoint with a sequence-classification "
            f"head: pretrained=…, got {named[:2]!r:.100}."
        )
    others = {name: value for name, value in options.items() if name not in ("pretrained", SIDE)}
    model = parse_model(SIDE, named[0], others)
    if model.template in ("none", RENDERED):
        raise ConfigError(
            f"template={model.template}: a trained reward model reads whole conversations in the "
            "template that it was trained with. Leave template out, or give a Jinja file."
        )
    return RewardModelConfig(model, **parse_options(RewardModelConfig, others))
