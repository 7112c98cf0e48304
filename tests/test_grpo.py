"""TRL's online trainers take steps on our reward: of a pair, of a server, and by its path."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import datasets
import pytest
import transformers as tf
from helpers.preferences import USER
from helpers.serving import metric, serving
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from drsow_plugin import DrSoW
from drsow_plugin.records import Prompt, Reward
from drsow_plugin.rewards import open_reward
from drsow_plugin.scoring.reward_function import RewardFunction

pytestmark = pytest.mark.slow

ROWS: dict[str, list[dict[str, Any]]] = {
    "texts": [{"prompt": f"Name {n} primes.", "solution": n, "tools": None} for n in range(4)],
    "messages": [{"prompt": [USER], "solution": {"n": n}} for n in range(4)],
}
CONFIG: dict[str, Any] = {
    **{"per_device_train_batch_size": 4, "num_generations": 4, "max_completion_length": 8},
    **{"max_steps": 2, "logging_steps": 1, "use_cpu": True, "bf16": False, "report_to": "none"},
    **{"save_strategy": "no", "temperature": 0.7},
}


class Recorder:
    """A reward function, and what it was asked and answered."""

    __name__ = "drsow_reward"

    def __init__(self, reward: RewardFunction) -> None:
        self._reward = reward
        self.calls: list[tuple[list[Any], list[Any], list[float | None]]] = []

    def __call__(self, prompts: list[Any], completions: list[Any], **columns: Any) -> Any:
        assert len(columns["solution"]) == len(prompts) and "log_metric" in columns
        rewards = self._reward(prompts, completions, **columns)
        self.calls.append((prompts, completions, rewards))
        return rewards


TRAINERS: dict[str, Any] = {"grpo": (GRPOTrainer, GRPOConfig), "rloo": (RLOOTrainer, RLOOConfig)}


def trained(
    folder: Path, policy: str, rows: str, reward: RewardFunction, method: str = "grpo"
) -> Recorder:
    """Take two steps; check that what is logged is what was answered."""
    recorder = Recorder(reward)
    tokenizer = tf.AutoTokenizer.from_pretrained(policy)
    tokenizer.pad_token = tokenizer.eos_token
    trainer_type, config_type = TRAINERS[method]
    trainer = trainer_type(
        model=tf.AutoModelForCausalLM.from_pretrained(policy),
        reward_funcs=recorder,
        args=config_type(output_dir=str(folder), **CONFIG),
        train_dataset=datasets.Dataset.from_list(ROWS[rows]),
        processing_class=tokenizer,
    )
    trainer.train()
    assert len(recorder.calls) == 2
    for logged, (_, _, answered) in zip(trainer.state.log_history, recorder.calls, strict=False):
        rewards = [reward for reward in answered if reward is not None]
        mean = logged["rewards/drsow_reward/mean"]
        assert mean == pytest.approx(fmean(rewards), rel=1e-4)
        assert logged["drsow_reward/unscored"] == 1 - len(rewards) / 4
        ratio = logged["drsow_reward/strong_logprob"] - logged["drsow_reward/weak_logprob"]
        assert ratio == pytest.approx(mean, abs=1e-3)
    return recorder


@pytest.mark.parametrize(
    ("rows", "method"), [("texts", "grpo"), ("messages", "grpo"), ("messages", "rloo")]
)
def test_a_trainer_takes_steps_on_the_reward_of_a_pair(
    tmp_path: Path, strong: str, weak: str, rows: str, method: str
) -> None:
    drsow = DrSoW(strong, weak)
    recorder = trained(tmp_path, strong, rows, drsow.as_reward_function(), method)
    for prompts, completions, answered in recorder.calls:
        texts = [c if isinstance(c, str) else c[0]["content"] for c in completions]
        expected = drsow.score(prompts, texts, on_error="null")
        assert answered == [pytest.approx(reward.reward) for reward in expected]


def test_a_trainer_takes_steps_on_the_reward_of_a_server(
    tmp_path: Path, strong: str, weak: str
) -> None:
    with serving(strong=strong, weak=weak) as url:
        recorder = trained(tmp_path, strong, "messages", open_reward(url))
        assert metric(url, 'drsow_rows_total{status="ok"}') == 8
    prompts, completions, answered = recorder.calls[0]
    expected = DrSoW(strong, weak).score(prompts, [c[0]["content"] for c in completions])
    assert answered == pytest.approx([reward.reward for reward in expected], abs=1e-4)


def test_completions_without_a_reward_are_left_out(tmp_path: Path, strong: str, weak: str) -> None:
    drsow = DrSoW(strong, weak)

    def every_second(prompts: Sequence[Prompt], responses: Sequence[str]) -> list[Reward]:
        texts = [text + " too long" * 600 * (n % 2) for n, text in enumerate(responses)]
        return drsow.score(prompts, texts, on_error="null")

    recorder = trained(tmp_path, strong, "texts", RewardFunction(every_second))
    for _, _, answered in recorder.calls:
        assert [reward is None for reward in answered] == [False, True] * 2


def test_the_command_trl_takes_the_path_of_the_reward(
    tmp_path: Path, strong: str, weak: str
) -> None:
    (tmp_path / "data").mkdir()
    lines = "".join(f"{json.dumps(row)}\n" for row in ROWS["messages"])
    (tmp_path / "data" / "train.jsonl").write_text(lines)
    (tmp_path / "pair.yaml").write_text(f"strong: {strong}\nweak: {weak}\n")
    options = {**CONFIG, "output_dir": tmp_path / "out", "dataset_name": tmp_path / "data"}
    arguments = [f"--{name}={value}" for name, value in options.items()]
    command = [sys.executable, "-m", "trl.scripts.grpo", "--model_name_or_path", strong]
    result = subprocess.run(
        [*command, "--reward_funcs", "drsow_plugin.rewards.drsow_reward", *arguments],
        env={**os.environ, "DRSOW_REWARD": str(tmp_path / "pair.yaml")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "rewards/drsow_reward/mean" in result.stdout + result.stderr
    assert "drsow_reward/strong_logprob" in result.stdout + result.stderr
