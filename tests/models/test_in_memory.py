"""Models of transformers in memory as sides: used as they are, and left so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import peft
import pytest
import torch
import transformers as tf
from helpers import tiny

from drsow_plugin import Annotator, ConfigError, DrSoW
from drsow_plugin.errors import EngineError
from drsow_plugin.models import adapters

PROMPTS, RESPONSES = ["What is the capital of France?"] * 2, ["It is Paris.", "A dog."]
ROWS = [{"prompt": PROMPTS[0], "response": text} for text in RESPONSES]


@pytest.fixture
def model(strong: str) -> Any:
    return tf.AutoModelForCausalLM.from_pretrained(strong)


@pytest.fixture
def tokenizer(strong: str) -> Any:
    return tf.AutoTokenizer.from_pretrained(strong)


def test_an_object_scores_as_its_folder_does(
    model: Any, tokenizer: Any, strong: str, weak: str
) -> None:
    expected = DrSoW(strong, weak).score(PROMPTS, RESPONSES)
    assert DrSoW(model, weak, strong_tokenizer=tokenizer).score(PROMPTS, RESPONSES) == expected
    assert DrSoW(model, weak, strong_tokenizer=strong).score(PROMPTS, RESPONSES) == expected


def test_two_objects_of_one_class_are_two_models(
    model: Any, tokenizer: Any, strong: str, weak: str
) -> None:
    other = tf.AutoModelForCausalLM.from_pretrained(weak)
    drsow = DrSoW(model, other, tokenizer=tokenizer)
    assert drsow.score(PROMPTS, RESPONSES) == DrSoW(strong, weak).score(PROMPTS, RESPONSES)
    with pytest.raises(ConfigError, match="the same model"):
        DrSoW(model, model, tokenizer=tokenizer)
    plain = DrSoW(model, model, tokenizer=tokenizer, weak_template="none")
    expected = DrSoW(strong, strong, weak_template="none").score(PROMPTS, RESPONSES)
    assert plain.score(PROMPTS, RESPONSES) == expected


def test_dtype_is_the_objects_own(tokenizer: Any, strong: str, weak: str) -> None:
    model = tf.AutoModelForCausalLM.from_pretrained(strong, dtype=torch.bfloat16)
    drsow = DrSoW(model, weak, strong_tokenizer=tokenizer)
    expected = DrSoW(strong, weak, strong_dtype="bfloat16").score(PROMPTS, RESPONSES)
    assert drsow.score(PROMPTS, RESPONSES) == expected
    assert drsow.describe()["strong"]["dtype"] == "bfloat16"
    with pytest.raises(ConfigError, match="strong is a model in memory in bfloat16"):
        DrSoW(model, weak, strong_tokenizer=tokenizer, refine=1.0)


def test_an_object_is_left_as_it_was(strong: str, tokenizer: Any, weak: str) -> None:
    config = tf.LlamaConfig(
        **{**tiny._SIZES, "max_position_embeddings": 64},
        attention_dropout=0.5,
        rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0},
    )
    model = tf.LlamaForCausalLM(config).train()
    model.model.layers[0].eval()  # frozen
    tokenizer(PROMPTS, truncation=True, max_length=3)
    backend = tokenizer.backend_tokenizer.to_str()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    attention = model.config._attn_implementation
    model.config.output_hidden_states = True
    drsow = DrSoW(model, weak, strong_tokenizer=tokenizer)
    assert drsow.score(PROMPTS, RESPONSES) == drsow.score(PROMPTS, RESPONSES)  # no dropout
    assert [module.training for module in model.modules()] == modes
    assert model.config._attn_implementation == attention
    assert model.config.output_hidden_states is True
    assert before.keys() == model.state_dict().keys()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not hasattr(model, "peft_config")
    assert tokenizer.backend_tokenizer.to_str() == backend
    model(input_ids=torch.arange(1, 80)[None]).logits.sum().backward()  # it can still be trained


def test_an_object_s_layers_are_compiled_for_as_long_as_it_scores(
    model: Any, tokenizer: Any, weak: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[Any] = []
    monkeypatch.setattr(torch, "compile", lambda own, **_: compiled.append(own) or own)
    drsow = DrSoW(model, weak, strong_tokenizer=tokenizer, strong_compile="on")
    assert drsow.score(PROMPTS, RESPONSES)
    assert [own.__self__ for own in compiled] == [*model.model.layers]
    assert not any("forward" in vars(layer) for layer in model.model.layers)


def test_the_fingerprint_is_of_the_parameters(
    model: Any, tokenizer: Any, strong: str, weak: str
) -> None:
    twin = tf.AutoModelForCausalLM.from_pretrained(strong)
    first = DrSoW(model, weak, strong_tokenizer=tokenizer)
    assert first.fingerprint == DrSoW(twin, weak, strong_tokenizer=tokenizer).fingerprint
    assert set(first.describe()["strong"]["sha256"]) == {"parameters", "configuration"}
    with torch.no_grad():
        twin.model.norm.weight.add_(1e-3)
    assert first.fingerprint != DrSoW(twin, weak, strong_tokenizer=tokenizer).fingerprint
    twin = tf.AutoModelForCausalLM.from_pretrained(strong)
    twin.config.rms_norm_eps = 1e-3
    assert first.fingerprint != DrSoW(twin, weak, strong_tokenizer=tokenizer).fingerprint


@pytest.mark.fault(
    "model",
    "a model in memory is trained on after it was identified",
    "one line; none of the rewards of that call are given",
)
def test_an_object_that_is_trained_on_after_it_was_identified_gives_no_reward(
    model: Any, tokenizer: Any, weak: str
) -> None:
    drsow = DrSoW(model, weak, strong_tokenizer=tokenizer)
    first = drsow.score(PROMPTS, RESPONSES)
    model.lm_head.weight.data.mul_(1.01)
    second = drsow.score(PROMPTS, RESPONSES)  # the current policy: nothing was promised yet
    assert second != first
    assert drsow.fingerprint
    assert drsow.score(PROMPTS, RESPONSES) == second
    model.lm_head.weight.data.mul_(1.01)
    with pytest.raises(EngineError, match=r"strong='<LlamaForCausalLM in memory>' was changed"):
        drsow.score(PROMPTS, RESPONSES)


@pytest.mark.parametrize(
    ("dtype", "words"),
    [
        (torch.uint8, torch.uint8),
        (torch.bfloat16, torch.int16),
        (torch.float32, torch.int32),
        (torch.int64, torch.int64),
    ],
)
@pytest.mark.parametrize("length", [0, 5, 7, 30])
def test_checksums_are_the_plain_and_the_weighted_sum_of_all_words(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, words: torch.dtype, length: int
) -> None:
    monkeypatch.setattr(adapters, "_WORDS", 7)
    tensor = torch.randint(-(2**62), 2**62, (length,)).view(torch.uint8)
    tensor = tensor[: length * dtype.itemsize].view(dtype)
    before = tensor.clone()
    plain, weighted = adapters.checksums([tensor])[0]
    held = tensor.view(words).tolist()
    assert (plain - sum(held)) % 2**64 == 0
    assert (weighted - sum(n * word for n, word in enumerate(held, 1))) % 2**64 == 0
    assert torch.equal(tensor.view(words), before.view(words))


def reordered(model: Any) -> None:
    """Exchange two rows of a parameter."""
    weight = model.lm_head.weight.data
    weight[[3, 5]] = weight[[5, 3]]


def transposed(model: Any) -> None:
    weight = model.model.layers[0].self_attn.q_proj.weight.data
    weight.copy_(weight.T.clone())


def reconfigured(model: Any) -> None:
    model.config.final_logit_softcapping = 1.0


@pytest.mark.parametrize("change", [reordered, transposed, reconfigured])
def test_order_and_configuration_are_part_of_what_was_identified(
    model: Any, tokenizer: Any, weak: str, change: Callable[[Any], None]
) -> None:
    drsow = DrSoW(model, weak, strong_tokenizer=tokenizer)
    assert drsow.fingerprint
    assert drsow.score(PROMPTS, RESPONSES) == drsow.score(PROMPTS, RESPONSES)
    change(model)
    with pytest.raises(EngineError, match="identified by its parameters and configuration"):
        drsow.score(PROMPTS, RESPONSES)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strong_tokenizer": None}, "Give strong_tokenizer="),
        ({"strong_dtype": "bfloat16"}, "dtype has no effect on it"),
        ({"device": "cpu"}, "device has no effect on it"),
        ({"strong_adapter": "somewhere"}, "adapter has no effect on it"),
        ({"strong_tokenizer": 3}, "strong_tokenizer is a Hub id, a local folder or a tokenizer"),
    ],
)
def test_options_of_loading_are_refused(
    model: Any, tokenizer: Any, weak: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        DrSoW(model, weak, **{"strong_tokenizer": tokenizer, **options})


def test_what_is_no_causal_language_model_is_refused(model: Any, tokenizer: Any, weak: str) -> None:
    adapted = peft.get_peft_model(
        tf.AutoModelForCausalLM.from_pretrained(weak), peft.LoraConfig(target_modules=["q_proj"])
    )
    for wrong, message in (
        (model.model, "predicts no tokens"),
        (tf.LlamaForSequenceClassification(model.config), "predicts no tokens"),
        (adapted, "PEFT adapter"),
        (adapted.base_model.model, "PEFT adapter"),
        (torch.nn.Linear(2, 2), "got a Linear"),
    ):
        with pytest.raises(ConfigError, match=message):
            DrSoW(wrong, weak, strong_tokenizer=tokenizer)


def test_an_annotator_labels_with_an_object_in_this_process(
    tmp_path: Path, model: Any, tokenizer: Any, strong: str, weak: str
) -> None:
    data = datasets.Dataset.from_list(ROWS)
    annotate = Annotator(model, weak, strong_tokenizer=tokenizer)
    labelled = annotate.run(data, cache_dir=str(tmp_path / "cache"))
    expected = [reward.reward for reward in DrSoW(strong, weak).score(PROMPTS, RESPONSES)]
    assert labelled["drsow_reward"] == expected
    assert data.map(annotate, batched=True)["drsow_reward"] == expected
    with pytest.raises(ConfigError, match="cannot be opened in another process"):
        annotate.run(data, cache_dir=str(tmp_path / "cache"), num_proc=2)
    make, state = annotate.__reduce__()
    with pytest.raises(ConfigError, match="cannot be opened in another process"):
        make(*state).describe()


def test_models_in_memory_are_not_let_go_of(
    model: Any, tokenizer: Any, weak: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("drsow_plugin.models.pool.free_memory", lambda _device: 0)
    drsow = DrSoW(model, weak, strong_tokenizer=tokenizer)
    drsow.score(PROMPTS, RESPONSES)
    assert drsow.models["strong"].is_loaded and drsow.models["weak"].is_loaded


def test_what_is_printed_is_short(model: Any, tokenizer: Any, weak: str) -> None:
    drsow = DrSoW(model, weak, strong_tokenizer=tokenizer, overflow="skip")
    assert repr(drsow) == (
        f"DrSoW(strong='<LlamaForCausalLM in memory>', strong_tokenizer="
        f"'<{type(tokenizer).__name__} in memory>', weak={weak!r:.80}, overflow='skip')"
    )
    annotate = Annotator(model, weak, strong_tokenizer=tokenizer, prefix="x_")
    assert repr(annotate).startswith("Annotator(strong='<Llama")
    assert repr(annotate).endswith("prefix='x_')")
    reward = drsow.score(PROMPTS[:1], RESPONSES[:1], token_logprobs=True)[0]
    assert repr(reward) == (
        f"Reward(reward={reward.reward:.4f}, strong_logprob={reward.strong_logprob:.4f}, "
        f"weak_logprob={reward.weak_logprob:.4f}, strong_tokens={reward.strong_tokens}, "
        f"weak_tokens={reward.weak_tokens})"
    )
