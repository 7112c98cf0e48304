"""A causal or other encoder with a head that gives one number a sequence: loaded, and run."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from drsow_plugin.config.model import ModelConfig
from drsow_plugin.engines.local.budget import CPU_TOKENS, GPU_TOKENS, Budget, unless_out_of_memory
from drsow_plugin.engines.local.configuration import (
    ordinary_ids,
    scaling,
    set_for_scoring,
)
from drsow_plugin.engines.local.exactness import full_precision
from drsow_plugin.errors import ConfigError, EngineError
from drsow_plugin.models.loading import load
from drsow_plugin.models.sources import Source, translated_errors
from drsow_plugin.models.weights import loading_arguments, set_for_dtype
from drsow_plugin.records import Batching

if TYPE_CHECKING:
    from transformers import PretrainedConfig

Ids = Sequence[int]

_TRIED = (3, 9, 5, 7, 4, 8, 6, 10)  # lengths in tokens of the rows that are tried
_UNLIKE = 0.1  # of what sets the tried rows apart: more than rounding in half precision


class RewardHead:
    """A loaded checkpoint.

    Attributes:
        device: Where token ids go in.
        pads: Whether rows of several lengths share a batch: that is so where it was seen to
            change no reward.
    """

    def __init__(
        self, label: str, config: ModelConfig, source: Source, hf_config: PretrainedConfig
    ) -> None:
        """Load the weights, and try whether padding changes a reward.

        Args:
            label: What errors call the model.
            config: What was asked for.
            source: Where it is located.
            hf_config: Its configuration, with one label.

        Raises:
            ConfigError: They cannot be loaded, or lack the head.
        """
        arguments = loading_arguments("model", config, source)
        self._label = label
        self._model = _load(label, config.revision, source, hf_config, arguments)
        set_for_dtype(self._model, arguments["dtype"])
        set_for_scoring(self._model.config)
        self._texts: Any = self._model.config.get_text_config()
        self._model.config.use_cache = self._texts.use_cache = False
        self._scaling = scaling(self._model.config)
        self.device: torch.device = self._model.get_input_embeddings().weight.device
        self.pads = False
        self.pads = self._ignores_padding()

    def rewards(self, rows: Sequence[Ids], batching: Batching) -> Iterator[tuple[int, float]]:
        """Yield each row's index and reward, the longest rows first.

        Rewards do not depend on what shares a batch, up to rounding.

        Args:
            rows: Token ids; none is empty.
            batching: Maximum of tokens and of rows at once.

        Raises:
            EngineError: A row does not fit into memory alone, or the model fails on it.
        """
        default = CPU_TOKENS if self.device.type == "cpu" else GPU_TOKENS
        budget = Budget(batching.tokens or default, batching.rows)
        waiting = sorted(range(len(rows)), key=lambda index: (-len(rows[index]), index))
        while waiting:
            indices = self._first_batch(waiting, rows, budget)
            batch = [rows[index] for index in indices]
            values = unless_out_of_memory(self._forward, batch)
            if values is None:
                if len(batch) > 1 and budget.halve(len(batch[0]) * len(batch), len(batch[0])):
                    continue
                raise EngineError(
                    f"{self._label}: a row of {len(batch[0])} tokens does not fit into memory on "
                    f"{self.device}. Set max_length={len(batch[0]) - 1} and overflow=skip, or use "
                    "another dtype or device."
                )
            yield from zip(indices, values, strict=True)
            waiting = waiting[len(indices) :]

    def _first_batch(
        self, waiting: Sequence[int], rows: Sequence[Ids], budget: Budget
    ) -> Sequence[int]:
        """Return the longest rows that go together; always at least one."""
        length = len(rows[waiting[0]])
        count = min(max(1, budget.tokens // length), budget.sequences)
        found = waiting[:count]
        if not self.pads:
            return [index for index in found if len(rows[index]) == length]
        short = self._scaling.max_short  # the longest row decides how all positions are scaled
        if short is None or length <= short:
            return found
        if self._scaling.by_length:
            return found[:1]
        return [index for index in found if len(rows[index]) > short]

    def _forward(self, rows: Sequence[Ids]) -> list[float]:
        """Return the rewards of a batch, padded on the right."""
        width = max(map(len, rows))
        with self._padding(rows) as pad, full_precision(), torch.inference_mode():
            ids = torch.tensor([[*row, *[pad] * (width - len(row))] for row in rows])
            mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
            try:
                out = self._model(
                    input_ids=ids.to(self.device), attention_mask=mask.to(self.device)
                )
            except (ValueError, TypeError, IndexError, AssertionError) as error:
                raise EngineError(
                    f"{self._label}: the model fails on a batch of {len(rows)} rows of up to "
                    f"{width} tokens: {type(error).__name__}: {str(error).splitlines()[:1]}"
                ) from error
        logits = out.logits
        if tuple(logits.shape) != (len(rows), 1):
            raise EngineError(
                f"{self._label}: {len(rows)} rows gave logits of shape {tuple(logits.shape)}, and "
                "a reward model gives one number a row. Give another checkpoint."
            )
        return [float(value) for value in logits[:, 0].double().cpu()]

    @contextmanager
    def _padding(self, rows: Sequence[Ids]) -> Iterator[int]:
        """Set the padding token for a batch so that each row ends where it would alone.

        The number is read behind the last token that is not padding. A checkpoint that names no
        such token reads it behind the last one.
        """
        own, size = self._texts.pad_token_id, self._model.get_input_embeddings().weight.shape[0]
        if isinstance(own, int) and 0 <= own < size:
            yield own
            return
        ends = {row[-1] for row in rows}
        pad = next(token for token in itertools.count() if token not in ends)
        configs = (self._texts, self._model.config)
        before = [config.pad_token_id for config in configs]
        for config in configs:
            config.pad_token_id = pad
        try:
            yield pad
        finally:
            for config, value in zip(configs, before, strict=True):
                config.pad_token_id = value

    def _ignores_padding(self) -> bool:
        """Tell whether rows give the same rewards alone and beside longer ones."""
        size = self._model.get_input_embeddings().weight.shape[0]
        ids = ordinary_ids(self._model.config, size, sum(_TRIED))
        tried = [ids[sum(_TRIED[:n]) :][:length] for n, length in enumerate(_TRIED)]
        alone = [self._forward([row])[0] for row in tried]
        try:
            together = self._forward(tried)
        except (EngineError, RuntimeError):
            return False
        apart = torch.tensor(alone).std()
        moved = (torch.tensor(alone) - torch.tensor(together)).abs().max()
        return bool(moved <= _UNLIKE * apart)


def _load(
    label: str,
    revision: str | None,
    source: Source,
    hf_config: PretrainedConfig,
    arguments: dict[str, Any],
) -> Any:
    """Load a classifier whose checkpoint has all of its weights.

    Raises:
        ConfigError: It has not: what transformers puts in their place is random.
    """
    from transformers import AutoModelForSequenceClassification

    with translated_errors(label, revision):
        model, report = load(
            AutoModelForSequenceClassification,
            source.name,
            config=hf_config,
            ignore_mismatched_sizes=True,
            **arguments,
        )
    for name, has, wanted in sorted(report["mismatched_keys"]):
        raise ConfigError(
            f"{label}: {name} has the shape {tuple(has)}, and in a {type(model).__name__} with one "
            f"output it is {tuple(wanted)}. Give a checkpoint with one label."
        )
    missing = sorted(report["missing_keys"])
    if missing:
        raise ConfigError(
            f"{label}: the checkpoint lacks {len(missing)} weights of a {type(model).__name__}, "
            f"such as {missing[0]}, which would be random. It is no trained reward model with a "
            "sequence-classification head. A causal language model is scored by --model hf, or as "
            "a side of --model drsow."
        )
    return model
