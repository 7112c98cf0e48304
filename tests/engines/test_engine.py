"""The local engine on many architectures, against float64, and when memory runs out."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import pytest
import torch
import transformers as tf
from helpers import tiny
from helpers.engines import engine, logprobs, rows
from helpers.oracle import token_logprobs
from measure import HeadCounter
from workloads import unique

from drsow_plugin import DrSoW
from drsow_plugin.engines.local import kernels
from drsow_plugin.engines.local.attention import Packing
from drsow_plugin.engines.local.engine import LocalEngine
from drsow_plugin.engines.local.kernels import by_run
from drsow_plugin.engines.local.network import Network
from drsow_plugin.engines.local.probe import Sharing, find_sharing
from drsow_plugin.engines.results import logprobs_of
from drsow_plugin.errors import ConfigError
from drsow_plugin.records import LogProb, TokenPair


@pytest.mark.parametrize("arch", tiny.CONFIGS)
def test_log_probs_agree_with_float64_on_every_architecture(arch: str) -> None:
    model, pairs = tiny.model(arch), rows(1)
    scored = logprobs(engine(model), pairs)
    oracle = tiny.model(arch).double()
    for pair, logprob in zip(pairs, scored, strict=True):
        expected = sum(token_logprobs(oracle, pair.prompt_ids, pair.response_ids))
        assert logprob.total == pytest.approx(expected, abs=1e-5)
        assert logprob.num_tokens == len(pair.response_ids)


@pytest.mark.parametrize("arch", tiny.CONFIGS)
def test_padding_and_neighbours_change_nothing(arch: str) -> None:
    network, pairs = Network(tiny.model(arch)), rows(2)
    alone = logprobs(engine(network, batch_size=1), pairs)
    for options in ({}, {"batch_tokens": 300}, {"batch_size": 3}):
        together = logprobs(engine(network, **options), pairs[::-1])[::-1]
        for a, b in zip(alone, together, strict=True):
            assert a.total == pytest.approx(b.total, abs=1e-5)


UNSHARED = {"bloom_alibi", "mamba", "jamba_hybrid"}


@pytest.mark.parametrize("arch", tiny.CONFIGS)
def test_which_architectures_share_prefixes_is_found_out(
    arch: str, caplog: pytest.LogCaptureFixture
) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        caplog.clear()
        shares = find_sharing(Network(tiny.model(arch).to(dtype))) is not None
        assert shares == (arch not in UNSHARED)
        ours = [record for record in caplog.records if record.name.startswith("drsow_plugin")]
        assert len(ours) == (not shares)
        assert shares or "rows cannot share what they have in common" in caplog.text


def weighty() -> torch.nn.Module:
    return tiny.weighty(tiny.model())


def neighbours(length: int, share: float = 50) -> torch.nn.Module:
    """Return a model that mixes each token with the ones before it outside of attention."""
    made = weighty()
    layer = made.model.layers[0].mlp
    forward = layer.forward

    def mixing(x: torch.Tensor) -> torch.Tensor:
        before = torch.nn.functional.pad(x, (0, 0, length, 0))[:, : x.shape[1]]
        return forward(x + before / share)

    layer.forward = mixing
    return made


class Deaf(torch.nn.Module):
    """A rotary embedding that counts tokens instead of reading their positions."""

    def __init__(self, own: torch.nn.Module) -> None:
        super().__init__()
        self.own = own

    def forward(self, x: torch.Tensor, position_ids: torch.Tensor) -> object:
        return self.own(x, torch.arange(x.shape[1]).unsqueeze(0))


def deaf() -> torch.nn.Module:
    made = weighty()
    made.model.rotary_emb = Deaf(made.model.rotary_emb)
    return made


@pytest.mark.parametrize("make", [lambda: neighbours(1), lambda: neighbours(3), deaf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_models_that_would_come_out_wrong_do_not_share(make: object, dtype: torch.dtype) -> None:
    assert find_sharing(Network(weighty().to(dtype))) is not None
    assert find_sharing(Network(make().to(dtype))) is None


@pytest.mark.parametrize("arch", tiny.CONFIGS)
def test_nothing_is_computed_twice(arch: str) -> None:
    """The backbone runs once for each distinct prefix, the head once for each that predicts."""
    pairs = [pair for pair in rows(3) if len(pair) < 48]  # LongRoPE shares no longer ones
    model = tiny.model(arch)
    made, backbone = engine(model), []
    model.get_input_embeddings().register_forward_hook(
        lambda _module, inputs, _output: backbone.append(inputs[0].numel())
    )
    with HeadCounter([model]) as head:
        logprobs(made, pairs)
    if arch in UNSHARED:
        assert round(head.positions) == sum(len(pair.response_ids) for pair in pairs)
        return
    counted = unique(pairs)
    assert (sum(backbone), round(head.positions)) == (counted.backbone, counted.head)


def test_a_model_that_reads_ahead_is_refused() -> None:
    config = tf.BertConfig(
        vocab_size=512, hidden_size=32, num_hidden_layers=2, num_attention_heads=4
    )
    with pytest.raises(ConfigError, match="BertLMHeadModel is not causal"):
        Network(tf.BertLMHeadModel(config).eval())


@pytest.mark.fault(
    "rows",
    "a row whose log-probs are not finite, in a batch with others",
    "no number for that row; the others are the same as without it",
)
@pytest.mark.parametrize("arch", ["llama", "mistral_sliding", "gpt_oss_sinks"])
def test_what_is_not_finite_in_one_row_stays_there(arch: str) -> None:
    """The rows share a prompt, which is computed beside the token whose embedding is NaN."""
    model = tiny.model(arch)
    pairs = [TokenPair((1, 2, 3), (400, 5, 6)), TokenPair((1, 2, 3), (401, 7, 8))]
    expected = logprobs(engine(model), pairs)[1]
    with torch.no_grad():
        model.get_input_embeddings().weight[400] = torch.nan
    sound = logprobs(LocalEngine(Network(model), Sharing(by_run, None)), pairs)
    assert str(sound[0].problem) == "not finite: the log-prob came out as nan"
    assert sound[1].total == pytest.approx(expected.total, abs=1e-5)


@pytest.mark.parametrize(("share", "is_rounding"), [(5e-5, True), (5e-3, False)])
def test_kernels_may_round_otherwise_but_not_compute_otherwise(
    share: float, is_rounding: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With some tokens the demo model's log-probs move by as much with the number of threads."""
    own, model = by_run, weighty()
    monkeypatch.setattr(kernels, "by_run", lambda *given: own(*given) * (1 + share))
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(5)
    assert (find_sharing(Network(model)) is not None) == is_rounding


