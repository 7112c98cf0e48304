"""PEFT adapters: a base model with and without one, or with two, is loaded once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers as tf
from helpers import tiny
from helpers.engines import pool_of
from safetensors.torch import load_file, save_file

from drsow_plugin import ConfigError, DrSoW
from drsow_plugin.models import pool
from drsow_plugin.models.row import ModelRow


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
    assert len(pool_of(drsow).weights) == 1


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


QUERIES = {"target_modules": ["q_proj", "v_proj"]}
LORA = {"r": 4, **QUERIES, "init_lora_weights": False}
KINDS: dict[str, Callable[[], peft.PeftConfig]] = {
    "lora": lambda: peft.LoraConfig(**LORA),
    "lora_bias_all": lambda: peft.LoraConfig(**LORA, bias="all"),
    "lora_bias_own": lambda: peft.LoraConfig(**LORA, bias="lora_only"),
    "dora": lambda: peft.LoraConfig(r=4, **QUERIES, use_dora=True),
    "pissa": lambda: peft.LoraConfig(r=4, **QUERIES, init_lora_weights="pissa"),
    "olora": lambda: peft.LoraConfig(r=4, **QUERIES, init_lora_weights="olora"),
    "layers_repeated": lambda: peft.LoraConfig(**LORA, layer_replication=[[0, 2], [0, 2]]),
    "head_and_embeddings": lambda: peft.LoraConfig(
        r=4, target_modules=["lm_head", "embed_tokens"], init_lora_weights=False
    ),
    "modules_to_save": lambda: peft.LoraConfig(
        r=4, **QUERIES, modules_to_save=["lm_head", "embed_tokens", "norm"]
    ),
    "some_tokens": lambda: peft.LoraConfig(r=4, **QUERIES, trainable_token_indices=[5, 80]),
    "ia3": lambda: peft.IA3Config(target_modules=["v_proj"], feedforward_modules=[]),
    "loha": lambda: peft.LoHaConfig(r=4, **QUERIES),
    "oft": lambda: peft.OFTConfig(r=0, oft_block_size=8, **QUERIES),
    "layer_norms": lambda: peft.LNTuningConfig(target_modules=["input_layernorm"]),
    "vera": lambda: peft.VeraConfig(r=4, target_modules=["q_proj"]),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a model whose layers have biases."""
    return tiny.save(tmp_path_factory.mktemp("base"), "qwen2", seed=2)


def save_adapter(base: str, folder: Path, kind: str, seed: int = 3) -> str:
    torch.manual_seed(seed)
    model = peft.get_peft_model(tf.AutoModelForCausalLM.from_pretrained(base), KINDS[kind]())
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    model.save_pretrained(folder)
    return str(folder)


def logprobs_by_peft(drsow: DrSoW, side: str, base: str, adapter: str | None) -> list[float]:
    """Return the log-probs of a model loaded by PEFT, of which nobody else has a part."""
    model: torch.nn.Module = tf.AutoModelForCausalLM.from_pretrained(base)
    if adapter:
        model = peft.PeftModel.from_pretrained(model, adapter)
    sums = []
    for prompt, response in zip(PROMPTS, RESPONSES, strict=True):
        turn = [{"role": "user", "content": prompt}]
        row = drsow.models[side].tokenize([ModelRow(turn, response, "")])[0]  # type: ignore[index, arg-type]
        ids = torch.tensor([*row.prompt_ids, *row.response_ids])
        with torch.no_grad():
            logits = model.eval()(input_ids=ids[None], use_cache=False).logits[0]
        found = logits.double().log_softmax(-1)[:-1].gather(1, ids[1:, None])
        sums.append(float(found[-len(row.response_ids) :].sum()))
    return sums


