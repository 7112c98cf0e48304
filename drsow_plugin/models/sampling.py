"""Samples responses with weights that are on this machine.

Equivalent to, for each row by itself::

    u = torch.rand(max_tokens, generator=torch.Generator().manual_seed(seed), dtype=float64)
    for step in range(max_tokens):
        p = softmax(top_p(top_k(model(ids).logits[-1] / temperature)))
        ids += [searchsorted(cumsum(p), u[step])]

One number a token, drawn for the row alone, makes a response independent of its batch, but for
rounding; the generator of ``generate(do_sample=True)`` and of continuous batching is one for all
rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList
from transformers.generation.logits_process import (
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from drsow_plugin.config.sampling import Sampling
from drsow_plugin.engines.local.exactness import full_precision
from drsow_plugin.errors import EngineError
from drsow_plugin.models.language_model import LanguageModel
from drsow_plugin.models.weights import Weights

_Config: Any = GenerationConfig


class Sampled(NamedTuple):
    """The tokens of a response, without those that end it, and whether it came to an end."""

    ids: list[int]
    stopped: bool


def stops_of(model: LanguageModel) -> list[int]:
    """Return the tokens of which each ends a response, as tokenizer and template have them."""
    end = model.identity.end_of_turn_ids
    return sorted({model.tokenizer.eos_token_id, *(end if len(end) == 1 else ())} - {None})


def ended(row: list[int], stops: Sequence[int], end: Sequence[int]) -> Sampled:
    """Return generated tokens up to what ends the response.

    Args:
        row: Token ids.
        stops: Token ids of which each ends it.
        end: Token ids that end it together.
    """
    ends = [row.index(stop) for stop in stops if stop in row]
    if len(end) > 1:
        width = len(end)
        ends += [n for n in range(len(row)) if row[n : n + width] == [*end]][:1]
    return Sampled(row[: min(ends)], True) if ends else Sampled(row, False)


class WeightSampler:
    """Samples with the weights of one model, which are loaded at once."""

    def __init__(self, model: LanguageModel) -> None:
        """Load the weights.

        Args:
            model: A model that is opened; its own engine is not used.

        Raises:
            ConfigError: They cannot be loaded as asked for.
        """
        self._weights = Weights(model.name, model.config, model.identity.source)
        self._adapter = None if model.config.adapter is None else model.name
        if self._adapter is not None:
            self._weights.add_adapter(self._adapter, model.identity.pinned_config)
        self._end = list(model.identity.end_of_turn_ids)
        self._stops = sorted({*_ids_of(self._weights.model), *stops_of(model)})

    @full_precision()
    def sample(
        self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], sampling: Sampling
    ) -> list[Sampled]:
        """Return one response to each prompt.

        Args:
            prompts: Token ids, none empty.
            seeds: One for each prompt.
            sampling: How to sample.

        Raises:
            EngineError: The model's logits are not finite, or memory ran out.
        """
        longest = max(map(len, prompts))
        model = self._weights.model
        device = model.device
        ids = torch.tensor([[0] * (longest - len(row)) + [*row] for row in prompts], device=device)
        mask = torch.tensor(
            [[0] * (longest - len(row)) + [1] * len(row) for row in prompts], device=device
        )
        chosen = _Chosen(seeds, sampling, longest)
        config = _Config(
            do_sample=False,
            max_new_tokens=sampling.max_tokens,
            eos_token_id=self._stops or None,
            pad_token_id=self._stops[0] if self._stops else 0,
        )
        with self._weights.use(self._adapter), _without_own(model), torch.inference_mode():
            made = model.generate(
                input_ids=ids,
                attention_mask=mask,
                generation_config=config,
                logits_processor=LogitsProcessorList([chosen]),
            )
        return [self._ended(row) for row in made[:, longest:].tolist()]

    def _ended(self, row: list[int]) -> Sampled:
        return ended(row, self._stops, self._end)


class _Chosen(LogitsProcessor):
    """Leaves the one token that a row's next number falls on."""

    def __init__(self, seeds: Sequence[int], sampling: Sampling, prompt_length: int) -> None:
        self._drawn = torch.stack([_numbers(seed, sampling.max_tokens) for seed in seeds])
        self._prompt_length = prompt_length
        self._is_greedy = not sampling.temperature
        self._warpers = LogitsProcessorList()
        if not self._is_greedy:
            self._warpers.append(TemperatureLogitsWarper(sampling.temperature))
            if sampling.top_k:
                self._warpers.append(TopKLogitsWarper(sampling.top_k))
            if sampling.top_p < 1:
                self._warpers.append(TopPLogitsWarper(sampling.top_p))

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        logits = scores.float()
        _check_numbers(logits.amax(-1), "logits")
        if self._is_greedy:
            token = logits.argmax(-1)
        else:
            step = input_ids.shape[1] - self._prompt_length
            sums = self._warpers(input_ids, logits).double().softmax(-1).cumsum(-1)
            _check_numbers(sums[:, -1], "logits over this temperature")
            number = self._drawn[:, step : step + 1].to(logits.device) * sums[:, -1:]
            token = torch.searchsorted(sums, number, right=True).squeeze(1)
        kept = torch.full_like(logits, -torch.inf)
        return kept.scatter_(1, token[:, None], 0.0)


def _check_numbers(largest: torch.Tensor, what: str) -> None:
    """Check what is NaN where one of a row's values is, and infinite where the largest is.

    Raises:
        EngineError: It is not finite.
    """
    if not bool(largest.isfinite().all()):
        raise EngineError(
            f"The policy's {what} are not finite numbers. Give another dtype, such as bfloat16 or "
            "float32, or a higher temperature."
        )


def _numbers(seed: int, count: int) -> torch.Tensor:
    return torch.rand(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _ids_of(model: Any) -> set[int]:
    """Return the tokens at which a checkpoint says that its model stops."""
    told = getattr(model.generation_config, "eos_token_id", None)
    return {*(told if isinstance(told, list) else [told])} - {None}


@contextmanager
def _without_own(model: Any) -> Iterator[None]:
    """Leave out what a checkpoint says of sampling: it fills what a configuration leaves open."""
    own = model.generation_config
    model.generation_config = _Config()
    try:
        yield
    finally:
        model.generation_config = own