def test_a_soft_cap_is_kept_where_transformers_would_leave_it_out() -> None:
    """Before 5.21 it chooses torch's kernel for Gemma 2; since then it refuses that kernel."""
    pairs, made = rows(8), {}
    for implementation in ("eager", "sdpa"):
        model = tiny.model("gemma2_softcap")
        model.config._attn_implementation = implementation
        for layer in model.model.layers:
            layer.self_attn.attn_logit_softcapping = 0.01
        made[implementation] = Network(model)
    expected = [each.total for each in logprobs(LocalEngine(made["eager"], None), pairs)]
    for sharing in (None, Sharing(by_run, None)):
        scored = logprobs(LocalEngine(made["sdpa"], sharing), pairs)
        assert [each.total for each in scored] == pytest.approx(expected, abs=1e-5)


def reformer(hash_seed: int | None) -> torch.nn.Module:
    torch.manual_seed(0)
    return tf.AutoModelForCausalLM.from_config(
        tf.ReformerConfig(
            **{
                "vocab_size": 512,
                "hidden_size": 32,
                "num_attention_heads": 4,
                "feed_forward_size": 48,
            },
            **{"attention_head_size": 8, "attn_layers": ["local", "lsh"], "is_decoder": True},
            **{"axial_pos_embds_dim": (16, 16), "axial_pos_shape": (16, 32)},
            max_position_embeddings=512,
            hash_seed=hash_seed,
        )
    )


@pytest.mark.parametrize(
    ("hash_seed", "problem"), [(None, "the same tokens differently each time"), (1, "not causal")]
)
def test_a_model_that_hashes_long_rows_is_refused(
    hash_seed: int | None, problem: str, tmp_path: Path, weak: str
) -> None:
    """It attends to the whole of a short row, and only then reads it the same each time."""
    reformer(hash_seed).save_pretrained(tmp_path)
    tiny.tokenizer("gpt2_bos", "chatml").save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=f"ReformerModelWithLMHead .*{problem}"):
        DrSoW(strong=str(tmp_path), weak=weak).score(["a"], ["b"])


