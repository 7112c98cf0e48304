"""Models that are put together in other ways than most, against float64."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch
import transformers as tf
from helpers import tiny
from helpers.engines import engine, logprobs
from helpers.oracle import token_logprobs

from drsow_plugin.engines.local.network import Network
from drsow_plugin.errors import ConfigError
from drsow_plugin.records import TokenPair

SIZES = {**tiny._SIZES, "vocab_size": 64, "head_dim": 8}
VISION = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}
_LAYERS = ["sliding_attention", "full_attention"]
_GEMMA4 = {**SIZES, "layer_types": _LAYERS, "sliding_window": 8, "pad_token_id": 0}
MODALITIES = {"image_token_id": 60, "video_token_id": 61, "audio_token_id": 62}
SPECIAL = tuple(MODALITIES.values())


def gemma3n(**more: object) -> tf.PreTrainedConfig:
    """One feed-forward size for each layer, as published."""
    return tf.Gemma3nTextConfig(
        **{**SIZES, "intermediate_size": [48, 32], **more},
        **{"vocab_size_per_layer_input": 64, "hidden_size_per_layer_input": 4},
        **{"layer_types": _LAYERS, "sliding_window": 8, "num_kv_shared_layers": 0},
        **{"laurel_rank": 4, "activation_sparsity_pattern": [0.5, 0.0]},
    )


def llama4(**more: object) -> tf.PreTrainedConfig:
    return tf.Llama4TextConfig(
        **{**SIZES, "intermediate_size_mlp": 48, "num_local_experts": 2, **more},
        no_rope_layers=[1, 0],  # the second layer has no positions but a temperature
    )


CONFIGS: dict[str, Callable[[], tf.PreTrainedConfig]] = {
    "gemma4": lambda: tf.Gemma4Config(
        text_config={**_GEMMA4, "hidden_size_per_layer_input": 4, "vocab_size_per_layer_input": 64},
        vision_config={**VISION, "head_dim": 8, "num_key_value_heads": 2},
        audio_config=None,
        **MODALITIES,
    ),
    "gemma4_unified": lambda: tf.Gemma4UnifiedConfig(
        text_config=_GEMMA4, vision_config=None, audio_config=None, **MODALITIES
    ),
    "llava": lambda: tf.LlavaConfig(
        text_config=tf.LlamaConfig(**SIZES),
        vision_config=tf.CLIPVisionConfig(**VISION, image_size=32, patch_size=16),
        image_token_index=60,
    ),
    "gemma3n": gemma3n,
    "llama4": llama4,
    "llama4_temperature": lambda: llama4(floor_scale=16, attn_scale=2.0),
    "mllama": lambda: tf.models.mllama.configuration_mllama.MllamaTextConfig(
        **SIZES, cross_attention_layers=[], pad_token_id=0, bos_token_id=1, eos_token_id=2
    ),
    "tuples": lambda: tf.LlamaConfig(**SIZES, return_dict=False),
    "tiny_vocabulary": lambda: tf.LlamaConfig(
        **{**SIZES, "vocab_size": 7}, pad_token_id=0, bos_token_id=1, eos_token_id=[2, 3]
    ),
}

CLASSES = {"llava": tf.LlavaForConditionalGeneration, "mllama": tf.MllamaForCausalLM}


def model(arch: str) -> torch.nn.Module:
    """Return a random model whose layers change what goes through them."""
    torch.manual_seed(0)
    config = CONFIGS[arch]()
    made = CLASSES.get(arch, tf.AutoModelForCausalLM.from_config)(config).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(5 if parameter.dim() > 1 else 1)
        made.get_output_embeddings().weight.normal_(0, 32**-0.5)
    return made


def rows(vocabulary: int) -> list[TokenPair]:
    """Rows that share prompts, longer than windows, some with each special token."""
    rng = random.Random(1)

    def ids(number: int) -> tuple[int, ...]:
        return tuple(rng.randrange(min(vocabulary, 59)) for _ in range(number))

    made = []
    for special in SPECIAL[: 3 if vocabulary > max(SPECIAL) else 0]:
        prompt = ids(6)
        made.append(TokenPair((*prompt, special, *ids(3)), (*ids(3), special, *ids(5))))
        made.append(TokenPair((*prompt, special), ids(7)))
    prompt = ids(9)
    return [*made, *(TokenPair(prompt, ids(number)) for number in (1, 4, 12, 30))]


@pytest.mark.parametrize("arch", CONFIGS)
def test_a_model_of_another_build_agrees_with_itself_in_float64(
    arch: str, caplog: pytest.LogCaptureFixture
) -> None:
    network = Network(model(arch))
    pairs = rows(network.vocab_size)
    scored = logprobs(engine(network), pairs)
    assert "drsow_plugin" not in {record.name.split(".")[0] for record in caplog.records}
    oracle = model(arch).double()
    oracle.config.return_dict = True
    for pair, logprob in zip(pairs, scored, strict=True):
        expected = sum(token_logprobs(oracle, pair.prompt_ids, pair.response_ids))
        assert logprob.total == pytest.approx(expected, abs=1e-4)


def test_a_model_that_counts_its_tokens_is_given_no_more_than_it_treats_alike() -> None:
    network, sizes = Network(model("llama4_temperature")), []
    assert network.max_tokens == 15 and Network(model("llama4")).max_tokens == 8191
    own = network.hidden_of_chunk
    network.hidden_of_chunk = lambda packing: sizes.append(len(packing.chunk.ids)) or own(packing)
    logprobs(engine(network, batch_tokens=1000), rows(64))
    assert 0 < max(sizes) <= 15


def test_padding_among_the_tokens_does_not_hide_that_a_model_reads_ahead() -> None:
    config = tf.XLMConfig(vocab_size=64, emb_dim=32, n_layers=2, n_heads=4, pad_token_id=2)
    with pytest.raises(ConfigError, match="XLMWithLMHeadModel is not causal"):
        Network(tf.XLMWithLMHeadModel(config).eval())


def test_a_model_that_predicts_by_the_length_of_a_row_is_refused() -> None:
    config = tf.ProphetNetConfig(
        **{"vocab_size": 64, "hidden_size": 32, "num_decoder_layers": 2, "is_decoder": True},
        **{"num_decoder_attention_heads": 4, "decoder_ffn_dim": 32, "add_cross_attention": False},
    )
    torch.manual_seed(0)
    made = tf.ProphetNetForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(5)
    with pytest.raises(ConfigError, match="ProphetNetForCausalLM predicts by how many tokens"):
        Network(made)


def test_special_tokens_that_a_model_cannot_read_do_not_keep_it_from_being_split() -> None:
    made = model("llava")
    backbone = made.base_model.forward

    def forward(input_ids: torch.Tensor, **options: object) -> object:
        if (input_ids == 60).any():
            raise ValueError("a picture's token without a picture")
        return backbone(input_ids=input_ids, **options)

    made.base_model.forward = forward
    assert Network(made).splits


def test_a_configuration_that_asks_for_all_states_gets_no_more_than_is_used() -> None:
    made, outputs = model("tuples"), []
    made.config.output_hidden_states = True
    pairs, expected = rows(64), logprobs(engine(model("tuples")), rows(64))
    made.base_model.register_forward_hook(lambda *given: outputs.append(given[-1]))
    assert logprobs(engine(made), pairs) == expected
    assert outputs and all(output.hidden_states is None for output in outputs)
