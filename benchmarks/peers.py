"""The methods that are compared, each as the library itself offers it, one class each.

A method scores the rows of both sides of the pair. ``prepare`` is not timed, ``score`` is.
None of the peers' code is here: their own functions are called.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from typing import Any

import torch
from measure import available_gb
from pair import PEER_ROWS, NotRun, Scored, load_model, open_pair
from rewardbench_peer import RewardBench
from workloads import Row, tokenised, totals

from drsow_plugin.records import TokenPair


class Ours:
    """drsow-plugin. Timed: tokenising, and the engine."""

    def __init__(self, dtype: str) -> None:
        self._sides = list(open_pair(dtype).models.values())
        for side in self._sides:
            side.load()

    def prepare(self, rows: Sequence[Row]) -> Any:
        return rows

    def score(self, rows: Sequence[Row]) -> list[Scored]:
        found = []
        for side in self._sides:
            pairs = tokenised(rows, side.tokenize)
            found.append(Scored(totals(side.engine, pairs)))
        return found


class HarnessHf:
    """lm-eval's ``hf``. Timed: our tokenising, and its scoring of token ids.

    Its own tokenising of text moves the newline at the end of a chat template's prompt into
    the response, and so scores other tokens; hence it gets ours.
    """

    def __init__(self, dtype: str, batch: int | str = PEER_ROWS) -> None:
        from lm_eval.models.huggingface import HFLM

        self._sides = list(open_pair(dtype).models.values())
        self.lm = HFLM(load_model(dtype), tokenizer=self._sides[0].tokenizer, batch_size=batch)

    def prepare(self, rows: Sequence[Row]) -> Any:
        return rows

    def score(self, rows: Sequence[Row]) -> list[Scored]:
        return [
            Scored(harness_logprobs(self.lm, tokenised(rows, side.tokenize)))
            for side in self._sides
        ]


def harness_logprobs(lm: Any, pairs: Sequence[TokenPair]) -> list[float]:
    """Return the log-probs of rows as lm-eval's ``HFLM`` has them, from token ids."""
    requests = [
        (("", str(number)), list(pair.prompt_ids), list(pair.response_ids))
        for number, pair in enumerate(pairs)
    ]
    return [total for total, _greedy in lm._loglikelihood_tokens(requests, disable_tqdm=True)]


class HarnessHfAuto(HarnessHf):
    """The same with ``batch_size=auto``, which tries 64 rows and halves on an out-of-memory.

    On a CPU that error does not come: the system ends the process. So it is asked first
    whether two tables of logits of 64 rows as long as the longest fit into memory.
    """

    def __init__(self, dtype: str) -> None:
        super().__init__(dtype, "auto")
        self._bytes = 2 * getattr(torch, dtype).itemsize

    def prepare(self, rows: Sequence[Row]) -> Any:
        pairs = tokenised(rows, self._sides[0].tokenize)
        longest = max(map(len, pairs)) - 1
        needed = 64 * longest * self.lm.model.config.vocab_size * self._bytes / 1024**3
        if needed > 0.8 * available_gb():
            raise NotRun(f"needs {needed:.0f} GiB for logits, {available_gb():.0f} GiB free")
        return rows


class Trl:
    """TRL's ``DPOTrainer.compute_ref_log_probs`` on its own collator's batches.

    It gets our token ids, so its tokenising is not timed. No limit on the length.
    """

    def __init__(self, dtype: str) -> None:
        self._sides = list(open_pair(dtype).models.values())
        self.trainer = trl_trainer(load_model(dtype), self._sides[0].tokenizer, on_cpu=True)

    def prepare(self, rows: Sequence[Row]) -> Any:
        return [tokenised(rows, side.tokenize) for side in self._sides]

    def score(self, prepared: Sequence[Sequence[TokenPair]]) -> list[Scored]:
        return [Scored(trl_logprobs(self.trainer, pairs)) for pairs in prepared]


def trl_trainer(model: Any, tokenizer: Any, *, on_cpu: bool) -> Any:
    """Return a ``DPOTrainer`` that holds no second model and trains nothing."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    row = {"prompt": "Name one.", "chosen": " Red", "rejected": " Blue"}
    config = DPOConfig(
        output_dir=tempfile.gettempdir(),
        precompute_ref_log_probs=True,  # else it keeps a copy of the model
        max_length=None,
        bf16=False,  # the weights have their dtype; no autocast on top
        gradient_checkpointing=False,
        use_cpu=on_cpu,
        report_to="none",
        disable_tqdm=True,
    )
    data = Dataset.from_list([row])
    trainer = DPOTrainer(model, args=config, train_dataset=data, processing_class=tokenizer)
    model.eval()
    return trainer


def trl_logprobs(trainer: Any, pairs: Sequence[TokenPair]) -> list[float]:
    """Return the log-probs of rows, two of the same prompt after each other, as TRL has them."""
    rows = [
        {
            "prompt_ids": list(chosen.prompt_ids),
            "chosen_ids": list(chosen.response_ids),
            "rejected_ids": list(rejected.response_ids),
        }
        for chosen, rejected in zip(pairs[::2], pairs[1::2], strict=True)
    ]
    size = trainer.args.precompute_ref_batch_size or trainer.args.per_device_train_batch_size
    values: list[float] = []
    for start in range(0, len(rows), size):
        batch = trainer.data_collator(rows[start : start + size])
        batch = {name: tensor.to(trainer.accelerator.device) for name, tensor in batch.items()}
        chosen, rejected = trainer.compute_ref_log_probs(trainer.model, batch)
        for both in zip(chosen.tolist(), rejected.tolist(), strict=True):
            values += both
    return values


METHODS = {
    "drsow": Ours,
    "hf": HarnessHf,
    "hf-auto": HarnessHfAuto,
    "trl": Trl,
    "rewardbench": RewardBench,
}