def test_a_leak_between_rows_of_more_than_rounding_is_found() -> None:
    """Scored packed, rows of this model would be off by a few thousandths of a nat."""
    model, pairs = neighbours(1, 2e4), rows(6)
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(5)
    network = Network(model)
    alone = logprobs(LocalEngine(network, None), pairs)
    packed = logprobs(LocalEngine(network, Sharing(by_run, None), batch_tokens=37), pairs)
    leak = max(abs(a.total - b.total) for a, b in zip(alone, packed, strict=True))
    assert 5e-4 < leak < 5e-3
    assert find_sharing(network) is None


def test_every_pair_is_answered_once_also_if_it_comes_again_or_is_empty() -> None:
    pairs = [*rows(1), *rows(1), TokenPair((1, 2), ())]
    answers = [*logprobs_of(engine(tiny.model()), pairs)]
    assert sorted(index for index, _ in answers) == [*range(len(pairs))]
    found = dict(answers)
    assert [found[i] for i in range(12)] == [found[i] for i in range(12, 24)]
    assert found[24] == LogProb(0.0, 0, ())


def test_factors_by_length_are_found_wherever_they_are_configured() -> None:
    longrope = tiny.CONFIGS["phi3_longrope"]().rope_parameters
    model = tiny.model()
    network = Network(model)
    assert network.scaling.max_short is None
    nested = {"full_attention": {**longrope, "original_max_position_embeddings": 48}}
    model.config.rope_parameters = nested
    assert network.scaling.max_short == 48
    model.config.rope_parameters = {"rope_type": "dynamic", "factor": 2.0}
    assert network.scaling.max_short == 511


def dynamic(arch: str) -> torch.nn.Module:
    config = tiny.CONFIGS[arch]()
    config.max_position_embeddings = 64
    config.rope_parameters = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0}
    torch.manual_seed(0)
    return tf.AutoModelForCausalLM.from_config(config).eval()


@pytest.mark.parametrize("arch", ["llama", "qwen2"])
def test_factors_of_dynamic_scaling_are_each_row_s_own(arch: str) -> None:
    """A row is read up to its last token, which is predicted, as by lm-eval's hf."""
    pairs, plain = rows(5), dynamic(arch).double()
    pairs += [TokenPair((1, 2, 3), tuple(range(4, length + 2))) for length in (63, 64, 65)]
    expected = []
    for prompt, response in ((pair.prompt_ids, pair.response_ids) for pair in pairs):
        plain(input_ids=torch.tensor([[1]]))  # forgets the factors of a longer row
        logits = plain(input_ids=torch.tensor([[*prompt, *response][:-1]])).logits[0]
        table = logits[-len(response) :].double().log_softmax(-1)
        expected.append(table.gather(1, torch.tensor(response).unsqueeze(1)).sum().item())
    for options in ({}, {"batch_tokens": 37}):
        made = engine(dynamic(arch), **options)
        for given in (pairs, pairs[::-1]):
            scored = [logprob.total for logprob in logprobs(made, given)]
            assert scored == pytest.approx(expected[:: 1 if given is pairs else -1], abs=2e-5)


