"""The demo model against code that nobody here wrote: float64, lm-eval's hf, and TRL."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
import transformers as tf
from helpers.harness import request
from helpers.oracle import token_logprobs
from lm_eval.models.huggingface import HFLM
from trl import DPOConfig, DPOTrainer

from drsow_plugin import DrSoW, tasks_path
from drsow_plugin.models.demo import demo_model
from drsow_plugin.records import Reward

pytestmark = pytest.mark.slow

BOUND = 5e-4  # nats a response
# Nats a token: what the peers' plain float32 log_softmax is off by from float64, at most. It
# depends on the CPU: 1.84e-5 was measured on one without avx512_bf16, where ours was off by 2.8e-6.
FLOAT32_SOFTMAX = 2.5e-5


# As SmolLM2-135M-Instruct's config.json has it; given, so that the file is parsed once less.
SMOLLM2: dict[str, Any] = {
    **{"vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "head_dim": 64},
    **{"num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3},
    **{"max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "tie_word_embeddings": True},
    "rope_parameters": {"rope_type": "default", "rope_theta": 100000.0},
}


@pytest.fixture(scope="module")
def rows() -> list[tuple[str, str]]:
    """Pairs of LLMBar, hard cases for the boundary, and a response of about 500 tokens."""
    lines = (Path(tasks_path()) / "llmbar.jsonl").read_text(encoding="utf-8").splitlines()
    short = [json.loads(line) for line in lines if len(line) < 500][:3]
    found = [(row["prompt"], row[name]) for row in short for name in ("chosen", "rejected")]
    code = "    for i, x in enumerate(numbers):\n        if x > 2:\n            return i\n\n"
    long = " ".join(json.loads(line)["chosen"] for line in lines[:40])[:2300]
    return [
        *found,
        ("Complete this function.", code),
        ("Say it.", "naïve 你好 👍"),
        ("Go on.", long),
    ]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    path = demo_model()
    return tf.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)


@pytest.fixture(scope="module")
def weights() -> tf.PreTrainedModel:
    """Return the demo model in float32, as a plain model that nothing knows to be a GGUF."""
    path = demo_model()
    loaded = tf.AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32, config=tf.LlamaConfig(**SMOLLM2)
    )
    config = tf.LlamaConfig(**{**loaded.config.to_dict(), "quantization_config": None})
    del config.quantization_config
    model = tf.LlamaForCausalLM(config).eval()
    model.load_state_dict(loaded.state_dict())
    return model


@pytest.fixture(scope="module")
def rewards(rows: list[tuple[str, str]]) -> list[Reward]:
    drsow = DrSoW("demo", "demo", weak_template="none")
    return drsow.score([prompt for prompt, _ in rows], [response for _, response in rows])


@pytest.fixture(scope="module")
def truth(
    rows: list[tuple[str, str]], tokenizer: Any, weights: tf.PreTrainedModel
) -> Callable[[str, str], list[float]]:
    """Return ln p, in float64, of the tokens of a text after the tokens of another."""
    exact = copy.deepcopy(weights).double()
    known: dict[tuple[str, str], list[float]] = {}

    def logprobs(context: str, text: str) -> list[float]:
        if (context, text) not in known:
            ids = [tokenizer.encode(part, add_special_tokens=False) for part in (context, text)]
            known[context, text] = token_logprobs(exact, *ids)
        return known[context, text]

    return logprobs


def rendered(tokenizer: Any, prompt: str) -> str:
    messages = [{"role": "user", "content": prompt}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return str(text)


def test_log_probs_agree_with_float64(
    rows: list[tuple[str, str]],
    rewards: list[Reward],
    tokenizer: Any,
    truth: Callable[[str, str], list[float]],
) -> None:
    assert max(reward.strong_tokens for reward in rewards) > 450
    for (prompt, response), reward in zip(rows, rewards, strict=True):
        expected = truth(rendered(tokenizer, prompt), f"{response}<|im_end|>")
        assert reward.strong_tokens == len(expected)
        assert reward.strong_logprob == pytest.approx(sum(expected), abs=BOUND)


def test_the_plain_side_agrees_with_float64(
    rows: list[tuple[str, str]],
    rewards: list[Reward],
    tokenizer: Any,
    truth: Callable[[str, str], list[float]],
) -> None:
    for (prompt, response), reward in zip(rows[:3], rewards[:3], strict=True):
        # A blank line before a word is two tokens for this tokenizer.
        context, text = f"<|im_start|>{prompt}\n", f"\n{response}"
        expected = truth(context, text)[1:]
        assert reward.weak_tokens == len(expected)
        assert reward.weak_logprob == pytest.approx(sum(expected), abs=BOUND)


def test_lm_evals_hf_agrees_once_its_boundary_is_undone(
    rows: list[tuple[str, str]],
    rewards: list[Reward],
    tokenizer: Any,
    weights: tf.PreTrainedModel,
    truth: Callable[[str, str], list[float]],
) -> None:
    """``hf`` moves the template's last newline into the response and scores no end of turn."""
    lm = HFLM(pretrained=weights, tokenizer=tokenizer, batch_size=4)
    contexts = [rendered(tokenizer, prompt) for prompt, _ in rows]
    requests = [
        request("loglikelihood", (context, response), "task", i)
        for i, (context, (_, response)) in enumerate(zip(contexts, rows, strict=True))
    ]
    compared = 0
    for context, (_, response), reward, (value, _) in zip(
        contexts, rows, rewards, lm.loglikelihood(requests, disable_tqdm=True), strict=True
    ):
        joined = tokenizer.encode(f"\n{response}", add_special_tokens=False)
        if joined[1:] != tokenizer.encode(response, add_special_tokens=False):
            continue  # newline and response merge: hf scores another text
        end_of_turn = truth(context, f"{response}<|im_end|>")[-1]
        newline = truth(context.removesuffix("\n"), "\n")[0]
        assert reward.strong_logprob is not None
        assert value - newline + end_of_turn == pytest.approx(
            reward.strong_logprob, abs=FLOAT32_SOFTMAX * reward.strong_tokens
        )
        compared += 1
    assert compared >= 6


