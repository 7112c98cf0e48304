"""A policy whose weights are on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from drsow_plugin.config.sampling import Sampling
from drsow_plugin.generation.policy import Ask, Sample
from drsow_plugin.generation.texts import as_sample, prompt_ids
from drsow_plugin.models.language_model import LanguageModel
from drsow_plugin.records import Problem

if TYPE_CHECKING:
    from drsow_plugin.models.sampling import Sampled, WeightSampler

_AHEAD = 16  # batches of prompts that are sorted by length
_ROWS = 16  # of a batch, unless it is said otherwise


class LocalPolicy:
    """Samples with transformers, in batches of prompts of like length."""

    def __init__(self, model: LanguageModel, sampling: Sampling, batch_size: int | None) -> None:
        """Take a model that is opened; its weights are loaded when they are needed.

        Args:
            model: The policy.
            sampling: How to sample.
            batch_size: Responses that are generated together.
        """
        self._model = model
        self._sampling = sampling
        self._batch_size = batch_size or _ROWS
        self._sampler: WeightSampler | None = None

    def describe(self) -> dict[str, Any]:
        """Return what identifies its responses.

        Raises:
            EngineError: A file was changed.
        """
        return {"fingerprint": self._model.identity.fingerprint(), "batch": self._batch_size}

    def samples(self, asks: Iterator[Ask]) -> Iterator[tuple[int, Sample | Problem]]:
        """Yield responses; see :class:`~drsow_plugin.generation.policy.Policy`."""
        begin = 0
        while window := list(islice(asks, _AHEAD * self._batch_size)):
            for index, sample in self._window(window):
                yield begin + index, sample
            begin += len(window)

    def close(self) -> None:
        """Let go of the weights."""
        self._sampler = None

    def _window(self, asks: list[Ask]) -> Iterator[tuple[int, Sample | Problem]]:
        prompts: dict[int, tuple[int, ...]] = {}
        for index, found in enumerate(prompt_ids(self._model, asks, self._sampling.max_tokens)):
            if isinstance(found, Problem):
                yield index, found
            else:
                prompts[index] = found
        order = sorted(prompts, key=lambda index: (len(prompts[index]), prompts[index], index))
        for begin in range(0, len(order), self._batch_size):
            batch = order[begin : begin + self._batch_size]
            made = self._sample([prompts[i] for i in batch], [asks[i].seed for i in batch])
            for index, sampled in zip(batch, made, strict=True):
                yield index, as_sample(self._model, sampled)

    def _sample(self, prompts: list[tuple[int, ...]], seeds: list[int]) -> list[Sampled]:
        if self._sampler is None:
            from drsow_plugin.models.sampling import WeightSampler

            self._sampler = WeightSampler(self._model)
        return self._sampler.sample(prompts, seeds, self._sampling)