@pytest.mark.parametrize("arch", ["gemma2_softcap", "cohere_scaled", "granite_scaled", "llama"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_head_that_does_more_than_multiply_is_not_taken_for_one(
    arch: str, dtype: torch.dtype, caplog: pytest.LogCaptureFixture
) -> None:
    model = tiny.model(arch)
    if arch == "cohere_scaled":
        model.logit_scale = 1.005
    if arch == "gemma2_softcap":
        model.config.final_logit_softcapping = 50.0
    with caplog.at_level(logging.INFO):
        assert (Network(model.to(dtype)).linear_head is not None) == (arch == "llama")
    assert ("its head does more than multiply" in caplog.text) == (arch != "llama")


class Odd(torch.nn.Module):
    """A model whose head looks at the ids too, so that it cannot run apart from the backbone."""

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
    assert network.bytes_per_token >= 4 * network.vocab_size
    pairs = rows(4)
    scored = logprobs(engine(network), pairs)
    oracle = Odd().double()
    for pair, logprob in zip(pairs, scored, strict=True):
        expected = sum(token_logprobs(oracle, pair.prompt_ids, pair.response_ids))
        assert logprob.total == pytest.approx(expected, abs=1e-5)


def test_offloaded_weights_are_scored_where_they_are_brought_to() -> None:
    import accelerate

    pairs = rows(7)
    usual = logprobs(engine(tiny.model()), pairs)
    offloaded = accelerate.cpu_offload(tiny.model(), execution_device=torch.device("cpu"))
    network = Network(offloaded)
    assert network.splits and network.device == torch.device("cpu")
    for a, b in zip(usual, logprobs(engine(network), pairs), strict=True):
        assert a.total == pytest.approx(b.total, abs=1e-5)


class Cramped(Network):
    """A device that holds only so many tokens at once."""

    def __init__(self, model: torch.nn.Module, room: int) -> None:
        self.room, self.refused = room, 0
        super().__init__(model)

    def hidden(self, ids: torch.Tensor) -> torch.Tensor:
        self.hold(ids.numel())
        return super().hidden(ids)

    def hidden_of_chunk(self, packing: Packing) -> torch.Tensor:
        self.hold(len(packing.chunk.ids) + packing.chunk.cache_length)
        return super().hidden_of_chunk(packing)

    def hold(self, tokens: int) -> None:
        if tokens > self.room:
            self.refused += 1
            raise torch.OutOfMemoryError("out of memory")


@pytest.mark.parametrize("arch", ["llama", "bloom_alibi"])
def test_running_out_of_memory_halves_the_budget_and_goes_on(arch: str) -> None:
    pairs = rows(5, count=40)
    roomy = logprobs(engine(tiny.model(arch)), pairs)
    cramped = Cramped(tiny.model(arch), room=200)
    scored = logprobs(engine(cramped), pairs)
    assert 1 <= cramped.refused <= 6
    for a, b in zip(roomy, scored, strict=True):
        assert a.total == pytest.approx(b.total, abs=1e-5)


@pytest.mark.parametrize("arch", ["llama", "bloom_alibi"])
def test_a_single_row_that_does_not_fit_is_a_problem_with_its_length(arch: str) -> None:
    cramped = engine(Cramped(tiny.model(arch), room=50))
    (scored,) = logprobs(cramped, [TokenPair((1,) * 40, (2,) * 50)])
    assert scored.problem is not None and math.isnan(scored.total)
    assert "single row of 90 tokens" in scored.problem.detail


@pytest.mark.parametrize("arch", ["llama", "bloom_alibi"])
def test_a_row_that_does_not_fit_does_not_take_others_with_it(arch: str) -> None:
    short = [TokenPair((1,) * 10, (2, *[3] * n)) for n in range(8)]
    pairs = [*short[:4], TokenPair((1,) * 40, (2,) * 50), *short[4:]]
    scored = logprobs(engine(Cramped(tiny.model(arch), room=50)), pairs)
    assert str(scored[4].problem).startswith("out of memory: a single row of 90")
    expected = logprobs(engine(tiny.model(arch)), short)
    for a, b in zip(expected, scored[:4] + scored[5:], strict=True):
        assert a.total == pytest.approx(b.total, abs=1e-5)


def test_a_row_that_is_too_long_does_not_slow_what_comes_after_it() -> None:
    cramped = Cramped(tiny.model(), room=300)
    made, short = engine(cramped), [TokenPair((n, 1), (2,) * 40) for n in range(20)]
    logprobs(made, [*short, TokenPair((1,) * 200, (2,) * 200)])
    sizes: list[int] = []
    cramped.hold = sizes.append
    logprobs(made, short)
    assert max(sizes) > 100


def test_other_failures_are_not_taken_for_a_lack_of_memory() -> None:
    model = tiny.model()
    made = engine(model)
    model.get_input_embeddings().forward = lambda ids: ids.view(7, -1, 7)
    with pytest.raises(RuntimeError, match=r"shape .* is invalid"):
        logprobs(made, [TokenPair((1,), (2,))])
