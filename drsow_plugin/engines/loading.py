"""Loads the weights of a pair; weights that both sides use are loaded once."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch

from drsow_plugin.config import ModelConfig
from drsow_plugin.engines.network import Network
from drsow_plugin.engines.sources import Source, translated_errors
from drsow_plugin.errors import ConfigError, MissingExtraError
from drsow_plugin.records import SideName

logger = logging.getLogger(__name__)


def resolve_device(config: ModelConfig) -> torch.device:
    """Return where a side's weights go.

    Raises:
        ConfigError: The device does not exist on this machine.
    """
    if config.device is None:
        if torch.accelerator.is_available():
            accelerator = torch.accelerator.current_accelerator()
            return torch.device(accelerator.type if accelerator else "cpu", 0)
        return torch.device("cpu")
    try:
        device = torch.device(config.device)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"device={config.device!r} cannot be used here: {str(error).splitlines()[0]} "
            "Use 'cpu', or 'cuda:N' with a GPU that torch sees."
        ) from error
    return device


def resolve_dtype(config: ModelConfig, device: torch.device) -> str:
    """Return the dtype to load weights in: float32 on a CPU, else the checkpoint's own."""
    if config.dtype is not None:
        return config.dtype
    return "float32" if device.type == "cpu" and config.device_map is None else "auto"


class Weights:
    """Loaded weights, and the adapters that may be put on top of them."""

    def __init__(self, side: SideName, config: ModelConfig, source: Source) -> None:
        """Load the weights of one side.

        Raises:
            ConfigError: They cannot be loaded as asked for.
        """
        from transformers import AutoModelForCausalLM

        device = resolve_device(config)
        arguments = source.arguments(config) | {"dtype": resolve_dtype(config, device)}
        if config.attn_implementation is not None:
            arguments["attn_implementation"] = config.attn_implementation
        if config.quantization is not None:
            arguments["quantization_config"] = _quantization_config(config.quantization)
        if config.device_map is not None:
            arguments["device_map"] = _device_map(config.device_map)
        elif config.quantization is not None or device.type != "cpu":
            arguments["device_map"] = {"": str(device)}
        with translated_errors(side, config):
            self.model: Any = AutoModelForCausalLM.from_pretrained(source.name, **arguments)
        self.model.train(False)
        self.network = Network(self.model)
        self._adapted: Any = None

    def add_adapter(self, side: SideName, config: ModelConfig) -> None:
        """Put a side's PEFT adapter on top, under the side's name; it is off until used.

        Raises:
            ConfigError: It cannot be loaded, or does not work by changing weights.
            MissingExtraError: PEFT is not installed.
        """
        try:
            from peft import PeftModel
        except ImportError as error:
            raise MissingExtraError(f"{side}_adapter", "peft") from error
        revision = {"revision": config.adapter_revision} if config.adapter_revision else {}
        named = ModelConfig(source=str(config.adapter), revision=config.adapter_revision)
        with translated_errors(side, named):
            if self._adapted is None:
                self._adapted = PeftModel.from_pretrained(
                    self.model, config.adapter, adapter_name=side, **revision
                )
            else:
                self._adapted.load_adapter(config.adapter, adapter_name=side, **revision)
        if self._adapted.peft_config[side].is_prompt_learning:
            raise ConfigError(
                f"{side}_adapter={config.adapter!r} adds virtual tokens to the prompt; only "
                "adapters that change weights, such as LoRA, can be scored."
            )
        self._adapted.eval()

    def use(self, adapter: SideName | None) -> AbstractContextManager[None]:
        """Return a context in which the named side's adapter, or none, is active."""
        return self._active(adapter)

    @contextmanager
    def _active(self, adapter: SideName | None) -> Iterator[None]:
        if self._adapted is None:
            yield
        elif adapter is None:
            with self._adapted.disable_adapter():
                yield
        else:
            self._adapted.set_adapter(adapter)
            self._adapted.eval()
            yield


def _quantization_config(text: str) -> Any:
    from transformers.quantizers.auto import AutoQuantizationConfig

    try:
        return AutoQuantizationConfig.from_dict(json.loads(text))
    except (ValueError, TypeError, ImportError) as error:
        raise ConfigError(f"This quantisation config cannot be used: {error}") from error


def _device_map(text: str) -> Any:
    return json.loads(text) if text.startswith("{") else text
