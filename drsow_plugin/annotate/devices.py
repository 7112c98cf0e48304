"""Which device each of several processes scores on."""

from __future__ import annotations

import os
from dataclasses import replace

from drsow_plugin.config.model import ModelConfig
from drsow_plugin.config.pair import PairConfig
from drsow_plugin.config.parse import parse_positive
from drsow_plugin.errors import ConfigError
from drsow_plugin.models.devices import check_not_forked, device_names


def place(pair: PairConfig, rank: int) -> PairConfig:
    """Return the configuration for one of several processes: a device each, in turn.

    Raises:
        EngineError: The process was forked from one that uses CUDA.
    """
    check_not_forked()
    devices = device_names()
    if not devices:
        return pair
    device = devices[rank % len(devices)]
    asked = pair.routing.router_model
    if isinstance(asked, ModelConfig):
        routing = replace(pair.routing, router_model=_placed(asked, device))
        pair = replace(pair, routing=routing)
    return replace(pair, strong=_placed(pair.strong, device), weak=_placed(pair.weak, device))


def _placed(model: ModelConfig, device: str) -> ModelConfig:
    """Return a model with a device, unless it was given one, or is in memory."""
    if model.device is None and model.device_map is None and not model.given.has_model:
        return replace(model, device=device)
    return model


def parse_processes(value: object) -> int:
    """Return how many processes score, 1 for ``None``.

    Raises:
        ConfigError: It is no whole number of at least 1, or of more than could be at work at once.
    """
    asked = parse_positive("num_proc", value) or 1
    if asked == 1:
        return asked
    processors, devices = os.cpu_count() or 1, len(device_names())
    if asked > max(processors, devices):
        raise ConfigError(
            f"num_proc={asked}: each process holds both models, and this machine has {processors} "
            f"processors and {devices} GPUs. Give at most {max(processors, devices)}."
        )
    return asked
