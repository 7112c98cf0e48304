"""RewardBench, installed into a folder of its own: its requirements are not this project's."""

from __future__ import annotations

import subprocess
import sys
import types
from collections.abc import Sequence
from typing import Any

import torch
from pair import PEER_ROWS, Scored, load_model, open_pair
from workloads import Row, tokenised

from drsow_plugin.cache import cache_folder
from drsow_plugin.records import TokenPair

REQUIREMENTS = ("rewardbench==0.1.4", "fschat==0.2.36")
NO_LIMIT = 1 << 20


class RewardBench:
    """RewardBench's ``DPOInference``, from texts rendered beforehand. Timed: all it does.

    It puts a BOS before the prompt and an EOS behind the response whatever the text has, so
    it scores one token more. Its limit of 2,048 tokens is lifted.
    """

    def __init__(self, dtype: str) -> None:
        from accelerate import Accelerator

        self._sides = list(open_pair(dtype).models.values())
        self._tokenizer = self._sides[0].tokenizer
        inference = import_rewardbench().DPOInference
        self._dpo = inference(
            load_model(dtype), None, self._tokenizer, Accelerator(cpu=True), ref_free_norm="sum"
        )
        self._dpo.max_length = NO_LIMIT

    def prepare(self, rows: Sequence[Row]) -> Any:
        decode = self._tokenizer.decode
        found = []
        for side in self._sides:
            pairs = tokenised(rows, side.tokenize)
            texts = [decode(pair.prompt_ids + pair.response_ids) for pair in pairs]
            found.append(
                [
                    {
                        "prompt": decode(pairs[index].prompt_ids),
                        "text_chosen": texts[index],
                        "text_rejected": texts[index + 1],
                    }
                    for index in range(0, len(pairs), 2)
                ]
            )
        return found

    def score(self, prepared: Sequence[Sequence[dict[str, str]]]) -> list[Scored]:
        return [self._one_side(rows) for rows in prepared]

    def _one_side(self, rows: Sequence[dict[str, str]]) -> Scored:
        features = [self._dpo.tokenize_row(row) for row in rows]
        found = Scored([])
        for start in range(0, len(features), PEER_ROWS):
            batch = _padded(features[start : start + PEER_ROWS], self._tokenizer.pad_token_id)
            both = self._dpo.inference_step(batch, ref_free=True)
            for pair in zip(*(values.tolist() for values in both), strict=True):
                found.logprobs += pair
        found.pairs = [
            _as_pair(feature[f"{side}_input_ids"], feature[f"{side}_labels"])
            for feature in features
            for side in ("chosen", "rejected")
        ]
        return found


def _padded(features: Sequence[dict[str, list[int]]], pad: int) -> dict[str, torch.Tensor]:
    """Return a batch; the class that RewardBench takes for this is no longer in TRL."""
    fill = {"input_ids": pad, "attention_mask": 0, "labels": -100}
    return {
        name: torch.nn.utils.rnn.pad_sequence(
            [torch.tensor(feature[name]) for feature in features],
            batch_first=True,
            padding_value=fill[name.partition("_")[2]],
        )
        for name in features[0]
    }


def _as_pair(ids: Sequence[int], labels: Sequence[int]) -> TokenPair:
    start = next(index for index, label in enumerate(labels) if label != -100)
    return TokenPair(tuple(ids[:start]), tuple(ids[start:]))


def import_rewardbench() -> Any:
    """Install RewardBench into a folder of its own, once, and import it from there.

    The newest release imports reward-model classes from names that transformers 5 no longer
    has; an empty module stands in for them. The code that is run is untouched.
    """
    folder = cache_folder() / "benchmarks" / "-".join(REQUIREMENTS)
    if not (folder / "rewardbench").is_dir():
        pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check", "install"]
        command = [*pip, "--no-deps", "--target", str(folder), *REQUIREMENTS]
        subprocess.run(command, check=True, stdout=sys.stderr)  # noqa: S603 (words of this module)
    sys.path.insert(0, str(folder))
    stand_in = types.ModuleType("rewardbench.models")
    stand_in.__dict__.update(DPO_MODEL_CONFIG={}, REWARD_MODEL_CONFIG={})
    sys.modules["rewardbench.models"] = stand_in
    import rewardbench

    return rewardbench
