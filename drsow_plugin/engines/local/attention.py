"""Attention over a packed tree of token ids, as an attention function of transformers.

Up to rounding, for each sequence, whose tokens are at ``slots`` of a layer's queries, keys and
values, (heads, slots, size)::

    scaled_dot_product_attention(query[:, slots], key[:, slots], value[:, slots], is_causal=True)

Each run of new tokens attends to the keys of the tokens before it in its own sequence, and
causally to itself, as far back as the model's mask says. A layer is handed that mask as a tensor
of one number, by which it is found again.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from drsow_plugin.engines.local.failures import is_out_of_memory, one_line
from drsow_plugin.engines.local.masks import Masks, UnshareableError
from drsow_plugin.engines.local.transfer import moved
from drsow_plugin.engines.local.tree import Chunk, Run

NAME = "drsow_tree"
_MASK_LENGTH = 2048  # maximum keys of a run whose mask is made once: 16 MB in float32
# What models pass beside these, and what does not change attention as it is done here.
_HARMLESS = {
    "cache_position",
    "cu_seq_lens_k",
    "cu_seq_lens_q",
    "layer_idx",
    "logits_to_keep",
    "max_length_k",
    "max_length_q",
    "position_embeddings",
    "position_ids",
    "use_cache",
}

KeyValue = tuple[torch.Tensor, torch.Tensor]
T = TypeVar("T")


class KernelError(UnshareableError):
    """A kernel cannot attend as a layer asks; another one may."""


@dataclass(frozen=True)
class Options:
    """How a layer attends.

    Attributes:
        scale: What products of queries and keys are multiplied by; ``None`` for the inverse
            root of the head's size.
        window: Maximum number of tokens that a token sees, itself included; ``None`` for all.
        softcap: Bound of the products, by a hyperbolic tangent; ``None`` for none.
        sinks: One logit a head that takes part in the softmax and stands for nothing.
    """

    scale: float | None
    window: int | None
    softcap: float | None
    sinks: torch.Tensor | None


Kernel = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, "Packing", Options], torch.Tensor]
"""From queries, (heads, tokens, size), and keys and values, (slots, key heads, size) and
contiguous, to the attended values, (tokens, heads, value size)."""


def attend_to_nothing(query: torch.Tensor, _key: Any, value: torch.Tensor, *_: Any) -> torch.Tensor:
    """Return zeros; a :data:`Kernel`."""
    return query.new_zeros(query.shape[1], query.shape[0], value.shape[-1])


@dataclass
class Packing:
    """One chunk on its way through a model's layers.

    Attributes:
        chunk: What is computed.
        kernel: What attends.
        cache: KV cache of the chunk's prefix: for each layer keys and values, (prefix, key
            heads, size).
        next_cache: The KV cache to carry to the next chunk, filled in layer by layer.
        masks: The masks that the model makes and hands to its layers.
    """

    chunk: Chunk
    kernel: Kernel
    cache: Sequence[KeyValue]
    next_cache: list[KeyValue] = field(default_factory=list)
    masks: Masks = field(default_factory=Masks)
    _made: dict[Hashable, Any] = field(default_factory=dict)

    def with_cache(self, key: torch.Tensor, value: torch.Tensor) -> KeyValue:
        """Return the layer's keys and values behind those of the KV cache; fill the next one.

        Args:
            key: (key heads, tokens, size).
            value: (key heads, tokens, value size).

        Returns:
            (slots, key heads, size) each, contiguous: kernels gather whole slots.
        """
        before = self.cache[len(self.next_cache)] if self.cache else (None, None)
        joined_key, joined_value = map(_joined, before, (key, value))
        slots = self.on("next_cache", self.chunk.next_cache, key.device)
        self.next_cache.append((gathered(joined_key, slots), gathered(joined_value, slots)))
        return joined_key, joined_value

    def move(self, device: torch.device, more: Mapping[Hashable, npt.NDArray[np.integer]]) -> None:
        """Bring arrays that are known beforehand to a device, in one copy.

        Args:
            device: Where the token ids go in.
            more: What the kernel will ask for, by the names that :meth:`on` is given.
        """
        chunk = self.chunk
        arrays: dict[Hashable, npt.NDArray[np.integer]] = {
            "ids": chunk.ids,
            "positions": chunk.positions,
            "predicting_positions": chunk.predicting_positions,
            "next_cache": chunk.next_cache,
            **more,
        }
        for name, tensor in moved(arrays, device).items():
            self._made[name, device] = tensor

    def on(self, name: Hashable, values: Any, device: torch.device) -> torch.Tensor:
        """Return an array of the chunk's as a tensor on a device; made once for all layers."""
        return self.once((name, device), lambda: moved({name: values}, device)[name])

    def once(self, name: Hashable, make: Callable[[], T]) -> T:
        """Return what is made of the chunk, once for all layers."""
        if name not in self._made:
            self._made[name] = make()
        return self._made[name]  # type: ignore[no-any-return]

    def mask(self, run: Run, window: int | None, like: torch.Tensor) -> torch.Tensor:
        """Return what is added to a run's logits: 0 where a key is seen, else minus infinity.

        Returns:
            (run's tokens, its keys), with the dtype and device of ``like``.
        """
        first, length = run.num_keys - (run.stop - run.start), run.num_keys
        if length > _MASK_LENGTH:
            return _causal(first, length, window, like)
        longest = min(max(run.num_keys for run in self.chunk.runs), _MASK_LENGTH)
        where = (window, like.dtype, like.device)
        mask = self.once(where, lambda: _causal(0, longest, window, like))
        return mask[first:length, :length]


