"""RewardBench's rules, 1 and 2, against the scoring code of the package rewardbench.

That package cannot be installed beside today's transformers, so that two modules are taken out of
its wheel, with a stand-in for the models that they import and do not use here.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from types import ModuleType

import datasets
import pytest
from helpers.wheels import module_of, unpacked

from drsow_plugin.harness.benchmarks import rewardbench, rewardbench2

pytestmark = pytest.mark.slow
UNUSED = {
    "rewardbench.models": {"REWARD_MODEL_CONFIG": {}},
    "fastchat": {},
    "fastchat.conversation": {"Conversation": object},
}
_SECTIONS = {"chat": "Chat", "chat_hard": "Chat Hard", "safety": "Safety", "reasoning": "Reasoning"}


@pytest.fixture(scope="module")
def theirs() -> Iterator[ModuleType]:
    library = unpacked("rewardbench==0.1.4")
    with pytest.MonkeyPatch.context() as patch:
        for name, holds in UNUSED.items():
            module = ModuleType(name)
            vars(module).update(holds)
            patch.setitem(sys.modules, name, module)
        with module_of(library, "rewardbench.utils") as utils:
            yield utils


@pytest.fixture(scope="module")
def constants() -> Iterator[ModuleType]:
    with module_of(unpacked("rewardbench==0.1.4"), "rewardbench.constants") as module:
        yield module


def test_sections_of_rewardbench_are_weighted_as_there(
    theirs: ModuleType, constants: ModuleType
) -> None:
    sizes = {subset: n for of in rewardbench.WEIGHTS.values() for subset, n in of.items()}
    sizes |= {"math-prm": 447}
    rng = random.Random(5)
    wins = {s: [float(rng.random() < 0.7) for _ in range(n)] for s, n in sizes.items()}
    accuracies = {subset: sum(of) / len(of) for subset, of in wins.items()}
    mapping = constants.SUBSET_MAPPING
    expected = theirs.calculate_scores_per_section(constants.EXAMPLE_COUNTS, mapping, accuracies)
    assert {*expected} == {*_SECTIONS.values()}
    for section, name in _SECTIONS.items():
        rows = [(subset, win) for subset in rewardbench.WEIGHTS[section] for win in wins[subset]]
        got = rewardbench.section_score(section, rows)
        assert got == pytest.approx(expected[name], abs=1e-12)


def test_the_best_of_four_of_rewardbench_2_is_counted_as_there(theirs: ModuleType) -> None:
    rng = random.Random(2)
    rows = [[float(rng.randint(0, 2)) for _ in range(4)] for _ in range(200)]  # many ties
    flat = [{"text": "", "scores": score} for row in rows for score in row]
    rolled = theirs.reroll_and_score_dataset(datasets.Dataset.from_list(flat), [4] * len(rows))
    got = [rewardbench2.count({"subset": "Math"}, row)["score"] for row in rows]
    assert got == pytest.approx(rolled["results"])
    assert {0, 1 / 4, 1 / 3, 1 / 2, 1} == {*got}


def test_ties_of_rewardbench_2_are_scored_as_there(theirs: ModuleType) -> None:
    rng, seen = random.Random(3), []
    for trial in range(40):
        rows = []
        for number in range(6):
            correct = rng.randint(2, 5)
            for kind, right in (("tied", correct), ("ref", 1)):
                best = rng.choice([0.0, 1.0, 3.0])
                rewards = [best + rng.random() for _ in range(right)]
                rewards += [rng.gauss(0, 1) for _ in range(rng.randint(1, 6))]
                rows.append({"id": f"{kind}:{number}", "scores": rewards, "num_correct": right})
        if trial % 2:
            rows = rows[:-1]  # a tied prompt without its reference
        expected = theirs.process_single_model(rows)[1]
        counted = [rewardbench2.count({"subset": "Ties", **row}, row["scores"]) for row in rows]
        got = rewardbench2.ties_score([each["score"] for each in counted])
        assert got == pytest.approx(expected, abs=1e-12)
        seen.append(expected)
    assert max(seen) - min(seen) > 0.3
