"""The lm-eval model: its options, its cache guard, its records, and null rewards."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from helpers.fakes import fake_pair
from helpers.harness import request, run
from lm_eval.api.model import LM, CacheHook, CachingLM
from lm_eval.api.registry import get_model
from lm_eval.models import MODEL_MAPPING
from lm_eval.models.huggingface import HFLM

from drsow_plugin import ConfigError, DrSoWLM
from drsow_plugin.errors import OverflowLengthError
from drsow_plugin.harness.context import ChatContext


def test_registering_leaves_lm_evals_own_models_in_place() -> None:
    assert get_model("drsow") is DrSoWLM
    assert get_model("dummy").__name__ == "DummyLM"
    assert "hf" in MODEL_MAPPING


def test_model_args_as_a_string_reach_every_option(strong: str, weak: str) -> None:
    lm = DrSoWLM.create_from_arg_string(
        f"strong={strong},weak={weak},weak_template=none,reduction=mean,end_of_turn=False,"
        "overflow=skip,max_length=100,batch_tokens=64,strong_dtype=float32,weak_dtype=bfloat16",
        {"batch_size": "auto", "device": "cpu"},
    )
    config = lm.drsow.config
    assert (config.strong.dtype, config.weak.dtype) == ("float32", "bfloat16")
    assert (config.weak.template, config.batch_tokens) == ("none", 64)
    assert config.scoring.max_length == 100 and not config.scoring.end_of_turn


def test_pretrained_is_strong(strong: str, weak: str) -> None:
    assert DrSoWLM(pretrained=strong, weak=weak).drsow.config.strong.source == strong
    with pytest.raises(ConfigError, match="give one of them"):
        DrSoWLM(pretrained=strong, strong=strong, weak=weak)


def test_an_unknown_option_names_the_nearest_ones(strong: str, weak: str) -> None:
    with pytest.raises(ConfigError, match=r"Did you mean 'weak_template'.* valid ones: .*dtype"):
        DrSoWLM(strong=strong, weak=weak, weak_tempalte="none")


@pytest.mark.parametrize(
    ("batch_size", "limit"), [("auto", None), (1, None), ("auto:4", None), (8, 8), ("8", 8)]
)
def test_batch_sizes_of_lm_eval(strong: str, weak: str, batch_size: str, limit: int) -> None:
    lm = DrSoWLM(strong=strong, weak=weak, batch_size=batch_size, device="cuda:0")
    assert lm.drsow.config.batch_size == limit


def test_model_args_go_before_lm_evals_own_arguments(strong: str, weak: str) -> None:
    args = f"strong={strong},weak={weak},batch_size=4,device=cpu"
    lm = DrSoWLM.create_from_arg_string(args, {"batch_size": 1, "device": "cuda:0"})
    assert lm.drsow.config.batch_size == 4
    assert lm.get_model_info()["drsow"]["devices"] == {"strong": "cpu", "weak": "cpu"}


def test_a_device_that_is_not_lm_evals_default_has_to_be_there(strong: str, weak: str) -> None:
    with pytest.raises(ConfigError, match="strong_device='cuda:99' cannot be used here"):
        DrSoWLM(strong=strong, weak=weak, device="cuda:99")


def test_a_missing_reward_is_counted_as_overflow(preference_file: Path) -> None:
    long = '{"prompt": "%s", "chosen": "a", "rejected": "b"}\n' % ("word " * 300)
    preference_file.write_text(preference_file.read_text() + long)
    metadata = {"data": str(preference_file)}
    with pytest.raises(OverflowLengthError):
        run(DrSoWLM(**fake_pair(max_length=100)), ["preference"], metadata=metadata)
    lm = DrSoWLM(**fake_pair(max_length=100, overflow="skip"))
    results = run(lm, ["preference"], metadata=metadata)["results"]["preference"]
    assert results["overflow,none"] == 1
    assert math.isfinite(results["margin,none"])
    assert results["acc,none"] <= 2 / 4  # the tie and the missing reward count as losses
    info = lm.get_model_info()["drsow"]
    assert (info["responses_scored"], info["responses_without_reward"]) == (8, 2)


def test_truncated_prompts_are_counted(preference_file: Path) -> None:
    lm = DrSoWLM(**fake_pair(max_length=40, overflow="truncate_prompt"))
    long = json.dumps({"prompt": "word " * 300, "chosen": "a", "rejected": "b"}) + "\n"
    preference_file.write_text(long)
    results = run(lm, ["preference"], metadata={"data": str(preference_file)})
    assert results["results"]["preference"]["overflow,none"] == 0
    assert lm.get_model_info()["drsow"]["responses_with_truncated_prompt"] == 2


def test_a_task_that_cannot_take_a_missing_reward_is_refused() -> None:
    lm = DrSoWLM(**fake_pair(overflow="skip"))
    asked = request("loglikelihood", ("Q?", " yes"), "arc_easy")
    with pytest.raises(ConfigError, match=r"'arc_easy' cannot take .*overflow=skip"):
        lm.loglikelihood([asked])
    mean = DrSoWLM(**fake_pair(reduction="mean", end_of_turn=False))
    empty = request("loglikelihood", ("Q?", ""), "arc_easy")
    with pytest.raises(ConfigError, match=r"'arc_easy' cannot take .* no tokens"):
        mean.loglikelihood([empty])


def test_generation_and_perplexity_are_refused() -> None:
    lm = DrSoWLM(**fake_pair())
    asked = request("generate_until", ("Q?", {}), "gsm8k")
    with pytest.raises(ConfigError, match="'gsm8k' asks for generated text"):
        lm.generate_until([asked])
    with pytest.raises(ConfigError, match="perplexity"):
        lm.loglikelihood_rolling([asked])


@pytest.mark.slow
def test_a_cache_serves_its_own_pair_and_nobody_else(
    tmp_path: Path, strong: str, weak: str, preference_file: Path
) -> None:
    def results(model: LM, **cached: str) -> Any:
        return run(
            model,
            ["preference"],
            metadata={"data": str(preference_file)},
            log_samples=True,
            **cached,
        )["samples"]["preference"]

    def pair() -> DrSoWLM:
        return DrSoWLM(strong=strong, weak=weak)

    def hf() -> HFLM:
        return HFLM(pretrained=strong, device="cpu", dtype="float32")

    models = [pair, hf, lambda: DrSoWLM(strong=weak, weak=strong)]
    models.append(lambda: DrSoWLM(strong=strong, weak=weak, reduction="mean"))
    cache = {"use_cache": str(tmp_path / "cache")}
    for model in models:
        expected, got = results(model()), results(model(), **cache)
        assert [row["margin"] for row in got] == [row["margin"] for row in expected]
    again = pair()
    assert results(again, **cache) == results(pair())
    assert again.get_model_info()["drsow"]["responses_scored"] == 0


def test_a_cache_keeps_conversations_apart_that_have_the_same_texts(tmp_path: Path) -> None:
    prompts = [
        [{"role": "user", "content": "A\n\nB"}],
        [
            {"role": "user", "content": "A"},
            {"role": "assistant", "content": "B"},
            {"role": "user", "content": ""},
        ],
        [{"role": "system", "content": "A"}, {"role": "user", "content": "B"}],
    ]
    rows = [{"prompt": p, "chosen": "yes", "rejected": "no"} for p in prompts]
    data = tmp_path / "d.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    margins = [
        [
            sample["margin"]
            for sample in run(
                DrSoWLM(**fake_pair()),
                ["preference"],
                metadata={"data": str(data)},
                use_cache=str(tmp_path / "cache"),
                log_samples=True,
            )["samples"]["preference"]
        ]
        for _ in range(2)
    ]
    assert margins[0] == margins[1]
    assert len(set(margins[0])) == 3


def test_prompts_that_a_cache_would_mix_up_are_refused(tmp_path: Path) -> None:
    lm = CachingLM(DrSoWLM(**fake_pair()), str(tmp_path / "cache.db"))
    contexts = [
        ChatContext("the same text", [{"role": role, "content": "x"}]) for role in ("user", "tool")
    ]
    requests = [
        request("loglikelihood", (context, "yes"), "t", i) for i, context in enumerate(contexts)
    ]
    with pytest.raises(ConfigError, match="cannot tell two prompts apart"):
        lm.loglikelihood(requests)


def test_a_cache_of_another_make_is_refused() -> None:
    hook = CacheHook(None)
    hook.dbdict = {}
    with pytest.raises(ConfigError, match="keeps responses in a dict"):
        DrSoWLM(**fake_pair()).set_cache_hook(hook)


def test_results_record_the_pair(strong: str, weak: str, preference_file: Path) -> None:
    results = run(
        DrSoWLM(strong=strong, weak=weak, weak_template="none"),
        ["preference"],
        metadata={"data": str(preference_file)},
    )
    drsow = json.loads(json.dumps(results["config"]["drsow"]))
    assert drsow["strong"]["source"] == strong and drsow["weak"]["template"] == "none"
    assert set(drsow["strong"]["sha256"]) >= {"model.safetensors", "config.json"}
    assert drsow["scoring"]["reduction"] == "sum"
    assert set(drsow["versions"]) >= {"torch", "transformers", "drsow-plugin", "lm-eval"}


def test_a_template_named_by_flag_is_refused() -> None:
    with pytest.raises(ConfigError, match="strong_template=FILE"):
        DrSoWLM(**fake_pair()).chat_template("named")
