"""Attention over packed rows: what layers may ask for, and what rounding comes to."""

from __future__ import annotations

import pytest
import torch
from helpers import tiny
from helpers.attention import chunks
from helpers.engines import logprobs, rows
from helpers.oracle import token_logprobs

from drsow_plugin.engines.local.attention import Packing, packed, tree_attention
from drsow_plugin.engines.local.engine import LocalEngine
from drsow_plugin.engines.local.kernels import by_run
from drsow_plugin.engines.local.masks import UnshareableError
from drsow_plugin.engines.local.network import Network
from drsow_plugin.engines.local.probe import find_sharing
from drsow_plugin.engines.local.tree import TokenTree
from drsow_plugin.records import TokenPair

Tensor = torch.Tensor


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


@pytest.mark.parametrize("is_by_token", [True, False])
def test_keys_lie_slot_by_slot_behind_those_of_the_cache(is_by_token: bool) -> None:
    """Whether a model lays them out by tokens or by heads."""
    pairs = [TokenPair((1, 2, 3), (4, 5, 6)), TokenPair((1, 2, 3), (4, 7, 8))]
    first, second = chunks(pairs, tokens=4)
    made = torch.randn(7, 2, 5)  # keys of two heads for each node of the tree
    states = made.transpose(0, 1) if is_by_token else made.transpose(0, 1).contiguous()
    packing = Packing(first, by_run, ())
    keys, values = packing.with_cache(states[:, :4], states[:, :4, :3])
    assert keys.is_contiguous() and keys.equal(made[:4])
    assert values.is_contiguous() and values.equal(made[:4, :, :3])
    packing = Packing(second, by_run, packing.next_cache)
    keys, values = packing.with_cache(states[:, 4:], states[:, 4:, :3])
    assert second.cache_length == 4
    assert keys.is_contiguous() and keys.equal(made)
    assert values.is_contiguous() and values.equal(made[:, :, :3])


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
