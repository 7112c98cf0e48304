"""What a model's configuration says of its sizes, its limits and its token ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


def special_ids(config: Any) -> list[int]:
    """Return the token ids that a configuration, or one in it, names, ascending."""
    ids: set[int] = set()
    for name, value in vars(config).items():
        if hasattr(value, "to_dict"):
            ids.update(special_ids(value))
        elif name.endswith(("_token_id", "_token_ids", "_token_index", "pad_index")):
            values = value if isinstance(value, Sequence) else [value]
            ids.update(i for i in values if isinstance(i, int) and i >= 0)
    return sorted(ids)


def ordinary_ids(config: Any, size: int, number: int) -> list[int]:
    """Return token ids that the configuration does not name, ascending.

    Models do other things with those that it does, such as leaving padding out.

    Args:
        config: The model's configuration.
        size: Entries in the vocabulary. Where too few are ordinary, they repeat.
        number: How many ids.
    """
    special = set(special_ids(config))
    ids = [i for i in range(min(size, number + len(special))) if i not in special] or [0]
    return [ids[i % len(ids)] for i in range(number)]


_LOGITS_ONLY = {
    "return_dict": True,
    "output_hidden_states": False,
    "output_attentions": False,
    "output_router_logits": False,
}


def set_for_scoring(config: Any) -> dict[str, Any]:
    """Let a model return logits only, in no tuple, and bound those of its attention if it does.

    With tuples its head may fail. Before transformers 5.21 Gemma 2 gets torch's kernel for
    attention, which leaves the bound out.

    Returns:
        What was changed in the configuration, as it was.
    """
    wanted: dict[str, Any] = dict(_LOGITS_ONLY)
    if getattr(config, "attn_logit_softcapping", None) is not None:
        wanted["_attn_implementation"] = {"sdpa": "eager"}.get(
            config._attn_implementation, config._attn_implementation
        )
    before = {
        name: getattr(config, name)
        for name, value in wanted.items()
        if getattr(config, name, value) != value
    }
    for name in before:
        setattr(config, name, wanted[name])
    return before


def max_width(config: Any) -> int:
    """Return the maximum number of values of a token inside of a layer; 0 where it is not said."""
    text = config.get_text_config()
    names = ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size")
    sizes = [getattr(text, name, None) or 0 for name in names]
    # One for all layers, or one for each.
    return max(max(size) if isinstance(size, Sequence) else int(size) for size in sizes)


def windows(config: Any) -> list[int]:
    """Return lengths, in tokens, from which on the model may not see a whole sequence."""
    text = config.get_text_config()
    names = ("sliding_window", "attention_chunk_size", "sliding_window_size", "window_size")
    sizes = [getattr(text, name, None) for name in names]
    return [size for size in sizes if isinstance(size, int) and size > 0]


def max_tokens(config: Any) -> int | None:
    """Return how many tokens a model treats alike; ``None`` for any number.

    Llama 4 scales the queries of later tokens, and counts what it is given instead of reading
    positions.
    """
    text = config.get_text_config()
    scale = getattr(text, "floor_scale", None)
    return int(scale) - 1 if scale and getattr(text, "attn_temperature_tuning", False) else None


@dataclass(frozen=True)
class Scaling:
    """What the factors of a model's rotary positions depend on.

    Attributes:
        max_short: Maximum length of a sequence that is read with the factors of short ones, in
            tokens; ``None`` where all are. The longest sequence of a batch decides for the
            others, so those on either side of this length must not share one.
        by_length: Whether each longer sequence is read with factors of its own, by its length.
    """

    max_short: int | None
    by_length: bool


def scaling(config: Any) -> Scaling:
    """Return how a model scales its positions in sequences longer than those of its training."""
    text = config.get_text_config()
    parameters = getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None) or {}
    # One for all layers, or one for each kind of layer.
    ropes = [parameters, *(rope for rope in parameters.values() if isinstance(rope, Mapping))]
    limits, by_length = [], False
    for rope in ropes:
        kind = rope.get("rope_type") or rope.get("type") or ""
        if kind == "longrope":
            own = getattr(text, "original_max_position_embeddings", None)
            limits.append(own or rope.get("original_max_position_embeddings"))
        elif "dynamic" in kind:
            by_length = True
            limits.append(text.max_position_embeddings - 1)  # only then a longer one is forgotten
    return Scaling(min((limit for limit in limits if limit), default=None), by_length)
