"""Models, engines and tokenizers that are given as objects, not by name."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from drsow_plugin.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from drsow_plugin.engines import Engine

    ModelObject: TypeAlias = PreTrainedModel | Engine

_MARK = " in memory>"
_ADVICE = "Save it and give its folder"


@dataclass(frozen=True, eq=False)
class Given:
    """The objects that were given for one model; they are never changed.

    Two are equal where they hold the very same objects: those need not be hashable.

    Attributes:
        model: A causal language model; ``None`` where it is named, or an engine was given.
        tokenizer: ``None`` where it is named, or with the weights.
        engine: What answers log-probs in place of weights.
    """

    model: PreTrainedModel | None = None
    tokenizer: PreTrainedTokenizerBase | None = None
    engine: Engine | None = None

    @property
    def has_model(self) -> bool:
        """Whether a model or an engine was given, so that no weights are loaded."""
        return self.model is not None or self.engine is not None

    def model_only(self) -> Given:
        """Return the same without the tokenizer."""
        return replace(self, tokenizer=None)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Given) and self._ids() == other._ids()

    def __hash__(self) -> int:
        return hash(self._ids())

    def _ids(self) -> tuple[int, ...]:
        return id(self.model), id(self.tokenizer), id(self.engine)


def is_object(value: object) -> bool:
    """Tell whether a model or tokenizer was given as an object, not by name."""
    return value is not None and not isinstance(value, (str, bool, os.PathLike))


def name_of(value: object) -> str:
    """Return what stands for an object where names are written down."""
    identity = " ".join(str(getattr(value, "identity", "")).split())
    of = f": {identity:.60}" if is_engine(value) and identity else ""
    return f"<{type(value).__name__}{of}{_MARK}"


def is_model(value: object) -> bool:
    """Tell whether an object looks like a model of transformers, or is an engine."""
    return hasattr(value, "get_output_embeddings") or is_engine(value)


def is_engine(value: object) -> bool:
    """Tell whether an object answers log-probs itself: an ``Engine``, not a model or a class."""
    other = isinstance(value, type) or hasattr(value, "get_output_embeddings")
    return not other and callable(getattr(value, "logprobs", None))


def check_not_in_memory(option: str, value: object) -> None:
    """Raise if the value of an option stands for an object, which another process had.

    Raises:
        ConfigError: It does.
    """
    if isinstance(value, str) and value.endswith(_MARK):
        raise ConfigError(
            f"{option}={value!r} was given as an object and cannot be opened in another process or "
            f"from a file. {_ADVICE}, or use one process."
        )


def checked_model(
    option: str, side: str, model: Any, options: Collection[str], allowed: Collection[str]
) -> Given:
    """Return a model or an engine that was given as an object.

    Args:
        option: The option that it is the value of.
        side: What the options of this model begin with.
        model: The object.
        options: The options of this model, without the side's name, that were given.
        allowed: Those that say something about an object.

    Raises:
        ConfigError: It is no engine and no causal language model of transformers, has an adapter,
            comes without a tokenizer, or an option is for something that the object has already.
    """
    given = Given(engine=model) if is_engine(model) else Given(_causal_model(option, side, model))
    kind = "a model" if given.engine is None else "an engine"
    if "tokenizer" not in options:
        raise ConfigError(
            f"{option} is {kind} in memory, which has no tokenizer. Give {side}_tokenizer=…: a "
            "tokenizer, or the name or folder of one."
        )
    idle = sorted(set(options).difference(allowed))
    if idle:
        raise ConfigError(
            f"{option} is {kind} in memory, which is taken as it is: {', '.join(idle)} has no "
            f"effect on it. Leave it out, or give it for the other model alone. {_ADVICE} "
            "where it is to be loaded otherwise."
        )
    return given


def _causal_model(option: str, side: str, model: Any) -> PreTrainedModel:
    from transformers import PreTrainedModel

    if hasattr(model, "peft_config") or getattr(model, "_hf_peft_config_loaded", False):
        raise ConfigError(
            f"{option} is a model with a PEFT adapter, which another may switch on or off. Give "
            f"what its merge_and_unload() returns, or save it and give {side}_adapter=…."
        )
    if not isinstance(model, PreTrainedModel):
        got, advice = f"a {type(model).__name__}", _ADVICE
        if isinstance(model, type):
            got, advice = f"the class {model.__name__}", "Give an instance of it"
        raise ConfigError(
            f"{option} is a Hub id, a local folder, a .gguf file, 'demo', a PreTrainedModel of "
            f"transformers or an engine with a method logprobs, got {got}. {advice}."
        )
    head: object = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    if head is None:
        raise ConfigError(
            f"{option} is a {type(model).__name__}, which predicts no tokens. Give a causal "
            "language model, as AutoModelForCausalLM loads it."
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
