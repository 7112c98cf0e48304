"""How many tokens are computed at once."""

from __future__ import annotations

import os
import platform
import resource
import statistics
import sys
from pathlib import Path

import pytest
import torch
from helpers import tiny
from helpers.engines import logprobs, rows

from drsow_plugin.engines.local import budget
from drsow_plugin.engines.local.budget import Budget, fitting_tokens, free_memory, give_back
from drsow_plugin.engines.local.engine import LocalEngine
from drsow_plugin.engines.local.network import Network
from drsow_plugin.engines.local.probe import find_sharing

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("free", "expected"),
    [(0, budget.MIN_TOKENS), (None, budget.CPU_TOKENS), (1 << 50, budget.CPU_TOKENS)],
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
    own = network.hidden_of_chunk
    sharing = find_sharing(network)
    network.hidden_of_chunk = lambda packing: sizes.append(len(packing.chunk.ids)) or own(packing)
    engine = LocalEngine(network, sharing)
    for tokens in (100, 30):
        free = 2 * tokens * network.bytes_per_token
        monkeypatch.setattr(budget, "free_memory", lambda _device, free=free: free)
        sizes.clear()
        logprobs(engine, rows(1))
        assert max(sizes) == tokens


def test_halving_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Budget(100)
    assert made.halve(80) and made.tokens == 40
    assert made.halve(20) and made.tokens == budget.MIN_TOKENS
    assert not made.halve(budget.MIN_TOKENS)


@pytest.mark.fault(
    "memory",
    "a control group allows less memory than the machine has",
    "batches are sized by what it allows",
)
def test_a_control_group_limits_what_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import psutil

    monkeypatch.setattr(budget, "_CGROUP", tmp_path)
    whole = psutil.virtual_memory().available
    assert free_memory(CPU) == pytest.approx(whole, rel=0.2)  # no such files
    group(tmp_path, V2, "1000000", 700_000)
    assert free_memory(CPU) == 400_000
    (tmp_path / "memory.max").write_text("max\n")
    assert budget._left_in_group() == sys.maxsize


V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
V2 = ("memory.max", "memory.current", "inactive_file")
NO_LIMIT = {V1: "9223372036854771712", V2: "max"}


def group(folder: Path, names: tuple[str, ...], limit: str, used: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"rss 500000\n{names[2]} 100000\n")


@pytest.mark.parametrize("names", [V1, V2])
def test_the_limit_of_any_group_that_this_process_is_in_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...]
) -> None:
    member = tmp_path / "member"
    member.write_text("5:cpu,cpuacct:/job\n4:memory:/job/step\n" if names is V1 else "0::/job/step")
    monkeypatch.setattr(budget, "_CGROUP", tmp_path / "cgroup")
    monkeypatch.setattr(budget, "_MEMBERSHIP", member)
    root = tmp_path / "cgroup" / "memory" if names is V1 else tmp_path / "cgroup"
    group(root / "job" / "step", names, NO_LIMIT[names], 300_000)
    assert budget._left_in_group() > 1 << 60
    group(root / "job", names, "1000000", 800_000)
    assert free_memory(CPU) == 300_000
    group(root / "job" / "step", names, "500000", 450_000)
    assert free_memory(CPU) == 150_000
    (root / "job" / "step" / names[1]).write_text("no number")
    assert free_memory(CPU) == 300_000
    member.write_text("4:memory:/not/seen/here\n0::/not/seen/here\n")  # in a container
    group(root, names, "2000000", 1_200_000)
    assert free_memory(CPU) == 900_000


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc" or bool(budget._ASKED & os.environ.keys()),
    reason="the allocator is another one, or was set up otherwise",
)
def test_memory_that_a_layer_frees_is_there_for_the_next_one_until_it_is_given_back() -> None:
    def layer() -> int:
        """Compute as one does, with 96 MB in between, and return how many pages were cleared."""
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        parts = [torch.ones(6 << 20) for _ in range(4)]
        del parts
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    LocalEngine(Network(tiny.model()), None)
    give_back(CPU)
    pages = (96 << 20) // resource.getpagesize()
    assert layer() > pages // 2
    layer()  # blocks find their places
    # Without it each call clears them all; what ran before may leave one call to look for room.
    assert statistics.median(layer() for _ in range(5)) < pages // 40
    give_back(CPU)
    assert layer() > pages // 2
