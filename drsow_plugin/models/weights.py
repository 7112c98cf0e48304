"""Loads weights, which several models may use, and puts adapters on top of them."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from drsow_plugin.config.model import ModelConfig
from drsow_plugin.engines.local.compiled import CompiledLayers
from drsow_plugin.engines.local.configuration import set_for_scoring
from drsow_plugin.engines.local.network import Network
from drsow_plugin.engines.local.probe import Sharing, find_sharing
from drsow_plugin.errors import ConfigError, EngineError
from drsow_plugin.models.adapters import checksums, put_on, tensors_of, tried
from drsow_plugin.models.converted import loads_fast
from drsow_plugin.models.loading import load_causal_lm
from drsow_plugin.models.pickles import check_weights
from drsow_plugin.models.sources import Source, translated_errors

logger = logging.getLogger(__name__)


def resolve_device(side: str, config: ModelConfig) -> torch.device:
    """Return where a side's weights go.

    Raises:
        ConfigError: The device does not exist on this machine.
    """
    if config.given.model is not None:
        return torch.device(config.given.model.device)
    if config.device is None:
        if torch.accelerator.is_available():
            accelerator = torch.accelerator.current_accelerator()
            return torch.device(accelerator.type if accelerator else "cpu", 0)
        return torch.device("cpu")
    try:
        device = torch.device(config.device)
        torch.empty(1, device=device).sum().item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(
            f"{side}_device={config.device!r} cannot be used here: {str(error).splitlines()[0]} "
            "Use 'cpu', or 'cuda:N' with a GPU that torch sees."
        ) from error
    return device


def resolve_dtype(config: ModelConfig, device: torch.device) -> str:
    """Return the dtype to load weights in: float32 on a CPU, else the checkpoint's own."""
    if config.given.model is not None:
        return str(config.given.model.dtype).removeprefix("torch.")
    if config.dtype is not None:
        return config.dtype
    return "float32" if device.type == "cpu" and config.device_map is None else "auto"


def dtype_of(config: ModelConfig, device: torch.device, hf_config: Any) -> str:
    """Return the dtype that the weights will have, with the checkpoint's own by name."""
    dtype = resolve_dtype(config, device)
    if dtype != "auto":
        return dtype
    return str(getattr(hf_config, "dtype", None) or "auto").removeprefix("torch.")


class Weights:
    """Loaded weights, and the adapters that may be put on top of them.

    Attributes:
        model: The model.
        owner: The only side that may use them, because of what its adapter did to them;
            ``None`` if any may.
    """

    def __init__(self, side: str, config: ModelConfig, source: Source) -> None:
        """Load the weights of one side.

        Raises:
            ConfigError: They cannot be loaded as asked for.
        """
        self.model: Any = config.given.model
        self._is_given = self.model is not None
        if not self._is_given:
            self.model = _load(side, config, source)
        self.owner: str | None = None
        self._label = f"{side}={config.source!r}"
        # What is asked for attends, row by row.
        self._may_share = config.attn_implementation is None
        self._compile = config.compile
        self._adapted: Any = None
        self._ready: dict[str | None, tuple[Network, Sharing | None]] = {}
        self._lock = threading.RLock()  # an adapter is on or off for all that use the weights

    @property
    def has_adapter(self) -> bool:
        """Whether there is an adapter on top."""
        return self._adapted is not None

    @property
    def device(self) -> torch.device:
        """Where token ids go in."""
        return next(iter(self._ready.values()))[0].device

    def ready(
        self, adapter: str | None, label: str | None = None
    ) -> tuple[Network, Sharing | None]:
        """Return the model with the named side's adapter, or none, and how its rows share.

        Args:
            adapter: The side.
            label: What the model is called in an error, if not by its own name.

        Raises:
            ConfigError: The model, as it is with that adapter, cannot be scored.
        """
        label = label or self._label
        with self.use(adapter):
            if adapter not in self._ready:
                with translated_errors(label, None):
                    try:
                        network = Network(self.model)
                        sharing = find_sharing(network) if self._may_share else None
                        if sharing is None:  # nothing is known of its masks
                            network.check_long_sequences()
                        self._compile_layers(network, sharing)
                    except ConfigError as error:
                        raise ConfigError(f"{label}: {error}") from error
                self._ready[adapter] = (network, sharing)
            return self._ready[adapter]

    def _compile_layers(self, network: Network, sharing: Sharing | None) -> None:
        if sharing is not None:
            network.compiled = CompiledLayers(network, self._compile)
        elif self._compile == "on":
            logger.warning("%s: compile=on has no effect: rows are scored one by one.", self._label)

    def add_adapter(self, side: str, config: ModelConfig) -> None:
        """Put a side's PEFT adapter on top, under the side's name; it is off until used.

        Where that changes the weights themselves, or what the model does with the adapter off,
        the weights are the side's own from then on: see :attr:`owner`.

        Raises:
            ConfigError: It cannot be loaded, or does not belong to these weights.
        """
        with self._lock:  # nobody scores with these weights meanwhile
            with self.use(None):
                before, tensors = tried(self.model), tensors_of(self.model)
                sums = checksums(tensors)
            self._adapted = put_on(self.model, self._adapted, side, config)
            self.ready(side, f"{side}_adapter={config.adapter!r}")
            with self.use(side):
                with_adapter = tried(self.model)
            with self.use(None):
                is_unmoved = torch.equal(tried(self.model), before)
            if not is_unmoved or checksums(tensors) != sums:
                self.owner = side
            elif torch.equal(with_adapter, before):
                logger.warning(
                    "%s_adapter=%r changes nothing on the tokens that were tried.",
                    *(side, config.adapter),
                )

    @contextmanager
    def use(self, adapter: str | None) -> Iterator[None]:
        """Return a context in which the named side's adapter, or none, is active.

        Raises:
            EngineError: The weights have become another side's own.
        """
        with self._lock:
            if self.owner not in (None, adapter):
                raise EngineError(
                    f"The {self.owner} adapter changed the weights under it, which were in use "
                    "in another thread. Score again: they are loaded anew."
                )
            if self._is_given:
                with _evaluating(self.model):
                    yield
            elif self._adapted is None:
                yield
            elif adapter is None:
                with self._adapted.disable_adapter():
                    yield
            else:
                self._adapted.set_adapter(adapter)
                self._adapted.eval()
                yield


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    """Let somebody's model score as in evaluation mode, and leave it as it was.

    No inference mode: what a model keeps of it, such as rotary factors, cannot be trained with.
    """
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    configs = [getattr(module, "config", None) for module in model.modules()]
    changed = [(config, set_for_scoring(config)) for config in configs]
    try:
        with torch.inference_mode(False), torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True
        for config, before in changed:
            for name, value in before.items():
                setattr(config, name, value)


