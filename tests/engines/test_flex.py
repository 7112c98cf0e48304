"""Attention by FlexAttention: its block lists against brute force, and itself, not compiled."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.attention import chunks, difference
from helpers.devices import HAS_GPU
from helpers.engines import rows
from torch._dynamo.exc import FailOnRecompileLimitHit
from torch._dynamo.testing import CompileCounter
from torch.nn.attention import flex_attention

from drsow_plugin.engines.local.attention import KernelError, Options, Packing
from drsow_plugin.engines.local.kernels import blocks, by_flex, flex
from drsow_plugin.engines.local.tree import Chunk
from drsow_plugin.records import TokenPair

PLAIN = Options(scale=None, window=None, softcap=None, sinks=None)
ASKED = {
    "plain": PLAIN,
    "another scale": replace(PLAIN, scale=0.3),
    "a window": replace(PLAIN, window=7),
    "a soft cap": replace(PLAIN, softcap=0.5),
    "sinks": replace(PLAIN, sinks=torch.linspace(-2, 2, 4)),
    "all": Options(scale=0.3, window=9, softcap=0.5, sinks=torch.linspace(-2, 2, 4)),
}


def branching(seed: int) -> list[TokenPair]:
    """Return rows of two letters, which share prefixes of all lengths."""
    rng = random.Random(seed)
    lengths = [rng.choice([2, 9, 40]) + rng.randrange(9) for _ in range(rng.randint(1, 12))]
    letters = [[rng.random() < 0.2 for _ in range(n)] for n in lengths]
    return [TokenPair(tuple(map(int, row[:1])), tuple(map(int, row[1:]))) for row in letters]


def seen(chunk: Chunk, window: int | None) -> np.ndarray:
    """Return what tokens see, (tokens, slots), read off the runs."""
    table = np.zeros((len(chunk.ids), chunk.cache_length + len(chunk.ids)), dtype=np.bool_)
    for run in chunk.runs:
        keys = [slot for span in run.keys for slot in range(*span)]
        for token in range(run.start, run.stop):
            end = len(keys) - (run.stop - 1 - token)
            start = 0 if window is None else max(0, end - window)
            table[token, keys[start:end]] = True
    return table


@pytest.mark.parametrize("window", [None, 1, 3, 11])
def test_blocks_hold_what_is_seen(window: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK", 4)
    kept = all_seen = 0
    for seed in range(150):
        for chunk in chunks(branching(seed), tokens=random.Random(seed).choice([3, 17, 999])):
            table = seen(chunk, window)
            rows, slots = (-(-length // 4) for length in table.shape)
            padded = np.zeros((rows * 4, slots * 4), dtype=np.bool_)
            padded[: table.shape[0], : table.shape[1]] = table
            each = padded.reshape(rows, 4, slots, 4).swapaxes(1, 2)
            # A block of tokens may have padding, whose results nobody reads, one of slots not.
            each_real = [
                block[: len(chunk.ids) - 4 * at] for at, block in enumerate(each.swapaxes(1, 2))
            ]
            some = each.any(axis=(2, 3))
            full = np.array([block.all(axis=(0, 2)) for block in each_real])
            found_some, found_full = blocks.blocks_of(blocks.table_of(chunk), window)
            if window is None:
                assert (found_some == some).all() and (found_full == full).all()
            assert (found_some >= some).all() and (found_full <= full).all()
            assert (found_full <= found_some).all()
            kept += chunk.cache_length > 0
            all_seen += found_full.sum()
    assert kept > 20 and (all_seen > 20 or window in (1, 3))


def test_flags_are_listed_before_all_other_columns() -> None:
    flags = np.array([[False, True, True], [False, False, False]])
    counts, columns = blocks.listed(flags, (3, 5))
    assert counts.tolist() == [2, 0, 0]
    assert columns[0, :2].tolist() == [1, 2]
    assert [sorted(row) for row in columns.tolist()] == [[0, 1, 2, 3, 4]] * 3


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let torch compute all scores, which takes no compiler, of lengths that fit it."""
    monkeypatch.setattr(flex_attention, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)
    monkeypatch.setattr(flex, "_attend", lambda: flex._attended)
    monkeypatch.setattr(flex, "_MIN_LENGTH", 256)


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("heads", [(4, 4), (4, 2)])
@pytest.mark.parametrize("asked", ASKED)
def test_what_a_layer_asks_for_is_computed(asked: str, heads: tuple[int, int]) -> None:
    lengths = []
    for chunk in chunks(rows(8, count=24), tokens=300):
        assert difference(by_flex, chunk, ASKED[asked], heads=heads, sizes=(24, 16)) < 2e-6
        lengths.append(chunk.cache_length)
    assert max(lengths) > 9


