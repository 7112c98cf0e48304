"""Two runs over the same rows held against each other: a paired test, and where they differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from drsow_plugin.bootstrap import Estimate, mean_interval, share, sums_by_prompt
from drsow_plugin.errors import DataError
from drsow_plugin.quality.comparison import ALL, MCNEMAR, SIGNS, Comparison, Difference, Part
from drsow_plugin.quality.length import controlled
from drsow_plugin.quality.options import QualityConfig
from drsow_plugin.quality.runs import Run, RunTable, read_run

_FLIPS = 9999
_MAX_ROWS = 1_000_000


class Comparer:
    """Two runs, read and matched row by row."""

    def __init__(self, first: Run, second: Run, config: QualityConfig) -> None:
        """Read two runs.

        Args:
            first: The first run.
            second: The second one.
            config: How they are compared.

        Raises:
            DataError: They share no rows, or too few, or there is no row with a better response.
        """
        self.runs, self._config = (first, second), config
        most = config.rows.max_rows or _MAX_ROWS
        self._share = min(1.0, most / max(len(first), len(second), most))
        self._tables = tuple(read_run(run, self._share) for run in self.runs)
        for run, table in zip(self.runs, self._tables, strict=True):
            if not len(table):
                raise DataError(
                    f"{run.name} has no row with a reward of which it is known which response is "
                    f"better ({table.unlabelled:,} without such a label, {table.missing:,} without "
                    "a reward). Give labelled pairs, candidates with ratings, or samples of a "
                    "preference task."
                )
        _, self._first, self._second = np.intersect1d(
            self._tables[0].key, self._tables[1].key, assume_unique=True, return_indices=True
        )
        self._check_shared()

    def _check_shared(self) -> None:
        shared, least = len(self._first), self._config.compare.min_shared
        sizes = [len(table) for table in self._tables]
        if shared == 0 or shared < least * min(sizes):
            first, second = self.runs
            lower = f", or min_shared= below {least:g}" if shared else ""
            raise DataError(
                f"{first.name} and {second.name} share {shared:,} rows, of {sizes[0]:,} and "
                f"{sizes[1]:,}: a row is the same prompt with the same responses, of which the "
                f"same are the best. Give two runs over the same rows{lower}."
            )

    @cached_property
    def margins(self) -> tuple[np.ndarray, np.ndarray]:
        """The margins of both runs on the rows that they share, (rows,)."""
        places = self._first, self._second
        first, second = (
            self._margins(table)[at] for table, at in zip(self._tables, places, strict=True)
        )
        return first, second

    def _margins(self, table: RunTable) -> np.ndarray:
        if not self._config.compare.length_control:
            return table.margins(table.reward)
        rows = self._config.rows
        prompts = table.prompt[table.row_of()]
        reward = controlled(prompts, table.length, table.reward, folds=rows.folds, seed=rows.seed)
        if reward is None:
            raise DataError(
                "length_control: the responses to each prompt are of one length, or there is one "
                "prompt, so there is nothing to control for. Leave it out."
            )
        return table.margins(reward)

    def compare(self) -> Comparison:
        """Return what came out."""
        first, second = self.margins
        subsets = [self._tables[0].subsets[at] for at in self._first]
        names = sorted({name for own in subsets for name in own})
        masks = {name: np.array([name in own for own in subsets]) for name in names}
        parts = [self._part(name, mask) for name, mask in masks.items()] if len(names) > 1 else []
        a, b = self._tables
        return Comparison(
            names=(self.runs[0].name, self.runs[1].name),
            whole=self._part(ALL, np.ones(len(first), dtype=bool)),
            parts=_adjusted(parts),
            only=(len(a) - len(first), len(b) - len(first)),
            missing=(a.missing, b.missing),
            unlabelled=(a.unlabelled, b.unlabelled),
            ties=(int((first == 0).sum()), int((second == 0).sum())),
            share=self._share,
            length_controlled=self._config.compare.length_control,
            differing=self._differing(first, second, subsets),
        )

    def _part(self, name: str, mask: np.ndarray) -> Part:
        first, second = (margin[mask] > 0 for margin in self.margins)
        prompts = self._tables[0].prompt[self._first][mask]
        rows = self._config.rows
        drawn = rows.resamples, rows.seed
        apart = first.astype(float) - second
        low, high = mean_interval(apart, prompts, *drawn) or (None, None)
        number = len(np.unique(prompts))
        p, test = paired_test(first, second, prompts, rows.seed)
        return Part(
            name=name,
            rows=len(first),
            prompts=number,
            first=share(first.astype(float), prompts, *drawn),
            second=share(second.astype(float), prompts, *drawn),
            difference=Estimate(float(apart.mean()), low, high, len(apart)),
            first_alone=int((apart > 0).sum()),
            second_alone=int((apart < 0).sum()),
            p=p,
            p_adjusted=None,
            test=test,
        )

    def _differing(
        self, first: np.ndarray, second: np.ndarray, subsets: Sequence[Sequence[str]]
    ) -> list[Difference]:
        apart = np.flatnonzero((first > 0) != (second > 0))
        order = apart[np.argsort(-np.abs(first - second)[apart], kind="stable")]
        a, b = self._tables
        places = a.place[self._first], b.place[self._second]
        return [
            Difference(
                int(places[0][at]),
                int(places[1][at]),
                float(first[at]),
                float(second[at]),
                list(subsets[at]),
            )
            for at in order
        ]

    def told(self, differences: Sequence[Difference]) -> Iterator[dict[str, Any]]:
        """Yield rows that differ, with their texts, in the order in which the first run has them.

        Args:
            differences: The rows.
        """
        wanted = {found.first_place: found for found in differences}
        first = self.runs[0].names(sorted(wanted))
        second = self.runs[1].names(sorted(found.second_place for found in differences))
        for place, row in self.runs[0].rows(sorted(wanted)):
            found = wanted[place]
            assert row is not None  # it was read before
            yield {
                "right_in": "A" if found.first_margin > 0 else "B",
                "a_margin": found.first_margin,
                "b_margin": found.second_margin,
                "a_row": first[place],
                "b_row": second[found.second_place],
                "subsets": list(found.subsets),
                "prompt": list(row.prompt),
                "responses": list(row.responses),
                "best": list(row.best),
            }


def paired_test(
    first: np.ndarray, second: np.ndarray, prompts: np.ndarray, seed: int = 0
) -> tuple[float, str]:
    """Return how likely a difference as large is where two runs are equally good.

    Args:
        first: Whether the first run gets each row right, (rows,).
        second: Whether the second run does.
        prompts: What is the same for rows of one prompt.
        seed: Of the exchanges, where there are too many to try all.

    Returns:
        p, two-sided, and the name of the test.
    """
    from scipy.stats import binomtest, permutation_test

    sums = sums_by_prompt(prompts, first, second)
    if len(sums) == len(first):
        alone = int((first & ~second).sum()), int((second & ~first).sum())
        return (float(binomtest(alone[0], sum(alone)).pvalue) if sum(alone) else 1.0), MCNEMAR
    apart = sums[sums[:, 0] != sums[:, 1]]
    if not len(apart):
        return 1.0, SIGNS

    def difference(a: np.ndarray, b: np.ndarray, axis: int) -> np.ndarray:
        return np.asarray((a - b).sum(axis=axis))

    found = permutation_test(
        (apart[:, 0], apart[:, 1]),
        difference,
        permutation_type="samples",
        n_resamples=_FLIPS,
        batch=max(1, 10_000_000 // (2 * len(apart))),
        vectorized=True,
        rng=np.random.default_rng(seed),
    )
    return float(found.pvalue), SIGNS


def _adjusted(parts: Sequence[Part]) -> list[Part]:
    """Return parts with their p adjusted for how many there are."""
    from scipy.stats import false_discovery_control

    if not parts:
        return []
    adjusted = false_discovery_control([part.p for part in parts])
    return [replace(part, p_adjusted=float(p)) for part, p in zip(parts, adjusted, strict=True)]
