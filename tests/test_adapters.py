"""PEFT adapters: a base model with and without one, or with two, is loaded once."""

from __future__ import annotations

from pathlib import Path

import peft
import pytest
import torch
import transformers as tf
from safetensors.torch import load_file, save_file

from drsow_plugin import ConfigError, DrSoW


def save_lora(base: str, folder: Path, seed: int) -> str:
    torch.manual_seed(seed)
    model = tf.AutoModelForCausalLM.from_pretrained(base)
    lora = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    peft.get_peft_model(model, lora).save_pretrained(folder)
    return str(folder)


def merged(base: str, adapter: str, folder: Path) -> str:
    """Fold an adapter into its base, so that it can be scored as a model of its own."""
    model = tf.AutoModelForCausalLM.from_pretrained(base)
    peft.PeftModel.from_pretrained(model, adapter).merge_and_unload().save_pretrained(folder)
    tf.AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return str(folder)


PROMPTS, RESPONSES = ["What is the capital of France?"] * 2, ["It is Paris.", "A dog."]


def test_an_adapter_over_its_base_is_loaded_once_and_exact(tmp_path: Path, weak: str) -> None:
    adapter = save_lora(weak, tmp_path / "lora", seed=3)
    drsow = DrSoW(weak, weak, strong_adapter=adapter)
    folded = DrSoW(merged(weak, adapter, tmp_path / "merged"), weak)
    for _ in range(2):  # the adapter is switched on and off more than once
        got, want = drsow.score(PROMPTS, RESPONSES), folded.score(PROMPTS, RESPONSES)
        for a, b in zip(got, want, strict=True):
            assert a.strong_logprob == pytest.approx(b.strong_logprob, abs=1e-5)
            assert a.weak_logprob == pytest.approx(b.weak_logprob, abs=1e-5)
            assert abs(a.reward or 0) > 1e-3
    assert len(drsow._sides["strong"]._shared.weights) == 1


def test_two_adapters_on_one_base(tmp_path: Path, weak: str) -> None:
    one = save_lora(weak, tmp_path / "one", seed=3)
    two = save_lora(weak, tmp_path / "two", seed=4)
    got = DrSoW(weak, weak, strong_adapter=one, weak_adapter=two).score(PROMPTS, RESPONSES)
    folded = [merged(weak, a, tmp_path / f"merged{i}") for i, a in enumerate((one, two))]
    want = DrSoW(*folded).score(PROMPTS, RESPONSES)
    for a, b in zip(got, want, strict=True):
        assert a.reward == pytest.approx(b.reward, abs=2e-5)


def test_the_weights_of_an_adapter_are_in_the_fingerprint(tmp_path: Path, weak: str) -> None:
    adapter = save_lora(weak, tmp_path / "lora", seed=3)
    before = DrSoW(weak, weak, strong_adapter=adapter).fingerprint
    save_lora(weak, tmp_path / "lora", seed=4)
    assert DrSoW(weak, weak, strong_adapter=adapter).fingerprint != before


def test_an_adapter_of_other_weights_is_refused(tmp_path: Path, weak: str) -> None:
    adapter = save_lora(weak, tmp_path / "lora", seed=3)
    file = tmp_path / "lora" / "adapter_model.safetensors"
    tensors = {k.replace("layers", "blocks"): v for k, v in load_file(file).items()}
    save_file(tensors, file)
    with pytest.raises(ConfigError, match=r"strong_adapter=.*missing adapter keys"):
        DrSoW(weak, weak, strong_adapter=adapter).score(PROMPTS, RESPONSES)


def test_an_adapter_that_is_not_there(tmp_path: Path, weak: str) -> None:
    with pytest.raises(ConfigError, match=r"strong_adapter='.*nowhere'"):
        DrSoW(weak, weak, strong_adapter=str(tmp_path / "nowhere"))


def test_virtual_tokens_are_refused(tmp_path: Path, weak: str) -> None:
    model = tf.AutoModelForCausalLM.from_pretrained(weak)
    prompt = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
    peft.get_peft_model(model, prompt).save_pretrained(tmp_path / "prompt")
    with pytest.raises(ConfigError, match="virtual tokens"):
        DrSoW(weak, weak, strong_adapter=str(tmp_path / "prompt"))
