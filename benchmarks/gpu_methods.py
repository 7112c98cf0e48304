"""What the GPU benchmark scores and with what: random models, random rows, and the libraries.

This package's own methods need torch and transformers alone; the others are imported when used.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from workloads import totals

from drsow_plugin.engines.local.engine import LocalEngine
from drsow_plugin.engines.local.network import Network
from drsow_plugin.engines.local.probe import find_sharing
from drsow_plugin.records import TokenPair

MISTRAL_7B = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 32000,
    "max_position_embeddings": 8192,
    "sliding_window": None,
}
QWEN2_HALF_B = {
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "vocab_size": 151936,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
}
TINY = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 512,
    "max_position_embeddings": 8192,
    "sliding_window": None,
}
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "7b": ("MistralConfig", MISTRAL_7B),
    "0.5b": ("Qwen2Config", QWEN2_HALF_B),
    "tiny": ("MistralConfig", TINY),
    "tiny-tied": ("Qwen2Config", {**TINY, "tie_word_embeddings": True}),
}
"""The shapes of Mistral-7B and Qwen2.5-0.5B, and two with which a CPU tries all of it."""

WORKLOADS = {
    "w-a": "pairs behind one instruction: 435 tokens, 60 of the prompt, 100 to 200 each",
    "w-b": "best of 16: 1,000 tokens of the prompt, 500 each",
    "w-c": "short rows that share nothing: 12 tokens and 8",
}

Score = Callable[[Sequence[TokenPair]], list[float]]
"""What returns the log-probs of rows under one model, in nats."""


@dataclass(frozen=True)
class Opened:
    """A method that is ready to score with one model.

    Attributes:
        score: What is timed.
        notes: What it chose by itself, such as its kernel.
        seconds: What opening took.
    """

    score: Score
    notes: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


def random_model(shape: str, seed: int, device: str) -> Any:
    """Return a model in bfloat16, its weights drawn on the device; ``meta`` has none."""
    import transformers

    kind, sizes = SHAPES[shape]
    torch.manual_seed(seed)
    with torch.device(device):
        model = transformers.AutoModelForCausalLM.from_config(
            getattr(transformers, kind)(**sizes), dtype=torch.bfloat16
        )
    return model.eval()


def vocabulary(shape: str) -> int:
    """Return the number of token ids that a model of a shape knows."""
    return int(SHAPES[shape][1]["vocab_size"])


def random_rows(
    workload: str, vocab: int, scale: float = 1.0, length: float = 1.0
) -> list[TokenPair]:
    """Return the rows of a workload as random token ids, the same ones each time.

    Each is about four chunks of 16,384 tokens.

    Args:
        workload: One of :data:`WORKLOADS`.
        vocab: Number of token ids.
        scale: Of the number of rows.
        length: Of the length of each.
    """
    chance = random.Random(0)

    def ids(number: int) -> tuple[int, ...]:
        return tuple(chance.randrange(3, vocab) for _ in range(_at_least(2, number * length)))

    if workload == "w-a":
        instruction = ids(435)
        prompts = [instruction + ids(60) for _ in range(_at_least(4, 180 * scale))]
        return [
            TokenPair(prompt, ids(chance.randint(100, 200))) for prompt in prompts for _ in range(2)
        ]
    if workload == "w-b":
        prompts = [ids(1000) for _ in range(_at_least(1, 8 * scale))]
        return [TokenPair(prompt, ids(500)) for prompt in prompts for _ in range(16)]
    return [TokenPair(ids(12), ids(8)) for _ in range(_at_least(16, 3400 * scale))]


def _at_least(least: int, number: float) -> int:
    return max(least, round(number))


def ours(model: Any) -> Opened:
    """Return this package's scoring; on a CPU in chunks so small that rows need several."""
    return _engine(model, shares=True)


def row_by_row(model: Any) -> Opened:
    """Return this package's scoring of padded batches, in which rows share nothing."""
    return _engine(model, shares=False)


def _engine(model: Any, *, shares: bool) -> Opened:
    started = time.perf_counter()
    network = Network(model)
    sharing = find_sharing(network) if shares else None
    engine = LocalEngine(
        network, sharing, batch_tokens=256 if network.device.type == "cpu" else None
    )
    notes = {"kernel": sharing.kernel.__name__ if sharing else "none: padded rows"}
    seconds = time.perf_counter() - started
    return Opened(lambda pairs: totals(engine, list(pairs)), notes, seconds)


def harness_hf(model: Any, batch: int | str = 8) -> Opened:
    """Return lm-eval's ``hf``, from token ids."""
    from lm_eval.models.huggingface import HFLM
    from peers import harness_logprobs

    lm = HFLM(model, tokenizer=_tokenizer(), batch_size=batch)
    return Opened(lambda pairs: harness_logprobs(lm, pairs))


def harness_auto(model: Any) -> Opened:
    """Return the same with the batch size that it finds by itself."""
    return harness_hf(model, "auto")


def trl(model: Any) -> Opened:
    """Return TRL's reference log-probs."""
    from peers import trl_logprobs, trl_trainer

    trainer = trl_trainer(model, _tokenizer(), on_cpu=model.device.type == "cpu")
    return Opened(lambda pairs: trl_logprobs(trainer, pairs))


def _tokenizer() -> Any:
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from helpers import tiny

    return tiny.tokenizer("gpt2_bos")


def vllm(model: Any) -> Opened:
    """Return vLLM's prompt log-probs; it reads the model from a folder of its own."""
    from vllm import LLM, SamplingParams

    with tempfile.TemporaryDirectory(prefix="drsow-vllm-") as folder:
        model.save_pretrained(folder)
        served = LLM(folder, skip_tokenizer_init=True, gpu_memory_utilization=0.4)
    asked = SamplingParams(max_tokens=1, prompt_logprobs=0, detokenize=False)

    def score(pairs: Sequence[TokenPair]) -> list[float]:
        ids = [[*pair.prompt_ids, *pair.response_ids] for pair in pairs]
        outputs = served.generate([{"prompt_token_ids": row} for row in ids], asked, use_tqdm=False)
        return [
            sum(
                at[token].logprob
                for at, token in zip(
                    output.prompt_logprobs[len(pair.prompt_ids) :], pair.response_ids, strict=True
                )
            )
            for output, pair in zip(outputs, pairs, strict=True)
        ]

    return Opened(score)


METHODS: dict[str, Callable[[Any], Opened]] = {
    "drsow": ours,
    "rows": row_by_row,
    "hf": harness_hf,
    "hf-auto": harness_auto,
    "trl": trl,
    "vllm": vllm,
}
