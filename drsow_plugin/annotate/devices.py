"""Which device each of several processes scores on."""

from __future__ import annotations

from dataclasses import replace

from drsow_plugin.config import SIDES, PairConfig
from drsow_plugin.errors import EngineError
from drsow_plugin.model_config import ModelConfig


def place(pair: PairConfig, rank: int) -> PairConfig:
    """Return the configuration for one of several processes: a device each, in turn.

    Raises:
        EngineError: The process was forked from one that uses CUDA.
    """
    import torch

    if torch.cuda._is_in_bad_fork():
        raise EngineError(
            "CUDA cannot be used in a forked process. Before ds.map(…, num_proc=…) call "
            'multiprocess.set_start_method("spawn"), under if __name__ == "__main__".'
        )
    devices = device_names()
    if not devices:
        return pair
    for side in SIDES:
        model = getattr(pair, side)
        if model.device is None and model.device_map is None:
            placed = replace(model, device=devices[rank % len(devices)])
            pair = replace(pair, **{side: placed})
    asked = pair.routing.router_model
    if isinstance(asked, ModelConfig) and asked.device is None and asked.device_map is None:
        placed = replace(asked, device=devices[rank % len(devices)])
        pair = replace(pair, routing=replace(pair.routing, router_model=placed))
    return pair


def device_names() -> list[str]:
    """Return the accelerators that torch sees."""
    import torch

    if not torch.accelerator.is_available():
        return []
    kind = torch.accelerator.current_accelerator()
    count = torch.accelerator.device_count()
    return [f"{kind.type}:{index}" for index in range(count)] if kind else []
