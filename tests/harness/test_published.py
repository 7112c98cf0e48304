"""Published benchmarks: what is asked of the Hub, and likelihoods of one model on all shapes."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import datasets
import pytest
from helpers import tiny
from helpers.harness import run
from lm_eval.models.huggingface import HFLM

from drsow_plugin.errors import HubError
from drsow_plugin.harness.benchmarks import (
    hh_rlhf,
    judgebench,
    m_rewardbench,
    ppe,
    rewardbench,
    rewardbench2,
    rm_bench,
)


class Asked(OSError):
    """Stands for a Hub that cannot be reached."""


@pytest.mark.parametrize(
    ("load", "options", "asked"),
    [
        (rewardbench.load, {"section": "chat"}, "allenai/reward-bench split=filtered"),
        (rewardbench2.load, {}, "allenai/reward-bench-2 split=test"),
        (rm_bench.load, {}, "THU-KEG/RM-Bench split=train"),
        (judgebench.load, {"pairs": "claude"}, "ScalerLab/JudgeBench split=claude"),
        (ppe.load, {}, "lmarena-ai/PPE-Human-Preference-V1 split=test"),
        (
            m_rewardbench.load,
            {"data_name": "deu_Latn"},
            "CohereLabsCommunity/multilingual-reward-bench name=deu_Latn split=test",
        ),
        (
            hh_rlhf.load,
            {"folder": "harmless-base"},
            "Anthropic/hh-rlhf data_dir=harmless-base split=test",
        ),
    ],
)
def test_the_hub_is_asked_for_the_published_split(
    monkeypatch: pytest.MonkeyPatch, load: Any, options: dict[str, str], asked: str
) -> None:
    def load_dataset(path: str, **named: Any) -> datasets.Dataset:
        raise Asked(" ".join((path, *(f"{key}={value}" for key, value in sorted(named.items())))))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr("drsow_plugin.data.loading.require_data", lambda name: None)
    with pytest.raises(HubError, match="A local copy is named with --metadata data=FILE") as found:
        load(**options)
    assert f"from the Hub: {asked} Check the name" in str(found.value)


TIED = {"id": "tied:1", "prompt": "Name a prime.", "chosen": ["2", "3"], "rejected": ["4", "8"]}
REF = {"id": "ref:1", "prompt": "The even prime?", "chosen": ["2"], "rejected": ["3", "4"]}


def test_one_models_likelihoods_are_scored_by_the_same_rule(tmp_path: Path) -> None:
    rows = [{**row, "num_correct": len(row["chosen"]), "subset": "Ties"} for row in (TIED, REF)]
    path = tmp_path / "ties.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    lm = HFLM(pretrained=tiny.save(tmp_path / "m", seed=0, kind="bytes"), device="cpu")
    metadata = {"data": str(path)}
    results = run(lm, ["rewardbench2"], metadata=metadata, log_samples=True)
    (kind, number, spread, gap), ref = (
        sample["Ties/score"] for sample in results["samples"]["rewardbench2"]
    )
    assert (kind, number) == ("tied", 1) and spread > 0 and ref[0] == "ref"
    accurate = 0.3 * (gap > 0) + 0.3 * (ref[3] > 0) + 0.2 * (gap > spread)
    hard = min(gap, ref[3])
    score = accurate + 0.2 * (hard > spread) + 0.01 * math.tanh(hard / spread - 1)
    assert results["results"]["rewardbench2"]["Ties/score,none"] == pytest.approx(score)
