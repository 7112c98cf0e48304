"""Attention over packed rows: each kernel, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from helpers import tiny
from helpers.engines import logprobs, rows
from helpers.oracle import token_logprobs
from torch.nn.attention import varlen

from drsow_plugin.engines.local.attention import Kernel, Packing, packed, tree_attention
from drsow_plugin.engines.local.engine import LocalEngine
from drsow_plugin.engines.local.kernels import by_run, by_varlen
from drsow_plugin.engines.local.masks import UnshareableError
from drsow_plugin.engines.local.network import Network
from drsow_plugin.engines.local.probe import Sharing, find_sharing
from drsow_plugin.engines.local.tree import TokenTree
from drsow_plugin.records import TokenPair

Tensor = torch.Tensor


def by_sequence(
    query: Tensor, key: Tensor, value: Tensor, cu_q: Tensor, cu_k: Tensor, left: int
) -> Tensor:
    """Attend as the documentation of ``varlen_attn`` says: causal from the lower right."""
    assert cu_q.dtype == cu_k.dtype == torch.int32 and query.is_contiguous()
    parts = []
    for number in range(len(cu_q) - 1):
        q, (k, v) = (
            query[cu_q[number] : cu_q[number + 1]],
            (x[cu_k[number] : cu_k[number + 1]] for x in (key, value)),
        )
        depth = torch.arange(len(k) - len(q), len(k)).unsqueeze(1)
        seen = torch.arange(len(k)) <= depth
        if left >= 0:
            seen &= torch.arange(len(k)) >= depth - left
        q, k, v = (x.transpose(0, 1).unsqueeze(0) for x in (q, k, v))
        attended = torch.nn.functional.scaled_dot_product_attention(
            q, k, v, attn_mask=seen, enable_gqa=True
        )
        parts.append(attended[0].transpose(0, 1))
    return torch.cat(parts)


def newer(  # noqa: PLR0913
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seq_q: Tensor,
    cu_seq_k: Tensor,
    max_q: int,
    max_k: int,
    *,
    scale: float | None = None,
    window_size: tuple[int, int] = (-1, -1),
    enable_gqa: bool = False,
) -> Tensor:
    assert window_size[1] == 0, "not causal"
    assert enable_gqa or query.shape[1] == key.shape[1]
    assert max_q == cu_seq_q.diff().max() and max_k == cu_seq_k.diff().max()
    assert scale is None or scale == query.shape[-1] ** -0.5
    return by_sequence(query, key, value, cu_seq_q, cu_seq_k, window_size[0])


def older(  # noqa: PLR0913
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seq_q: Tensor,
    cu_seq_k: Tensor,
    max_q: int,
    max_k: int,
    is_causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    assert is_causal and query.shape[1] == key.shape[1]
    return by_sequence(query, key, value, cu_seq_q, cu_seq_k, -1)


def with_kernel(model: torch.nn.Module, kernel: Kernel) -> LocalEngine:
    return LocalEngine(Network(model), Sharing(kernel, None), batch_tokens=37)


@pytest.mark.parametrize(
    ("arch", "release"),
    [("llama", newer), ("mistral_sliding", newer), ("gpt2", newer), ("llama", older)],
)
def test_runs_are_handed_to_varlen_attention_as_it_takes_them(
    arch: str, release: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in, since the real one runs on GPUs alone; there a test below calls it."""
    monkeypatch.setattr(varlen, "varlen_attn", release)
    pairs, oracle = rows(8), tiny.model(arch).double()
    scored = logprobs(with_kernel(tiny.model(arch), by_varlen), pairs)
    for pair, logprob in zip(pairs, scored, strict=True):
        expected = sum(token_logprobs(oracle, pair.prompt_ids, pair.response_ids))
        assert logprob.total == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("arch", "release"),
    [("gemma2_softcap", newer), ("gpt_oss_sinks", newer), ("mistral_sliding", older)],
)
def test_what_varlen_attention_cannot_do_is_scored_row_by_row(
    arch: str,
    release: Callable[..., Tensor],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(varlen, "varlen_attn", release)
    engine, pairs = with_kernel(tiny.model(arch), by_varlen), rows(8)
    scored, expected = logprobs(engine, pairs), LocalEngine(Network(tiny.model(arch)), None)
    for a, b in zip(scored, logprobs(expected, pairs), strict=True):
        assert a.total == pytest.approx(b.total, abs=1e-5)
    logprobs(engine, pairs)
    assert caplog.text.count("from here on rows are scored one by one") == 1


@pytest.mark.parametrize(
    "options",
    [{"position_bias": torch.zeros(4)}, {"is_causal": False}, {"dropout": 0.1}, {"cache": [1]}],
)
def test_layers_that_ask_for_something_else_are_refused(options: dict[str, object]) -> None:
    states = torch.zeros(1, 2, 3, 4)
    with pytest.raises(UnshareableError, match=next(iter(options))):
        tree_attention(torch.nn.Identity(), states, states, states, None, **options)


@pytest.mark.parametrize("mask", [torch.zeros(1, 1, 3, 3), torch.zeros(1, 1, 1, 1)])
def test_masks_that_are_not_read_are_refused(mask: Tensor) -> None:
    states, layer = torch.zeros(1, 2, 3, 4), torch.nn.Identity()
    tree = TokenTree([TokenPair((1, 2), (3, 4))])
    with packed(layer, Packing(tree.chunk(tree.start, 3), by_run, cache=())):
        tree_attention(layer, states, states, states, None)
        with pytest.raises(UnshareableError, match="a mask that is not transformers' own"):
            tree_attention(layer, states, states, states, mask)
        with pytest.raises(UnshareableError, match="sliding_window"):
            tree_attention(layer, states, states, states, None, sliding_window=3)
        with pytest.raises(UnshareableError, match="other tokens than those of a row"):
            tree_attention(layer, states, states[:, :, 1:], states[:, :, 1:], None)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("kernel", [by_varlen, by_run])
@pytest.mark.parametrize("arch", ["llama", "mistral_sliding", "qwen3", "gpt2"])
def test_kernels_on_a_gpu_agree_with_plain_scoring(arch: str, kernel: Kernel) -> None:
    model, pairs = tiny.model(arch).cuda().bfloat16(), rows(8)
    plain = logprobs(LocalEngine(Network(model), None), pairs)
    for a, b in zip(plain, logprobs(with_kernel(model, kernel), pairs), strict=True):
        assert a.total == pytest.approx(b.total, rel=2e-2)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_in_bfloat16_uses_varlen_attention() -> None:
    found = find_sharing(Network(tiny.model().cuda().bfloat16()))
    assert found is not None and found.kernel is by_varlen


@pytest.mark.parametrize("arch", ["llama", "mistral_sliding", "gemma2_softcap", "mixtral", "opt"])
def test_bfloat16_is_no_worse_shared_than_row_by_row(arch: str) -> None:
    pairs, oracle = rows(9, count=40), tiny.model(arch).bfloat16().double()
    exact = [sum(token_logprobs(oracle, pair.prompt_ids, pair.response_ids)) for pair in pairs]
    model = tiny.model(arch).bfloat16()
    errors = []
    for sharing in (find_sharing(Network(model)), None):
        scored = logprobs(LocalEngine(Network(model), sharing), pairs)
        squares = [(a.total - b) ** 2 for a, b in zip(scored, exact, strict=True)]
        errors.append((sum(squares) / len(squares)) ** 0.5)
    shared, alone = errors
    assert 0 < shared <= 1.2 * alone
