"""Attention over a packed tree of token ids, as an attention function of transformers.

Up to rounding, for each sequence, whose tokens are at ``slots`` of a layer's queries, keys and
values, (heads, slots, size)::

    scaled_dot_product_attention(query[:, slots], key[:, slots], value[:, slots], is_causal=True)

Each run of new tokens attends to the keys of the tokens before it in its own sequence, and
causally to itself, as far back as the model's mask says. A layer is handed that mask as a tensor
of one number, by which it is found again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch

from drsow_plugin.engines.local.masks import Masks, UnshareableError
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
"""From queries, (heads, tokens, size), and keys and values, (key heads, slots, size), to the
attended values, (tokens, heads, size)."""


def attend_to_nothing(query: torch.Tensor, _key: Any, value: torch.Tensor, *_: Any) -> torch.Tensor:
    """Return zeros; a :data:`Kernel`."""
    return query.new_zeros(query.shape[1], query.shape[0], value.shape[-1])


@dataclass
class Packing:
    """One chunk on its way through a model's layers.

    Attributes:
        chunk: What is computed.
        kernel: What attends.
        cache: KV cache of the chunk's prefix: for each layer keys and values, (key heads,
            prefix, size).
        next_cache: The KV cache to carry to the next chunk, filled in layer by layer.
        masks: The masks that the model makes and hands to its layers.
    """

    chunk: Chunk
    kernel: Kernel
    cache: Sequence[KeyValue]
    next_cache: list[KeyValue] = field(default_factory=list)
    masks: Masks = field(default_factory=Masks)
    _tensors: dict[Any, torch.Tensor] = field(default_factory=dict)

    def with_cache(self, key: torch.Tensor, value: torch.Tensor) -> KeyValue:
        """Return the layer's keys and values behind those of the KV cache; fill the next one."""
        if self.cache:
            cached_key, cached_value = self.cache[len(self.next_cache)]
            key = torch.cat([cached_key.to(key.device), key], dim=1)
            value = torch.cat([cached_value.to(value.device), value], dim=1)
        slots = self.on("next_cache", self.chunk.next_cache, key.device)
        self.next_cache.append((key.index_select(1, slots), value.index_select(1, slots)))
        return key, value

    def on(self, name: str, values: Any, device: torch.device) -> torch.Tensor:
        """Return an array of the chunk's as a tensor on a device; made once for all layers."""
        where = (name, device)
        if where not in self._tensors:
            self._tensors[where] = torch.as_tensor(values).to(device)
        return self._tensors[where]

    def mask(self, run: Run, window: int | None, like: torch.Tensor) -> torch.Tensor:
        """Return what is added to a run's logits: 0 where a key is seen, else minus infinity.

        Returns:
            (run's tokens, its keys), with the dtype and device of ``like``.
        """
        first, length = run.num_keys - (run.stop - run.start), run.num_keys
        if length > _MASK_LENGTH:
            return _causal(first, length, window, like)
        where = (window, like.dtype, like.device)
        if where not in self._tensors or len(self._tensors[where]) < length:
            longest = max(run.num_keys for run in self.chunk.runs)
            self._tensors[where] = _causal(0, min(longest, _MASK_LENGTH), window, like)
        return self._tensors[where][first:length, :length]


_current: ContextVar[Packing] = ContextVar("packing")


@contextmanager
def packed(model: Any, packing: Packing) -> Iterator[None]:
    """Let a model's layers attend as a packing says."""
    from transformers import AttentionInterface, AttentionMaskInterface

    configs = {
        id(module.config): module.config
        for module in model.modules()
        if hasattr(getattr(module, "config", None), "_attn_implementation")
    }.values()
    own = [config._attn_implementation for config in configs]
    AttentionInterface.register(NAME, tree_attention)
    AttentionMaskInterface.register(NAME, tree_mask)
    token = _current.set(packing)
    try:
        for config in configs:
            config._attn_implementation = NAME
        yield
    finally:
        for config, implementation in zip(configs, own, strict=True):
            config._attn_implementation = implementation
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
    attended = packing.kernel(
        query[0], keys, values, packing, Options(scaling, window, softcap, sinks)
    )
    return attended.unsqueeze(0), None


def _causal(start: int, stop: int, window: int | None, like: torch.Tensor) -> torch.Tensor:
    """Return the mask of the queries at positions from start to stop for all keys before stop."""
    queries = torch.arange(start, stop, device=like.device).unsqueeze(1)
    keys = torch.arange(stop, device=like.device)
    hidden = keys > queries
    if window is not None:
        hidden |= keys <= queries - window
    zeros = torch.zeros(hidden.shape, dtype=like.dtype, device=like.device)
    return zeros.masked_fill_(hidden, float("-inf"))
