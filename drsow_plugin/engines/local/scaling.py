"""How a model scales its positions in sequences longer than those that it was trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


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


def scaling_of(config: Any) -> Scaling:
    """Return what a text model's configuration says."""
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    # One for all layers, or one for each kind of layer.
    ropes = [rope, *(each for each in rope.values() if isinstance(each, Mapping))]
    limits, by_length = [], False
    for rope in ropes:
        kind = rope.get("rope_type") or rope.get("type") or ""
        if kind == "longrope":
            own = getattr(config, "original_max_position_embeddings", None)
            limits.append(own or rope.get("original_max_position_embeddings"))
        elif "dynamic" in kind:
            by_length = True
            limits.append(config.max_position_embeddings - 1)  # only then a longer one is forgotten
    return Scaling(min((limit for limit in limits if limit), default=None), by_length)
