"""Attention over a packed tree of token ids, as an attention function of transformers.

A packed sequence holds many rows that share their prefixes. Each run of new tokens attends to
the keys of the tokens before it in its own row, wherever these lie, and causally to itself.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention

from drsow_plugin.engines.tree import Chunk, Run

NAME = "drsow_tree"
_MASK_LENGTH = 2048  # most tokens of a context whose mask is kept: 16 MB in float32
# What models pass beside these, and what does not change attention as it is done here.
_HARMLESS = {
    *("position_ids", "cache_position", "position_embeddings", "use_cache", "cu_seq_lens_q"),
    *("cu_seq_lens_k", "max_length_q", "max_length_k", "layer_idx", "logits_to_keep"),
}

KeyValue = tuple[torch.Tensor, torch.Tensor]


class UnshareableError(Exception):
    """A model attends in a way that a packed tree of rows cannot follow."""


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
    """

    chunk: Chunk
    kernel: Kernel
    kept: Sequence[KeyValue]
    keep: list[KeyValue] = field(default_factory=list)
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

    @cached_property
    def gathering(self) -> tuple[torch.Tensor, Lengths]:
        """Slots of the keys that each run sees, one run behind the other, and their numbers."""
        kept = self.chunk.kept
        seen = [
            torch.cat(
                [torch.arange(a, b) for a, b in (*r.context, (kept + r.start, kept + r.stop))]
            )
            for r in self.runs
        ]
        queries = [0, *(run.stop for run in self.runs)]
        keys = [0, *accumulate(map(len, seen))]
        return torch.cat(seen), Lengths(queries, keys)


@dataclass(frozen=True)
class Lengths:
    """Where the queries and the keys of each run end when all are laid out in a row."""

    queries: list[int]
    keys: list[int]

    @property
    def longest_query(self) -> int:
        """Tokens of the longest run."""
        return max(b - a for a, b in pairwise(self.queries))

    @property
    def longest_key(self) -> int:
        """Most tokens that a run sees."""
        return max(b - a for a, b in pairwise(self.keys))


_current: ContextVar[Packing] = ContextVar("packing")


