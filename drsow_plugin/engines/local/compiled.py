"""Decoder layers compiled by ``torch.compile``, their attention left out of the graphs.

Up to rounding, for each decoder layer of a model::

    torch.compile(layer.forward, dynamic=True) == layer.forward

What stands between two matrix products (normalisation, rotation, activation, residuals) becomes one
kernel that reads and writes each number once. All layers of one kind share their graphs, whatever
the number of tokens. Compiled layers take the place of the model's own for a chunk of packed
rows at a time; everything else, the probe included, runs the model as it is.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from drsow_plugin.engines.local.attention import Kernel, Packing, leave_out_of_graphs
from drsow_plugin.engines.local.failures import is_out_of_memory, one_line
from drsow_plugin.engines.local.masks import UnshareableError
from drsow_plugin.engines.local.noise import perturbed
from drsow_plugin.engines.local.tree import TokenTree
from drsow_plugin.records import TokenPair

if TYPE_CHECKING:
    from drsow_plugin.engines.local.network import Network

logger = logging.getLogger(__name__)

# Bytes of hidden states, over all layers, that a GPU reads before `auto` compiles. A compiled layer
# moves some 50 times their bytes less, at 3 TB/s, and compiling takes 25 s (an estimate): by then
# what it would have saved is what it costs.
_REPAYS = 25 * 3e12 / 50
_MAX_COMPILED = 64  # times that a piece of code is compiled anew; by default it would be 8
_TRIED = 24  # tokens of the sequence on which compiled layers are compared with the others
_PATTERN = 13  # of the signs of the rounding that differences are measured by
_MAX_DIFFERENCE = 4.0  # in units of what one rounding of the model's input comes to …
_MIN_DIFFERENCE = 1e-4  # … or, where that is more, in standard deviations of the log-probs
# Weights, and in buffers masks and positions; quantized weights are of other types.
_PLAIN = {torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.bool, torch.int64}


class CompiledLayers:
    """The decoder layers of a network, compiled as soon as that is of use."""

    def __init__(self, network: Network, mode: str) -> None:
        """Compile nothing yet.

        Args:
            network: The model.
            mode: ``on`` compiles before the first chunk; ``auto`` on a GPU, once so much was
                computed that compiling would have cost no more than it would have saved.
        """
        self._network, self._is_asked_for = network, mode == "on"
        self._layers = decoder_layers(network.backbone, network.num_layers)
        self._forwards: list[Callable[..., Any]] | None = None
        self._is_off = mode == "off" or (mode == "auto" and network.device.type != "cuda")
        self._bytes_left = 0.0 if self._is_asked_for else _REPAYS

    @property
    def is_compiled(self) -> bool:
        """Whether chunks are computed by compiled layers."""
        return self._forwards is not None and not self._is_off

    def hidden_of_chunk(self, packing: Packing) -> torch.Tensor:
        """Return the hidden states of a chunk; see :meth:`.Network.hidden_of_chunk`."""
        tokens = len(packing.chunk.ids)
        # A single token would be a graph of its own.
        if self._is_off or tokens == 1 or not self._is_ready(packing.kernel, tokens):
            return self._network.hidden_by_layers(packing)
        try:
            with self._in_place():
                return self._network.hidden_by_layers(packing)
        except UnshareableError:
            raise
        except Exception as error:  # of a compiler: whatever it may be
            if is_out_of_memory(error):
                raise
            self._turn_off(one_line(error))
        return self._network.hidden_by_layers(packing)

    def _is_ready(self, kernel: Kernel, tokens: int) -> bool:
        """Tell whether there are compiled layers that may be used now; compile them in time."""
        network = self._network
        size = network.embeddings.weight.shape[-1] * network.dtype.itemsize
        self._bytes_left -= tokens * network.num_layers * size
        if self._bytes_left > 0:
            return False
        problem = problem_of(self._layers)
        if not problem and self._forwards is None:
            problem = self._compile(kernel)
        if problem:
            self._turn_off(problem)
        return not problem

    def _compile(self, kernel: Kernel) -> str:
        """Compile the layers and compare a few log-probs; return what is wrong, if anything."""
        leave_out_of_graphs()
        plain = self._logprobs(kernel)
        with perturbed(self._network.embeddings, _PATTERN):
            noise = _rms(self._logprobs(kernel), plain)
        try:
            self._forwards = [torch.compile(each.forward, dynamic=True) for each in self._layers]
            with self._in_place():
                difference = _rms(self._logprobs(kernel), plain)
        except Exception as error:
            if is_out_of_memory(error):
                self._forwards = None
                raise
            return one_line(error)
        minimum = _MIN_DIFFERENCE * float(plain[plain.isfinite()].std())
        if not difference <= max(_MAX_DIFFERENCE * noise, minimum):
            return f"log-probs come out otherwise, by {difference:.2g} nats"
        logger.info("%s: its layers are compiled.", self._network.name)
        return ""

    def _logprobs(self, kernel: Kernel) -> torch.Tensor:
        """Return the log-probs behind each of a few tokens, (tokens, vocabulary), in nats."""
        ids = self._network.ordinary_ids(_TRIED)[0].tolist()
        tree = TokenTree([TokenPair(tuple(ids[:1]), tuple(ids[1:]))])
        packing = Packing(tree.chunk(tree.start, tree.size), kernel, cache=())
        logits = self._network.logits(self._network.hidden_by_layers(packing))
        return logits.cpu().double().log_softmax(-1)

    def _turn_off(self, reason: str) -> None:
        self._is_off, self._forwards = True, None
        level = logging.WARNING if self._is_asked_for else logging.INFO
        logger.log(level, "%s: its layers run without compiling: %s.", self._network.name, reason)

    @contextmanager
    def _in_place(self) -> Iterator[None]:
        """Let the compiled layers take the place of the model's own.

        Code of transformers that several architectures run is compiled for each of them. Past a
        limit torch would run it as it is, without an error.
        """
        limits: dict[str, Any] = {
            "recompile_limit": _MAX_COMPILED,
            "fail_on_recompile_limit_hit": True,
        }
        for layer, forward in zip(self._layers, self._forwards or (), strict=True):
            layer.forward = forward
        try:
            with torch._dynamo.config.patch(**limits):
                yield
        finally:
            for layer in self._layers:
                layer.__dict__.pop("forward", None)


def decoder_layers(backbone: torch.nn.Module, number: int) -> list[torch.nn.Module]:
    """Return the layers of a backbone that has so many of them; none where they are not found."""
    for module in backbone.modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == number:
            return [*module]
    return []


def problem_of(layers: list[torch.nn.Module]) -> str:
    """Return why layers are better not compiled; empty if nothing speaks against it.

    Hooks of a layer itself run outside of its ``forward``, so they stay in force.
    """
    if not layers:
        return "they were not found"
    for layer in layers:
        for module in layer.modules():
            if type(module).__module__.startswith("peft."):
                return "an adapter is on them"
            is_hooked = module._forward_hooks or module._forward_pre_hooks
            if "forward" in vars(module) or (is_hooked and module is not layer):
                return "there are hooks in them"
            if any(map(_is_quantized, [*module._parameters.values(), *module._buffers.values()])):
                return "they are quantized"
    return ""


def _is_quantized(tensor: torch.Tensor | None) -> bool:
    is_plain = tensor is None or (tensor.dtype in _PLAIN and type(tensor.data) is torch.Tensor)
    return not is_plain


def _rms(first: torch.Tensor, second: torch.Tensor) -> float:
    """Return the root of the mean square of what log-probs differ in, in nats."""
    difference = torch.where(first == second, 0.0, first - second)  # both may be minus infinity
    return float(difference.square().mean().sqrt())
