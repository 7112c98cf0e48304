"""Tokenizers and weights that models share; weights that do not fit beside others take turns."""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import TYPE_CHECKING

from drsow_plugin.config.model import ModelConfig
from drsow_plugin.errors import DrSoWError, EngineError
from drsow_plugin.progress import told

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

    from drsow_plugin.engines.local.engine import LocalEngine
    from drsow_plugin.models.weights import Weights

logger = logging.getLogger(__name__)

_ROOM = 1.1  # of the weights' size: loading and scoring take more than the weights


class ModelPool:
    """What several models, such as those of a pair and its router's, have read and loaded.

    Weights that do not fit beside others take their place; models then take turns, each
    loaded when it is next needed.

    Attributes:
        weights: Those that are in memory.
        lock: To be held while something is loaded.
    """

    def __init__(self) -> None:
        self._read: dict[Hashable, tuple[PretrainedConfig, PreTrainedTokenizerBase]] = {}
        self.lock = threading.RLock()
        self.weights: dict[ModelConfig, Weights] = {}
        self._engines: dict[str, tuple[ModelConfig, LocalEngine]] = {}
        self._known: set[str] = set()
        self._own: dict[str, ModelConfig] = {}
        self._warned = False

    def read(
        self,
        key: Hashable,
        load: Callable[[], tuple[PretrainedConfig, PreTrainedTokenizerBase]],
    ) -> tuple[PretrainedConfig, PreTrainedTokenizerBase]:
        """Return a model's configuration and tokenizer, loaded unless they were before."""
        if key not in self._read:
            self._read[key] = load()
        return self._read[key]

    def is_resident(self, side: str) -> bool:
        """Whether a side's weights are in memory."""
        return side in self._engines

    def was_loaded(self, side: str) -> bool:
        """Whether a side's weights were in memory before, and so can be loaded."""
        return side in self._known

    def engine(
        self,
        side: str,
        key: ModelConfig,
        room: tuple[torch.device, Callable[[], int | None]],
        open_engine: Callable[[Weights | None], tuple[Weights, LocalEngine]],
    ) -> LocalEngine:
        """Return a side's engine, loading its weights if need be.

        Args:
            side: The side's name.
            key: What identifies the weights.
            room: The device that the weights go to, and what tells how many bytes they take.
            open_engine: Returns weights and engine, given the weights if they are loaded.

        Raises:
            EngineError: There is not enough memory, even for this model alone.
        """
        with self.lock:
            if side not in self._engines:
                key = self._own.get(side, key)
                if key not in self.weights:
                    self._make_room(side, *room)
                model = "model" if side == "model" else f"{side} model"
                with told(f"loading the {model} and trying how its rows are best scored"):
                    try:
                        opened = _attempt(open_engine, self.weights.get(key))
                    except DrSoWError:
                        self._forget(key)  # an adapter may be on it by half
                        raise
                    if opened is None and self._release(side, room[0]):
                        opened = _attempt(open_engine, None)
                if opened is None:
                    raise EngineError(
                        f"Out of memory while loading the {model} on {room[0]}. Use a "
                        "smaller dtype, quantization=…, or spread it with device_map=auto."
                    )
                weights, engine = opened
                if weights.owner is not None and side not in self._own:
                    self._forget(key)  # whoever shares them loads them anew
                    key = self._own[side] = replace(key, adapter=side)
                self.weights[key], self._engines[side] = weights, (key, engine)
                self._known.add(side)
            return self._engines[side][1]

    def _make_room(
        self, side: str, device: torch.device, weight_bytes: Callable[[], int | None]
    ) -> None:
        free = free_memory(device) if self.weights else None
        size = None if free is None else weight_bytes()
        if free is not None and size is not None and size * _ROOM > free:
            self._release(side, device)

    def _release(self, side: str, device: torch.device) -> bool:
        """Let go of the weights on a device; tell whether there were any."""
        there = {
            key
            for key, held in self.weights.items()
            if held.device == device and key.given.model is None
        }
        if there and not self._warned:
            logger.warning(
                "The %s model does not fit on %s beside what is there (%s): the models take "
                "turns, each loaded again for every call. Score many rows at once (shard_rows=, "
                "or batch_size= of map).",
                *(side, device, ", ".join(sorted(self._engines))),
            )
            self._warned = True
        self._forget(*there)
        import torch

        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return bool(there)

    def _forget(self, *keys: ModelConfig) -> None:
        self.weights = {key: held for key, held in self.weights.items() if key not in keys}
        self._engines = {
            name: held for name, held in self._engines.items() if held[0] in self.weights
        }


def free_memory(device: torch.device) -> int | None:
    """Return the bytes that are free on a device; ``None`` if it does not tell."""
    from drsow_plugin.engines.local import budget

    return budget.free_memory(device)


def _attempt(
    open_engine: Callable[[Weights | None], tuple[Weights, LocalEngine]], weights: Weights | None
) -> tuple[Weights, LocalEngine] | None:
    """Open an engine; ``None`` if memory ran out, with nothing of the attempt left behind."""
    import torch

    try:
        return open_engine(weights)
    except torch.OutOfMemoryError:
        return None
