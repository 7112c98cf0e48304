"""Models that do not fit into memory together take turns."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers import tiny
from helpers.engines import pool_of
from transformers import AutoModelForCausalLM

from drsow_plugin import DrSoW, LanguageModel
from drsow_plugin.errors import EngineError
from drsow_plugin.models import pool
from drsow_plugin.models.weights import Weights, weight_bytes

PROMPTS = ["What is the capital of France?", "Add two numbers.", "Say it."]
RESPONSES = ["Paris.", "    return a + b", "It."]


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    names: list[str] = []
    own = Weights.__init__

    def noting(self: Weights, side: str, *rest: object) -> None:
        names.append(side)
        own(self, side, *rest)

    monkeypatch.setattr(Weights, "__init__", noting)
    return names


@pytest.mark.parametrize("config", ["llama", "mixtral", "gpt2", "mamba"])
def test_the_size_of_weights_is_known_without_loading_them(config: str) -> None:
    model = tiny.model(config)
    size = sum(parameter.nbytes for parameter in model.parameters())
    assert weight_bytes(model.config, "float32", False) == size
    assert weight_bytes(model.config, "bfloat16", False) == size / 2


def test_models_that_fit_stay(strong: str, weak: str, loads: list[str]) -> None:
    drsow = DrSoW(strong, weak)
    for _ in range(2):
        drsow.score(PROMPTS, RESPONSES)
    assert loads == ["strong", "weak"]


@pytest.mark.fault(
    "memory",
    "two models do not fit into memory together",
    "they take turns, with one warning; the rewards are the same",
)
def test_models_that_do_not_fit_take_turns(
    strong: str,
    weak: str,
    loads: list[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    usual = DrSoW(strong, weak)
    expected = [usual.score(PROMPTS, RESPONSES) for _ in range(2)]
    loads.clear()
    size = weight_bytes(tiny.model().config, "float32", False)
    monkeypatch.setattr(pool, "free_memory", lambda _device: size)
    drsow = DrSoW(strong, weak)
    # Both are tried at first; then each call begins with the one that is there.
    assert drsow.score(PROMPTS, RESPONSES) == expected[0]
    assert loads == ["strong", "weak", "strong"]
    assert drsow.score(PROMPTS, RESPONSES) == expected[1]
    assert loads == ["strong", "weak", "strong", "weak"]
    assert len(pool_of(drsow).weights) == 1
    assert caplog.text.count("the models take turns") == 1


@pytest.mark.fault(
    "memory",
    "memory runs out while the second model is loaded",
    "the first one is let go of and loaded again later; the rewards are the same",
)
def test_running_out_of_memory_while_loading_lets_go_of_the_other(
    strong: str, weak: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = DrSoW(strong, weak).score(PROMPTS, RESPONSES)
    own, tried = AutoModelForCausalLM.from_pretrained, []

    def once(name: str, **options: object) -> object:
        tried.append(name)
        if len(tried) == 2:
            raise torch.OutOfMemoryError("out of memory")
        return own(name, **options)

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", once)
    assert DrSoW(strong, weak).score(PROMPTS, RESPONSES) == expected
    assert tried == [strong, weak, weak, strong]


@pytest.mark.fault(
    "memory", "a model does not fit into memory alone", "one line that says what to do"
)
def test_a_model_that_does_not_fit_alone_is_an_error(
    strong: str, weak: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(_name: str, **_options: object) -> object:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", never)
    with pytest.raises(EngineError, match=r"loading the strong model on cpu\. Use a smaller dtype"):
        DrSoW(strong, weak).score(PROMPTS, RESPONSES)
    with pytest.raises(EngineError, match="while loading the model on cpu"):
        LanguageModel(strong).logprobs(PROMPTS, RESPONSES)


@pytest.mark.slow
def test_adapters_come_back_with_their_weights(
    tmp_path: Path, strong: str, weak: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    peft = pytest.importorskip("peft")
    adapted = peft.get_peft_model(tiny.model(seed=1), peft.LoraConfig(init_lora_weights=False))
    adapted.save_pretrained(tmp_path / "adapter")
    options = {"strong_adapter": str(tmp_path / "adapter")}
    usual = DrSoW(strong, weak, **options).score(PROMPTS, RESPONSES)
    monkeypatch.setattr(pool, "free_memory", lambda _device: 0)
    drsow = DrSoW(strong, weak, **options)
    assert [drsow.score(PROMPTS, RESPONSES) for _ in range(3)] == [usual] * 3
