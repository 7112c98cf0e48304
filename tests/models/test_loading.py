"""Loading: an option that is accepted is honoured."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from helpers import tiny
from helpers.engines import pool_of

from drsow_plugin import ConfigError, DrSoW
from drsow_plugin.models import loading

PROMPTS, RESPONSES = ["What is the capital of France?"] * 2, ["It is Paris.", "A dog."]


def loaded(drsow: DrSoW, side: str) -> Any:
    """Return a side's model, which scoring has loaded."""
    drsow.score(PROMPTS, RESPONSES)
    return drsow.models[side].engine.loaded._network._model  # type: ignore[index, attr-defined]


def test_the_dtype_of_a_side(strong: str, weak: str) -> None:
    drsow = DrSoW(strong, weak, weak_dtype="bfloat16")
    assert loaded(drsow, "strong").dtype == torch.float32
    assert loaded(drsow, "weak").dtype == torch.bfloat16
    assert drsow.describe()["weak"]["dtype"] == "bfloat16"


def test_the_dtype_on_a_cpu_is_float32_whatever_the_checkpoint_says(
    tmp_path_factory: pytest.TempPathFactory, strong: str, weak: str
) -> None:
    folder = tmp_path_factory.mktemp("bf16")
    tiny.save(folder, seed=5)
    model = tf.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    usual = DrSoW(strong, str(folder), device="cpu")
    assert loaded(usual, "weak").dtype == torch.float32
    own = DrSoW(strong, str(folder), device="cpu", weak_dtype="auto")
    assert loaded(own, "weak").dtype == torch.bfloat16
    assert own.describe()["weak"]["dtype"] == "bfloat16"


def test_the_attention_implementation_of_a_side(strong: str, weak: str) -> None:
    drsow = DrSoW(strong, weak, strong_attn_implementation="eager")
    assert loaded(drsow, "strong").config._attn_implementation == "eager"
    assert loaded(drsow, "weak").config._attn_implementation == "sdpa"
    usual = DrSoW(strong, weak).score(PROMPTS, RESPONSES)
    for a, b in zip(drsow.score(PROMPTS, RESPONSES), usual, strict=True):
        assert a.reward == pytest.approx(b.reward, abs=1e-5)


def test_whether_layers_are_compiled_is_recorded_and_no_other_model(
    strong: str, weak: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[Any] = []
    monkeypatch.setattr(torch, "compile", lambda own, **_: compiled.append(own) or own)
    drsow, usual = DrSoW(strong, weak, strong_compile="on"), DrSoW(strong, weak)
    assert drsow.score(PROMPTS, RESPONSES) == usual.score(PROMPTS, RESPONSES)
    layers = loaded(drsow, "strong").model.layers
    assert [own.__self__ for own in compiled] == [*layers]
    assert [drsow.describe()[side]["compile"] for side in ("strong", "weak")] == ["on", "auto"]
    assert drsow.fingerprint == usual.fingerprint


def test_compiling_has_no_effect_where_rows_are_scored_one_by_one(
    strong: str, weak: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch, "compile", None)
    options = {"strong_attn_implementation": "eager", "strong_compile": "on"}
    DrSoW(strong, weak, **options).score(PROMPTS, RESPONSES)
    [line] = [line for line in caplog.messages if "compile" in line]
    assert line == f"strong={strong!r}: compile=on has no effect: rows are scored one by one."


@pytest.mark.parametrize("device_map", ["auto", '{"": "cpu"}', {"": "cpu"}])
def test_a_device_map(strong: str, weak: str, device_map: Any) -> None:
    mapped = DrSoW(strong, weak, weak_device_map=device_map, weak_dtype="float32")
    usual = DrSoW(strong, weak, device="cpu").score(PROMPTS, RESPONSES)
    for a, b in zip(mapped.score(PROMPTS, RESPONSES), usual, strict=True):
        assert a.reward == pytest.approx(b.reward, abs=1e-4)


def test_weights_wait_for_the_first_rows(strong: str, weak: str) -> None:
    drsow = DrSoW(strong, weak)
    drsow.describe()
    assert not pool_of(drsow).weights
    drsow.score(PROMPTS, RESPONSES)
    assert len(pool_of(drsow).weights) == 2


def test_repeated_scoring_loads_once(strong: str, weak: str) -> None:
    drsow = DrSoW(strong, weak)
    first = loaded(drsow, "strong")
    assert loaded(drsow, "strong") is first


def test_a_device_map_that_makes_no_sense(strong: str, weak: str) -> None:
    with pytest.raises(ConfigError, match=r"weak=.*could not be loaded"):
        DrSoW(strong, weak, weak_device_map="everywhere").score(PROMPTS, RESPONSES)


@pytest.mark.parametrize("bits", [8, 4])
def test_a_quantised_side(tmp_path_factory: pytest.TempPathFactory, strong: str, bits: int) -> None:
    sizes = {**tiny._SIZES, "hidden_size": 128, "intermediate_size": 256}  # bitsandbytes' blocks
    folder = tmp_path_factory.mktemp("wide")
    tf.LlamaForCausalLM(tf.LlamaConfig(**sizes)).save_pretrained(folder)
    tiny.tokenizer("gpt2_bos").save_pretrained(folder)
    config = {"quant_method": "bitsandbytes", f"load_in_{bits}bit": True}
    drsow = DrSoW(strong, str(folder), device="cpu", weak_quantization=config)
    kinds = {type(module).__name__ for module in loaded(drsow, "weak").modules()}
    assert {8: "Linear8bitLt", 4: "Linear4bit"}[bits] in kinds
    assert drsow.describe()["weak"]["quantization"] == config
    usual = DrSoW(strong, str(folder), device="cpu")
    assert drsow.fingerprint != usual.fingerprint
    for a, b in zip(drsow.score(PROMPTS, RESPONSES), usual.score(PROMPTS, RESPONSES), strict=True):
        assert a.weak_logprob == pytest.approx(b.weak_logprob, abs=0.5)
        assert a.weak_logprob != b.weak_logprob and a.strong_logprob == b.strong_logprob


@pytest.fixture
def tied(tmp_path: Path) -> str:
    tiny.tokenizer("gpt2_bos").save_pretrained(tmp_path)
    config = tiny.CONFIGS["llama"]()
    config.tie_word_embeddings = True
    tiny.from_config(config).save_pretrained(tmp_path)
    return str(tmp_path)


def test_tied_weights_where_another_thread_left_the_tying_switched_off(
    tied: str, weak: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = DrSoW(tied, weak).score(PROMPTS, RESPONSES)
    monkeypatch.setattr(tf.PreTrainedModel, "tie_weights", lambda *_, **__: None)
    _, report = tf.AutoModelForCausalLM.from_pretrained(tied, output_loading_info=True)
    assert report["missing_keys"] == {"lm_head.weight"}  # so do others find them
    assert DrSoW(tied, weak).score(PROMPTS, RESPONSES) == usual


@pytest.mark.slow
def test_checkpoints_load_one_at_a_time(tied: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two at once put back each other's switched off tying, which then stays off."""
    load, inside, most = tf.AutoModelForCausalLM.from_pretrained, [0], [0]
    together = threading.Barrier(2)

    def counted(*args: Any, **kwargs: Any) -> Any:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        with contextlib.suppress(threading.BrokenBarrierError):
            together.wait(0.5)  # holds until another thread is in here too, or gives up
        try:
            return load(*args, **kwargs)
        finally:
            inside[0] -= 1

    monkeypatch.setattr(tf.AutoModelForCausalLM, "from_pretrained", counted)
    threads = [threading.Thread(target=loading.load_causal_lm, args=(tied,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
