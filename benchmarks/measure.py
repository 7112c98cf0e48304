"""What the benchmarks measure with: counters, memory, and the speed of matrix products."""

from __future__ import annotations

import gc
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from workloads import Unique


def causal_lms() -> list[Any]:
    """Return the causal language models alive in this process, whoever loaded them."""
    from transformers import PreTrainedModel

    found = [thing for thing in gc.get_objects() if issubclass(type(thing), PreTrainedModel)]
    return [model for model in found if model.get_output_embeddings() is not None]


class HeadCounter(TorchFunctionMode):
    """Counts the positions that are multiplied with a vocabulary matrix, or a part of it.

    A hook on ``lm_head`` would miss code that multiplies with ``lm_head.weight`` itself, such
    as TRL's. A product with a part of the matrix counts as that part of a position.
    """

    def __init__(self, models: list[Any]) -> None:
        super().__init__()
        heads = [model.get_output_embeddings().weight for model in models]
        self._sizes = {head.untyped_storage().data_ptr(): head.shape[0] for head in heads}
        self.positions = 0.0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if getattr(func, "__name__", "") in _PRODUCTS and isinstance(result, torch.Tensor):
            for factor in args:
                if isinstance(factor, torch.Tensor):
                    size = self._sizes.get(factor.untyped_storage().data_ptr())
                    self.positions += result.numel() / size if size else 0
        return result


_PRODUCTS = {"linear", "mm", "matmul", "addmm", "bmm", "baddbmm", "__matmul__", "__rmatmul__"}
_PRODUCTS |= {"_linear_pointwise", "mkldnn_linear", "mv", "einsum"}


class Positions:
    """Counts what goes through the backbone and through the vocabulary projection."""

    def __init__(self) -> None:
        self.backbone = 0
        self.head = 0

    @contextmanager
    def counting(self, models: list[Any]) -> Iterator[None]:
        """Count while the context lasts: at the first decoder layer, and at the head."""
        counter = HeadCounter(models)
        hooks = [
            model.get_decoder().layers[0].register_forward_pre_hook(self._count, with_kwargs=True)
            for model in models
        ]
        try:
            with counter:
                yield
        finally:
            self.head += round(counter.positions)
            for hook in hooks:
                hook.remove()

    def _count(self, _layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        hidden = args[0] if args else kwargs["hidden_states"]
        self.backbone += hidden.numel() // hidden.shape[-1]


def resident_mb() -> dict[str, float]:
    """Return this process's resident memory, now and at its peak since the last reset."""
    status = Path("/proc/self/status").read_text()
    found = {name: int(kb) / 1024 for name, kb in re.findall(r"(VmRSS|VmHWM):\s+(\d+) kB", status)}
    return {"now": found["VmRSS"], "peak": found["VmHWM"]}


def reset_peak() -> None:
    """Begin a new peak of resident memory. Linux only."""
    Path("/proc/self/clear_refs").write_text("5")


def available_gb() -> float:
    """Return the memory that is free for new work."""
    match = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    return int(match[1]) / 1024**2 if match else 0.0


def cpu_name() -> str:
    """Return the processor as the system names it, with its number of cores."""
    match = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    return f"{match[1].strip() if match else 'unknown CPU'}, {os.cpu_count()} cores"


Shape = tuple[int, int, int]
_QUEUED = 50


def product_speed(
    shape: Shape, dtype: torch.dtype, device: str = "cpu", seconds: float = 2
) -> float:
    """Return the FLOP/s of (m, k) times (n, k) transposed: the best of several goes.

    The operands lie as a linear layer has them.
    """
    m, k, n = shape
    left = torch.randn(m, k, device=device).to(dtype)
    right = torch.randn(n, k, device=device).to(dtype)
    best = float("inf")
    with torch.inference_mode():
        torch.nn.functional.linear(left, right)
        begun = time.monotonic()
        while time.monotonic() - begun < seconds:
            _synchronise(device)
            started = time.perf_counter()
            torch.nn.functional.linear(left, right)
            _synchronise(device)
            best = min(best, time.perf_counter() - started)
    return 2 * m * k * n / best


def sustained_speed(
    shape: Shape, dtype: torch.dtype, device: str = "cpu", seconds: float = 15
) -> float:
    """Return the FLOP/s of the same product over some seconds, as long as a limit of power lets it.

    Products are queued a number at a time, so that nothing waits for the host between them.
    """
    m, k, n = shape
    left = torch.randn(m, k, device=device).to(dtype)
    right = torch.randn(n, k, device=device).to(dtype)
    done, queued = 0, 1 if device == "cpu" else _QUEUED
    with torch.inference_mode():
        torch.nn.functional.linear(left, right)
        _synchronise(device)
        started = time.perf_counter()
        while time.perf_counter() - started < seconds:
            for _ in range(queued):
                torch.nn.functional.linear(left, right)
            _synchronise(device)
            done += queued
    return 2 * m * k * n * done / (time.perf_counter() - started)


def _synchronise(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def product_shapes(config: Any, square: int) -> dict[str, Shape]:
    """Return the shapes to measure: a big square, and what a model of this shape does."""
    hidden, inner, vocab = config.hidden_size, config.intermediate_size, config.vocab_size
    return {
        "square": (square, square, square),
        "up": (2048, hidden, inner),
        "down": (2048, inner, hidden),
        "attention": (2048, hidden, hidden),
        "vocabulary": (512, hidden, vocab),
    }


def floor_flops(config: Any, backbone_parameters: int, count: Unique) -> float:
    """Return the multiplications and additions of the unique tokens, each done once.

    Args:
        config: The model's.
        backbone_parameters: Without embeddings and without the vocabulary matrix.
        count: What is unique; its context lengths are those of the attention.
    """
    width = config.num_attention_heads * (
        getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    )
    return (
        2 * backbone_parameters * count.backbone
        + 4 * width * config.num_hidden_layers * count.context
        + 2 * config.hidden_size * config.vocab_size * count.head
    )


def backbone_parameters(model: Any) -> int:
    """Return the parameters of a model without its embeddings and its vocabulary matrix."""
    tables = {id(layer.weight): layer.weight.numel() for layer in _tables(model)}
    return sum(parameter.numel() for parameter in model.parameters()) - sum(tables.values())


def _tables(model: Any) -> list[Any]:
    return [model.get_input_embeddings(), model.get_output_embeddings()]