def loading_arguments(side: str, config: ModelConfig, source: Source) -> dict[str, Any]:
    """Return what ``from_pretrained`` of any kind of model takes, as the options ask for it.

    Raises:
        ConfigError: The device does not exist, the quantization is none, or the weights are in
            pickles.
    """
    device = resolve_device(side, config)
    check_weights(side, config, source)
    source = loads_fast(side, config, source, "model")
    arguments = source.arguments(config) | {"dtype": resolve_dtype(config, device)}
    if not config.allow_pickle:
        arguments["use_safetensors"] = True
    if config.attn_implementation is not None:
        arguments["attn_implementation"] = config.attn_implementation
    if config.quantization is not None:
        arguments["quantization_config"] = _quantization_config(config.quantization)
    if config.device_map is not None:
        arguments["device_map"] = _device_map(config.device_map)
    elif config.quantization is not None or device.type != "cpu":
        arguments["device_map"] = {"": str(device)}
    return arguments


def set_for_dtype(model: Any, dtype: object) -> None:
    """Put a loaded model into evaluation, with kernels that know its dtype."""
    model.train(False)
    if dtype == "float64" and hasattr(model, "set_experts_implementation"):
        model.set_experts_implementation("eager")  # the faster ones know no float64


def _load(side: str, config: ModelConfig, source: Source) -> Any:
    arguments = loading_arguments(side, config, source)
    source = loads_fast(side, config, source, "model")
    with translated_errors(f"{side}={config.source!r}", config.revision):
        model, missing = load_causal_lm(source.name, **arguments)
    if missing:
        raise ConfigError(
            f"{side}={config.source!r}: the checkpoint lacks {len(missing)} weights of a "
            f"{type(model).__name__}, such as {min(missing)}, so it is no whole causal "
            "language model. A trained reward model or classifier cannot be a side."
        )
    set_for_dtype(model, arguments["dtype"])
    return model


def _quantization_config(text: str) -> Any:
    from transformers.quantizers.auto import AutoQuantizationConfig

    try:
        return AutoQuantizationConfig.from_dict(json.loads(text))
    except (ValueError, TypeError, ImportError) as error:
        raise ConfigError(f"This quantization config cannot be used: {error}") from error


def _device_map(text: str) -> Any:
    return json.loads(text) if text.startswith("{") else text


def weight_bytes(config: Any, dtype: str, trust_remote_code: bool) -> int | None:
    """Return the bytes that a model's weights take, by its configuration; loads none.

    Returns:
        ``None`` where that cannot be told.
    """
    from transformers import AutoModelForCausalLM

    try:
        with torch.device("meta"):
            build: Any = AutoModelForCausalLM.from_config
            model = build(config, trust_remote_code=trust_remote_code)
    except Exception:  # a model's own code, which may need more than its configuration
        return None
    kind = getattr(torch, dtype, None) or getattr(config, "dtype", None) or torch.float32
    return int(sum(p.numel() for p in model.parameters()) * kind.itemsize)
