"""Which rows are on the page with their texts: a rule that the page names."""

from __future__ import annotations

import numpy as np

from drsow_plugin.report.material import Material
from drsow_plugin.report.options import Rule

_WORDS = {
    "contested": "the smallest distance between two rewards",
    "right": "the largest margin that is right",
    "wrong": "the largest margin that is wrong",
    "highest": "the highest reward",
    "lowest": "the lowest reward",
}


def choose(material: Material, most: int, rule: Rule, seed: int) -> tuple[np.ndarray, str]:
    """Return the numbers of the rows to show, in order, and the rule in words.

    Args:
        material: The rows.
        most: How many at most.
        rule: ``mixed`` takes as many from each of the others but ``first``.
        seed: Of the random ones.
    """
    numbers = material.numbers
    if len(numbers) <= most:
        if material.rows == material.of_rows:
            return numbers, f"All {len(numbers):,} rows are shown."
        return numbers, f"All {len(numbers):,} rows of the sample are shown."
    if rule == "first":
        return numbers[:most], f"The first {most:,} of {len(numbers):,} rows are shown."
    shuffled = np.random.default_rng(seed).permutation(numbers)
    if rule == "random":
        said = f"{most:,} of {len(numbers):,} rows are shown, chosen at random (seed {seed})."
        return np.sort(shuffled[:most]), said
    ranked = _rankings(material)
    names = list(ranked) if rule == "mixed" else [name for name in ranked if name == rule]
    share = -(-most // (len(names) + (rule == "mixed"))) if names else 0
    taken: dict[int, None] = {}
    counted = []
    for name in names:
        fresh = [row for row in dict.fromkeys(ranked[name].tolist()) if row not in taken]
        fresh = fresh[: min(share, most - len(taken))]
        taken.update(dict.fromkeys(fresh))
        counted.append(f"{len(fresh):,} with {_WORDS[name]}")
    others = [row for row in shuffled.tolist() if row not in taken][: most - len(taken)]
    taken.update(dict.fromkeys(others))
    if others:
        counted.append(f"{len(others):,} at random (seed {seed})")
    said = f"{len(taken):,} of {len(numbers):,} rows are shown ({rule}): {', '.join(counted)}."
    return np.sort(np.array(list(taken))), said


def _rankings(material: Material) -> dict[str, np.ndarray]:
    """Return numbers of rows from the first of each ranking to its last; some rows again."""
    pairs, margin = material.pairs, material.pairs.margin
    if material.kind == "single" or not len(margin):
        return {}
    found = {"contested": pairs.row[np.argsort(np.abs(margin), kind="stable")]}
    gold = pairs.gold
    order = np.argsort(-margin, kind="stable")
    right = order[margin[order] > 0]
    found["right"] = pairs.row[right]
    if gold.any():
        wrong = order[::-1]
        found["wrong"] = pairs.row[wrong[(margin[wrong] < 0) & gold[wrong]]]
    return found
