"""Opens the models of a study: what they are is known, and checked, before any is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from drsow_plugin.config.model import ModelConfig
from drsow_plugin.errors import ConfigError, DrSoWError
from drsow_plugin.models.language_model import LanguageModel
from drsow_plugin.models.pool import ModelPool
from drsow_plugin.progress import tell
from drsow_plugin.study.options import Setup, StudyModel, same_twice
from drsow_plugin.study.store import model_key


@dataclass
class Opened:
    """A model of a study that could be opened.

    Attributes:
        asked: What was asked for.
        model: The model.
        key: What its log-probs are kept under.
        described: What identifies it, as plain values.
        weights: What identifies the weights, which several models may share.
        memory: Bytes of its weights; ``None`` where that is not known.
    """

    asked: StudyModel
    model: LanguageModel
    key: str
    described: dict[str, Any]
    weights: ModelConfig
    memory: int | None


def open_all(setup: Setup, failed: dict[str, str]) -> list[Opened]:
    """Open the models of a study; no weights are loaded.

    Args:
        setup: What was asked for.
        failed: Gets the reason of each model that cannot be opened, by its name.

    Raises:
        ConfigError: Two models are the same, or fewer than two can be opened.
    """
    pools: dict[ModelConfig, ModelPool] = {}
    opened: dict[str, Opened] = {}
    for asked in setup.models:
        pool = pools.setdefault(asked.config.weights_only(), ModelPool())
        try:
            model = LanguageModel.from_config(
                asked.key, asked.config, pool, setup.scoring, setup.batching
            )
            key = model_key(model, setup.batching)
            one = Opened(
                *(asked, model, key, model.identity.describe(), model.identity.weights),
                memory=asked.memory or model.weight_bytes,
            )
        except DrSoWError as error:
            tell_failed(failed, asked.name, error)
            continue
        if key in opened:
            raise same_twice(opened[key].asked.name, asked.name)
        opened[key] = one
    if len(opened) < 2:
        raise too_few(failed)
    return list(opened.values())


def tell_failed(failed: dict[str, str], name: str, error: DrSoWError) -> None:
    """Note that a model is left out, and say so."""
    failed[name] = " ".join(str(error).split())
    tell(f"the model {name} is left out: {failed[name]}")


def too_few(failed: Mapping[str, str]) -> ConfigError:
    """Return what says that no pair is left."""
    reasons = "; ".join(f"{name}: {reason}" for name, reason in failed.items())
    return ConfigError(f"Fewer than two models can be used. {reasons}")
