"""drsow tune: the losses are the methods' own, what comes out prefers what was chosen."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
import transformers as tf
from click.testing import CliRunner
from helpers import tiny, tiny_gguf
from helpers.fakes import fake_annotator
from safetensors.torch import load_file

from drsow_plugin import ConfigError, DataError, DrSoW, LanguageModel
from drsow_plugin.cli import main
from drsow_plugin.tuning import methods, train
from drsow_plugin.tuning.options import TuneConfig, parse_tuning
from drsow_plugin.tuning.pairs import read_pairs

PAIRS = [
    {"prompt": f"Name {n}.", "chosen": f"It is {n}, sir.", "rejected": f"No {n}!"} for n in range(8)
]
FAST: dict[str, Any] = {"min_pairs": 4, "batch_rows": 4, "batch_pairs": 4, "max_length": 128}


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny.save(tmp_path_factory.mktemp("policy"), seed=3)


def rows(pairs: list[dict[str, Any]]) -> datasets.Dataset:
    return datasets.Dataset.from_list(pairs)


def first_step(
    folder: Path, policy: str, monkeypatch: pytest.MonkeyPatch, **options: Any
) -> tuple[float, list[float]]:
    """Return the loss of the first step, over all pairs, and a pair's means of log-probs.

    The means are those of chosen minus rejected, by plain transformers in float64, of the very
    tokens that the trainer reads.
    """
    seen: list[Any] = []
    monkeypatch.setattr(train, "last_loss", lambda history: seen.append(history[0]["loss"]))
    setup = parse_tuning(policy, {**FAST, "batch_rows": 8, "batch_pairs": 8, **options})
    kind, steps = methods.trainer_of(setup.tune)[0], []

    def kept(self: Any, **arguments: Any) -> Any:
        steps.append(next(iter(self.get_train_dataloader())))
        return super(kind, self).train(**arguments)

    monkeypatch.setattr(kind, "train", kept, raising=False)
    train.tune(rows(PAIRS), folder, setup)
    (batch,), model = steps, tf.AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float64)
    means = {}
    for side in ("chosen", "rejected") if "chosen_labels" in batch else ():
        labels, ids = batch[f"{side}_labels"][:, 1:], batch[f"{side}_input_ids"]
        with torch.no_grad():
            found = model(ids, attention_mask=batch[f"{side}_attention_mask"]).logits[:, :-1]
        scored, at = labels != -100, labels.clamp(min=0)[..., None]
        logprobs = found.log_softmax(-1).gather(-1, at)[..., 0] * scored
        means[side] = logprobs.sum(1) / scored.sum(1)
    return seen[0], (means["chosen"] - means["rejected"]).tolist() if means else []


@pytest.mark.slow
def test_the_first_loss_is_the_methods_own(
    policy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dpo, _ = first_step(tmp_path / "dpo", policy, monkeypatch)
    assert dpo == pytest.approx(math.log(2), abs=1e-4)  # the policy is its own reference
    # KTO (arXiv 2402.01306), equation 8, with no difference yet: 1 - sigmoid(0) of each response
    kto, _ = first_step(tmp_path / "kto", policy, monkeypatch, method="kto", batch_rows=1)
    assert kto == pytest.approx(0.5, abs=1e-4)
    options = {"method": "simpo", "beta": 2.5, "gamma": 0.7}
    simpo, differences = first_step(tmp_path / "simpo", policy, monkeypatch, **options)
    # SimPO (arXiv 2405.14734), equation 6.
    losses = [math.log1p(math.exp(-(2.5 * difference - 0.7))) for difference in differences]
    assert simpo == pytest.approx(sum(losses) / 8, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dpo", "simpo", "kto"])
def test_what_was_tuned_prefers_what_was_chosen(policy: str, tmp_path: Path, method: str) -> None:
    options = {**FAST, "method": method, "learning_rate": 5e-3, "epochs": 6, "lora_rank": 4}
    if method != "simpo":
        options["beta"] = 0.5
    tuned = train.tune(rows(PAIRS), tmp_path / "adapter", parse_tuning(policy, options))
    assert (tuned.pairs, tuned.steps, tuned.left_out) == (8, 6 * 2, {})  # 4 pairs a step
    drsow = DrSoW(policy, policy, strong_adapter=tuned.folder, device="cpu")
    prompts = [pair["prompt"] for pair in PAIRS]
    better = drsow.score(prompts, [pair["chosen"] for pair in PAIRS])
    worse = drsow.score(prompts, [pair["rejected"] for pair in PAIRS])
    right = sum(a.reward > b.reward for a, b in zip(better, worse, strict=True))
    assert right >= 7
    record = json.loads((tmp_path / "adapter" / "tune.json").read_text())
    assert record["done"]["pairs"] == 8 and not (tmp_path / "adapter" / "checkpoints").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("method", "loss"), [("dpo", math.log(2)), ("kto", 0.5)])
def test_a_policy_of_a_gguf_file_is_its_own_reference(
    tmp_path: Path, method: str, loss: float
) -> None:
    policy = str(tiny_gguf.save(tmp_path / "it.gguf"))
    setup = parse_tuning(policy, {**FAST, "batch_pairs": 8, "method": method})
    tuned = train.tune(rows(PAIRS), tmp_path / "made", setup)
    assert tuned.steps == 1 and tuned.loss == pytest.approx(loss, abs=1e-4)


@pytest.mark.slow
def test_an_interrupted_training_goes_on(
    policy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import Trainer

    setup = parse_tuning(
        policy, {**FAST, "epochs": 4, "checkpoint_steps": 2, "learning_rate": 1e-3}
    )
    whole = train.tune(rows(PAIRS), tmp_path / "whole", setup)
    step, steps = Trainer.training_step, [0]

    def interrupted(self: Any, *args: Any, **kwargs: Any) -> Any:
        steps[0] += 1
        if steps[0] == 6:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    monkeypatch.setattr(Trainer, "training_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train.tune(rows(PAIRS), tmp_path / "part", setup)
    with pytest.raises(ConfigError, match="something else"):
        train.tune(rows(PAIRS[:6]), tmp_path / "part", setup)
    swapped = [{**p, "chosen": p["rejected"], "rejected": p["chosen"]} for p in PAIRS]
    with pytest.raises(ConfigError, match="something else"):  # as many rows, and not the same
        train.tune(rows(swapped), tmp_path / "part", setup)
    again = train.tune(rows(PAIRS), tmp_path / "part", setup)
    assert (again.steps, steps[0]) == (whole.steps, 6 + 8 - 4)
    one, other = (load_file(tmp_path / n / "model.safetensors") for n in ("whole", "part"))
    assert all((one[name] - other[name]).abs().max() < 1e-6 for name in one)
    with pytest.raises(ConfigError, match="ended already"):
        train.tune(rows(PAIRS), tmp_path / "part", setup)


def test_what_is_left_out_is_counted(policy: str) -> None:
    model = LanguageModel(policy, device="cpu", overflow="skip")
    more = [
        {"prompt": "a", "chosen": None, "rejected": None},
        {"prompt": "a", "chosen": "same", "rejected": "same"},
        {"prompt": "a", "chosen": "x " * 200, "rejected": "y"},
        {"prompt": None, "chosen": "x", "rejected": "y"},
    ]
    pairs = read_pairs(rows([*PAIRS, *more]), model, TuneConfig(min_pairs=4, max_length=128))
    assert len(pairs.rows) == 8
    assert pairs.left_out == {"no pair": 1, "alike": 1, "too long": 1, "unreadable": 1}
    assert pairs.longer == 1.0
    assert pairs.rows[0]["prompt"] == [{"role": "user", "content": "Name 0."}]
    with pytest.raises(DataError, match=r"2 pairs can be trained on \(1 alike\), fewer than"):
        read_pairs(rows([*PAIRS[:2], more[1]]), model, TuneConfig(min_pairs=4))
    with pytest.raises(DataError, match="no column 'chosen', only prompt"):
        read_pairs(rows([{"prompt": "a"}]), model, TuneConfig())


def test_rows_that_labelling_kept_without_a_pair_are_left_out(policy: str, tmp_path: Path) -> None:
    model = LanguageModel(policy, device="cpu", overflow="skip")
    annotator = fake_annotator(min_margin=4, prefix="x_")
    kept = annotator.run(rows(PAIRS), cache_dir=str(tmp_path), keep_unusable=True)
    far = [row["prompt"] for row in kept if row["x_margin"] >= 4]
    assert 0 < len(far) < 8 == len(kept)
    pairs = read_pairs(kept, model, TuneConfig(min_pairs=1))
    assert [row["prompt"][0]["content"] for row in pairs.rows] == far
    assert pairs.left_out == {"no pair": 8 - len(far)}


def test_labels_of_baselines(policy: str) -> None:
    model = LanguageModel(policy, device="cpu", overflow="skip")
    many = [{**PAIRS[n % 8], "prompt": f"Say {n}"} for n in range(200)]
    turned = [{**p, "chosen": p["rejected"], "rejected": p["chosen"]} for p in many]

    def chosen(pairs: list[dict[str, Any]], **options: Any) -> list[str]:
        read = read_pairs(rows(pairs), model, TuneConfig(**options))
        return [row["chosen"][0]["content"] for row in read.rows]

    drawn = chosen(many, labels="random")
    assert drawn == chosen(turned, labels="random")  # nothing of the given labels is in it
    assert drawn != chosen(many, labels="random", seed=1)
    assert 70 < sum(text.startswith("It is") for text in drawn) < 130
    assert all(text.startswith("It is") for text in chosen(turned, labels="longer"))


@pytest.mark.slow
def test_a_merged_model_is_the_policy_with_its_adapter_and_can_be_tuned_again(
    policy: str, tmp_path: Path
) -> None:
    lora = {**FAST, "lora_rank": 2, "learning_rate": 0.01}
    for name, more in (("adapter", {}), ("whole", {"merge": True})):
        train.tune(rows(PAIRS), tmp_path / name, parse_tuning(policy, {**lora, **more}))
    texts = [pair["chosen"] for pair in PAIRS]
    prompts = [pair["prompt"] for pair in PAIRS]
    apart = LanguageModel(policy, adapter=str(tmp_path / "adapter"), device="cpu")
    whole = LanguageModel(str(tmp_path / "whole"), device="cpu")
    found = [[r.total for r in model.logprobs(prompts, texts)] for model in (apart, whole)]
    assert found[0] == pytest.approx(found[1], abs=1e-4)
    # Training again begins there: its first step sees a model that prefers what was chosen.
    again = {**lora, "adapter": str(tmp_path / "adapter"), "learning_rate": 1e-9, "merge": True}
    train.tune(rows(PAIRS), tmp_path / "again", parse_tuning(policy, again))
    twice = LanguageModel(str(tmp_path / "again"), device="cpu").logprobs(prompts, texts)
    assert [r.total for r in twice] == pytest.approx(found[0], abs=1e-3)
    plain = LanguageModel(policy, device="cpu").logprobs(prompts, texts)
    assert [r.total for r in plain] != pytest.approx(found[0], abs=0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gamma": 1}, "gamma has no effect with method=dpo"),
        ({"batch_pairs": 3, "batch_rows": 2}, "no multiple"),
        ({"dtype": "float16"}, "cannot be trained with"),
        ({"learning_rate": 0}, "learning_rate is a number above 0"),
        ({"method": "ppo"}, "method"),
        ({"server": "http://127.0.0.1:9"}, "server"),
    ],
)
def test_options_that_are_refused(policy: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_tuning(policy, options)


@pytest.mark.slow
def test_the_command(policy: str, tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(pair) + "\n" for pair in PAIRS))
    words = ["tune", str(file), str(tmp_path / "out"), "--policy", policy, "--min-pairs", "4"]
    result = CliRunner().invoke(main, [*words, "--lora-rank", "2", "--max-length", "128"])
    assert result.exit_code == 0, result.output
    assert "8 pairs in 1 steps" in result.output
    assert (tmp_path / "out" / "adapter_model.safetensors").exists()
    missing = CliRunner().invoke(main, words[:3])
    assert missing.exit_code == 1 and "No policy was given" in missing.output
