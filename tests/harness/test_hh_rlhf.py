"""Anthropic's transcripts as conversations, from a file and from the Hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pytest
from helpers.fakes import fake_pair
from helpers.harness import Scorer, run

from drsow_plugin import DataError, DrSoWLM
from drsow_plugin.harness.benchmarks import hh_rlhf

PROMPT = "\n\nHuman: What can I do about tinnitus?\n\nAssistant: See a doctor.\n\nHuman: Why?"
ROWS = [
    {"chosen": f"{PROMPT}\n\nAssistant: It helps.\nYes.", "rejected": f"{PROMPT}\n\nAssistant: No"},
    {"chosen": "\n\nHuman: Hi \n\nAssistant:", "rejected": "\n\nHuman: Hi \n\nAssistant:  Ho. "},
]


def save(rows: list[dict[str, Any]], folder: Path) -> dict[str, str]:
    path = folder / "test.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"data": str(path)}


@pytest.mark.parametrize(("kind", "domain"), [("helpful", "chat"), ("harmless", "safety")])
def test_transcripts_are_conversations(tmp_path: Path, kind: str, domain: str) -> None:
    lm = DrSoWLM(**fake_pair(router="column", overflow="skip"))
    task = f"hh_rlhf_{kind}"
    results = run(lm, [task], metadata=save(ROWS, tmp_path), log_samples=True)
    docs = [sample["doc"] for sample in results["samples"][task]]
    assert docs[0]["prompt"] == [
        {"role": "user", "content": "What can I do about tinnitus?"},
        {"role": "assistant", "content": "See a doctor."},
        {"role": "user", "content": "Why?"},
    ]
    assert [(doc["chosen"], doc["rejected"]) for doc in docs] == [
        ("It helps.\nYes.", "No"),
        ("", " Ho. "),
    ]
    assert {*results["config"]["drsow"]["domains"]["domains"]} == {domain}


def test_accuracy_is_the_share_of_chosen_that_win(tmp_path: Path) -> None:
    results = run(Scorer(len), ["hh_rlhf_helpful"], metadata=save(ROWS, tmp_path))
    assert results["results"]["hh_rlhf_helpful"]["acc,none"] == 0.5


def test_rows_with_a_prompt_of_their_own_are_read_as_they_are(tmp_path: Path) -> None:
    prompt = [{"role": "user", "content": "Hi"}]
    metadata = save([{"prompt": prompt, "chosen": "Hello.", "rejected": "No"}], tmp_path)
    data = hh_rlhf.load("helpful-base", **metadata)["test"]
    assert data[0]["prompt"] == prompt and data[0]["chosen"] == "Hello."


def test_rows_that_differ_before_the_last_turn_are_left_out_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    longer = f"{PROMPT}\n\nAssistant: So.\n\nHuman: And?\n\nAssistant: Yes."
    unanswered = {"chosen": PROMPT, "rejected": PROMPT}
    rows = [*ROWS, {"chosen": ROWS[0]["chosen"], "rejected": longer}, unanswered]
    data = hh_rlhf.load("helpful-base", **save(rows, tmp_path))["test"]
    assert len(data) == 2
    assert "in 2 of 4 rows the transcripts do not differ in the last turn alone" in caplog.text
    with pytest.raises(DataError, match="in no row chosen and rejected differ in the last turn"):
        hh_rlhf.load("helpful-base", **save([unanswered], tmp_path))


@pytest.mark.parametrize("text", ["Hello.", "So: \n\nHuman: Hi\n\nAssistant: Ho", "", None])
def test_a_text_that_is_no_transcript_is_refused(tmp_path: Path, text: str | None) -> None:
    rows = [ROWS[0], {**ROWS[0], "chosen": text}]
    with pytest.raises(DataError, match=r"row 1, chosen: a transcript is .* --tasks preference"):
        hh_rlhf.load("helpful-base", **save(rows, tmp_path))


def test_the_hubs_folder_and_split_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def load_dataset(name: str, **options: Any) -> datasets.Dataset:
        asked.append((name, options))
        return datasets.Dataset.from_list(ROWS)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr("drsow_plugin.data.loading.require_data", lambda name: None)
    assert len(hh_rlhf.load("harmless-base")["test"]) == 2
    hh_rlhf.load("helpful-base", data_dir="helpful-online", data_split="train")
    assert asked == [
        ("Anthropic/hh-rlhf", {"split": "test", "data_dir": "harmless-base"}),
        ("Anthropic/hh-rlhf", {"split": "train", "data_dir": "helpful-online"}),
    ]
