"""Attention run by run, on any device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention

from drsow_plugin.engines.local.attention import Options, Packing


def by_run(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    packing: Packing,
    options: Options,
) -> torch.Tensor:
    """Attend run by run; see :data:`~drsow_plugin.engines.local.attention.Kernel`."""
    attended = query.new_empty(query.shape[1], query.shape[0], value.shape[-1])
    is_plain = options.softcap is None and options.sinks is None
    attend = _by_torch if is_plain else _by_hand
    for run in packing.chunk.runs:
        keys, values = _gather(key, run.keys), _gather(value, run.keys)
        if is_plain and query.is_cuda and options.window is None:
            mask: torch.Tensor = causal_lower_right(run.stop - run.start, run.num_keys)
        else:
            mask = packing.mask(run, options.window, query)
        part = attend(query[:, run.start : run.stop], keys, values, mask, options)
        attended[run.start : run.stop] = part.transpose(0, 1)
    return attended


def _gather(slots: torch.Tensor, spans: Sequence[tuple[int, int]]) -> torch.Tensor:
    """Return spans of slots, (slots, key heads, size), one behind the other, heads first."""
    parts = [slots[start:stop] for start, stop in spans]
    return (parts[0] if len(parts) == 1 else torch.cat(parts)).transpose(0, 1)


def _by_torch(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor,
    options: Options,
) -> torch.Tensor:
    grouped = len(key) != len(query)
    if grouped and query.is_cuda:  # no fast kernel there takes a mask and groups of heads
        key, value, grouped = _spread(key, query), _spread(value, query), False
    return scaled_dot_product_attention(
        query.unsqueeze(0),
        key.unsqueeze(0),
        value.unsqueeze(0),
        attn_mask=mask,
        scale=options.scale,
        enable_gqa=grouped,
    )[0]


def _by_hand(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor,
    options: Options,
) -> torch.Tensor:
    scale = query.shape[-1] ** -0.5 if options.scale is None else options.scale
    logits = (query @ _spread(key, query).transpose(1, 2)).mul_(scale)
    if options.softcap is not None:
        logits = logits.div_(options.softcap).tanh_().mul_(options.softcap)
    logits = logits.add_(mask).to(torch.promote_types(logits.dtype, torch.float32))
    if options.sinks is not None:
        sinks = options.sinks.to(logits).view(-1, 1, 1).expand(-1, logits.shape[1], 1)
        logits = torch.cat([logits, sinks], dim=-1)
    weights = logits.softmax(-1)[..., : key.shape[1]]
    return weights.to(value.dtype) @ _spread(value, query)


def _spread(slots: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
    """Repeat each key head for the query heads of its group."""
    return slots.repeat_interleave(len(query) // len(slots), dim=0)
