"""Measures a policy: rewards of a judge and of a pair, its distance from its start, its pairs."""

from __future__ import annotations

import gc
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets

from drsow_plugin.annotate.options import LabelConfig
from drsow_plugin.config.model import SIDE_OPTIONS
from drsow_plugin.errors import ConfigError, DataError
from drsow_plugin.generation.report import CUT
from drsow_plugin.generation.runner import RESPONSES, STATUS, TOKENS
from drsow_plugin.hashing import text_sha256
from drsow_plugin.models.language_model import LanguageModel
from drsow_plugin.models.pool import ModelPool
from drsow_plugin.models.reward_model import RewardModel
from drsow_plugin.pipeline.evaluation import (
    MODELS,
    Answer,
    Evaluation,
    Preferred,
    Setup,
)
from drsow_plugin.prompts import as_messages
from drsow_plugin.records import Batching, Message, Problem, Scoring
from drsow_plugin.scoring.drsow import DrSoW
from drsow_plugin.study.options import parse_study
from drsow_plugin.study.passes import measure
from drsow_plugin.study.rows import StudyRow, read_data


def evaluate(
    data: datasets.Dataset,
    setup: Setup,
    options: Mapping[str, Any],
    pairs: datasets.Dataset | None,
    cache: Path,
) -> Evaluation:
    """Measure a policy by its answers to held-out prompts, and by labelled pairs.

    Args:
        data: What ``drsow generate`` wrote: prompts with ``responses``.
        setup: What to measure with.
        options: What was asked for, which is recorded.
        pairs: Pairs with labels of people, or ``None``.
        cache: Where the log-probs of the pairs are kept: those of the start serve all policies.

    Raises:
        ConfigError: A model cannot be used.
        DataError: The columns are not there, or nothing can be measured.
        EngineError: A model failed.
    """
    left_out: dict[str, int] = {}
    asked = _read(data, setup.prompt_column, left_out)
    _check_models(setup)
    preferred = _preferred(setup, options, pairs, cache, left_out) if pairs is not None else ()
    gc.collect()
    prompts, texts = [one.prompt for one in asked], [one.text for one in asked]
    columns = {
        "judge": _judged(setup, prompts, texts),
        "reward": _rewards(setup, prompts, texts),
        "divergence": _divergences(setup, asked),
    }
    for name, values in columns.items():
        missing = 0 if values is None else sum(value is None for value in values)
        if missing:
            left_out[f"answers without {name}"] = missing
    answers = tuple(
        Answer(
            prompt=one.key,
            number=one.number,
            **{name: None if of is None else of[index] for name, of in columns.items()},
            tokens=one.tokens,
            characters=len(one.text),
            cut=one.cut,
        )
        for index, one in enumerate(asked)
    )
    return Evaluation(options, answers, preferred, left_out)


@dataclass(frozen=True)
class _Asked:
    """A response to a prompt, before it is measured."""

    prompt: Sequence[Message]
    text: str
    number: int
    tokens: int | None
    cut: bool
    key: str


def _read(data: datasets.Dataset, column: str, left_out: dict[str, int]) -> list[_Asked]:
    """Return the responses of all prompts.

    Raises:
        DataError: There are none, or a prompt is there twice.
    """
    needed = (column, RESPONSES, TOKENS, STATUS)
    if missing := [name for name in needed if name not in data.column_names]:
        raise DataError(
            f"There is no column {missing[0]!r}, only {', '.join(data.column_names)}. Give what "
            "drsow generate wrote."
        )
    asked: list[_Asked] = []
    rows: dict[str, int] = {}
    for index, row in enumerate(data.select_columns([*needed]).with_format(None)):
        if not row[RESPONSES]:
            left_out["prompts without an answer"] = left_out.get("prompts without an answer", 0) + 1
            continue
        prompt = as_messages(row[column], f"row {index}")
        key = text_sha256(json.dumps(list(prompt), sort_keys=True, default=str))[:16]
        if key in rows:
            raise DataError(
                f"row {index} repeats the prompt of row {rows[key]}. Give the answers of one "
                "run of drsow generate."
            )
        rows[key] = index
        for number, text in enumerate(row[RESPONSES]):
            cut = row[STATUS][number] == CUT
            asked.append(_Asked(prompt, text, number, row[TOKENS][number], cut, key))
    if not asked:
        raise DataError("No prompt has an answer. Look at what drsow generate said.")
    return asked


