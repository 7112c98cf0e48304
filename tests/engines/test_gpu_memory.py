"""What a GPU's memory is asked for, what is given back, and what happens when there is none."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
import torch
import transformers as tf
from helpers import tiny
from helpers.devices import HAS_GPU
from helpers.engines import engine, logprobs, rows

from drsow_plugin.engines.local.budget import free_memory
from drsow_plugin.engines.local.network import Network
from drsow_plugin.records import TokenPair

pytestmark = [pytest.mark.gpu, HAS_GPU, pytest.mark.filterwarnings("default")]

MB = 1 << 20


def tidy() -> None:
    gc.collect()
    torch.cuda.empty_cache()


@pytest.fixture(autouse=True)
def unused() -> Iterator[None]:
    """Begin and end with no memory that a test left in torch's cache."""
    tidy()
    yield
    tidy()


def large() -> Network:
    """Return a random model with the vocabulary and, in few layers, the width of a small LM."""
    config = tf.LlamaConfig(
        **{"vocab_size": 32000, "hidden_size": 1024, "intermediate_size": 4096},
        **{"num_hidden_layers": 4, "num_attention_heads": 8, "num_key_value_heads": 2},
        max_position_embeddings=4096,
    )
    with torch.device("cuda"):
        return Network(tiny.from_config(config).to(torch.bfloat16))


def many(count: int, length: int = 200) -> list[TokenPair]:
    """Return rows that share their prompt of 20 tokens, and little else."""
    ids = torch.randint(512, (count, length), generator=torch.Generator().manual_seed(0)).tolist()
    return [TokenPair(tuple(range(1, 21)), tuple(row)) for row in ids]


@pytest.mark.fault("memory", "the memory of a GPU runs out", "smaller chunks; the same log-probs")
@pytest.mark.parametrize("arch", ["llama", "bloom_alibi"])
def test_running_out_of_memory_leaves_the_numbers_as_they_are(arch: str) -> None:
    """A layer of all rows at once needs more than what is left; half of them, or a quarter, not."""
    network, pairs = Network(tiny.model(arch).cuda()), many(600)
    expected = [each.total for each in logprobs(engine(network, batch_tokens=8192), pairs)]
    tidy()
    whole = torch.cuda.get_device_properties(0).total_memory
    refused = torch.cuda.memory_stats()["num_ooms"]
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 128 * MB) / whole)
    try:
        scored = logprobs(engine(network, batch_tokens=1 << 20), pairs)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert torch.cuda.memory_stats()["num_ooms"] > refused
    assert [each.total for each in scored] == pytest.approx(expected, abs=5e-4)


def test_what_a_call_used_is_free_after_it() -> None:
    network, pairs = large(), many(100)
    made = engine(network)
    logprobs(made, pairs[:8])  # what is made once, such as a kernel's workspace
    before = torch.cuda.memory_allocated()
    first = logprobs(made, pairs)
    logprobs(made, pairs[:40])
    assert torch.cuda.memory_allocated() <= before + MB
    assert logprobs(made, pairs) == first


def test_a_call_that_is_broken_off_holds_nothing() -> None:
    network, pairs = large(), many(100)
    made = engine(network, batch_tokens=2048)
    logprobs(made, pairs[:8])
    before = torch.cuda.memory_allocated()
    answers = made.logprobs(pairs)
    next(answers)
    answers.close()
    assert torch.cuda.memory_allocated() <= before + MB


@pytest.mark.parametrize("tokens", [4096, 16384])
def test_a_chunk_takes_no_more_than_it_was_reckoned_to(tokens: int) -> None:
    """Chunks are fitted to half of the free memory; the head's parts come on top."""
    network, pairs = large(), many(tokens // 100)
    made = engine(network, batch_tokens=tokens)
    logprobs(made, pairs[:8])
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    logprobs(made, pairs)
    used = torch.cuda.max_memory_allocated() - before
    assert used <= 2 * tokens * network.bytes_per_token + 2048 * MB


def test_free_memory_is_what_torch_may_still_take() -> None:
    device = torch.device("cuda")
    before = free_memory(device)
    held = torch.empty(256 * MB, dtype=torch.uint8, device=device)
    after = free_memory(device)
    assert before is not None and after is not None
    assert before - after == pytest.approx(256 * MB, abs=16 * MB)
    del held  # stays in torch's cache, and is free
    assert free_memory(device) == pytest.approx(before, abs=16 * MB)


def test_rows_of_a_model_that_needs_no_reckoning_are_scored_as_on_a_cpu() -> None:
    """The budget is the default, from what is free on the device."""
    pairs = rows(7, count=30)
    on_cpu = [each.total for each in logprobs(engine(tiny.model(), batch_tokens=2048), pairs)]
    on_gpu = [each.total for each in logprobs(engine(tiny.model().cuda()), pairs)]
    assert on_gpu == pytest.approx(on_cpu, abs=5e-4)
