"""drsow tune --method reward: what comes out opens as a reward model, and scores as trained."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
import transformers as tf
from helpers import rewarding, tiny, tiny_gguf
from safetensors.torch import load_file

from drsow_plugin import ConfigError, EngineError, LanguageModel, RewardModel
from drsow_plugin.models.reward_start import with_reward_head
from drsow_plugin.tuning import train
from drsow_plugin.tuning.options import TuneConfig, parse_tuning
from drsow_plugin.tuning.pairs import read_pairs

SIDES = ("chosen", "rejected")
PAIRS: list[dict[str, Any]] = [
    {"prompt": f"Name {n}.", "chosen": f"It is {n}, sir.", "rejected": f"No {n}!"} for n in range(8)
]
FAST: dict[str, Any] = {
    **{"method": "reward", "min_pairs": 4, "batch_rows": 4, "batch_pairs": 4, "max_length": 128},
}


def rows(pairs: list[dict[str, Any]]) -> datasets.Dataset:
    return datasets.Dataset.from_list(pairs)


def talks(side: str) -> list[tuple[list[dict[str, str]], str]]:
    return [([{"role": "user", "content": pair["prompt"]}], pair[side]) for pair in PAIRS]


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny.save(tmp_path_factory.mktemp("policy"), seed=3)


@pytest.mark.parametrize("arch", ["llama", "qwen3", "gemma2_softcap", "gpt2", "opt", "gpt_neox"])
def test_it_begins_as_the_policy_under_a_head_that_the_seed_draws(
    tmp_path: Path, arch: str
) -> None:
    policy = tiny.save(tmp_path / "policy", arch, seed=3)
    heads = []
    for seed in (0, 0, 1):
        model = tf.AutoModelForCausalLM.from_pretrained(policy)
        with_reward_head("it", model, pad_token_id=1, seed=seed).save_pretrained(tmp_path / "made")
        made, told = tf.AutoModelForSequenceClassification.from_pretrained(
            tmp_path / "made", output_loading_info=True
        )
        assert not told["missing_keys"] and not told["unexpected_keys"]
        body = tf.AutoModelForCausalLM.from_pretrained(policy).base_model.state_dict()
        found = made.base_model.state_dict()
        assert body.keys() == found.keys()
        assert all(torch.equal(found[name], value) for name, value in body.items())
        heads += [value for name, value in made.named_parameters() if "score" in name]
        assert made.config.num_labels == 1 and made.config.pad_token_id == 1
    assert [*heads[0].shape] == [1, 32] and heads[0].std() > 0.005
    assert torch.equal(heads[0], heads[1]) and not torch.equal(heads[0], heads[2])


def test_a_policy_without_a_classifier_of_its_kind_is_refused() -> None:
    with pytest.raises(ConfigError, match="no sequence classifier"):
        with_reward_head("policy='it'", tiny.model("mamba"), pad_token_id=1, seed=0)


@pytest.mark.parametrize("kind", ["gpt2_bos", "gpt2", "sentencepiece"])
def test_it_is_trained_on_the_tokens_that_it_scores(tmp_path: Path, kind: str) -> None:
    policy = tiny.save(tmp_path / "policy", kind=kind)
    model = LanguageModel(policy, device="cpu", overflow="skip")
    read = read_pairs(rows(PAIRS), model, TuneConfig(method="reward", min_pairs=4)).rows
    scorer = RewardModel(rewarding.save(tmp_path / "reward", kind=kind), device="cpu")
    for side in SIDES:
        scored = [scorer._read(prompt, text, "a row") for prompt, text in talks(side)]
        assert [tuple(ids) for ids in read[f"{side}_ids"]] == scored


def test_what_is_left_out_is_counted(policy: str) -> None:
    model = LanguageModel(policy, device="cpu", overflow="skip")
    more = [
        {"prompt": "a", "chosen": "same", "rejected": "same"},
        {"prompt": "a", "chosen": "x " * 600, "rejected": "y"},  # over the model's own limit
        {"prompt": None, "chosen": "x", "rejected": "y"},
    ]
    config = TuneConfig(method="reward", min_pairs=4, labels="random")
    pairs = read_pairs(rows([*PAIRS, *more]), model, config)
    assert len(pairs.rows) == 8
    assert pairs.left_out == {"alike": 1, "too long": 1, "unreadable": 1}
    given = read_pairs(rows(PAIRS), model, TuneConfig(method="reward", min_pairs=4)).rows
    drawn = zip(pairs.rows, given, strict=True)
    assert {one["chosen_ids"] == other["rejected_ids"] for one, other in drawn} == {True, False}


@pytest.mark.slow
def test_the_first_loss_is_bradley_terrys(policy: str, tmp_path: Path) -> None:
    options = {**FAST, "batch_rows": 8, "batch_pairs": 8, "seed": 5}
    tuned = train.tune(rows(PAIRS), tmp_path / "made", parse_tuning(policy, options))
    start = with_reward_head(
        "it", tf.AutoModelForCausalLM.from_pretrained(policy), pad_token_id=1, seed=5
    )
    start.save_pretrained(tmp_path / "start")
    tiny.tokenizer("gpt2_bos").save_pretrained(tmp_path / "start")
    better, worse = (rewarding.plain(str(tmp_path / "start"), talks(s)) for s in SIDES)
    losses = [math.log1p(math.exp(b - a)) for a, b in zip(better, worse, strict=True)]
    assert tuned.steps == 1 and tuned.loss == pytest.approx(sum(losses) / 8, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("lora_rank", [0, 4])
@pytest.mark.parametrize("kind", ["folder", "gguf"])
def test_what_was_trained_opens_as_it_is_and_prefers_what_was_chosen(
    policy: str, tmp_path: Path, kind: str, lora_rank: int
) -> None:
    source = policy if kind == "folder" else str(tiny_gguf.save(tmp_path / "it.gguf"))
    options = {**FAST, "learning_rate": 5e-3, "epochs": 6, "lora_rank": lora_rank}
    tuned = train.tune(rows(PAIRS), tmp_path / "made", parse_tuning(source, options))
    assert (tuned.pairs, tuned.steps, tuned.left_out) == (8, 12, {})
    assert not [*(tmp_path / "made").glob("adapter*")]
    model = RewardModel(tuned.folder, device="cpu")
    better, worse = ([*model.score(*zip(*talks(side), strict=True))] for side in SIDES)
    plain = [rewarding.plain(tuned.folder, talks(side)) for side in SIDES]
    assert [better, worse] == [pytest.approx(found, rel=1e-4, abs=1e-4) for found in plain]
    assert all(a > b for a, b in zip(*plain, strict=True))
    head = load_file(Path(tuned.folder) / "model.safetensors")["score.weight"]
    drawn = with_reward_head("it", tiny.model(), pad_token_id=1, seed=0).score.weight
    assert not torch.equal(head, drawn)  # with an adapter too


@pytest.mark.slow
@pytest.mark.parametrize("lora_rank", [0, 4])
def test_an_interrupted_training_goes_on(
    policy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lora_rank: int
) -> None:
    more = {"epochs": 4, "checkpoint_steps": 2, "learning_rate": 1e-3, "lora_rank": lora_rank}
    setup = parse_tuning(policy, {**FAST, **more})
    train.tune(rows(PAIRS), tmp_path / "whole", setup)
    step, steps = tf.Trainer.training_step, [0]

    def interrupted(self: Any, *args: Any, **kwargs: Any) -> Any:
        steps[0] += 1
        if steps[0] == 6:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    monkeypatch.setattr(tf.Trainer, "training_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train.tune(rows(PAIRS), tmp_path / "part", setup)
    (kept,) = (tmp_path / "part" / "checkpoints").glob("checkpoint-*")
    torn = kept.with_name("checkpoint-5")  # of a run that was killed while it wrote one
    torn.mkdir()
    (torn / "config.json").write_text("{")
    train.tune(rows(PAIRS), tmp_path / "part", setup)
    assert steps[0] == 6 + 8 - 4
    one, other = (load_file(tmp_path / n / "model.safetensors") for n in ("whole", "part"))
    assert one.keys() == other.keys()
    assert all((one[name] - other[name]).abs().max() < 1e-6 for name in one)


@pytest.mark.slow
def test_a_loss_that_is_no_number_ends_the_training(policy: str, tmp_path: Path) -> None:
    setup = parse_tuning(policy, {**FAST, "learning_rate": 9e5, "epochs": 20, "batch_pairs": 8})
    with pytest.raises(EngineError, match=r"loss of step \d+ is (nan|inf)"):
        train.tune(rows(PAIRS), tmp_path / "made", setup)


@pytest.mark.parametrize("name", ["beta", "gamma"])
def test_options_without_effect_are_refused(policy: str, name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} has no effect with method=reward"):
        parse_tuning(policy, {"method": "reward", name: 0.1})
