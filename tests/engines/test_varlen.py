"""Attention by ``varlen_attn``, against stand-ins with the signatures that torch has had."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import chain

import numpy as np
import pytest
import torch
from helpers import tiny
from helpers.attention import RELEASES, chunks, difference, torch_2_10, torch_2_11, torch_2_12
from helpers.devices import HAS_GPU
from helpers.engines import logprobs, rows
from helpers.oracle import token_logprobs
from torch.nn.attention import varlen

from drsow_plugin.engines.local.attention import KernelError, Options
from drsow_plugin.engines.local.engine import LocalEngine
from drsow_plugin.engines.local.kernels import by_varlen
from drsow_plugin.engines.local.kernels import varlen as kernel
from drsow_plugin.engines.local.network import Network
from drsow_plugin.engines.local.probe import Sharing
from drsow_plugin.engines.local.tree import Run
from drsow_plugin.records import TokenPair

PLAIN = Options(scale=None, window=None, softcap=None, sinks=None)
ASKED = {
    "plain": PLAIN,
    "its default scale": replace(PLAIN, scale=16**-0.5),
    "another scale": replace(PLAIN, scale=0.3),
    "a window": replace(PLAIN, window=7),
    "a window of one": replace(PLAIN, window=1),
    "sinks": replace(PLAIN, sinks=torch.linspace(-2, 2, 4)),
    "sinks and a window": replace(PLAIN, window=7, sinks=torch.linspace(-2, 2, 4)),
}
BEYOND_2_10 = {"another scale", "a window", "a window of one", "sinks and a window"}


@pytest.mark.parametrize("heads", [(4, 4), (4, 2)])
@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize("release", RELEASES)
def test_what_each_release_takes_is_computed_by_it(
    release: Callable[..., object],
    asked: str,
    heads: tuple[int, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(varlen, "varlen_attn", release)
    for chunk in chunks(rows(8), tokens=150):
        if release is torch_2_10 and asked in BEYOND_2_10:
            with pytest.raises(KernelError, match=r"varlen_attn has no (scale|window_size)"):
                difference(by_varlen, chunk, ASKED[asked], heads=heads)
        else:
            assert difference(by_varlen, chunk, ASKED[asked], heads=heads) < 2e-6


def test_soft_caps_and_a_torch_without_it_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    (chunk,) = chunks(rows(8), tokens=9999)
    with pytest.raises(KernelError, match="no soft cap"):
        difference(by_varlen, chunk, replace(PLAIN, softcap=5.0))
    monkeypatch.setitem(sys.modules, "torch.nn.attention.varlen", None)
    monkeypatch.delattr(torch.nn.attention, "varlen")
    with pytest.raises(KernelError, match="this torch has no varlen_attn"):
        difference(by_varlen, chunk, PLAIN)


def test_a_log_sum_exp_that_is_laid_out_otherwise_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def transposed(*given: object, **asked: object) -> tuple[torch.Tensor, torch.Tensor]:
        attended, lse = torch_2_12(*given, **asked)  # type: ignore[arg-type]
        return attended, lse.T

    monkeypatch.setattr(varlen, "varlen_attn", transposed)
    monkeypatch.setattr(kernel, "_parameters", lambda _: frozenset({"return_aux", "window_size"}))
    (chunk,) = chunks(rows(8), tokens=9999)
    with pytest.raises(KernelError, match="log-sum-exp is of an unknown shape"):
        difference(by_varlen, chunk, ASKED["sinks"], heads=(4, 4))


def test_the_arrays_of_a_batch_are_those_of_its_runs_and_their_keys() -> None:
    for chunk in chunks(rows(5), 50, 9):
        (batch,) = kernel.batches_of(chunk.runs)
        queries, keys = np.diff(batch.cu_seqlens_q), np.diff(batch.cu_seqlens_k)
        assert queries.tolist() == [run.stop - run.start for run in chunk.runs]
        parts = np.split(batch.slots, batch.cu_seqlens_k[1:-1])
        for run, part in zip(chunk.runs, parts, strict=True):
            assert part.tolist() == [slot for span in run.keys for slot in range(*span)]
        assert (batch.max_seqlen_q, batch.max_seqlen_k) == (queries.max(), keys.max())
        assert batch.tokens.tolist() == [*range(len(chunk.ids))]


def runs(*lengths: int) -> list[Run]:
    stops = np.cumsum(lengths).tolist()
    return [
        Run(stop - n, stop, ((stop - n, stop),)) for n, stop in zip(lengths, stops, strict=True)
    ]


@pytest.mark.parametrize(
    ("lengths", "parts"),
    [
        ([8192, *[20] * 400], [400, 1]),
        ([*[20] * 300, 8192, *[20] * 100, 8192], [400, 2]),
        ([500] * 16, [16]),
        ([20] * 3400, [3400]),
        ([8192, 20, 20], [3]),
        ([16384], [1]),
    ],
)
def test_short_runs_are_apart_from_long_ones_where_most_blocks_would_be_idle(
    lengths: list[int], parts: list[int]
) -> None:
    given = runs(*lengths)
    batches = kernel.batches_of(given)
    assert [len(batch.cu_seqlens_q) - 1 for batch in batches] == parts
    assert sorted(chain.from_iterable(b.tokens.tolist() for b in batches)) == [*range(sum(lengths))]
    for batch in batches:
        assert batch.slots.tolist() == batch.tokens.tolist()  # runs without a prefix


@pytest.mark.parametrize("asked", ["a window", "sinks"])
def test_runs_that_are_apart_attend_as_together(
    asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(varlen, "varlen_attn", torch_2_11)
    monkeypatch.setattr(kernel, "_BLOCK", 8)
    monkeypatch.setattr(kernel, "_MAX_IDLE", 10)
    counts = []
    for chunk in chunks(rows(8), tokens=150):
        counts.append(len(kernel.batches_of(chunk.runs)))
        assert difference(by_varlen, chunk, ASKED[asked]) < 2e-6
    assert 2 in counts


@pytest.mark.parametrize(
    ("arch", "release"),
    [
        *(("llama", release) for release in RELEASES),
        ("mistral_sliding", torch_2_11),
        ("gpt_oss_sinks", torch_2_12),
        ("gpt2", torch_2_12),
    ],
)
def test_rows_come_out_as_one_by_one(
    arch: str, release: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(varlen, "varlen_attn", release)
    pairs, oracle = rows(8), tiny.model(arch).double()
    sharing = Sharing(by_varlen, None)
    scored = logprobs(LocalEngine(Network(tiny.model(arch)), sharing, batch_tokens=37), pairs)
    for pair, logprob in zip(pairs, scored, strict=True):
        expected = sum(token_logprobs(oracle, pair.prompt_ids, pair.response_ids))
        assert logprob.total == pytest.approx(expected, abs=1e-5)


@pytest.mark.gpu
@HAS_GPU
@pytest.mark.parametrize("sizes", [64, 80, 128, 256])
@pytest.mark.parametrize("heads", [(8, 8), (8, 2)])
@pytest.mark.parametrize("asked", ASKED)
def test_a_gpu_computes_what_the_runs_do(asked: str, heads: tuple[int, int], sizes: int) -> None:
    options = ASKED[asked]
    if options.sinks is not None:
        options = replace(options, sinks=torch.linspace(-2, 2, 8))
    like = torch.empty(0, dtype=torch.bfloat16, device="cuda")
    for chunk in chunks(rows(8, count=60), tokens=900):
        found = difference(by_varlen, chunk, options, heads=heads, sizes=(sizes, sizes), like=like)
        assert found < 3e-2


@pytest.mark.gpu
@HAS_GPU
def test_a_gpu_computes_a_single_token_a_run_and_runs_that_are_apart() -> None:
    like = torch.empty(0, dtype=torch.bfloat16, device="cuda")
    single = [TokenPair((1, 2, 3), (token, 5)) for token in range(10, 200)]
    long = [TokenPair((7,), tuple(range(8, 4200))), *single]
    for pairs in (single, long):
        for chunk in chunks(pairs, tokens=9999):
            found = difference(by_varlen, chunk, ASKED["sinks"], sizes=(64, 64), like=like)
            assert found < 3e-2