@pytest.mark.usefixtures("uncompiled")
def test_padding_is_neither_seen_nor_computed() -> None:
    (chunk,) = chunks(rows(8, count=6), tokens=9999)
    mask = flex._mask(Packing(chunk, by_flex, ()), None, torch.device("cpu"))
    dense = flex_attention.create_mask(mask.mask_mod, 1, 1, *mask.seq_lengths, "cpu")[0, 0]
    assert (dense[: len(chunk.ids), : len(chunk.ids)].numpy() == seen(chunk, None)).all()
    assert dense.sum() == seen(chunk, None).sum()
    computed = mask.kv_num_blocks + mask.full_kv_num_blocks
    assert computed[0, 0, -(-len(chunk.ids) // 128) :].sum() == 0


@pytest.mark.parametrize(
    ("tokens", "padded"), [(1, 2048), (2048, 2048), (2049, 4096), (9000, 16384)]
)
def test_lengths_are_few(tokens: int, padded: int) -> None:
    assert flex._length(tokens) == padded


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> Iterator[CompileCounter]:
    """Let torch trace as for a compiler, and count how often."""
    counter = CompileCounter()
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda *a, **k: compile_(*a, **k, backend=counter))
    monkeypatch.setattr(flex, "find_spec", lambda _: True)
    monkeypatch.setattr(flex, "_MIN_LENGTH", 256)
    torch._dynamo.reset()
    flex._attend.cache_clear()
    yield counter
    flex._attend.cache_clear()
    torch._dynamo.reset()


def test_chunks_of_similar_lengths_are_compiled_for_once(traced: CompileCounter) -> None:
    similar = [
        chunk
        for chunk in chunks(rows(8, count=24), tokens=200)
        if len(chunk.ids) + chunk.cache_length <= 256
    ]
    for chunk in similar:
        assert difference(by_flex, chunk, ASKED["all"]) < 2e-6
    assert len(similar) > 3 and traced.frame_count == 1


def test_too_many_lengths_are_an_error_and_not_all_scores_at_once(
    traced: CompileCounter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flex, "_MAX_COMPILED", 2)
    (chunk,) = chunks(rows(8, count=3), tokens=9999)
    for scale in (0.1, 0.2):
        difference(by_flex, chunk, replace(PLAIN, scale=scale))
    with pytest.raises(FailOnRecompileLimitHit):
        difference(by_flex, chunk, replace(PLAIN, scale=0.3))


@pytest.mark.usefixtures("traced")
def test_where_torch_does_not_compile_there_is_an_error_and_not_all_scores_at_once() -> None:
    (chunk,) = chunks(rows(8, count=3), tokens=9999)
    with (
        torch.compiler.set_stance("force_eager"),
        pytest.raises(KernelError, match="does not compile"),
    ):
        difference(by_flex, chunk, PLAIN)


def test_without_triton_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flex, "find_spec", lambda _: None)
    flex._attend.cache_clear()
    (chunk,) = chunks(rows(8, count=3), tokens=9999)
    with pytest.raises(KernelError, match="Triton is not installed"):
        difference(by_flex, chunk, PLAIN)


@pytest.mark.gpu
@HAS_GPU
@pytest.mark.filterwarnings("default")  # compilers warn
@pytest.mark.parametrize(("dtype", "most"), [(torch.bfloat16, 3e-2), (torch.float32, 1e-5)])
@pytest.mark.parametrize("sizes", [(64, 64), (128, 128), (192, 128)])
@pytest.mark.parametrize("asked", ASKED)
def test_a_gpu_computes_what_the_runs_do(
    asked: str, sizes: tuple[int, int], dtype: torch.dtype, most: float
) -> None:
    like = torch.empty(0, dtype=dtype, device="cuda")
    for chunk in chunks(rows(8, count=60), tokens=900):
        assert difference(by_flex, chunk, ASKED[asked], sizes=sizes, like=like) < most
