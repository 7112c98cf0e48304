"""Sampling: the distribution, token for token, is the model's; a response is its prompt's own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf
from helpers import tiny
from scipy.stats import chisquare

from drsow_plugin import ConfigError, EngineError, LanguageModel
from drsow_plugin.config.sampling import Sampling, parse_sampling
from drsow_plugin.models.sampling import WeightSampler, _Chosen

PROMPT, LONGER = [3, 7, 9], [5, 6, 7, 8, 9, 10, 11, 12]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny.save(tmp_path_factory.mktemp("policy"))


@pytest.fixture(scope="module")
def sampler(folder: str) -> WeightSampler:
    return WeightSampler(LanguageModel(folder, device="cpu"))


@pytest.fixture(scope="module")
def oracle(folder: str) -> Iterator[Any]:
    yield tf.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)


def probabilities(oracle: Any, ids: list[int], sampling: Sampling) -> np.ndarray:
    """Return what a next token is drawn from, by sorting: another way than the sampler's."""
    with torch.no_grad():
        logits = oracle(torch.tensor([ids])).logits[0, -1].numpy() / sampling.temperature
    order = np.argsort(-logits)
    kept = order[: sampling.top_k or len(order)]
    p = np.exp(logits[kept] - logits[kept].max())
    p /= p.sum()
    count = int(np.searchsorted(np.cumsum(p), sampling.top_p)) + 1
    whole = np.zeros(len(logits))
    whole[kept[:count]] = p[:count] / p[:count].sum()
    return whole


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(max_tokens=1, temperature=1.0, top_k=0),
        Sampling(max_tokens=1, temperature=0.7, top_k=8),
        Sampling(max_tokens=1, temperature=1.3, top_k=0, top_p=0.6),
    ],
    ids=["all", "top_k", "top_p"],
)
def test_tokens_come_as_often_as_the_model_says(
    sampler: WeightSampler, oracle: Any, sampling: Sampling
) -> None:
    count, width = 4000, probabilities(oracle, PROMPT, sampling)
    sampler._stops, stops = [], sampler._stops
    try:
        made = sampler.sample([PROMPT] * count, range(count), sampling)
    finally:
        sampler._stops = stops
    seen = np.bincount([row.ids[0] for row in made], minlength=len(width))
    assert not seen[width == 0].any()
    likely = width * count >= 5
    expected = [*(width[likely] * count), width[~likely].sum() * count]
    observed = [*seen[likely], seen[~likely].sum()]
    if expected[-1] < 1:
        expected, observed = expected[:-1], observed[:-1]
    scaled = np.array(expected) * sum(observed) / sum(expected)
    assert chisquare(observed, scaled).pvalue > 0.001  # the seeds are fixed, so is the value


def test_each_token_is_where_its_number_falls(sampler: WeightSampler, oracle: Any) -> None:
    sampling = Sampling(max_tokens=12, temperature=0.9, top_k=20)
    (made,) = sampler.sample([PROMPT], [41], sampling)
    numbers = torch.rand(12, generator=torch.Generator().manual_seed(41), dtype=torch.float64)
    ids = [*PROMPT]
    for number in numbers.tolist():
        token = int(np.searchsorted(np.cumsum(probabilities(oracle, ids, sampling)), number))
        if token in sampler._stops:
            break
        ids.append(token)
    assert made.ids == ids[len(PROMPT) :] and made.stopped == (len(made.ids) < 12)


def test_a_response_does_not_depend_on_others_in_its_batch(sampler: WeightSampler) -> None:
    sampling = Sampling(max_tokens=10, temperature=1.0)
    prompts, seeds = [PROMPT, LONGER, PROMPT, LONGER[:5]], [1, 2, 3, 4]
    together = sampler.sample(prompts, seeds, sampling)
    alone = [
        sampler.sample([prompt], [seed], sampling)[0]
        for prompt, seed in zip(prompts, seeds, strict=True)
    ]
    assert together == alone and len({tuple(row.ids) for row in alone}) == 4


def test_no_temperature_takes_the_likeliest(sampler: WeightSampler, oracle: Any) -> None:
    (made,) = sampler.sample([PROMPT], [0], Sampling(max_tokens=6, temperature=0.0))
    own = oracle.generate(
        torch.tensor([PROMPT]),
        attention_mask=torch.ones(1, len(PROMPT), dtype=torch.long),
        max_new_tokens=6,
        do_sample=False,
        eos_token_id=sampler._stops,
        pad_token_id=0,
    )[0, len(PROMPT) :].tolist()
    assert made.ids == [token for token in own if token not in sampler._stops]


def test_what_a_checkpoint_says_of_sampling_does_not_count(folder: str, oracle: Any) -> None:
    sampler = WeightSampler(LanguageModel(folder, device="cpu"))
    sampling = Sampling(max_tokens=8, temperature=0.8)
    before = sampler.sample([PROMPT], [5], sampling)
    own = sampler._weights.model.generation_config
    own.repetition_penalty, own.suppress_tokens, own.min_new_tokens = 1.9, [before[0].ids[0]], 4
    assert sampler.sample([PROMPT], [5], sampling) == before
    assert sampler._weights.model.generation_config is own


def test_a_response_ends_before_its_end_of_turn(sampler: WeightSampler) -> None:
    sampling = Sampling(max_tokens=10, temperature=1.0, top_k=0)
    (free,) = sampler.sample([PROMPT], [3], sampling)
    stops, end = sampler._stops, sampler._end
    try:
        sampler._stops = [free.ids[4]]
        first = free.ids.index(free.ids[4])
        assert sampler.sample([PROMPT], [3], sampling) == [(free.ids[:first], True)]
        sampler._stops, sampler._end = [], free.ids[5:7]
        assert sampler.sample([PROMPT], [3], sampling)[0].stopped
    finally:
        sampler._stops, sampler._end = stops, end


@pytest.mark.parametrize("temperature", [0.0, 0.7])
@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_a_policy_whose_logits_are_no_numbers_is_an_error(
    broken: float, temperature: float
) -> None:
    chosen = _Chosen([1, 2], Sampling(max_tokens=1, temperature=temperature), 3)
    ids, logits = torch.zeros(2, 3, dtype=torch.long), torch.zeros(2, 60)
    assert chosen(ids, logits).isfinite().sum() == 2
    logits[1, 5] = broken
    with pytest.raises(EngineError, match="are not finite numbers"):
        chosen(ids, logits)


def test_a_temperature_that_numbers_do_not_reach_is_an_error(sampler: WeightSampler) -> None:
    (cold,) = sampler.sample([PROMPT], [0], Sampling(max_tokens=6, temperature=1e-6))
    assert [cold] == sampler.sample([PROMPT], [0], Sampling(max_tokens=6, temperature=0.0))
    with pytest.raises(EngineError, match="over this temperature"):
        sampler.sample([PROMPT], [0], Sampling(max_tokens=6, temperature=1e-44))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": "hot"}, "temperature is a number"),
        ({"temperature": -1}, "temperature is a number"),
        ({"top_p": 0}, "top_p is a number above 0"),
        ({"top_p": 1.5}, "top_p is a number"),
        ({"top_k": -1}, "top_k is a whole number"),
        ({"candidates": 0}, "candidates is a whole number"),
        ({"candidates": 4, "temperature": 0}, "would all be the same"),
        ({"candidates": 4, "top_k": 1}, "would all be the same"),
        ({"seed": True}, "seed is a whole number"),
    ],
)
def test_sampling_that_makes_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_sampling(options)