def test_trl_agrees_once_its_last_newline_is_undone(
    tmp_path: Path,
    rows: list[tuple[str, str]],
    rewards: list[Reward],
    tokenizer: Any,
    weights: tf.PreTrainedModel,
    truth: Callable[[str, str], list[float]],
) -> None:
    """TRL's reference log-probs include the newline that the template writes after a turn."""
    pairs = list(range(0, 6, 2))
    data = datasets.Dataset.from_list(
        [
            {
                "prompt": [{"role": "user", "content": rows[i][0]}],
                "chosen": [{"role": "assistant", "content": rows[i][1]}],
                "rejected": [{"role": "assistant", "content": rows[i + 1][1]}],
            }
            for i in pairs
        ]
    )
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    trainer = DPOTrainer(
        model=weights,
        ref_model=None,
        args=DPOConfig(
            output_dir=str(tmp_path),
            precompute_ref_log_probs=True,
            max_length=None,
            per_device_train_batch_size=2,
            report_to=[],
            bf16=False,
            use_cpu=True,
        ),
        train_dataset=data,
        processing_class=tokenizer,
    )
    weights.eval()
    for i, row in zip(pairs, trainer.train_dataset, strict=True):
        for offset, name in enumerate(("ref_chosen_logps", "ref_rejected_logps")):
            prompt, response = rows[i + offset]
            newline = truth(rendered(tokenizer, prompt), f"{response}<|im_end|>\n")[-1]
            ours = rewards[i + offset]
            assert row[name] - newline == pytest.approx(
                ours.strong_logprob, abs=FLOAT32_SOFTMAX * ours.strong_tokens
            )
