"""What is written goes into TRL's trainers as it is."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
import transformers as tf
from click.testing import CliRunner
from helpers.preferences import USER, WORDS, candidates, pairs, turn
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer, RewardConfig, RewardTrainer

from drsow_plugin.cli import main

pytestmark = pytest.mark.slow

PROMPT = [USER, *turn("It is quick."), {"role": "user", "content": "And the dog?"}]
ROWS: dict[str, list[dict[str, Any]]] = {
    "candidates": [{**row, "tools": None, "type": "x"} for row in candidates(6)],
    "hh": [{"prompt": PROMPT, "chosen": a, "rejected": b} for a, b in pairwise(WORDS)],
    "rewardbench": [{**row, "subset": "hep-python", "chosen_model": "gpt"} for row in pairs(6)],
    "labelled": [
        {"instruction": f"q {n}", "input": "x", "response_a": a, "response_b": b, "winner": "b"}
        for n, (a, b) in enumerate(pairwise(WORDS))
    ],
    "implicit": [
        {"chosen": PROMPT + turn(a), "rejected": PROMPT + turn(b)} for a, b in pairwise(WORDS)
    ],
}


@pytest.mark.parametrize("name", ROWS)
def test_a_trainer_takes_a_step(tmp_path: Path, strong: str, weak: str, name: str) -> None:
    file, out = tmp_path / "rows.jsonl", tmp_path / "labelled"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS[name]), encoding="utf-8")
    models = ["--strong", strong, "--weak", weak, "--cache-dir", str(tmp_path / "cache")]
    result = CliRunner().invoke(main, ["annotate", str(file), str(out), *models])
    assert result.exit_code == 0, result.output
    data = datasets.load_dataset(str(out), split="train", cache_dir=str(tmp_path / "hf"))
    common = {
        "per_device_train_batch_size": 2,
        "max_steps": 1,
        "report_to": [],
        "output_dir": str(tmp_path / "trained"),
        "use_cpu": True,
        "bf16": False,
        "logging_steps": 1,
        "save_strategy": "no",
    }
    tokenizer = tf.AutoTokenizer.from_pretrained(strong)
    tokenizer.pad_token = tokenizer.eos_token
    trainer = DPOTrainer(
        model=tf.AutoModelForCausalLM.from_pretrained(strong),
        args=DPOConfig(**common),
        train_dataset=data,
        processing_class=tokenizer,
    )
    trainer.train()
    assert trainer.state.log_history[0]["loss"] > 0
    if name == "labelled":  # of which this trainer makes prompts, completions and labels
        kto = KTOTrainer(
            model=tf.AutoModelForCausalLM.from_pretrained(strong),
            args=KTOConfig(**common),
            train_dataset=data,
            processing_class=tokenizer,
        )
        kto.train()
        assert kto.state.log_history[0]["loss"] > 0
        assert len(kto.train_dataset) == 2 * len(data)
    if name != "candidates":
        return
    losses = []
    for rows in (data, data.select_columns(["prompt", "chosen", "rejected"])):
        reward = tf.AutoModelForSequenceClassification.from_pretrained(strong, num_labels=1)
        torch.nn.init.zeros_(reward.score.weight)
        reward.config.pad_token_id = tokenizer.pad_token_id
        ranking = RewardTrainer(
            model=reward,
            args=RewardConfig(**common),
            train_dataset=rows,
            processing_class=tokenizer,
        )
        ranking.train()
        losses.append(ranking.state.log_history[0]["loss"])
    # Without a margin in the loss a model that rewards everything alike loses log 2.
    assert losses == pytest.approx([math.log(2)] * 2, abs=1e-3)
