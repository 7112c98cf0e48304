"""Opens the two sides of a pair, as they are and in float32."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from drsow_plugin.config.model import ModelConfig
from drsow_plugin.config.pair import PairConfig
from drsow_plugin.errors import ConfigError
from drsow_plugin.models.language_model import Batching, Side
from drsow_plugin.models.pool import Shared
from drsow_plugin.records import SIDES, SideName

_EXACT = ("float32", "float64")


def open_sides(pair: PairConfig, shared: Shared) -> dict[SideName, Side]:
    """Open both sides; weights that both use will be loaded once.

    Raises:
        ConfigError: A side is wrong, or both turn out to be the same.
    """
    batching = Batching(pair.batch_tokens, pair.batch_size)
    strong, weak = (
        Side(name, getattr(pair, name), shared, pair.scoring, batching) for name in SIDES
    )
    if strong.is_same_as(weak):
        raise ConfigError(
            f"strong={pair.strong.source!r} and weak={pair.weak.source!r} are the same model "
            "with the same options, so every reward would be 0. Give another weak model."
        )
    return {"strong": strong, "weak": weak}


def open_exact_sides(
    pair: PairConfig, shared: Shared, sides: Mapping[SideName, Side]
) -> dict[SideName, Side]:
    """Open both sides in float32, to score again what is too close to call.

    Raises:
        ConfigError: They are in float32 already, or quantised.
    """
    if all(side.dtype in _EXACT for side in sides.values()):
        raise ConfigError(
            f"refine={pair.scoring.refine:g} has no effect: both models are in float32 or better "
            "already. Leave it out, or set dtype=bfloat16 or dtype=float16."
        )
    exact = dict(sides)
    for name, side in sides.items():
        config: ModelConfig = getattr(pair, name)
        if config.quantization is not None:
            raise ConfigError(
                f"refine={pair.scoring.refine:g} scores in float32, and {name}_quantization rounds "
                "the weights before that. Leave one of them out."
            )
        if config.given.model is not None and side.dtype not in _EXACT:
            raise ConfigError(
                f"refine={pair.scoring.refine:g} scores in float32, and {name} is a model in "
                f"memory in {side.dtype}. Load it in float32, or give its folder."
            )
        if side.dtype not in _EXACT:
            config = replace(config, dtype="float32")
            batching = Batching(pair.batch_tokens, pair.batch_size)
            exact[name] = Side(f"{name}_float32", config, shared, pair.scoring, batching)
    return exact
