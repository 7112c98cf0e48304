"""The head: log-probs of targets from hidden states, and the ids that come in."""

from __future__ import annotations

import logging
import random
from types import SimpleNamespace

import pytest
import torch
import transformers as tf
from helpers import tiny
from helpers.engines import engine, logprobs, rows
from helpers.oracle import token_logprobs

from drsow_plugin.engines.local import head, packed
from drsow_plugin.engines.local.network import Network
from drsow_plugin.records import TokenPair


@pytest.mark.parametrize("pair", [((1, 512), (2, 3)), ((1,), (2, 512)), ((1,), (-1, 2))])
def test_a_token_that_is_not_in_the_vocabulary_is_refused_before_anything_is_computed(
    pair: tuple[tuple[int, ...], tuple[int, ...]],
) -> None:
    model = tiny.model()
    made, computed = engine(model), []
    model.get_input_embeddings().register_forward_hook(lambda *_: computed.append(1))
    with pytest.raises(IndexError, match=r"pair 1: the token (512|-1) is out of range .* 512\."):
        logprobs(made, [TokenPair((1,), (2,)), TokenPair(*pair)])
    assert not computed


def test_a_large_vocabulary_is_summed_more_exactly_than_log_softmax_does() -> None:
    """With 49,152 entries float32 ``log_softmax`` errs by more than the bound of 5e-4."""
    torch.manual_seed(0)
    config = tf.LlamaConfig(**{**tiny._SIZES, "vocab_size": 49152})
    model = tf.AutoModelForCausalLM.from_config(config).eval()
    rng = random.Random(0)
    pair = TokenPair((1, 2, 3), tuple(rng.randrange(49152) for _ in range(500)))
    scored = logprobs(engine(model), [pair])[0]
    expected = token_logprobs(model.double(), pair.prompt_ids, pair.response_ids)
    assert scored.total == pytest.approx(sum(expected), abs=2e-4)


def of_tiles(
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    hidden: torch.Tensor,
    positions: list[int],
    targets: list[int],
) -> list[float]:
    """Return what a GPU would, in tiles of 4 positions and 64 entries of the vocabulary."""
    given = torch.tensor(positions), torch.tensor(targets)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(head, "_TILE", (4, 64))
        return head._by_tile(weight, bias, hidden, *given).tolist()


def exactly(
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    hidden: torch.Tensor,
    positions: list[int],
    targets: list[int],
) -> list[float]:
    wide = None if bias is None else bias.double()
    logits = torch.nn.functional.linear(hidden.double(), weight.double(), wide)
    return logits.log_softmax(-1)[positions, targets].tolist()


@pytest.mark.parametrize("vocabulary", [1, 63, 64, 65, 640, 1001])
@pytest.mark.parametrize("count", [1, 4, 9])
@pytest.mark.parametrize("scale", [0.1, 100.0])
def test_a_head_in_tiles_agrees_with_float64(vocabulary: int, count: int, scale: float) -> None:
    """Positions may have several targets, and one target may come again."""
    torch.manual_seed(vocabulary)
    weight, hidden = torch.randn(vocabulary, 8), torch.randn(count, 8) * scale
    for bias in (None, torch.randn(vocabulary)):
        positions = sorted([*range(count), 0, 0, count - 1])
        targets = [(7 * n) % vocabulary for n in range(len(positions) - 1)]
        case = (weight, bias, hidden, positions, [*targets, targets[-1]])
        allowed = 2e-6 + 3e-7 * float((hidden @ weight.T).abs().max())  # logits are float32
        assert of_tiles(*case) == pytest.approx(exactly(*case), abs=allowed)


def test_logits_of_minus_infinity_and_huge_ones_are_what_they_are_in_float64() -> None:
    torch.manual_seed(0)
    weight, hidden = torch.randn(200, 8), torch.randn(5, 8)
    for first, bias in (
        (-torch.inf, torch.zeros(200)),  # the first tile has none
        (0.0, torch.full((200,), -torch.inf)),  # only the first tile has any
        (1e30, torch.zeros(200)),
        (-1e30, torch.zeros(200)),
    ):
        bias[:64] = first
        case = (weight, bias, hidden, [0, 1, 4, 4], [3, 63, 64, 199])
        assert of_tiles(*case) == pytest.approx(exactly(*case), rel=1e-6, abs=2e-6)
    bias.fill_(-torch.inf)[70] = 5.0
    assert of_tiles(weight, bias, hidden, [0, 4], [70, 69]) == [0.0, -torch.inf]


