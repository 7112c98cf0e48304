"""The figures of all arms: means over prompts and seeds, with intervals, and against the start."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from drsow_plugin.bootstrap import Estimate, interval, share, wins
from drsow_plugin.errors import DataError
from drsow_plugin.pipeline.evaluation import Answer, Evaluation, Preferred

_RESAMPLES = 1000
_STEPS = 50  # of Newton's method, which takes five
_RIDGE = 1e-4  # keeps the slope finite where length decides every comparison


@dataclass(frozen=True)
class Figure:
    """A figure of an arm.

    Attributes:
        name: Such as ``win rate``.
        unit: Such as ``nats``; empty for a share.
        estimate: Its mean over seeds and prompts, with the interval of a bootstrap that draws
            both (Owen, The pigeonhole bootstrap, 2007, arXiv 0712.1111).
        seeds: The mean of each seed.
        over_random: The difference to the arm of random labels, over the same draws of prompts;
            ``None`` where there is no such arm.
    """

    name: str
    unit: str
    estimate: Estimate
    seeds: tuple[float, ...]
    over_random: Estimate | None = None


@dataclass(frozen=True)
class ArmFigures:
    """The figures of an arm."""

    arm: str
    figures: tuple[Figure, ...]

    def values(self) -> dict[str, Any]:
        """Return them as plain values."""
        return asdict(self)


@dataclass(frozen=True)
class _Table:
    """The values of a figure, (seeds, columns); NaN where there is none.

    Attributes:
        prompts: The number of the prompt that a column is of: they are drawn together.
        of: Turns values and the lengths beside them, of the prompts and seeds that were drawn,
            into the figure.
    """

    name: str
    unit: str
    values: np.ndarray
    lengths: np.ndarray
    prompts: np.ndarray
    of: Callable[[np.ndarray, np.ndarray, np.ndarray], float]


def figures_of(
    start: Evaluation, arms: Mapping[str, Sequence[Evaluation]], random: str = "random"
) -> list[ArmFigures]:
    """Return the figures of each arm.

    Args:
        start: The policy that none of them trained.
        arms: For each arm its evaluations, one a seed.
        random: The name of the arm that others are held against.

    Raises:
        DataError: The evaluations are not of the same prompts.
    """
    _check_prompts(start, arms)
    tables = {arm: _tables(start, evaluations) for arm, evaluations in arms.items()}
    drawn = {arm: [_drawn(table) for table in of] for arm, of in tables.items()}
    found = []
    for arm, of in tables.items():
        figures = []
        for table, draws in zip(of, drawn[arm], strict=True):
            base = None
            if random in tables and arm != random:
                base = _difference(table, draws, tables[random], drawn[random])
            figures.append(_figure(table, draws, base))
        found.append(ArmFigures(arm, tuple(figures)))
    return found


def judge_accuracy(start: Evaluation) -> Estimate | None:
    """Return how often the judge prefers what people preferred; ``None`` without such pairs."""
    judged = [(pair.judge, pair.prompt) for pair in start.pairs if pair.judge is not None]
    if not judged:
        return None
    margins, prompts = zip(*judged, strict=True)
    return share(wins(np.array(margins)), np.array(prompts))


def length_controlled(won: np.ndarray, longer: np.ndarray, weights: np.ndarray) -> float:
    """Return the win rate between answers of one length: sigmoid(a) of a logistic regression.

    won ~ sigmoid(a + b * tanh(longer / its standard deviation)), as in length-controlled AlpacaEval
    (arXiv 2404.04475) without its terms for prompts, of which each has one
    comparison here. A small ridge on b keeps it finite.

    Args:
        won: 1, 0, or 0.5 for a tie, (comparisons,).
        longer: Length of the answer less that of the one it is compared with, (comparisons,).
        weights: How often each counts, (comparisons,).
    """
    total = float(weights.sum())
    apart = longer - weights @ longer / total
    spread = float(np.sqrt(weights @ apart**2 / total)) or 1.0
    x = np.stack([np.ones(len(won)), np.tanh(longer / spread)], axis=1)
    ridge = np.diag([1e-9, _RIDGE * total])
    beta = np.zeros(2)
    for _ in range(_STEPS):
        p = 1 / (1 + np.exp(-np.clip(x @ beta, -30, 30)))
        slope = x.T @ (weights * (won - p)) - ridge @ beta
        curve = (x * (weights * np.maximum(p * (1 - p), 1e-9))[:, None]).T @ x + ridge
        step = np.linalg.solve(curve, slope)
        beta = np.clip(beta + step, -30, 30)
        if np.abs(slope).max() < 1e-6 * total:  # where all won, a grows without end
            break
    return float(1 / (1 + np.exp(-beta[0])))


def _tables(start: Evaluation, evaluations: Sequence[Evaluation]) -> list[_Table]:
    """Return the values of each figure that can be had."""
    before = {(one.prompt, one.number): one for one in start.answers}
    tables: list[_Table] = []
    if all(evaluation.pairs for evaluation in evaluations):
        pairs = [{(p.prompt, n): p for n, p in enumerate(e.pairs)} for e in evaluations]
        tables.append(
            _grid(
                "implicit accuracy",
                "",
                pairs,
                lambda p: float(wins(np.array(_number(p.margin)))),
                None,
            )
        )
    rows = [{(a.prompt, a.number): a for a in e.answers} for e in evaluations]

    def against(value: str) -> Callable[[Answer], float]:
        def difference(answer: Answer) -> float:
            other = before.get((answer.prompt, answer.number))
            now, then = getattr(answer, value), getattr(other, value, None)
            return float("nan") if now is None or then is None else float(now - then)

        return difference

    def longer(answer: Answer) -> float:
        return against("characters")(answer)

    def won(answer: Answer) -> float:
        margin = against("judge")(answer)
        return margin if np.isnan(margin) else float(wins(np.array(margin)))

    tables += [
        _grid("win rate", "", rows, won, longer),
        _grid("win rate at equal length", "", rows, won, longer, length_controlled),
        _grid("reward", "nats", rows, against("reward"), longer),
        _grid("length", "tokens", rows, against("tokens"), longer),
        _grid("divergence", "nats", rows, lambda a: _number(a.divergence), longer),
    ]
    return [table for table in tables if not np.isnan(table.values).all()]


def _check_prompts(start: Evaluation, arms: Mapping[str, Sequence[Evaluation]]) -> None:
    """Check that all arms answered the prompts of the start, each as often.

    Raises:
        DataError: They did not.
    """
    keys = [(answer.prompt, answer.number) for answer in start.answers]
    if len(set(keys)) < len(keys):
        raise DataError("A prompt was answered twice. Run the pipeline again.")
    pairs = [[p.prompt for p in one.pairs] for of in arms.values() for one in of if one.pairs]
    for arm, evaluations in arms.items():
        for one in evaluations:
            if [(answer.prompt, answer.number) for answer in one.answers] != keys:
                raise DataError(
                    f"{arm}: answers are not to the same prompts as those of the start. Run the "
                    "pipeline again."
                )
            if one.pairs and [pair.prompt for pair in one.pairs] != pairs[0]:
                raise DataError(f"{arm}: pairs are not the same rows. Run the pipeline again.")


def _right(pair: Preferred) -> float:
    return float(wins(np.array(_number(pair.margin))))


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def _mean(values: np.ndarray, _lengths: np.ndarray, weights: np.ndarray) -> float:
    return float(values @ weights / weights.sum())


def _grid(
    name: str,
    unit: str,
    rows: Sequence[Mapping[tuple[str, int], Any]],
    value: Callable[[Any], float],
    length: Callable[[Any], float] | None,
    of: Callable[[np.ndarray, np.ndarray, np.ndarray], float] = _mean,
) -> _Table:
    keys = list(rows[0])
    values = np.array([[value(seed[key]) for key in keys] for seed in rows])
    lengths = np.zeros_like(values)
    if length is not None:
        lengths = np.array([[length(seed[key]) for key in keys] for seed in rows])
    _, prompts = np.unique([prompt for prompt, _ in keys], return_inverse=True)
    return _Table(name, unit, values, lengths, prompts, of)


def _value(table: _Table, seeds: np.ndarray, prompts: np.ndarray) -> float:
    """Return the figure with seeds and prompts counted as often as they were drawn."""
    weights = np.outer(seeds, prompts[table.prompts])
    there = ~np.isnan(table.values) & (weights > 0)
    if not there.any():
        return float("nan")
    return table.of(table.values[there], table.lengths[there], weights[there])


def _drawn(table: _Table) -> np.ndarray:
    """Return the figure of each draw of seeds and prompts, (draws,)."""
    drawn = []
    for seed, count in enumerate((len(table.values), int(table.prompts.max()) + 1)):
        chance = np.random.default_rng(seed)  # the same draws for tables of the same prompts
        drawn.append(chance.multinomial(count, np.full(count, 1 / count), size=_RESAMPLES))
    return np.array([_value(table, *draw) for draw in zip(*drawn, strict=True)])


def _estimate(value: float, draws: np.ndarray, count: int) -> Estimate:
    if np.isnan(draws).all() or not np.nanstd(draws) > 0:
        return Estimate(value, None, None, count)
    low, high = interval(draws)
    return Estimate(value, float(low), float(high), count)


def _whole(table: _Table) -> float:
    return _value(table, np.ones(len(table.values)), np.ones(len(table.prompts)))


def _figure(table: _Table, draws: np.ndarray, base: Estimate | None) -> Figure:
    ones = np.ones(table.values.shape[1])
    apart = np.eye(table.values.shape[0])
    seeds = tuple(_value(table, seed, ones) for seed in apart)
    count = int((~np.isnan(table.values)).sum())
    return Figure(table.name, table.unit, _estimate(_whole(table), draws, count), seeds, base)


def _difference(
    table: _Table, draws: np.ndarray, others: Sequence[_Table], drawn: Sequence[np.ndarray]
) -> Estimate | None:
    for other, of in zip(others, drawn, strict=True):
        if other.name == table.name:
            count = int((~np.isnan(table.values)).sum())
            return _estimate(_whole(table) - _whole(other), draws - of, count)
    return None
