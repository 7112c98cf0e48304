"""drsow grpo: a policy is trained on a pair's reward of its own responses, goes on if killed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from statistics import fmean
from typing import Any

import datasets
import pytest
import transformers as tf
from click.testing import CliRunner
from helpers import tiny, tiny_gguf
from safetensors.torch import load_file

from drsow_plugin import ConfigError, DataError, DrSoW, LanguageModel
from drsow_plugin.cli import main
from drsow_plugin.scoring.reward_function import RewardFunction
from drsow_plugin.tuning import online
from drsow_plugin.tuning.online_options import OnlineConfig, parse_online

PROMPTS = [{"prompt": f"Name {n} primes."} for n in range(6)]
FAST: dict[str, Any] = {
    **{"candidates": 2, "batch_prompts": 2, "max_tokens": 6, "learning_rate": 1e-3},
    **{"policy_device": "cpu", "device": "cpu"},
}


def rows(values: list[dict[str, Any]]) -> datasets.Dataset:
    return datasets.Dataset.from_list(values)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny.save(tmp_path_factory.mktemp("policy"), seed=3)


def setup_of(policy: str, strong: str, weak: str, **options: Any) -> Any:
    return parse_online(policy, {"strong": strong, "weak": weak, **FAST, **options})


def apart(one: Path, other: Path, name: str = "model.safetensors") -> float:
    """Return the largest difference between the weights in two folders."""
    a, b = load_file(one / name), load_file(other / name)
    assert a.keys() == b.keys()
    return max((a[key] - b[key]).abs().max().item() for key in a)


@pytest.mark.slow
def test_what_is_rewarded_is_what_the_policy_answers(
    policy: str, strong: str, weak: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[list[Any], list[Any], list[Any]]] = []
    called = RewardFunction.__call__

    def noted(self: Any, prompts: Any, completions: Any, **more: Any) -> Any:
        answered = called(self, prompts, completions, **more)
        calls.append((prompts, [turns[0]["content"] for turns in completions], answered))
        return answered

    monkeypatch.setattr(RewardFunction, "__call__", noted)
    setup = setup_of(policy, strong, weak, batch_rows=1, epochs=2, seed=3)
    trained = online.train_online(rows(PROMPTS), tmp_path / "made", setup)
    assert (trained.prompts, trained.steps, trained.left_out) == (6, 6, {})
    drsow = DrSoW(strong, weak, device="cpu")
    asked = []
    for prompts, texts, answered in calls:
        assert len(texts) == 4 and prompts[0] == prompts[1] and prompts[2] == prompts[3]
        asked += [prompts[0][0]["content"], prompts[2][0]["content"]]
        expected = drsow.score(prompts, texts, on_error="null")
        assert answered == [pytest.approx(reward.reward) for reward in expected]
    every = sorted(row["prompt"] for row in PROMPTS)
    assert sorted(asked[:6]) == sorted(asked[6:]) == every and asked[:6] != asked[6:]
    means = [fmean(reward for reward in answered if reward is not None) for *_, answered in calls]
    assert trained.reward_begin == pytest.approx(means[0], rel=1e-4)
    assert trained.reward_end == pytest.approx(means[-1], rel=1e-4)
    record = json.loads((tmp_path / "made" / "tune.json").read_text())
    assert record["done"]["steps"] == 6 and record["done"]["options"]["strong"] == strong
    assert not (tmp_path / "made" / "checkpoints").exists()
    assert LanguageModel(trained.folder, device="cpu").logprobs(["a"], ["b"])[0].total < 0
    with pytest.raises(ConfigError, match="ended already"):
        online.train_online(rows(PROMPTS), tmp_path / "made", setup)
    with pytest.raises(ConfigError, match="something else"):
        online.train_online(rows(PROMPTS[:4]), tmp_path / "made", setup)


@pytest.mark.slow
@pytest.mark.parametrize(("lora_rank", "rate"), [(0, 5e-3), (4, 5e-2)])
def test_training_raises_the_reward(tmp_path: Path, lora_rank: int, rate: float) -> None:
    strong, weak = (tiny.save(tmp_path / f"{n}", seed=n, kind="bytes") for n in (1, 2))
    policy = str(tiny_gguf.save(tmp_path / "it.gguf", seed=1))
    more = {"candidates": 16, "batch_prompts": 4, "max_tokens": 2, "end_of_turn": False}
    more |= {"learning_rate": rate, "lora_rank": lora_rank, "beta": 0.001, "steps": 40}
    setup = setup_of(policy, strong, weak, **more)
    trained = online.train_online(rows(PROMPTS), tmp_path / "made", setup)
    assert trained.reward_begin is not None and trained.reward_end is not None
    assert trained.reward_end > trained.reward_begin + 0.5
    name = "adapter_model.safetensors" if lora_rank else "model.safetensors"
    assert (tmp_path / "made" / name).is_file()


@pytest.mark.slow
@pytest.mark.parametrize("lora_rank", [0, 2])
def test_an_interrupted_training_goes_on(
    policy: str,
    strong: str,
    weak: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    lora_rank: int,
) -> None:
    more = {"epochs": 3, "checkpoint_steps": 2, "lora_rank": lora_rank}
    setup = setup_of(policy, strong, weak, **more)
    whole = online.train_online(rows(PROMPTS), tmp_path / "whole", setup)
    step, steps = tf.Trainer.training_step, [0]

    def interrupted(self: Any, *args: Any, **kwargs: Any) -> Any:
        steps[0] += 1
        if steps[0] == 2 * 5 + 2:  # in the middle of the sixth step, of the second epoch
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    monkeypatch.setattr(tf.Trainer, "training_step", interrupted)
    with pytest.raises(KeyboardInterrupt, match="checkpoint-4 is kept"):
        online.train_online(rows(PROMPTS), tmp_path / "part", setup)
    again = online.train_online(rows(PROMPTS), tmp_path / "part", setup)
    assert (whole.steps, again.steps) == (9, 9) and steps[0] == 12 + 2 * (9 - 4)
    name = "adapter_model.safetensors" if lora_rank else "model.safetensors"
    assert apart(tmp_path / "whole", tmp_path / "part", name) < 1e-6
    assert (again.reward_begin, again.reward_end) == (whole.reward_begin, whole.reward_end)


@pytest.mark.slow
def test_a_command_that_is_ended_goes_on(
    policy: str, strong: str, weak: str, tmp_path: Path
) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in PROMPTS))
    options = {**FAST, "strong": strong, "weak": weak, "steps": 40, "checkpoint_steps": 1}
    given = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]

    def words(folder: str) -> list[str]:
        return ["grpo", str(file), str(tmp_path / folder), "--policy", policy, *given]

    command = [sys.executable, "-m", "drsow_plugin.cli", *words("part")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as run:
        end = time.monotonic() + 120
        kept = tmp_path / "part" / "checkpoints"
        while not [*kept.glob("checkpoint-*/trainer_state.json")] and time.monotonic() < end:
            assert run.poll() is None
            time.sleep(0.05)
        run.send_signal(signal.SIGTERM)
        _, said = run.communicate(timeout=60)
    assert run.returncode == 128 + signal.SIGTERM, said
    assert "Interrupted: checkpoint-" in said and "the same command goes on" in said
    results = [CliRunner().invoke(main, words(folder)) for folder in ("part", "whole")]
    for result in results:
        assert result.exit_code == 0, result.output
        assert "6 prompts, 40 steps; mean reward" in result.output
    assert apart(tmp_path / "whole", tmp_path / "part") < 1e-6


def test_what_is_left_out_is_counted(policy: str, strong: str, weak: str, tmp_path: Path) -> None:
    model = LanguageModel(policy, device="cpu", overflow="skip")
    more: list[Any] = [
        None,
        [{"role": "user", "content": "x " * 600}],
        [{"role": "user", "content": "a"}, {"role": "assistant", "content": "It is"}],
    ]
    turns = [[{"role": "user", "content": row["prompt"]}] for row in PROMPTS]
    data = rows([{"prompt": prompt} for prompt in [*turns, *more]])
    config = OnlineConfig(batch_prompts=6, max_tokens=6)
    taken, left_out = online._taken(data, model, config)
    assert taken == turns
    assert left_out == {"unreadable": 1, "too long": 1, "with a begun answer": 1}
    with pytest.raises(DataError, match=r"6 prompts can be trained on \(1 too long, .*\), fewer"):
        online._taken(data, model, OnlineConfig(batch_prompts=7, max_tokens=6))
    with pytest.raises(ConfigError, match="max_tokens=512 leaves no room"):
        online._taken(data, model, OnlineConfig())
    setup = setup_of(policy, strong, weak)
    with pytest.raises(DataError, match=r"prompts repeat \(row 6 repeats row 0\)"):
        online.train_online(rows([*PROMPTS, PROMPTS[0]]), tmp_path / "made", setup)
    with pytest.raises(DataError, match="no column 'prompt', only text"):
        online.train_online(rows([{"text": "a"}]), tmp_path / "made", setup)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"candidates": 1}, "candidates=1 is no group"),
        ({"steps": 3, "epochs": 2}, "steps or epochs, not both"),
        ({"batch_rows": 3}, "no multiple of batch_rows=3"),
        ({"policy_dtype": "float16"}, "cannot be trained with"),
        ({"beta": -1}, "beta is a number"),
        ({"temperature": 0}, "temperature is a number above 0"),
        ({"policy_server": "http://127.0.0.1:9"}, "policy_server"),
        ({"weak": "strong-and-weak", "strong": "strong-and-weak"}, "the same model"),
        ({"max_cut": 1}, "max_cut"),
    ],
)
def test_options_that_are_refused(policy: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        setup_of(policy, options.pop("strong", "a"), options.pop("weak", "b"), **options)


def test_options_of_the_pair_are_not_the_policys(policy: str) -> None:
    setup = setup_of(policy, "a", "b", template="none", policy_dtype="bfloat16", dtype="float16")
    assert (setup.policy.template, setup.policy.dtype) == ("tokenizer", "bfloat16")
    assert setup.pair.strong.dtype == setup.pair.weak.dtype == "float16"
    assert (
        parse_online(policy, {k: v for k, v in setup.options().items() if k != "policy"}) == setup
    )


def test_a_policy_that_is_not_named(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["grpo", "prompts", str(tmp_path / "out")])
    assert result.exit_code == 1 and "No policy was given" in result.output
