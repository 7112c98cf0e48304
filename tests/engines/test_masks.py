"""What a model's mask says is read and followed, or its rows are scored one by one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers as tf
from helpers import tiny
from helpers.engines import engine, logprobs, rows
from helpers.oracle import token_logprobs
from transformers import masking_utils
from transformers.models.llama import modeling_llama

from drsow_plugin.engines.local.masks import Reach, UnshareableError, reach_of
from drsow_plugin.engines.local.network import Network
from drsow_plugin.engines.local.probe import find_sharing

Model = torch.nn.Module


def assert_right(model: Model, exact: Model) -> None:
    """Hold rows that share prefixes, in one chunk and in many, against plain float64."""
    pairs, oracle = rows(4, count=14), exact.double()
    expected = [sum(token_logprobs(oracle, p.prompt_ids, p.response_ids)) for p in pairs]
    for tokens in (2048, 37):
        scored = logprobs(engine(model, batch_tokens=tokens), pairs)
        assert [logprob.total for logprob in scored] == pytest.approx(expected, abs=2e-5)


@pytest.mark.parametrize("arch", ["mistral_sliding", "gemma2_softcap", "gpt_oss_sinks"])
def test_rows_longer_than_a_sliding_window_share_prefixes(arch: str) -> None:
    """The probe at load is shorter than this window."""
    models = []
    for _ in range(2):
        torch.manual_seed(0)
        config = tiny.CONFIGS[arch]()
        config.sliding_window = 24
        models.append(tf.AutoModelForCausalLM.from_config(config).eval())
    found = find_sharing(Network(models[0]))
    assert found is not None and found.max_length is None
    assert_right(*models)


Places = Callable[[Any, Any, Any, Any], Any]


def hiding(monkeypatch: pytest.MonkeyPatch, **options: Any) -> tuple[Model, Model]:
    """Return a model, twice, that makes its mask with some options."""

    def make(**given: Any) -> Any:
        return masking_utils.create_causal_mask(**given, **options)

    monkeypatch.setattr(modeling_llama, "create_causal_mask", make)
    return tiny.model(), tiny.model()


def test_a_window_of_a_model_s_own_is_read_from_its_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    window: Places = lambda _b, _h, query, key: key > query - 40  # noqa: E731
    model, exact = hiding(monkeypatch, and_mask_function=window)
    found = find_sharing(Network(model))
    assert found is not None and found.max_length is None
    assert_right(model, exact)


def test_rows_share_up_to_where_a_mask_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    chunks: Places = lambda _b, _h, query, key: key // 40 == query // 40  # noqa: E731
    model, exact = hiding(monkeypatch, and_mask_function=chunks)
    found = find_sharing(Network(model))
    assert found is not None and found.max_length == 40
    assert_right(model, exact)


def test_a_mask_that_parts_documents_is_not_shared(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The ids of the probe at load hold no end of a document."""
    ids: list[torch.Tensor] = []

    def same(batch: Any, _head: Any, query: Any, key: Any) -> Any:
        documents = (ids[-1] > 400).cumsum(-1)
        return documents[batch, query] == documents[batch, key]

    models = hiding(monkeypatch, and_mask_function=same)
    for model in models:
        model.get_input_embeddings().register_forward_hook(
            lambda _module, inputs, _output: ids.append(inputs[0])
        )
    assert_right(*models)
    assert "its mask depends on more than the positions of its tokens" in caplog.text


def test_a_mask_that_hides_some_tokens_is_not_shared_once_it_does(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    models = tiny.model(), tiny.model()
    for model in models:
        own = model.model.forward

        def masked(input_ids: torch.Tensor, own: Any = own, **given: Any) -> Any:
            return own(input_ids=input_ids, **{**given, "attention_mask": input_ids < 480})

        monkeypatch.setattr(model.model, "forward", masked)
    monkeypatch.setattr(Network, "takes_positions", True)
    assert_right(*models)
    assert "rows are scored one by one: it hides tokens of its own choice" in caplog.text


def test_layers_that_compress_what_is_far_do_not_share() -> None:
    """They do so from a length on that no row of the probe has."""
    sizes: dict[str, Any] = {
        **{"vocab_size": 512, "hidden_size": 32, "moe_intermediate_size": 16},
        **{"num_hidden_layers": 2, "num_attention_heads": 4, "head_dim": 8, "o_groups": 2},
        **{"q_lora_rank": 16, "o_lora_rank": 16, "n_routed_experts": 4, "num_experts_per_tok": 2},
        **{"max_position_embeddings": 512, "sliding_window": 256, "n_shared_experts": 1},
    }
    models = []
    for _ in range(2):
        torch.manual_seed(0)
        config = tf.DeepseekV4Config(
            **sizes,
            layer_types=["heavily_compressed_attention"] * 2,
            compress_rates={"heavily_compressed_attention": 24, "compressed_sparse_attention": 4},
        )
        models.append(tf.AutoModelForCausalLM.from_config(config).eval())
    assert_right(*models)


def asked(mask: Places, **config: int) -> dict[str, Any]:
    made = tf.LlamaConfig(max_position_embeddings=16384, **config)
    return {"mask_function": mask, "config": made, "device": "cpu", "dtype": torch.float32}


@pytest.mark.parametrize("window", [1, 7, 255, 256, 257, 1000, 4096, 16000])
def test_windows_are_told_from_a_causal_mask(window: int) -> None:
    mask = masking_utils.sliding_window_causal_mask_function(window)
    assert reach_of(asked(mask)) == Reach(window, None)
    assert reach_of(asked(masking_utils.causal_mask_function)) == Reach(None, None)


@pytest.mark.parametrize("chunk", [2, 100, 4096, 5000])
def test_other_masks_are_causal_up_to_a_length(chunk: int) -> None:
    mask = masking_utils.chunked_causal_mask_function(chunk, torch.zeros(1, dtype=torch.long))
    assert reach_of(asked(mask, attention_chunk_size=chunk)) == Reach(None, chunk)
    assert reach_of(asked(masking_utils.bidirectional_mask_function)) == Reach(None, 0)


def test_a_mask_is_not_asked_about_tokens_that_are_not_there() -> None:
    blocks = masking_utils.blockwise_overlay(torch.zeros(1, 8, dtype=torch.long))
    with pytest.raises(UnshareableError, match="more than the positions of its tokens"):
        reach_of(asked(masking_utils.or_masks(masking_utils.causal_mask_function, blocks)))
