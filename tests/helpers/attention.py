"""Attention over chunks of random trees, and stand-ins for a kernel that runs on GPUs alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch

from drsow_plugin.engines.local.attention import Kernel, Options, Packing
from drsow_plugin.engines.local.kernels import by_run
from drsow_plugin.engines.local.tree import Chunk, Cursor, TokenTree
from drsow_plugin.records import TokenPair

Tensor = torch.Tensor


def chunks(pairs: Sequence[TokenPair], tokens: int, num_runs: int = 9999) -> Iterator[Chunk]:
    tree = TokenTree(pairs)
    cursor: Cursor | None = tree.start
    while cursor is not None:
        chunk = tree.chunk(cursor, tokens, num_runs)
        yield chunk
        cursor = chunk.next


def difference(
    kernel: Kernel,
    chunk: Chunk,
    options: Options,
    *,
    heads: tuple[int, int] = (4, 2),
    sizes: tuple[int, int] = (16, 16),
    like: Tensor | None = None,
) -> float:
    """Return the maximum difference of a kernel from :func:`by_run` in float64.

    Args:
        kernel: What attends.
        chunk: To what.
        options: How.
        heads: Heads and key heads.
        sizes: Of keys and of values.
        like: Dtype and device that the kernel is run with; ``None`` for float32 on the CPU.
    """
    like, slots = torch.empty(0) if like is None else like, chunk.cache_length + len(chunk.ids)
    torch.manual_seed(0)
    query = torch.randn(len(chunk.ids), heads[0], sizes[0]).to(like).transpose(0, 1)
    key, value = (torch.randn(slots, heads[1], size).to(like) for size in sizes)
    sinks = None if options.sinks is None else options.sinks.to(like)
    with torch.inference_mode():
        attended = kernel(query, key, value, Packing(chunk, kernel, ()), options)
        exact = by_run(
            *(x.cpu().double() for x in (query, key, value)),
            Packing(chunk, by_run, ()),
            replace(options, sinks=None if sinks is None else sinks.cpu().double()),
        )
    assert attended.shape == exact.shape and attended.dtype == like.dtype
    return float((attended.cpu().double() - exact).abs().max())


def _by_sequence(
    query: Tensor, key: Tensor, value: Tensor, cu_q: Tensor, cu_k: Tensor, left: int, scale: float
) -> tuple[Tensor, Tensor]:
    """Attend as the documentation of ``varlen_attn`` says: causal from the lower right.

    Returns:
        (tokens, heads, size), and the log-sum-exp, (heads, tokens).
    """
    assert cu_q.dtype == cu_k.dtype == torch.int32
    assert query.is_contiguous() and key.is_contiguous() and value.is_contiguous()
    assert query.shape[1] % key.shape[1] == 0 and value.shape == key.shape
    parts, lses = [], []
    for number in range(len(cu_q) - 1):
        q = query[cu_q[number] : cu_q[number + 1]]
        k, v = (x[cu_k[number] : cu_k[number + 1]] for x in (key, value))
        k, v = (x.repeat_interleave(query.shape[1] // key.shape[1], 1) for x in (k, v))
        logits = torch.einsum("qhs,khs->hqk", q, k) * scale
        depth = torch.arange(len(k) - len(q), len(k)).unsqueeze(1)
        seen = torch.arange(len(k)) <= depth
        if left >= 0:
            seen &= torch.arange(len(k)) >= depth - left
        logits = logits.masked_fill(~seen, -torch.inf)
        parts.append(torch.einsum("hqk,khs->qhs", logits.softmax(-1), v))
        lses.append(logits.logsumexp(-1))
    return torch.cat(parts), torch.cat(lses, dim=1)


def torch_2_10(  # noqa: PLR0913
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seq_q: Tensor,
    cu_seq_k: Tensor,
    max_q: int,
    max_k: int,
    is_causal: bool = False,
    return_aux: tuple[bool] | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    assert is_causal
    scale = query.shape[-1] ** -0.5
    found = _by_sequence(query, key, value, cu_seq_q, cu_seq_k, -1, scale)
    return found if return_aux is not None and return_aux[0] else found[0]


def torch_2_11(  # noqa: PLR0913
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seq_q: Tensor,
    cu_seq_k: Tensor,
    max_q: int,
    max_k: int,
    *,
    return_aux: tuple[bool] | None = None,
    scale: float | None = None,
    window_size: tuple[int, int] = (-1, -1),
) -> Tensor | tuple[Tensor, Tensor]:
    assert window_size[1] == 0, "not causal"
    assert max_q >= cu_seq_q.diff().max() and max_k == cu_seq_k.diff().max()
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    found = _by_sequence(query, key, value, cu_seq_q, cu_seq_k, window_size[0], scale)
    return found if return_aux is not None and return_aux[0] else found[0]


def torch_2_12(  # noqa: PLR0913
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seq_q: Tensor,
    cu_seq_k: Tensor,
    max_q: int,
    max_k: int,
    *,
    return_aux: tuple[bool] | None = None,
    scale: float | None = None,
    window_size: tuple[int, int] = (-1, -1),
    enable_gqa: bool = False,
    seqused_k: Tensor | None = None,
    block_table: Tensor | None = None,
    num_splits: int | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    assert enable_gqa or query.shape[1] == key.shape[1]
    assert seqused_k is block_table is num_splits is None
    return torch_2_11(
        *(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k),
        return_aux=return_aux,
        scale=scale,
        window_size=window_size,
    )


RELEASES = (torch_2_10, torch_2_11, torch_2_12)
