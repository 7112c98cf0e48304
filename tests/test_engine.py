"""The local engine on many architectures, against float64, and when memory runs out."""

from __future__ import annotations

import random

import accelerate
import pytest
import tiny
import torch
import transformers as tf
from oracle import token_logprobs

from drsow_plugin.engines.local import LocalEngine
from drsow_plugin.engines.network import Network
from drsow_plugin.errors import ConfigError, EngineError
from drsow_plugin.records import TokenPair


def rows(seed: int, count: int = 12) -> list[TokenPair]:
    """Random rows of very different lengths, longer than the sliding windows."""
    rng = random.Random(seed)

    def ids(low: int, high: int) -> tuple[int, ...]:
        return tuple(rng.randrange(512) for _ in range(rng.randint(low, high)))

    return [TokenPair(ids(1, 40), ids(1, 90)) for _ in range(count)]


@pytest.mark.parametrize("arch", tiny.CONFIGS)
def test_log_probs_agree_with_float64_on_every_architecture(arch: str) -> None:
    model, pairs = tiny.model(arch), rows(1)
    scored = LocalEngine(Network(model)).logprobs(pairs)
    oracle = tiny.model(arch).double()
    for pair, logprob in zip(pairs, scored, strict=True):
        expected = sum(token_logprobs(oracle, pair.prompt_ids, pair.response_ids))
        assert logprob.total == pytest.approx(expected, abs=1e-5)
        assert logprob.num_tokens == len(pair.response_ids)


@pytest.mark.parametrize("arch", tiny.CONFIGS)
def test_padding_and_neighbours_change_nothing(arch: str) -> None:
    network, pairs = Network(tiny.model(arch)), rows(2)
    alone = LocalEngine(network, batch_size=1).logprobs(pairs)
    for options in ({}, {"batch_tokens": 300}, {"batch_size": 3}):
        together = LocalEngine(network, **options).logprobs(pairs[::-1])[::-1]
        for a, b in zip(alone, together, strict=True):
            assert a.total == pytest.approx(b.total, abs=1e-5)


@pytest.mark.parametrize("arch", tiny.CONFIGS)
def test_the_head_runs_only_where_a_response_token_is_predicted(arch: str) -> None:
    model, pairs = tiny.model(arch), rows(3)
    network = Network(model)
    assert network.splits
    positions: list[int] = []
    model.get_output_embeddings().register_forward_hook(
        lambda _module, inputs, _output: positions.append(inputs[0].shape[:-1].numel())
    )
    LocalEngine(network).logprobs(pairs)
    assert sum(positions) == sum(len(pair.response_ids) for pair in pairs)


def test_a_model_that_reads_ahead_is_refused() -> None:
    config = tf.BertConfig(
        vocab_size=512, hidden_size=32, num_hidden_layers=2, num_attention_heads=4
    )
    with pytest.raises(ConfigError, match="BertLMHeadModel is not causal"):
        Network(tf.BertLMHeadModel(config).eval())


class Odd(torch.nn.Module):
    """A model whose head looks at the ids too, so that it cannot run apart from the body."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = tiny.model("llama")
        self.config = self.inner.config
        self.base_model = self.inner.base_model

    def get_input_embeddings(self) -> torch.nn.Module:
        return self.inner.get_input_embeddings()

    def forward(self, input_ids: torch.Tensor, **options: object) -> object:
        output = self.inner(input_ids=input_ids, use_cache=False)
        output.logits = output.logits + input_ids.unsqueeze(-1) % 7 * torch.arange(512) / 512
        return output


def test_a_model_that_cannot_be_split_is_scored_whole(caplog: pytest.LogCaptureFixture) -> None:
    network = Network(Odd())
    assert not network.splits and "cannot be applied apart" in caplog.text
    pairs = rows(4)
    scored = LocalEngine(network).logprobs(pairs)
    oracle = Odd().double()
    for pair, logprob in zip(pairs, scored, strict=True):
        expected = sum(token_logprobs(oracle, pair.prompt_ids, pair.response_ids))
        assert logprob.total == pytest.approx(expected, abs=1e-5)


def test_offloaded_weights_are_scored_where_they_are_brought_to() -> None:
    pairs = rows(7)
    usual = LocalEngine(Network(tiny.model())).logprobs(pairs)
    offloaded = accelerate.cpu_offload(tiny.model(), execution_device=torch.device("cpu"))
    network = Network(offloaded)
    assert network.splits and network.device == torch.device("cpu")
    for a, b in zip(usual, LocalEngine(network).logprobs(pairs), strict=True):
        assert a.total == pytest.approx(b.total, abs=1e-5)


class Cramped(Network):
    """A device that holds only so many tokens at once."""

    def __init__(self, model: torch.nn.Module, room: int) -> None:
        super().__init__(model)
        self.room, self.refused = room, 0

    def hidden(self, ids: torch.Tensor) -> torch.Tensor:
        if ids.numel() > self.room:
            self.refused += 1
            raise torch.OutOfMemoryError("out of memory")
        return super().hidden(ids)


def test_running_out_of_memory_halves_the_budget_and_goes_on() -> None:
    pairs = rows(5, count=40)
    roomy = LocalEngine(Network(tiny.model())).logprobs(pairs)
    cramped = Cramped(tiny.model(), room=200)
    scored = LocalEngine(cramped).logprobs(pairs)
    assert 1 <= cramped.refused <= 6
    for a, b in zip(roomy, scored, strict=True):
        assert a.total == pytest.approx(b.total, abs=1e-5)


def test_a_single_row_that_does_not_fit_is_an_error_with_its_length() -> None:
    with pytest.raises(EngineError, match="single row of 90 tokens"):
        LocalEngine(Cramped(tiny.model(), room=50)).logprobs([TokenPair((1,) * 40, (2,) * 50)])


def test_other_failures_are_not_taken_for_a_lack_of_memory() -> None:
    with pytest.raises(RuntimeError, match="out of bounds"):
        LocalEngine(Network(tiny.model())).logprobs([TokenPair((1,), (99999,))] * 2)


def test_a_large_vocabulary_is_summed_more_exactly_than_log_softmax_does() -> None:
    """With 49,152 entries float32 ``log_softmax`` errs by more than the bound of 5e-4."""
    torch.manual_seed(0)
    config = tf.LlamaConfig(**{**tiny._SIZES, "vocab_size": 49152})
    model = tf.AutoModelForCausalLM.from_config(config).eval()
    rng = random.Random(0)
    pair = TokenPair((1, 2, 3), tuple(rng.randrange(49152) for _ in range(500)))
    scored = LocalEngine(Network(model)).logprobs([pair])[0]
    expected = token_logprobs(model.double(), pair.prompt_ids, pair.response_ids)
    assert scored.total == pytest.approx(sum(expected), abs=2e-4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("arch", tiny.CONFIGS)
def test_a_gpu_in_float32_agrees_with_float64(arch: str) -> None:
    model, pairs = tiny.model(arch).cuda(), rows(6)
    scored = LocalEngine(Network(model)).logprobs(pairs)
    oracle = tiny.model(arch).double()
    for pair, logprob in zip(pairs, scored, strict=True):
        expected = sum(token_logprobs(oracle, pair.prompt_ids, pair.response_ids))
        assert logprob.total == pytest.approx(expected, abs=5e-4)
