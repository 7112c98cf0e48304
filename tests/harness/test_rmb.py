"""RMB: pairs and lists of N by their rule, from its folders and files."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from helpers.fakes import fake_pair
from helpers.harness import Scorer, run

from drsow_plugin import DataError, DrSoWLM
from drsow_plugin.harness.benchmarks import rmb
from drsow_plugin.harness.benchmarks.rmb import SIZES, beats_all
from drsow_plugin.harness.subsets import Partial


def answer(text: str) -> dict[str, str]:
    return {"llm_name": "model", "answer": text}


def row(kind: str, path: str, n: int, best: str, *losers: str) -> dict[str, Any]:
    turns = [{"role": "user", "content": f"{path} {n}", "language": "English"}]
    common = {"conversation_input": turns}
    if kind == "pairwise":
        own = {"pair_uid": str(n), "chosen": answer(best), "reject": answer(losers[0])}
        return {**common, **own, "category_path": f"Pairwise_set/{path}"}
    own_list: dict[str, Any] = {"bon_uid": str(n), "bon_best": answer(best)}
    listed = {"loser_list": [answer(text) for text in losers]}
    return {**common, **own_list, **listed, "category_path": f"BoN_set/{path}"}


PAIRS = [
    row("pairwise", "Helpfulness/Code/Documentation", 0, "longer", "short"),
    row("pairwise", "Helpfulness/Chat/Discussion", 1, "same", "even"),
    row("pairwise", "Harmlessness/S1", 2, "a", "longer"),
]
LISTS = [
    row("bon", "Helpfulness/Chat/Discussion", 0, "longest", "long", "short"),
    row("bon", "Helpfulness/Chat/Discussion", 1, "longest", "a", "shortest", "b"),
    row("bon", "Harmlessness/multi", 2, "longest", "a", "b"),
]


def clone(folder: Path, pairs: list[dict[str, Any]], lists: list[dict[str, Any]]) -> dict[str, str]:
    """Write rows as RMB's repository has them: a list in a file of each category."""
    for each in (*pairs, *lists):
        path = (folder / each["category_path"]).with_suffix(".json")
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = json.loads(path.read_text()) if path.exists() else []
        path.write_text(json.dumps([*rows, each]))
    return {"data": str(folder)}


def test_the_best_one_has_to_be_above_every_other() -> None:
    rewards = [[3, 2, 1], [3, 3, 1], [3, 2, 4], [3, math.nan, 1], [math.nan, 1, 1]]
    assert [beats_all(of) for of in rewards] == [1, 0, 0, 0, 0]


def test_both_kinds_are_read_from_one_clone(tmp_path: Path) -> None:
    results = run(Scorer(len), ["rmb"], metadata=clone(tmp_path, PAIRS, LISTS))
    pairs, lists = (results["results"][f"rmb_{kind}"] for kind in ("pairwise", "bon"))
    assert pairs["Helpfulness/score,none"] == 1 / 2 and pairs["Harmlessness/score,none"] == 0
    assert lists["Helpfulness/score,none"] == 1 / 2 and lists["Harmlessness/score,none"] == 1
    assert isinstance(pairs["score,none"], Partial)
    assert isinstance(results["groups"]["rmb"]["score,none"], Partial)


def test_the_score_is_the_mean_of_both_goals_in_pairs_and_lists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = {"Helpfulness": 2, "Harmlessness": 1}
    monkeypatch.setattr(rmb, "SIZES", {"pairwise": sizes, "bon": sizes})
    results = run(Scorer(len), ["rmb"], metadata=clone(tmp_path, PAIRS, LISTS))
    assert results["results"]["rmb_pairwise"]["score,none"] == (1 / 2 + 0) / 2
    assert results["results"]["rmb_bon"]["score,none"] == (1 / 2 + 1) / 2
    assert results["groups"]["rmb"]["score,none"] == (1 / 2 + 0 + 1 / 2 + 1) / 4
    assert {kind: sum(of.values()) for kind, of in SIZES.items()} == {
        "pairwise": 17131,
        "bon": 3786,
    }


def test_rows_have_domains_and_pairs_of_models_score_them(tmp_path: Path) -> None:
    metadata = clone(tmp_path, PAIRS, LISTS)
    lm = DrSoWLM(**fake_pair(router="column", max_length=4096))
    results = run(lm, ["rmb"], metadata=metadata)
    domains = results["config"]["drsow"]["domains"]["domains"]
    found = {name: (of["prompts"], of["pairs"]) for name, of in domains.items()}
    assert found == {"chat": (3, 1 + 2 + 3), "reasoning": (1, 1), "safety": (2, 1 + 2)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"category_path": "BoN_set/Honesty/x"}, "row 0: 'Honesty' is no subset of RMB"),
        ({"bon_best": "text"}, "row 0, bon_best: a response is {'llm_name': …, 'answer': …}"),
        ({"bon_best": {"llm_name": "m", "answer": None}}, "row 0, bon_best: a response is"),
        ({"loser_list": []}, "row 0: a list of at least 2 responses is needed, got 1"),
        ({"loser_list": None}, "row 0: a list of at least 2 responses is needed, got 1"),
    ],
)
def test_files_of_another_version_are_refused(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([{**LISTS[0], **change}]))
    with pytest.raises(DataError, match=message):
        run(Scorer(len), ["rmb_bon"], metadata={"data": str(path)})


def test_no_data_and_the_other_kind_of_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"clone it, and name its folder with --metadata data="):
        run(Scorer(len), ["rmb_bon"])
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(PAIRS))
    with pytest.raises(DataError, match=r"no column 'bon_uid', .* Give BoN_set of github"):
        run(Scorer(len), ["rmb_bon"], metadata={"data": str(path)})