def _judged(
    setup: Setup, prompts: Sequence[Any], texts: Sequence[str]
) -> list[float | None] | None:
    if setup.judge is None:
        return None
    found = RewardModel(**setup.judge).score(prompts, texts)
    return [None if isinstance(reward, Problem) else reward for reward in found]


def _rewards(
    setup: Setup, prompts: Sequence[Any], texts: Sequence[str]
) -> list[float | None] | None:
    if setup.pair is None:
        return None
    rewards = DrSoW.from_config(setup.pair).score(prompts, texts, on_error="null")
    return [reward.reward for reward in rewards]


def _divergences(setup: Setup, asked: Sequence[_Asked]) -> list[float | None] | None:
    """Return log p_policy - log p_start of each response, as far as the policy sampled it."""
    if setup.tuned is None:
        return None
    sums = [_sampled(model, asked) for model in _models(setup)]
    return [None if a is None or b is None else a - b for a, b in zip(*sums, strict=True)]


def _models(setup: Setup) -> list[LanguageModel]:
    pool, scoring = ModelPool(), Scoring(overflow="skip")
    return [
        LanguageModel.from_config(name, config, pool, scoring, Batching())
        for name, config in zip(MODELS, setup.tuned or (), strict=False)
    ]


def _check_models(setup: Setup) -> None:
    """Open all models, which loads no weights, before any of them computes.

    Raises:
        ConfigError: One is not there or cannot be used.
    """
    _models(setup)
    if setup.judge is not None:
        RewardModel(**setup.judge)
    if setup.pair is not None:
        DrSoW.from_config(setup.pair)


def _sampled(model: LanguageModel, asked: Sequence[_Asked]) -> list[float | None]:
    """Return the log-prob of each response, its end of turn only where it was sampled."""
    ends = len(model.identity.end_of_turn_ids)
    found = model.logprobs([one.prompt for one in asked], [one.text for one in asked])
    sums: list[float | None] = []
    for one, logprob in zip(asked, found, strict=True):
        tokens = logprob.token_logprobs
        if logprob.problem is not None or tokens is None:
            sums.append(None)
        else:
            sums.append(sum(tokens[:-ends] if one.cut and ends else tokens))
    return sums


def _preferred(
    setup: Setup,
    options: Mapping[str, Any],
    pairs: datasets.Dataset,
    cache: Path,
    left_out: dict[str, int],
) -> tuple[Preferred, ...]:
    """Return what the policy over its start, or without one the judge, says of labelled pairs.

    Raises:
        ConfigError: Neither was named.
        DataError: Too few pairs can be read.
    """
    if setup.tuned is None:
        return _judged_pairs(setup, pairs, left_out)
    models = {
        model: {
            "source": options[model],
            **{
                name: options[f"{model}_{name}"]
                for name in SIDE_OPTIONS
                if options.get(f"{model}_{name}") is not None
            },
        }
        for model in MODELS
    }
    study = parse_study(models, {"overflow": "skip"})
    rows = read_data(pairs, study.columns, "pairs")
    found = measure(study, rows, cache)
    for why, count in found.left_out.items():
        left_out[f"pairs, {why}"] = count
    policy, start = found.logprobs
    margins = (policy - start) @ (1.0, -1.0)
    return tuple(
        Preferred(row.prompt_key[:16], float(margin), None, _longer(row))
        for row, margin in zip(found.rows, margins, strict=True)
    )


def _judged_pairs(
    setup: Setup, pairs: datasets.Dataset, left_out: dict[str, int]
) -> tuple[Preferred, ...]:
    """Return what the judge says of labelled pairs: what its verdicts are worth.

    Raises:
        ConfigError: There is none.
    """
    if setup.judge is None:
        raise ConfigError("pairs are judged by a policy over its start, or by a judge: name one.")
    data = read_data(pairs, LabelConfig(), "pairs")
    for problem in data.bad:
        left_out[f"pairs, {problem.kind}"] = left_out.get(f"pairs, {problem.kind}", 0) + 1
    texts = [text for row in data.rows for text in row.responses]
    rewards = _judged(setup, [row.prompt for row in data.rows for _ in range(2)], texts) or []
    found = []
    for row, chosen, rejected in zip(data.rows, rewards[::2], rewards[1::2], strict=True):
        if chosen is None or rejected is None:
            left_out["pairs without judge"] = left_out.get("pairs without judge", 0) + 1
        else:
            found.append(Preferred(row.prompt_key[:16], None, chosen - rejected, _longer(row)))
    return tuple(found)


def _longer(row: StudyRow) -> int:
    return len(row.responses[0]) - len(row.responses[1])
