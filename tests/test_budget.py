"""How many tokens are computed at once."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil
import pytest
import tiny
import torch
from test_engine import rows

from drsow_plugin.engines import budget
from drsow_plugin.engines.budget import Budget, fitting_tokens, free_memory
from drsow_plugin.engines.local import LocalEngine
from drsow_plugin.engines.network import Network
from drsow_plugin.engines.sharing import find_sharing

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("free", "expected"),
    [(0, budget.LEAST_TOKENS), (None, budget.CPU_TOKENS), (1 << 50, budget.CPU_TOKENS)],
)
def test_the_budget_has_bounds(
    free: int | None, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "free_memory", lambda _device: free)
    assert fitting_tokens(Network(tiny.model())) == expected


@pytest.mark.parametrize("arch", tiny.CONFIGS)
def test_half_of_the_free_memory_holds_what_is_computed(
    arch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Network(tiny.model(arch))
    monkeypatch.setattr(budget, "free_memory", lambda _device: 1000 * network.bytes_per_token)
    assert fitting_tokens(network) == 500


def test_the_bound_of_a_token_is_no_less_than_what_a_layer_makes_of_it() -> None:
    """Held against the tensors that are alive at once in a layer: counted, not estimated."""
    model = tiny.model()
    network, config = Network(model), model.config
    gate = 3 * config.intermediate_size  # gate, up, and their product
    heads = config.num_attention_heads + 2 * config.num_key_value_heads
    attention = (heads + config.num_attention_heads) * config.head_dim
    residual = 3 * config.hidden_size
    assert network.bytes_per_token >= 4 * max(gate + residual, attention + residual)


def test_an_engine_follows_what_is_free_at_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    network, sizes = Network(tiny.model()), []
    own = network.hidden_of_tree
    sharing = find_sharing(network)
    network.hidden_of_tree = lambda packing: sizes.append(len(packing.chunk.ids)) or own(packing)
    engine = LocalEngine(network, sharing)
    for tokens in (100, 30):
        free = 2 * tokens * network.bytes_per_token
        monkeypatch.setattr(budget, "free_memory", lambda _device, free=free: free)
        sizes.clear()
        engine.logprobs(rows(1))
        assert max(sizes) == tokens


def test_halving_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Budget(100)
    assert made.halve(80) and made.tokens == 40
    assert made.halve(20) and made.tokens == budget.LEAST_TOKENS
    assert not made.halve(budget.LEAST_TOKENS)


def test_a_control_group_limits_what_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "_CGROUP", tmp_path)
    whole = psutil.virtual_memory().available
    assert free_memory(CPU) == pytest.approx(whole, rel=0.2)  # no such files
    for name, text in {
        "memory.max": "1000000\n",
        "memory.current": "700000\n",
        "memory.stat": "anon 500000\ninactive_file 100000\n",
    }.items():
        (tmp_path / name).write_text(text)
    assert free_memory(CPU) == 400_000
    (tmp_path / "memory.max").write_text("max\n")
    assert budget._left_in_group() == sys.maxsize
