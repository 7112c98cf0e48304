"""Models and tokenizers that are given as objects of transformers, not by name."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from drsow_plugin.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_MARK = " in memory>"
_ADVICE = "Save it and give its folder"


@dataclass(frozen=True)
class Given:
    """The objects that were given for one model; they are never changed.

    Attributes:
        model: A causal language model; ``None`` where it is named.
        tokenizer: ``None`` where it is named, or with the weights.
    """

    model: PreTrainedModel | None = None
    tokenizer: PreTrainedTokenizerBase | None = None

    def model_only(self) -> Given:
        """Return the same without the tokenizer."""
        return replace(self, tokenizer=None)


def is_object(value: object) -> bool:
    """Tell whether a model or tokenizer was given as an object, not by name."""
    return value is not None and not isinstance(value, (str, bool, os.PathLike))


def name_of(value: object) -> str:
    """Return what stands for an object where names are written down."""
    return f"<{type(value).__name__}{_MARK}"


def check_not_in_memory(option: str, name: str) -> None:
    """Raise if a name stands for an object, which another process had.

    Raises:
        ConfigError: It does.
    """
    if name.endswith(_MARK):
        raise ConfigError(
            f"{option}={name!r} was given as an object and cannot be opened in another process or "
            f"from a file. {_ADVICE}, or use one process."
        )


def checked_model(side: str, model: Any, options: Collection[str]) -> PreTrainedModel:
    """Return a model that was given as an object.

    Args:
        side: The side's name.
        model: The object.
        options: The options of this side, without the side's name, that were given.

    Raises:
        ConfigError: It is no causal language model of transformers, has an adapter, comes
            without a tokenizer, or an option is for something that the object has already.
    """
    from transformers import PreTrainedModel

    if hasattr(model, "peft_config") or getattr(model, "_hf_peft_config_loaded", False):
        raise ConfigError(
            f"{side} is a model with a PEFT adapter, which another may switch on or off. Give "
            f"what its merge_and_unload() returns, or save it and give {side}_adapter=…."
        )
    if not isinstance(model, PreTrainedModel):
        raise ConfigError(
            f"{side} is a Hub id, a local folder, a .gguf file, 'demo' or a PreTrainedModel of "
            f"transformers, got a {type(model).__name__}. {_ADVICE}."
        )
    head: object = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    if head is None:
        raise ConfigError(
            f"{side} is a {type(model).__name__}, which predicts no tokens. Give a causal language "
            "model, as AutoModelForCausalLM loads it."
        )
    if "tokenizer" not in options:
        raise ConfigError(
            f"{side} is a model in memory, which has no tokenizer. Give {side}_tokenizer=…: a "
            "tokenizer, or the name or folder of one."
        )
    idle = sorted(set(options) - {"tokenizer", "template", "template_args", "control_tokens"})
    if idle:
        raise ConfigError(
            f"{side} is a model in memory, which is taken as it is: {', '.join(idle)} has no "
            f"effect on it. Leave it out, or give it for the other model alone. {_ADVICE} "
            "where it is to be loaded otherwise."
        )
    return model


def checked_tokenizer(option: str, tokenizer: Any) -> PreTrainedTokenizerBase:
    """Return a tokenizer that was given as an object.

    Raises:
        ConfigError: It is none.
    """
    from transformers import PreTrainedTokenizerBase

    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise ConfigError(
            f"{option} is a Hub id, a local folder or a tokenizer of transformers, got a "
            f"{type(tokenizer).__name__}."
        )
    return tokenizer
