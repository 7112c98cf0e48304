"""What a reward model begins as: the body of a causal language model under a new head."""

from __future__ import annotations

import copy
from typing import Any

import torch

from drsow_plugin.errors import ConfigError


def with_reward_head(
    label: str, model: Any, *, pad_token_id: int, seed: int, trust_remote_code: bool = False
) -> Any:
    """Return a sequence classifier with one output over the body of a causal language model.

    The body is not copied: the given model is of no use afterwards. The head is drawn anew, from
    the seed alone.

    Args:
        label: What errors call the model.
        model: A loaded causal language model of transformers.
        pad_token_id: What rows are padded with, which the classifier has to know.
        seed: Of the head.
        trust_remote_code: Whether the classifier may be of the model's own code.

    Raises:
        ConfigError: transformers has no sequence classifier of that architecture.
    """
    from transformers import AutoModelForSequenceClassification

    config = copy.deepcopy(model.config)
    config.num_labels = 1
    config.pad_token_id = config.get_text_config().pad_token_id = pad_token_id
    try:
        with torch.device("meta"):
            build: Any = AutoModelForSequenceClassification.from_config
            made = build(config, trust_remote_code=trust_remote_code)
    except ValueError as error:
        raise ConfigError(_unknown(label, model)) from error
    prefix, body = made.base_model_prefix, model.base_model
    if type(getattr(made, prefix, None)) is not type(body):
        raise ConfigError(_unknown(label, model))
    setattr(made, prefix, body)
    known: Any = next(iter(model.parameters()))
    drawn = torch.Generator().manual_seed(seed)
    deviation = getattr(config.get_text_config(), "initializer_range", 0.02)
    for name, parameter in [*made.named_parameters()]:
        if parameter.is_meta:
            value = torch.zeros(parameter.shape)
            if value.dim() > 1:
                value.normal_(0.0, deviation, generator=drawn)
            place, _, last = name.rpartition(".")
            new = torch.nn.Parameter(value.to(known.device, known.dtype))
            setattr(made.get_submodule(place), last, new)
    if any(buffer.is_meta for buffer in made.buffers()):
        raise ConfigError(_unknown(label, model))
    return made


def _unknown(label: str, model: Any) -> str:
    return (
        f"{label} is a {type(model).__name__}, of which transformers has no sequence classifier "
        "to train as a reward model. Give another policy."
    )
