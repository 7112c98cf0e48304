"""Attention over a packed tree of token ids, as an attention function of transformers.

A packed sequence holds many rows that share their prefixes. Each run of new tokens attends to
the keys of the tokens before it in its own row, wherever these lie, and causally to itself, as
far back as the model's mask says. A layer is handed that mask as a tensor of one number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import Any

import torch

from drsow_plugin.engines.local.masks import Reach, UnshareableError, reach_of
from drsow_plugin.engines.local.tree import Chunk, Run

NAME = "drsow_tree"
_MASK_LENGTH = 2048  # most tokens of a context whose mask is kept: 16 MB in float32
_FIRST_MARK = 97  # a number that nobody else writes into a mask
# What models pass beside these, and what does not change attention as it is done here.
_HARMLESS = {
    *("position_ids", "cache_position", "position_embeddings", "use_cache", "cu_seq_lens_q"),
    *("cu_seq_lens_k", "max_length_q", "max_length_k", "layer_idx", "logits_to_keep"),
}

KeyValue = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Options:
    """How a layer attends.

    Attributes:
        scale: What products of queries and keys are multiplied by; ``None`` for the inverse
            root of the head's size.
        window: Most tokens that a token sees, itself included; ``None`` for all.
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


@dataclass
class Packing:
    """One chunk on its way through a model's layers.

    Attributes:
        chunk: What is computed.
        kernel: What attends.
        kept: For each layer the keys and values of the path before the chunk.
        keep: For each layer those of the path behind it, filled in layer by layer.
        masks: The masks that the model makes, in its order; ``None`` reads them.
        made: Those that it has made.
        used: Which of these a layer was handed; ``None`` for a layer that was handed none.
    """

    chunk: Chunk
    kernel: Kernel
    kept: Sequence[KeyValue]
    keep: list[KeyValue] = field(default_factory=list)
    masks: Sequence[Reach] | None = None
    made: list[Reach] = field(default_factory=list)
    used: set[int | None] = field(default_factory=set)
    _masks: dict[Any, torch.Tensor] = field(default_factory=dict)

    @property
    def runs(self) -> tuple[Run, ...]:
        """The runs of the chunk."""
        return self.chunk.runs

    def joined(self, key: torch.Tensor, value: torch.Tensor) -> KeyValue:
        """Put what was kept in front of a layer's keys and values, and keep what is needed."""
        if self.kept:
            before = self.kept[len(self.keep)]
            key, value = (
                torch.cat([b.to(x.device), x], dim=1)
                for b, x in zip(before, (key, value), strict=True)
            )
        keep = self.on("keep", self.chunk.keep, key.device)
        self.keep.append((key.index_select(1, keep), value.index_select(1, keep)))
        return key, value

    def on(self, name: str, values: Any, device: torch.device) -> torch.Tensor:
        """Return an array as a tensor on a device; made once for all layers there."""
        where = (name, device)
        if where not in self._masks:
            self._masks[where] = torch.as_tensor(values).to(device)
        return self._masks[where]

    def mask(self, run: Run, window: int | None, like: torch.Tensor) -> torch.Tensor:
        """Return what is added to a run's products: 0 where a key is seen, else minus infinity.

        Returns:
            (run's tokens, its context and itself).
        """
        context, length = run.context_length, run.context_length + run.stop - run.start
        if length > _MASK_LENGTH:
            return _causal(context, length, window, like)
        where = (window, like.dtype, like.device)
        if where not in self._masks or len(self._masks[where]) < length:
            longest = max(r.context_length + r.stop - r.start for r in self.runs)
            self._masks[where] = _causal(0, min(longest, _MASK_LENGTH), window, like)
        return self._masks[where][context:length, :length]

    def mark(self, arguments: dict[str, Any]) -> torch.Tensor:
        """Return what stands for a mask that the model makes, (1, 1, 1, 1)."""
        number = len(self.made)
        if self.masks is not None and number >= len(self.masks):
            raise UnshareableError("it makes other masks than at first")
        self.made.append(reach_of(arguments) if self.masks is None else self.masks[number])
        return torch.full((1, 1, 1, 1), float(_FIRST_MARK + number))

    def window(self, mark: torch.Tensor | None) -> int | None:
        """Return the window of the mask that a layer is handed."""
        if mark is None:
            self.used.add(None)
            return None
        number = mark.item() - _FIRST_MARK if mark.numel() == 1 else math.nan
        if number not in range(len(self.made)):
            raise UnshareableError("its attention takes a mask that is not transformers' own")
        self.used.add(int(number))
        return self.made[int(number)].window

    @property
    def longest(self) -> int | None:
        """Most tokens of a row in which the masks that layers were handed are as they were read."""
        reaches = (self.made[number] for number in self.used if number is not None)
        return min((r.longest for r in reaches if r.longest is not None), default=None)

    @cached_property
    def seen(self) -> Seen:
        """What the runs see, one run behind the other."""
        kept = self.chunk.kept
        stretches = [(*run.context, (kept + run.start, kept + run.stop)) for run in self.runs]
        slots = [torch.cat([torch.arange(*stretch) for stretch in each]) for each in stretches]
        queries = [0, *(run.stop for run in self.runs)]
        keys = [0, *accumulate(map(len, slots))]
        return Seen(
            torch.cat(slots), *(torch.tensor(x, dtype=torch.int32) for x in (queries, keys))
        )


