"""From the log-probs of N models to what a study says of them and of all their pairs."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib import metadata
from itertools import permutations
from typing import Any, cast

import numpy as np

from drsow_plugin.bootstrap import Estimate, PromptBootstrap, wins
from drsow_plugin.config.options import given_options
from drsow_plugin.records import LogProb
from drsow_plugin.redaction import without_tokens
from drsow_plugin.scoring.reward import reward
from drsow_plugin.study.choice import Choice, choose
from drsow_plugin.study.findings import ModelResult, PairResult
from drsow_plugin.study.gaps import GapLaw, gap_law
from drsow_plugin.study.options import Setup
from drsow_plugin.study.passes import Measured
from drsow_plugin.study.report import StudyReport
from drsow_plugin.study.rows import StudyData

LIKELIHOOD, LOGLIKELIHOOD = "likelihood accuracy", "log-likelihood"
"""The scores that every study has: of other prompts than the accuracies they are held against."""


def analyse(setup: Setup, data: StudyData, measured: Measured) -> StudyReport:
    """Return what log-probs say of models and of their pairs.

    Args:
        setup: What was asked for.
        data: The rows that could be read.
        measured: The log-probs.
    """
    return _Analysis(setup, data, measured).report()


class _Analysis:
    """The log-probs of a study, with all that figures are made of.

    Margins of pairs are rewards of chosen minus rewards of rejected responses, (pairs, rows).
    """

    def __init__(self, setup: Setup, data: StudyData, measured: Measured) -> None:
        self.setup, self.data, self.measured = setup, data, measured
        self.names = [model.asked.name for model in measured.models]
        self.ordered = list(permutations(range(len(self.names)), 2))
        prompts = [row.prompt_key for row in measured.rows]
        self.bootstrap = PromptBootstrap(prompts, setup.study.resamples, setup.study.seed)
        self.margins = np.stack([self._margins(s, w) for s, w in self.ordered])
        self.wins = wins(self.margins)
        self.own_wins = wins(measured.logprobs[..., 0] - measured.logprobs[..., 1])
        texts = [row.responses for row in measured.rows]
        self.lengths = np.array([len(chosen) - len(rejected) for chosen, rejected in texts])
        self.subsets = self._parts(lambda row: row.subset)
        self.sections = self._parts(lambda row: row.section)

    def _margins(self, strong: int, weak: int) -> np.ndarray:
        """Return the margins of a pair; the formula takes arrays as it takes numbers."""
        made = [
            LogProb(cast(float, m.logprobs[i]), cast(int, m.tokens[i]))
            for m in [self.measured]
            for i in (strong, weak)
        ]
        rewards = cast(np.ndarray, reward(made[0], made[1], self.setup.scoring.reduction))
        return cast(np.ndarray, rewards[:, 0] - rewards[:, 1])

    def _parts(self, of: Callable[[Any], str]) -> dict[str, np.ndarray]:
        """Return which rows are of each part of the data, where it has several."""
        named = np.array([of(row) for row in self.measured.rows])
        parts = {str(name): named == name for name in dict.fromkeys(named.tolist())}
        return parts if len(parts) > 1 else {}

    def report(self) -> StudyReport:
        setup, measured = self.setup, self.measured
        pairs = self._pairs()
        choice, unknown = self._choice(pairs)
        longer = wins(self.lengths[None].astype(float))
        return StudyReport(
            data=self.data.name,
            data_sha256=self.data.sha256,
            date=datetime.date.today().isoformat(),
            version=metadata.version("drsow-plugin"),
            rows=len(measured.rows),
            prompts=self.bootstrap.prompts,
            of_rows=len(self.data.rows) + len(self.data.bad),
            left_out=measured.left_out,
            failed=measured.failed,
            models=self._models(),
            length=self.bootstrap.means(longer)[0],
            subsets=_counted(self.subsets),
            sections=_counted(self.sections),
            pairs=pairs,
            laws=self._laws(),
            choice=choice,
            unknown=unknown,
            options=given_options(setup.study),
            scoring=asdict(setup.scoring),
            resamples=setup.study.resamples,
        )

    def _models(self) -> tuple[ModelResult, ...]:
        likelihoods = self.bootstrap.means(self.own_wins)
        chosen = self.measured.logprobs[..., 0].sum(axis=1) / self._bytes().sum()
        return tuple(
            ModelResult(
                name=model.asked.name,
                options=without_tokens(model.asked.options),
                identity=model.described,
                memory=model.memory,
                cost=model.asked.cost,
                scores=model.asked.scores,
                likelihood=likelihoods[i],
                loglikelihood=float(chosen[i]),
                truncated=model.truncated,
                scored=model.scored,
            )
            for i, model in enumerate(self.measured.models)
        )

    def _bytes(self) -> np.ndarray:
        """Return the length of each chosen response, in bytes, at least 1."""
        return np.array([max(1, len(row.responses[0].encode())) for row in self.measured.rows])

    def _pairs(self) -> tuple[PairResult, ...]:
        accuracies = self.bootstrap.means(self.wins)
        subsets = {n: self.bootstrap.means(self.wins, rows) for n, rows in self.subsets.items()}
        sections = {name: self._section(name, rows) for name, rows in self.sections.items()}
        longer = self._longer()
        return tuple(
            PairResult(
                strong=self.names[s],
                weak=self.names[w],
                accuracy=accuracies[number],
                ties=int((self.margins[number] == 0).sum()),
                longer=None if longer is None else longer[number],
                margin=float(self.margins[number].mean()),
                memory=self._memory(s, w),
                cost=self._cost(s, w),
                subsets={name: of[number] for name, of in subsets.items()},
                sections={name: of[number] for name, of in sections.items()},
            )
            for number, (s, w) in enumerate(self.ordered)
        )

    def _longer(self) -> list[float] | None:
        """Return of each pair how often it prefers the longer of two responses."""
        apart = self.lengths != 0
        if not apart.any():
            return None
        ahead = self.margins[:, apart] * np.sign(self.lengths[apart])  # of the longer one
        shares: list[float] = wins(ahead).mean(axis=1).tolist()
        return shares

    def _section(self, name: str, rows: np.ndarray) -> list[Estimate]:
        weights = self.data.weights.get(name, {})
        parts = [(w, rows & self.subsets[s]) for s, w in weights.items() if s in self.subsets]
        if len(parts) < len(weights) or not parts or not all(part.any() for _, part in parts):
            return self.bootstrap.means(self.wins, rows)  # of rows that were left out, too
        return self.bootstrap.weighted_means(self.wins, parts)

    def _memory(self, strong: int, weak: int) -> int | None:
        first, second = self.measured.models[strong], self.measured.models[weak]
        if first.memory is None or second.memory is None:
            return None
        if first.weights == second.weights:
            return max(first.memory, second.memory)
        return first.memory + second.memory

    def _cost(self, strong: int, weak: int) -> float | None:
        costs = [self.measured.models[i].asked.cost for i in (strong, weak)]
        known = [cost for cost in costs if cost is not None]
        return sum(known) if len(known) == 2 else None

    def _choice(self, pairs: tuple[PairResult, ...]) -> tuple[Choice | None, int]:
        """Return the best pair within the limits, and how many pairs cannot be held to them."""
        study = self.setup.study
        limits = ((study.memory, "memory"), (study.max_cost, "cost"))
        given = [(limit, name) for limit, name in limits if limit is not None]
        known = [p for p in pairs if all(getattr(p, name) is not None for _, name in given)]
        fitting = [
            pairs.index(p) for p in known if all(getattr(p, name) <= at for at, name in given)
        ]
        if not fitting:
            return None, len(pairs) - len(known)
        named = [(pairs[i].strong, pairs[i].weak) for i in fitting]
        wins_of = self.wins[fitting]
        choice = choose(named, wins_of, self.bootstrap, study.folds, study.seed)
        return choice, len(pairs) - len(known)

    def _laws(self) -> tuple[GapLaw, ...]:
        """Return the gaps of given scores, and of those that the rows themselves give.

        Two models make one pair and its reverse, which no correlation says anything of.
        """
        if len(self.names) < 3:
            return ()
        everything = np.ones(len(self.measured.rows), dtype=bool)
        seed, laws = self.setup.study.seed, []
        accuracies = self._accuracies(everything)
        for score in self.measured.models[0].asked.scores:
            values = np.array([model.asked.scores[score] for model in self.measured.models])
            drawn = np.broadcast_to(values, (self.setup.study.resamples, len(values)))
            laws.append(gap_law(score, (values, drawn), accuracies, seed, held_out=False))
        if self.bootstrap.prompts < 4:
            return tuple(laws)
        scored = self._half()
        accuracies = self._accuracies(~scored)
        for score, values, sizes in (
            (LIKELIHOOD, self.own_wins, everything.astype(float)),
            (LOGLIKELIHOOD, self.measured.logprobs[..., 0], self._bytes()),
        ):
            whole = values[:, scored].sum(axis=1) / sizes[scored].sum()
            drawn = self.bootstrap.ratios(values, sizes, scored)
            laws.append(gap_law(score, (whole, drawn), accuracies, seed, held_out=True))
        return tuple(laws)

    def _half(self) -> np.ndarray:
        """Return which rows are of half the prompts, drawn at random."""
        chance = np.random.default_rng(self.setup.study.seed)
        prompts = chance.permutation(self.bootstrap.prompts)[: self.bootstrap.prompts // 2]
        return np.isin(self.bootstrap.codes, prompts)

    def _accuracies(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the accuracy of each ordered pair, (models, models), and of each resample."""
        models, places = len(self.names), tuple(np.array(self.ordered).T)
        whole = np.full((models, models), 0.5)
        whole[places] = self.wins[:, rows].mean(axis=1)
        drawn = np.full((self.setup.study.resamples, models, models), 0.5)
        drawn[(slice(None), *places)] = self.bootstrap.ratios(self.wins, rows=rows)
        return whole, drawn


def _counted(parts: Mapping[str, np.ndarray]) -> dict[str, int]:
    return {name: int(rows.sum()) for name, rows in parts.items()}
