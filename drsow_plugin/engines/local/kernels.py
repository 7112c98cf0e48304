"""The ways to attend over packed rows: run by run, or all runs at once on a GPU."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention

from drsow_plugin.engines.local.attention import Options, Packing
from drsow_plugin.engines.local.masks import UnshareableError
from drsow_plugin.engines.local.tree import Run


def by_run(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    packing: Packing,
    how: Options,
) -> torch.Tensor:
    """Attend run by run; see :data:`~drsow_plugin.engines.local.attention.Kernel`."""
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
    """Attend for all runs at once, with flash attention on a GPU; see ``attention.Kernel``.

    Raises:
        UnshareableError: This torch or this layer does not allow it.
    """
    if how.softcap is not None or how.sinks is not None:
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
    seen = packing.seen
    where = packing.on("seen", seen.slots, key.device)
    attend: Any = varlen_attn  # its parameters differ between releases
    attended: torch.Tensor = attend(
        query.transpose(0, 1).contiguous(),
        *(x.transpose(0, 1).index_select(0, where) for x in (key, value)),
        packing.on("queries", seen.queries, key.device),
        packing.on("keys", seen.keys, key.device),
        int(seen.queries.diff().max()),
        int(seen.keys.diff().max()),
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
