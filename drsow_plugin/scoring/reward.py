"""From log-probs to rewards, and which of them are too close to call."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from drsow_plugin.records import BAD_ROW, LogProb, Problem, Reduction, Reward, Scoring
from drsow_plugin.scoring.rows import Row

REFINED = "scored again in float32"
NOT_REFINED = "could not be scored again in float32"


def reward(strong: LogProb, weak: LogProb, reduction: Reduction = "sum") -> float:
    """Return the reward of a response: strong log-prob minus weak log-prob.

        reward(x, y) = log p_strong(y | x) - log p_weak(y | x)

    Source: arXiv 2411.02481, eq. 2.

    Args:
        strong: Log-prob of the response under the strong model.
        weak: Log-prob of the response under the weak model.
        reduction: ``sum`` for the formula as it stands, in nats; ``mean`` divides each
            log-prob by its own token count first, in nats a token.

    Raises:
        ZeroDivisionError: ``mean`` of a response without tokens.
    """
    if reduction == "mean":
        return strong.total / strong.num_tokens - weak.total / weak.num_tokens
    return strong.total - weak.total


def probability(margin: ArrayLike, temperature: ArrayLike) -> np.ndarray:
    """Return how likely the first of two responses is the better one, by their rewards.

        1 / (1 + exp(-margin / temperature))

    Source: Bradley and Terry, Rank Analysis of Incomplete Block Designs, Biometrika 39, 1952.

    Args:
        margin: Reward of the first minus reward of the second, of any shape.
        temperature: In the unit of the margin, more than 0; ``inf`` gives 1/2.

    Returns:
        Of the same shape; 1/2 for a tie.
    """
    from scipy.special import expit

    found: np.ndarray = expit(np.asarray(margin, dtype=float) / np.asarray(temperature))
    return found


def to_reward(
    row: Row,
    strong: LogProb | None,
    weak: LogProb | None,
    scoring: Scoring,
    *,
    token_logprobs: bool = False,
) -> Reward:
    """Return the reward of a row, or why there is none.

    Args:
        row: The row.
        strong: Log-prob of its response under the strong model, where it was scored.
        weak: The same under the weak model.
        scoring: The policies in force.
        token_logprobs: Whether those of each token are kept.
    """
    problems = [row.problem] if row.problem else []
    for results in (row.pairs, {"strong": strong, "weak": weak}):
        for side, result in results.items():
            if result is not None and result.problem:
                problems.append(replace(result.problem, model=side))
    value = None
    if strong is not None and weak is not None and not problems:
        if scoring.reduction == "mean" and not (strong.num_tokens and weak.num_tokens):
            why = "the response has no tokens, so its mean log-prob is not defined"
            problems.append(Problem(BAD_ROW, why))
        else:
            value = reward(strong, weak, scoring.reduction)
    return Reward(
        reward=value,
        strong_logprob=strong.total if strong and not strong.problem else None,
        weak_logprob=weak.total if weak and not weak.problem else None,
        strong_tokens=len(row.pairs["strong"].response_ids),
        weak_tokens=len(row.pairs["weak"].response_ids),
        strong_truncated=row.pairs["strong"].truncated,
        weak_truncated=row.pairs["weak"].truncated,
        problems=tuple(problems),
        notes=(
            *row.notes,
            *([row.route.note] if row.route.note else []),
            *(f"{side}: {note}" for side, pair in row.pairs.items() for note in pair.notes),
        ),
        scoring=scoring,
        strong_token_logprobs=strong.token_logprobs if token_logprobs and strong else None,
        weak_token_logprobs=weak.token_logprobs if token_logprobs and weak else None,
        domain=row.route.domain,
        domain_confidence=row.route.confidence,
    )


def refined(rough: Reward, exact: Reward) -> Reward:
    """Return a reward that was scored again in float32, or the old one and why it was not."""
    if exact.reward is None:
        return replace(rough, notes=(*rough.notes, f"{NOT_REFINED}: {exact.reason}"))
    return replace(exact, notes=(*rough.notes, REFINED))


def close_calls(rows: Sequence[Row], rewards: Sequence[Reward], nats: float) -> list[int]:
    """Return the rows whose reward is within so many nats of another's with the same prompt.

    Rows with the same response too are not held against each other.
    """
    groups: dict[str, list[tuple[float, str, int]]] = {}
    for index, (row, given) in enumerate(zip(rows, rewards, strict=True)):
        if given.reward is not None:
            key = json.dumps([row.messages, row.route.domain], sort_keys=True, default=str)
            groups.setdefault(key, []).append((given.reward, row.response, index))
    close: set[int] = set()
    for group in groups.values():
        group.sort()
        for place, (value, response, index) in enumerate(group):
            for other, text, second in group[place + 1 :]:
                if other - value > nats:
                    break
                if text != response:
                    close |= {index, second}
    return sorted(close)