def assert_exact(
    drsow: DrSoW, base: str, *, strong: str | None = None, weak: str | None = None
) -> None:
    want = [
        logprobs_by_peft(drsow, *side) for side in (("strong", base, strong), ("weak", base, weak))
    ]
    for _ in range(2):  # adapters are switched on and off more than once
        for row, rewards in enumerate(drsow.score(PROMPTS, RESPONSES)):
            assert rewards.strong_logprob == pytest.approx(want[0][row], abs=5e-5)
            assert rewards.weak_logprob == pytest.approx(want[1][row], abs=5e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_each_side_scores_as_a_model_of_its_own(
    tmp_path: Path, base: str, weak: str, kind: str
) -> None:
    if kind == "layers_repeated":
        base = weak  # PEFT repeats no layers of a model that lists their kinds
    adapter = save_adapter(base, tmp_path / "adapter", kind)
    drsow = DrSoW(base, base, strong_adapter=adapter)
    assert_exact(drsow, base, strong=adapter)
    moved = kind in ("lora_bias_all", "lora_bias_own", "pissa", "olora", "layers_repeated")
    assert len(pool_of(drsow).weights) == 1 + moved


@pytest.mark.slow
def test_an_adapter_that_changes_its_base_leaves_the_models_that_were_there_as_they_were(
    tmp_path: Path, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = save_adapter(base, tmp_path / "adapter", "pissa")
    drsow = DrSoW(base, base, weak_adapter=adapter)
    assert drsow.models["strong"].engine.loaded is not None  # type: ignore[attr-defined]
    assert_exact(drsow, base, weak=adapter)
    monkeypatch.setattr(pool, "free_memory", lambda _device: 0)
    assert_exact(DrSoW(base, base, weak_adapter=adapter), base, weak=adapter)


@pytest.mark.parametrize("kinds", [("lora", "ia3"), ("lora_bias_all",) * 2, ("dora", "olora")])
def test_two_adapters_that_do_not_go_together_on_one_model(
    tmp_path: Path, base: str, kinds: tuple[str, str]
) -> None:
    one, two = (
        save_adapter(base, tmp_path / str(seed), kind, seed) for seed, kind in enumerate(kinds)
    )
    drsow = DrSoW(base, base, strong_adapter=one, weak_adapter=two)
    assert_exact(drsow, base, strong=one, weak=two)
    assert len(pool_of(drsow).weights) == 2


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"alora_invocation_tokens": [3], "task_type": "CAUSAL_LM"}, "an activated LoRA"),
        ({"init_lora_weights": "pissa_niter_4"}, "at random each time"),
    ],
)
def test_adapters_that_cannot_be_scored_are_refused(
    tmp_path: Path, base: str, options: dict[str, Any], reason: str
) -> None:
    adapter = peft.LoraConfig(r=4, **QUERIES, **options)
    peft.get_peft_model(tf.AutoModelForCausalLM.from_pretrained(base), adapter).save_pretrained(
        tmp_path / "adapter"
    )
    with pytest.raises(ConfigError, match=rf"strong_adapter=.*{reason}"):
        DrSoW(base, base, strong_adapter=str(tmp_path / "adapter"))


def test_an_adapter_that_looks_ahead_is_refused(tmp_path: Path, base: str) -> None:
    lily = getattr(peft, "LilyConfig", None)
    if lily is None:
        pytest.skip("this PEFT has no Lily, whose router reads the whole row")
    model = peft.get_peft_model(tf.AutoModelForCausalLM.from_pretrained(base), lily(**QUERIES))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1 * parameter.requires_grad)
    model.save_pretrained(tmp_path / "adapter")
    with pytest.raises(ConfigError, match=r"strong_adapter=.*is not causal"):
        DrSoW(base, base, strong_adapter=str(tmp_path / "adapter")).score(PROMPTS, RESPONSES)


def test_an_adapter_without_effect_is_told_of(
    tmp_path: Path, base: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = tf.AutoModelForCausalLM.from_pretrained(base)
    peft.get_peft_model(model, peft.LoraConfig(r=4, **QUERIES)).save_pretrained(tmp_path)
    DrSoW(base, base, strong_adapter=str(tmp_path)).score(PROMPTS, RESPONSES)
    assert "changes nothing on the tokens that were tried" in caplog.text


def test_virtual_tokens_are_refused(tmp_path: Path, weak: str) -> None:
    model = tf.AutoModelForCausalLM.from_pretrained(weak)
    prompt = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
    peft.get_peft_model(model, prompt).save_pretrained(tmp_path / "prompt")
    with pytest.raises(ConfigError, match="virtual tokens"):
        DrSoW(weak, weak, strong_adapter=str(tmp_path / "prompt"))
