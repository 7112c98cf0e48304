"""What the GPU benchmark scores and with what: random models, random rows, four libraries."""

from __future__ import annotations

import random
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from helpers import tiny
from peers import harness_logprobs, trl_logprobs, trl_trainer
from workloads import totals

from drsow_plugin.engines.local.engine import LocalEngine
from drsow_plugin.engines.local.network import Network
from drsow_plugin.engines.local.probe import find_sharing
from drsow_plugin.records import TokenPair

SHAPE = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 32000,
    "max_position_embeddings": 4096,
}
TINY = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 512,
    "max_position_embeddings": 4096,
}
INSTRUCTION, PROMPT, RESPONSE = 435, 60, (100, 200)

Score = Callable[[Sequence[TokenPair]], list[float]]
"""What returns the log-probs of rows under one model."""


@dataclass(frozen=True)
class Place:
    """Where and how big: a GPU with 7B models, or a CPU with tiny ones."""

    device: str
    shape: dict[str, int]
    square: int


def random_model(place: Place, seed: int) -> Any:
    """Return a model in bfloat16, its weights drawn on the device; ``meta`` has none."""
    from transformers import AutoModelForCausalLM, MistralConfig

    torch.manual_seed(seed)
    with torch.device(place.device):
        model = AutoModelForCausalLM.from_config(
            MistralConfig(**place.shape, sliding_window=None), dtype=torch.bfloat16
        )
    return model.eval()


def random_rows(prompts: int, vocab: int) -> list[TokenPair]:
    """Return two responses to each prompt, as token ids; one instruction before all of them."""
    chance = random.Random(0)
    instruction = _ids(chance, INSTRUCTION, vocab)
    rows = []
    for _ in range(prompts):
        prompt = instruction + _ids(chance, PROMPT, vocab)
        rows += [
            TokenPair(prompt, _ids(chance, chance.randint(*RESPONSE), vocab)) for _ in range(2)
        ]
    return rows


def _ids(chance: random.Random, number: int, vocab: int) -> tuple[int, ...]:
    return tuple(chance.randrange(3, vocab) for _ in range(number))


def engine_of(model: Any) -> Any:
    """Return this package's engine for a loaded model."""
    network = Network(model)
    return LocalEngine(network, find_sharing(network))


def ours(model: Any) -> Score:
    """Return this package's scoring."""
    engine = engine_of(model)
    return lambda pairs: totals(engine, pairs)


def harness_hf(model: Any, batch: int | str = 8) -> Score:
    """Return lm-eval's ``hf``, from token ids."""
    from lm_eval.models.huggingface import HFLM

    lm = HFLM(model, tokenizer=tiny.tokenizer("gpt2_bos"), batch_size=batch)
    return lambda pairs: harness_logprobs(lm, pairs)


def harness_auto(model: Any) -> Score:
    """Return the same with the batch size that it finds by itself."""
    return harness_hf(model, "auto")


def trl(model: Any) -> Score:
    """Return TRL's reference log-probs."""
    on_cpu = model.device.type == "cpu"
    trainer = trl_trainer(model, tiny.tokenizer("gpt2_bos"), on_cpu=on_cpu)
    return lambda pairs: trl_logprobs(trainer, pairs)


def vllm(model: Any) -> Score:
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

    return score


METHODS = {"drsow": ours, "hf": harness_hf, "hf-auto": harness_auto, "trl": trl, "vllm": vllm}