@dataclass(frozen=True)
class Seen:
    """The keys of all runs laid out in a row, and where those of each run, and it, end.

    Attributes:
        slots: Where the keys lie, (keys,).
        queries: Ends of the runs, after a 0, (runs + 1,), int32.
        keys: Ends of their keys, after a 0, (runs + 1,), int32.
    """

    slots: torch.Tensor
    queries: torch.Tensor
    keys: torch.Tensor


_current: ContextVar[Packing] = ContextVar("packing")


@contextmanager
def packed(model: Any, packing: Packing) -> Iterator[None]:
    """Let a model's layers attend as a packing says."""
    from transformers import AttentionInterface, AttentionMaskInterface

    configs = {
        id(module.config): module.config
        for module in model.modules()
        if hasattr(getattr(module, "config", None), "_attn_implementation")
    }
    own = {key: config._attn_implementation for key, config in configs.items()}
    AttentionInterface.register(NAME, tree_attention)
    AttentionMaskInterface.register(NAME, tree_mask)
    token = _current.set(packing)
    try:
        for config in configs.values():
            config._attn_implementation = NAME
        yield
    finally:
        for key, config in configs.items():
            config._attn_implementation = own[key]
        _current.reset(token)


def tree_mask(attention_mask: torch.Tensor | None = None, **arguments: Any) -> torch.Tensor:
    """Mark a mask of the model's; see transformers' ``AttentionMaskInterface``.

    Raises:
        UnshareableError: It is neither causal nor a causal window.
    """
    if attention_mask is not None and not attention_mask.all():
        raise UnshareableError("it hides tokens of its own choice")
    return _current.get().mark(arguments)


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
    given = {name: v for name, v in options.items() if v is not None and name not in _HARMLESS}
    softcap, sinks = given.pop("softcap", None), given.pop("s_aux", None)
    if attention_mask is not None:
        given.pop("sliding_window", None)  # it is in the mask, which is what others go by
    causal = given.pop("is_causal", True)
    odd = [name for name, v in given.items() if isinstance(v, torch.Tensor) or v not in (False, 0)]
    if not causal:
        odd.append("is_causal=False")
    if odd:
        raise UnshareableError(f"its attention takes {', '.join(odd)}")
    packing = _current.get()
    window = packing.window(attention_mask)
    if {(len(x), x.shape[2]) for x in (query, key)} != {(1, len(packing.chunk.ids))}:
        raise UnshareableError("its attention takes other tokens than those of a row")
    keys, values = packing.joined(key[0], value[0])
    how = Options(scaling, window, softcap, sinks)
    return packing.kernel(query[0], keys, values, packing, how).unsqueeze(0), None


def _causal(start: int, stop: int, window: int | None, like: torch.Tensor) -> torch.Tensor:
    """Return the mask of the queries at depths from start to stop for all keys before stop."""
    queries = torch.arange(start, stop, device=like.device).unsqueeze(1)
    keys = torch.arange(stop, device=like.device)
    hidden = keys > queries
    if window is not None:
        hidden |= keys <= queries - window
    zeros = torch.zeros(hidden.shape, dtype=like.dtype, device=like.device)
    return zeros.masked_fill_(hidden, float("-inf"))
