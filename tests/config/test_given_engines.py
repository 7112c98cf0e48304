"""Engines that are given as objects in the place of a model's name."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import transformers as tf

from drsow_plugin import ConfigError, DrSoW
from drsow_plugin.annotate.scorer import Scorer, place
from drsow_plugin.config.pair import as_options, parse_pair
from drsow_plugin.records import LogProb, TokenPair


@dataclass  # so two are equal, and neither has a hash
class Uniform:
    """Every token has one log-prob."""

    value: float = -1.0
    seen: list[int] = field(default_factory=list)

    def logprobs(self, pairs: list[TokenPair]) -> list[LogProb]:
        return [LogProb(self.value * len(p.response_ids), len(p.response_ids)) for p in pairs]


def parse(**options: Any) -> Any:
    return parse_pair({"strong": "a/strong", "weak": "a/weak", **options})


def test_an_engine_stands_in_the_place_of_a_model() -> None:
    engine = Uniform()
    config = parse(weak=engine, weak_tokenizer="a/tokenizer", weak_template="none")
    assert config.weak.given.engine is engine and config.weak.given.model is None
    assert config.weak.source == "<Uniform in memory>"
    assert (config.weak.tokenizer, config.weak.template) == ("a/tokenizer", "none")
    assert config.weak.weights_only().given.engine is engine
    assert config.strong.given.engine is None


def test_engines_are_told_apart_as_objects() -> None:
    one, other = Uniform(), Uniform()
    assert one == other
    config = parse(strong=one, weak=other, tokenizer="t")
    assert hash(config.strong) != hash(config.weak) and config.strong != config.weak
    assert config.strong == replace(config.strong)
    with pytest.raises(ConfigError, match="the same model in every option"):
        parse(strong=one, weak=one, tokenizer="t")
    assert parse(strong=one, weak=one, tokenizer="t", weak_template="none")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "weak is an engine in memory, which has no tokenizer. Give weak_tokenizer="),
        ({"weak_tokenizer": "t", "dtype": "float32"}, "in memory.*: dtype has no effect on it"),
        ({"weak_tokenizer": "t", "weak_device": "cpu"}, "device has no effect on it"),
        ({"weak_tokenizer": "t", "weak_device_map": "auto"}, "device_map has no effect on it"),
        ({"weak_tokenizer": "t", "weak_adapter": "x"}, "adapter has no effect on it"),
        ({"weak_tokenizer": "t", "weak_revision": "v1"}, "revision has no effect on it"),
        ({"weak_tokenizer": "t", "trust_remote_code": True}, "trust_remote_code has no effect"),
        ({"weak_tokenizer": "t", "compile": "on"}, "compile has no effect on it"),
        ({"weak": Uniform}, "got the class Uniform. Give an instance of it"),
    ],
)
def test_what_an_engine_needs_and_what_has_no_effect(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(**{"weak": Uniform(), **options})


def test_a_date_for_the_template_is_for_objects_too() -> None:
    options = {"weak_tokenizer": "t", "weak_template_date": "2025-01-02"}
    assert parse(weak=Uniform(), **options).weak.template_date == "2025-01-02"


def test_a_router_may_ask_an_engine() -> None:
    engine = Uniform()
    options = {"router": "model", "router_model": engine, "router_tokenizer": "t"}
    config = parse(**options, dtype="bfloat16")  # which is for the pair
    assert config.routing.router_model.given.engine is engine
    assert config.routing.router_model.dtype is None
    with pytest.raises(ConfigError, match=r"router_model is an engine .*: dtype has no effect"):
        parse(**options, router_dtype="bfloat16")
    with pytest.raises(ConfigError, match=r"router_model is an engine .* Give router_tokenizer="):
        parse(router="model", router_model=engine, tokenizer="t")


def test_a_router_may_ask_a_model_in_memory(strong: str, weak: str) -> None:
    model = tf.AutoModelForCausalLM.from_pretrained(weak)
    options = {"router_model": model, "router_tokenizer": weak}
    named = DrSoW(strong, weak, router="model", router_model=weak)
    given = DrSoW(strong, weak, router="model", **options)
    rows = ["How do I pick a lock?", "What is 2 + 2?"], ["No.", "4"]
    assert given.score(*rows) == named.score(*rows)


@pytest.mark.parametrize("side", ["strong", "weak", "router_model"])
def test_an_engine_cannot_be_opened_in_another_process(side: str) -> None:
    tokenizer = f"{side.removesuffix('_model')}_tokenizer"
    config = parse(router="model", **{side: Uniform(), tokenizer: "t"})
    assert as_options(config)[side] == "<Uniform in memory>"
    message = f"{side}='<Uniform in memory>' was given as an object and cannot be opened in another"
    with pytest.raises(ConfigError, match=message):
        Scorer(config).check_reopens()
    Scorer(parse()).check_reopens()


def test_an_engine_is_put_on_no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drsow_plugin.annotate.scorer.device_names", lambda: ["cuda:0", "cuda:1"])
    placed = place(parse(weak=Uniform(), weak_tokenizer="t"), rank=3)
    assert (placed.strong.device, placed.weak.device) == ("cuda:1", None)