def _joined(cached: torch.Tensor | None, new: torch.Tensor) -> torch.Tensor:
    """Return (slots, key heads, size), contiguous, of what is new, (key heads, tokens, size)."""
    rows = new.transpose(0, 1)
    return rows.contiguous() if cached is None else torch.cat([cached.to(new.device), rows])


def gathered(slots: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    """Return some slots of (slots, key heads, size); each is one row, read as a whole."""
    return slots.flatten(1)[indices].view(-1, *slots.shape[1:])


_current: ContextVar[Packing] = ContextVar("packing")


def leave_out_of_graphs() -> None:
    """Let ``torch.compile`` leave :func:`tree_attention` out of its graphs, in this process."""
    global _registered
    if _registered is tree_attention:
        disable: Any = torch.compiler.disable
        _registered = disable(tree_attention)
        _register()


def _register() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, _registered)
    AttentionMaskInterface.register(NAME, tree_mask)


@contextmanager
def attending(model: Any) -> Iterator[None]:
    """Let a model's layers attend as packings say, until this context is left."""
    configs = {
        id(module.config): module.config
        for module in model.modules()
        if hasattr(getattr(module, "config", None), "_attn_implementation")
    }.values()
    own = [config._attn_implementation for config in configs]
    _register()
    try:
        for config in configs:
            config._attn_implementation = NAME
        yield
    finally:
        for config, implementation in zip(configs, own, strict=True):
            config._attn_implementation = implementation


@contextmanager
def packed(model: Any, packing: Packing) -> Iterator[None]:
    """Let a model's layers attend as one packing says; within :func:`attending` that is quick."""
    config = getattr(model, "config", None)
    is_attending = getattr(config, "_attn_implementation", None) == NAME
    with nullcontext() if is_attending else attending(model):
        token = _current.set(packing)
        try:
            yield
        finally:
            _current.reset(token)


def tree_mask(attention_mask: torch.Tensor | None = None, **arguments: Any) -> torch.Tensor:
    """Mark a mask of the model's; see transformers' ``AttentionMaskInterface``.

    Raises:
        UnshareableError: It is neither causal nor a causal window.
    """
    if attention_mask is not None and not attention_mask.all():
        raise UnshareableError("it hides tokens of its own choice")
    return _current.get().masks.mark(arguments)


def tree_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attend as the current packing says; see transformers' ``AttentionInterface``.

    Args:
        module: The layer; not looked at.
        query: (1, heads, tokens, size).
        key: (1, key heads, tokens, size).
        value: (1, key heads, tokens, value size).
        attention_mask: What :func:`tree_mask` returned, or ``None`` for a causal mask.
        scaling: See :class:`Options`.
        **options: ``softcap`` and ``s_aux`` are followed.

    Returns:
        (1, tokens, heads, value size), and no attention weights.

    Raises:
        UnshareableError: The layer asks for something else.
        KernelError: What the layer asks for is too much for the kernel.
    """
    asked = {name: v for name, v in options.items() if v is not None and name not in _HARMLESS}
    softcap, sinks = asked.pop("softcap", None), asked.pop("s_aux", None)
    if attention_mask is not None:
        asked.pop("sliding_window", None)  # it is in the mask, which is what others go by
    is_causal = asked.pop("is_causal", True)
    odd = [name for name, v in asked.items() if isinstance(v, torch.Tensor) or v not in (False, 0)]
    if not is_causal:
        odd.append("is_causal=False")
    if odd:
        raise UnshareableError(f"its attention takes {', '.join(odd)}")
    packing = _current.get()
    window = packing.masks.window(attention_mask)
    if {(len(x), x.shape[2]) for x in (query, key)} != {(1, len(packing.chunk.ids))}:
        raise UnshareableError("its attention takes other tokens than those of a row")
    keys, values = packing.with_cache(key[0], value[0])
    options_ = Options(scaling, window, softcap, sinks)
    try:
        attended = packing.kernel(query[0], keys, values, packing, options_)
    except Exception as error:
        if isinstance(error, KernelError) or is_out_of_memory(error):
            raise
        raise KernelError(f"it fails ({one_line(error)})") from error
    return attended.unsqueeze(0), None


_registered: Callable[..., Any] = tree_attention


def _causal(start: int, stop: int, window: int | None, like: torch.Tensor) -> torch.Tensor:
    """Return the mask of the queries at positions from start to stop for all keys before stop."""
    queries = torch.arange(start, stop, device=like.device).unsqueeze(1)
    keys = torch.arange(stop, device=like.device)
    hidden = keys > queries
    if window is not None:
        hidden |= keys <= queries - window
    zeros = torch.zeros(hidden.shape, dtype=like.dtype, device=like.device)
    return zeros.masked_fill_(hidden, float("-inf"))
