"""The methods that are compared, each as the library itself offers it, one class each.

A method scores the rows of both sides of the pair. ``prepare`` is not timed, ``score`` is.
None of the peers' code is here: their own functions are called.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import types
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from measure import available_gb, body_parameters
from workloads import Row, tokenised

from drsow_plugin import DrSoW
from drsow_plugin.cache import cache_folder
from drsow_plugin.demo import demo_model
from drsow_plugin.records import TokenPair

PEER_ROWS = 8
REWARDBENCH = ("rewardbench==0.1.4", "fschat==0.2.36")
NO_LIMIT = 1 << 20


class NotRun(Exception):
    """A method cannot score these rows here; says why."""


@dataclass
class Scored:
    """What a method found.

    Attributes:
        logprobs: For each row its log-prob.
        pairs: For each row the tokens that were scored, where they are not our own.
    """

    logprobs: list[float]
    pairs: list[TokenPair] = field(default_factory=list)


def open_pair(dtype: str) -> DrSoW:
    """Return the pair of the benchmarks: one model, with its template and as a plain LM."""
    return DrSoW("demo", "demo", weak_template="none", dtype=dtype, device="cpu")


def load_model(dtype: str) -> Any:
    """Return the model of the pair, by transformers alone.

    It no longer says that it comes from a quantised file: TRL would refuse it for that.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    path = demo_model()
    loaded = AutoModelForCausalLM.from_pretrained(
        str(path.parent), gguf_file=path.name, dtype=getattr(torch, dtype)
    )
    config = loaded.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model = type(loaded)(config)
    model.load_state_dict(loaded.state_dict(), assign=True)
    model.tie_weights()
    return model.eval()


def shape() -> tuple[Any, int]:
    """Return the model's configuration, and its parameters without the tables; no weights."""
    from transformers import AutoConfig, AutoModelForCausalLM

    path = demo_model()
    config = AutoConfig.from_pretrained(str(path.parent), gguf_file=path.name)
    with torch.device("meta"):
        return config, body_parameters(AutoModelForCausalLM.from_config(config))


class Ours:
    """drsow-plugin. Timed: tokenising, and the engine."""

    def __init__(self, dtype: str) -> None:
        self._sides = list(open_pair(dtype)._sides.values())
        for side in self._sides:
            _ = side.engine

    def prepare(self, rows: Sequence[Row]) -> Any:
        return rows

    def score(self, rows: Sequence[Row]) -> list[Scored]:
        found = []
        for side in self._sides:
            pairs = tokenised(rows, side.tokenise)
            found.append(Scored([logprob.total for logprob in side.engine.logprobs(pairs)]))
        return found


class HarnessHf:
    """lm-eval's ``hf``. Timed: our tokenising, and its scoring of token ids.

    Its own tokenising of text moves the newline at the end of a chat template's prompt into
    the response, and so scores other tokens; hence it gets ours.
    """

    def __init__(self, dtype: str, batch: int | str = PEER_ROWS) -> None:
        from lm_eval.models.huggingface import HFLM

        self._sides = list(open_pair(dtype)._sides.values())
        self.lm = HFLM(load_model(dtype), tokenizer=self._sides[0].tokenizer, batch_size=batch)

    def prepare(self, rows: Sequence[Row]) -> Any:
        return rows

    def score(self, rows: Sequence[Row]) -> list[Scored]:
        return [self.one_side(tokenised(rows, side.tokenise)) for side in self._sides]

    def one_side(self, pairs: Sequence[TokenPair]) -> Scored:
        requests = [
            (("", str(number)), list(pair.prompt_ids), list(pair.response_ids))
            for number, pair in enumerate(pairs)
        ]
        answers = self.lm._loglikelihood_tokens(requests, disable_tqdm=True)
        return Scored([total for total, _greedy in answers])


class HarnessHfAuto(HarnessHf):
    """The same with ``batch_size=auto``, which tries 64 rows and halves on an out-of-memory.

    On a CPU that error does not come: the system ends the process. So it is asked first
    whether two tables of logits of 64 rows as long as the longest fit into memory.
    """

    def __init__(self, dtype: str) -> None:
        super().__init__(dtype, "auto")
        self._bytes = 2 * getattr(torch, dtype).itemsize

    def prepare(self, rows: Sequence[Row]) -> Any:
        pairs = tokenised(rows, self._sides[0].tokenise)
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
        self._sides = list(open_pair(dtype)._sides.values())
        self.trainer = trl_trainer(load_model(dtype), self._sides[0].tokenizer, on_cpu=True)

    def prepare(self, rows: Sequence[Row]) -> Any:
        return [tokenised(rows, side.tokenise) for side in self._sides]

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


class RewardBench:
    """RewardBench's ``DPOInference``, from texts rendered beforehand. Timed: all it does.

    It puts a BOS before the prompt and an EOS behind the response whatever the text has, so
    it scores one token more. Its limit of 2,048 tokens is lifted.
    """

    def __init__(self, dtype: str) -> None:
        from accelerate import Accelerator

        self._sides = list(open_pair(dtype)._sides.values())
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
            pairs = tokenised(rows, side.tokenise)
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
    folder = cache_folder() / "benchmarks" / "-".join(REWARDBENCH)
    if not (folder / "rewardbench").is_dir():
        pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check", "install"]
        command = [*pip, "--no-deps", "--target", str(folder), *REWARDBENCH]
        subprocess.run(command, check=True, stdout=sys.stderr)
    sys.path.insert(0, str(folder))
    stand_in = types.ModuleType("rewardbench.models")
    stand_in.__dict__.update(DPO_MODEL_CONFIG={}, REWARD_MODEL_CONFIG={})
    sys.modules["rewardbench.models"] = stand_in
    import rewardbench

    return rewardbench


METHODS = {
    "drsow": Ours,
    "hf": HarnessHf,
    "hf-auto": HarnessHfAuto,
    "trl": Trl,
    "rewardbench": RewardBench,
}