def test_a_logit_that_is_not_a_number_stays_at_its_position() -> None:
    weight, hidden = torch.randn(200, 8), torch.randn(3, 8)
    hidden[1, 0] = torch.nan
    values = torch.tensor(of_tiles(weight, None, hidden, [0, 1, 2], [5, 5, 5]))
    assert values.isnan().tolist() == [False, True, False]


def test_a_probability_of_1_does_not_round_to_more() -> None:
    torch.manual_seed(0)
    weight = torch.randn(100, 511)
    hidden = weight[:50] * 3.0
    assert of_tiles(weight, None, hidden, [*range(50)], [*range(50)]) == [0.0] * 50


def test_the_engine_comes_out_the_same_with_a_head_in_tiles(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pairs, model = rows(8), tiny.model()
    monkeypatch.setattr(head, "_by_vocabulary", head._by_tile)
    monkeypatch.setattr(head, "_TILE", (5, 100))
    scored = logprobs(engine(model), pairs)
    for pair, logprob in zip(pairs, scored, strict=True):
        expected = sum(token_logprobs(model.double(), pair.prompt_ids, pair.response_ids))
        model.float()
        assert logprob.total == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("arch", ["llama", "cohere_scaled"])
@pytest.mark.parametrize("in_tiles", [True, False])
def test_log_probs_are_the_same_where_the_head_ran_out_of_memory(
    arch: str, in_tiles: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs, made, refused = rows(9), engine(tiny.model(arch)), []
    if in_tiles:
        monkeypatch.setattr(head, "_by_vocabulary", head._by_tile)
    roomy, own = logprobs(made, pairs), head.logprobs_of

    def cramped(network: Network, hidden: torch.Tensor, *given: torch.Tensor) -> torch.Tensor:
        if len(hidden) > 100:
            refused.append(len(hidden))
            raise torch.OutOfMemoryError("out of memory")
        return own(network, hidden, *given)

    monkeypatch.setattr(packed, "logprobs_of", cramped)
    for a, b in zip(roomy, logprobs(made, pairs), strict=True):
        assert a.token_logprobs == pytest.approx(b.token_logprobs, abs=1e-6)
    assert refused


@pytest.mark.parametrize("is_linear", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nothing_is_read_back_from_the_device_of_the_head(
    is_linear: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tensor on meta has no values: to copy it, or to ask it for a number, is an error."""
    monkeypatch.setattr(head, "_by_vocabulary", head._by_tile)
    monkeypatch.setitem(head._LOGIT_BYTES, "meta", 4 * 30000 * 300)  # several parts
    weight = torch.empty(30000, 16, dtype=dtype, device="meta")
    hidden = torch.empty(5000, 16, dtype=dtype, device="meta")
    network = SimpleNamespace(
        linear_head=(weight, None) if is_linear else None,
        vocab_size=len(weight),
        logits=lambda part: part @ weight.t(),
    )
    positions = torch.arange(5000).repeat_interleave(2)
    values = head.logprobs_of(network, hidden, positions, positions)
    assert values.is_meta and values.shape == (10000,)
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        values.cpu()


def test_where_products_are_rounded_to_a_half_dtype_the_log_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As they are on a CPU, and on a GPU with an older torch."""
    cpu = torch.device("cpu")
    head._has_exact_products.cache_clear()
    with caplog.at_level(logging.INFO):
        assert head._has_exact_products(cpu, torch.float32) and not caplog.records
        assert not head._has_exact_products(cpu, torch.bfloat16)
    assert "Logits on cpu are rounded to torch.bfloat16" in caplog.text


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("vocabulary", [8192, 32003])
def test_a_head_on_a_gpu_agrees_with_float64(dtype: torch.dtype, vocabulary: int) -> None:
    torch.manual_seed(0)
    weight = torch.randn(vocabulary, 512, device="cuda").mul_(0.2).to(dtype)
    hidden = torch.randn(5000, 512, device="cuda").to(dtype)
    network = SimpleNamespace(linear_head=(weight, None), vocab_size=vocabulary)
    positions, targets = torch.arange(5000), torch.randint(vocabulary, (5000,))
    with torch.inference_mode():
        head.logprobs_of(network, hidden, positions, targets)  # compiles
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            values = head.logprobs_of(network, hidden, positions, targets)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        exact = (hidden.double() @ weight.double().t()).log_softmax(-1).cpu()
    errors = values.cpu() - exact[positions, targets]
    assert float(errors.square().mean().sqrt()) < 2e-6
    assert abs(float(errors.mean())) < 2e-7