@contextmanager
def packed(model: Any, packing: Packing) -> Iterator[None]:
    """Let a model's layers attend as a packing says."""
    configs = {
        id(module.config): module.config
        for module in model.modules()
        if hasattr(getattr(module, "config", None), "_attn_implementation")
    }
    own = {key: config._attn_implementation for key, config in configs.items()}
    token = _current.set(packing)
    try:
        for config in configs.values():
            config._attn_implementation = NAME
        yield
    finally:
        for key, config in configs.items():
            config._attn_implementation = own[key]
        _current.reset(token)


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
        attention_mask: None may be given.
        scaling: See :class:`Options`.
        **options: ``sliding_window``, ``softcap`` and ``s_aux`` are followed.

    Returns:
        (1, tokens, heads, value size), and no attention weights.

    Raises:
        UnshareableError: The layer asks for something else.
    """
    given = {name: v for name, v in options.items() if v is not None and name not in _HARMLESS}
    window, softcap, sinks = (given.pop(n, None) for n in ("sliding_window", "softcap", "s_aux"))
    odd = [name for name, v in given.items() if not (v is False or v == 0 or name == "is_causal")]
    if given.get("is_causal") is False:
        odd.append("is_causal=False")
    if attention_mask is not None:
        odd.append("attention_mask")
    if odd or len(query) != 1:
        raise UnshareableError(f"its attention takes {', '.join(odd) or 'several rows'}")
    packing = _current.get()
    keys, values = packing.joined(key[0], value[0])
    how = Options(scaling, window, softcap, sinks)
    return packing.kernel(query[0], keys, values, packing, how).unsqueeze(0), None


def by_run(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    packing: Packing,
    how: Options,
) -> torch.Tensor:
    """Attend run by run; see :data:`Kernel`."""
    attended = query.new_empty(query.shape[1], query.shape[0], value.shape[-1])
    plain = how.softcap is None and how.sinks is None
    attend = _by_torch if plain else _by_hand
    for run in packing.runs:
        own = (packing.chunk.kept + run.start, packing.chunk.kept + run.stop)
        keys, values = (_gather(x, (*run.context, own)) for x in (key, value))
        part = attend(query[:, run.start : run.stop], keys, values, packing, run, how)
        attended[run.start : run.stop] = part.transpose(0, 1)
    return attended


def by_varlen(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    packing: Packing,
    how: Options,
) -> torch.Tensor:
    """Attend for all runs at once, with flash attention on a GPU; see :data:`Kernel`.

    Raises:
        UnshareableError: This torch or this layer does not allow it.
    """
    if how.softcap is not None or how.sinks is not None or not query.is_cuda:
        raise UnshareableError("flash attention knows no soft cap and no sinks")
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError as error:
        raise UnshareableError("this torch has no varlen_attn") from error
    allowed = inspect.signature(varlen_attn).parameters
    options: dict[str, Any] = {"scale": how.scale} if how.scale is not None else {}
    left = -1 if how.window is None else how.window - 1
    options |= {"is_causal": True} if "is_causal" in allowed else {}
    options |= {"window_size": (left, 0)} if left >= 0 or not options.get("is_causal") else {}
    if len(key) != len(query):
        if "enable_gqa" in allowed:
            options["enable_gqa"] = True
        else:
            key, value = _spread(key, query), _spread(value, query)
    if not options.keys() <= allowed.keys():
        raise UnshareableError("this torch's varlen_attn lacks an option that is needed")
    slots, lengths = packing.gathering
    where = packing.on("gathered slots", slots, key.device)
    cumulative = [
        packing.on(f"cumulative {name}", torch.tensor(sums, dtype=torch.int32), key.device)
        for name, sums in (("queries", lengths.queries), ("keys", lengths.keys))
    ]
    attend: Any = varlen_attn  # its parameters differ between releases
    attended: torch.Tensor = attend(
        query.transpose(0, 1).contiguous(),
        *(x.transpose(0, 1).index_select(0, where) for x in (key, value)),
        *cumulative,
        lengths.longest_query,
        lengths.longest_key,
        **options,
    )
    return attended


def _gather(slots: torch.Tensor, stretches: Sequence[tuple[int, int]]) -> torch.Tensor:
    """Return stretches of slots, (key heads, slots, size), one behind the other."""
    merged: list[tuple[int, int]] = []
    for start, stop in stretches:
        if merged and merged[-1][1] == start:
            start = merged.pop()[0]
        merged.append((start, stop))
    parts = [slots[:, start:stop] for start, stop in merged]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def _by_torch(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    packing: Packing,
    run: Run,
    how: Options,
) -> torch.Tensor:
    grouped = len(key) != len(query)
    if grouped and query.is_cuda:  # no fast kernel there takes a mask and groups of heads
        key, value, grouped = _spread(key, query), _spread(value, query), False
    mask: Any
    if query.is_cuda and how.window is None:
        mask = causal_lower_right(query.shape[1], key.shape[1])
    else:
        mask = packing.mask(run, how.window, query)
    return scaled_dot_product_attention(
        query.unsqueeze(0),
        key.unsqueeze(0),
        value.unsqueeze(0),
        attn_mask=mask,
        scale=how.scale,
        enable_gqa=grouped,
    )[0]


def _by_hand(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    packing: Packing,
    run: Run,
    how: Options,
) -> torch.Tensor:
    scale = query.shape[-1] ** -0.5 if how.scale is None else how.scale
    products = (query @ _spread(key, query).transpose(1, 2)).mul_(scale)
    if how.softcap is not None:
        products = products.div_(how.softcap).tanh_().mul_(how.softcap)
    products = products.add_(packing.mask(run, how.window, query)).to(_at_least_float32(query))
    if how.sinks is not None:
        sinks = how.sinks.to(products).view(-1, 1, 1).expand(-1, products.shape[1], 1)
        products = torch.cat([products, sinks], dim=-1)
    weights = products.softmax(-1)[..., : key.shape[1]]
    return weights.to(value.dtype) @ _spread(value, query)


def _at_least_float32(tensor: torch.Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)


def _spread(slots: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
    """Repeat each key head for the query heads of its group."""
    return slots.repeat_interleave(len(query) // len(slots), dim=0)


def _causal(start: int, stop: int, window: int | None, like: torch.Tensor) -> torch.Tensor:
    """Return the mask of the queries at depths from start to stop for all keys before stop."""
    queries = torch.arange(start, stop, device=like.device).unsqueeze(1)
    keys = torch.arange(stop, device=like.device)
    hidden = keys > queries
    if window is not None:
        hidden |= keys <= queries - window
    zeros = torch.zeros(hidden.shape, dtype=like.dtype, device=like.device)
    return zeros.masked_fill_(hidden, float("-inf"))
