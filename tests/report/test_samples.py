"""Samples as lm-eval itself logs them, of tasks of every shape, as what a page is made of."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from helpers.commands import write, wrong
from helpers.harness import Scorer, run
from helpers.wrote import page_data
from lm_eval.loggers import EvaluationTracker

from drsow_plugin.errors import DataError
from drsow_plugin.quality.logged import logged_files
from drsow_plugin.report.findings import find
from drsow_plugin.report.material import Material
from drsow_plugin.report.options import PageConfig
from drsow_plugin.report.write import open_material, write_page

PAIRS = [
    {"prompt": "One?", "chosen": "</script>", "rejected": "no", "domain": "maths"},
    {"prompt": "Two?", "chosen": "yes", "rejected": "not at all", "domain": "law"},
    {"prompt": "Two?", "chosen": "same", "rejected": "also", "domain": "law"},
    {"prompt": "Three?", "chosen": "a", "rejected": "bb", "domain": "law"},
]
RATED = [{"prompt": "Q?", "responses": ["a", "bb", "cccc"], "ratings": [1, 3, 2]}]


def logged(folder: Path, task: str, rows: list[dict[str, Any]], model: Scorer) -> Path:
    """Let lm-eval run a task and log its samples; return the folder."""
    data = write(folder / f"{task}.jsonl", rows)
    results = run(model, [task], metadata={"data": str(data)}, log_samples=True)
    tracker = EvaluationTracker(output_path=str(folder / "out"))
    samples = results.pop("samples")
    results["config"]["model"] = "scorer"
    tracker.general_config_tracker.model_source = "a"
    tracker.general_config_tracker.model_name_sanitized = "scorer"
    tracker.save_results_aggregated(results=results, samples=samples)
    tracker.save_results_samples(task_name=task, samples=samples[task])
    return folder / "out"


def opened(folder: Path, **options: Any) -> Material:
    return open_material(str(folder), PageConfig(**options))


def test_pairs_have_the_rewards_that_the_model_gave(tmp_path: Path) -> None:
    material = opened(logged(tmp_path, "preference", PAIRS, Scorer(lambda text: float(len(text)))))
    assert material.pairs.margin.tolist() == [7.0, -7.0, 0.0, -1.0]
    assert material.pairs.length.tolist() == [7, -7, 0, -1]
    assert material.pairs.prompt[1] == material.pairs.prompt[2] != material.pairs.prompt[3]
    assert material.length_unit == "characters" and material.kind == "pairs"
    page = page_data(write_page(material, PageConfig()).html)
    assert [row["m"] for row in page["rows"]] == [7.0, -7.0, 0.0, -1.0]
    assert [row["o"] for row in page["rows"]] == [1.0, 0.0, 0.5, 0.0]
    assert page["rows"][0]["a"][0]["t"] == "</script>"
    assert page["rows"][1]["q"][0]["c"] == "Two?"


def test_rows_without_a_domain_are_a_part_of_their_own(tmp_path: Path) -> None:
    rows = [
        {**PAIRS[0], "domain": ""},
        {**PAIRS[1], "domain": "law"},
        {**PAIRS[3], "domain": "law"},
    ]
    material = opened(logged(tmp_path, "preference", rows, Scorer(lambda text: float(len(text)))))
    found = {part.name: (part.accuracy.value, part.accuracy.n) for part in find(material).domains}
    assert found == {"(none)": (1.0, 1), "law": (0.0, 2)}


def test_candidates_are_compared_by_their_ratings(tmp_path: Path) -> None:
    material = opened(logged(tmp_path, "best_of_n", RATED, Scorer(lambda text: float(len(text)))))
    assert material.kind == "candidates"
    assert sorted(material.pairs.margin.tolist()) == [-2.0, 1.0, 3.0]
    (row,) = material.texts([0])
    assert row.margin == -2.0 and row.right == 0.0
    assert [response.rating for response in row.responses] == [1, 3, 2]


def test_a_response_without_a_reward_is_counted_and_shown(tmp_path: Path) -> None:
    scorer = Scorer(lambda text: math.nan if text == "yes" else float(len(text)))
    material = opened(logged(tmp_path, "preference", PAIRS, scorer))
    assert material.failures == {"no reward": 1} and len(material.pairs) == 3
    assert [row.status for row in material.texts([0, 1])] == ["ok", "no reward"]


def test_a_sample_of_many_rows_is_drawn_and_its_texts_are_found(tmp_path: Path) -> None:
    rows = [{"prompt": f"{n}?", "chosen": "x" * n, "rejected": ""} for n in range(1, 60)]
    out = logged(tmp_path, "preference", rows, Scorer(lambda text: float(len(text))))
    material = opened(out, sample=10, seed=3)
    assert material.rows == 10 and material.of_rows == 59
    shown = material.texts(material.numbers.tolist())
    assert [row.margin for row in shown] == material.pairs.margin.tolist()
    assert [row.prompt[0]["content"] for row in shown] == [f"{n + 1}?" for n in material.numbers]


def test_of_a_folder_the_newest_samples_of_each_task_are_taken(tmp_path: Path) -> None:
    for task, day in (("a", "01"), ("a", "02"), ("b", "01")):
        (tmp_path / f"samples_{task}_2026-01-{day}T10-00-00.123.jsonl").write_text("")
    names = [file.name[:22] for file in logged_files(tmp_path)]
    assert names == ["samples_a_2026-01-02T1", "samples_b_2026-01-01T1"]


def test_results_without_samples_are_told_from_rows_that_are_not_labelled(tmp_path: Path) -> None:
    folder, page = tmp_path / "out", tmp_path / "page.html"
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "results_2026-01-01T10-00-00.1.json").write_text('{"results": {}}')
    for command in (("report", folder, "-o", page), ("compare", folder, folder)):
        assert "no samples. Run it again with --log_samples" in wrong(*command)
    (folder / "rows.jsonl").write_text('{"prompt": "q"}')
    assert logged_files(folder) == []


def test_a_folder_whose_tasks_are_of_different_models_is_one_clear_error(tmp_path: Path) -> None:
    for task, model in (("a", "one"), ("b", "two")):
        date = f"2026-01-0{len(task)}T10-00-00.{len(model)}"
        folder = tmp_path / task
        folder.mkdir()
        (folder / f"samples_{task}_{date}.jsonl").write_text(json.dumps(GOOD))
        config = {"model": "hf", "model_args": {"pretrained": model}}
        (folder / f"results_{date}.json").write_text(json.dumps({"config": config}))
    with pytest.raises(DataError, match=r"different models.*Name the folder of one"):
        logged_files(tmp_path)
    assert "different models" in wrong("report", tmp_path, "-o", tmp_path / "page.html")
    assert len(logged_files(tmp_path / "a")) == 1
    (folder / f"results_{date}.json").write_text(
        (tmp_path / "a" / f"results_{date}.json").read_text()
    )
    assert len(logged_files(tmp_path)) == 2


GOOD = {"doc": {"prompt": "q", "chosen": "a", "rejected": "b"}, "resps": [[["1", "x"]]] * 2}


@pytest.mark.parametrize(
    "sample",
    [
        "{",
        "[]",
        json.dumps({**GOOD, "resps": [[["1", "False"]]]}),
        json.dumps({**GOOD, "resps": [[["x", "False"]]] * 2}),
        json.dumps({**GOOD, "resps": [[["inf", "False"]]] * 2}),
        json.dumps({**GOOD, "doc": {"question": "q"}}),
        json.dumps({**GOOD, "doc": {"prompt": "q", "responses": ["a", "b"], "ratings": [1, 1]}}),
        json.dumps({**GOOD, "doc": {**GOOD["doc"], "prompt": 3}}),  # type: ignore[dict-item]
    ],
)
def test_what_is_no_sample_of_a_preference_task_is_one_clear_error(
    tmp_path: Path, sample: str
) -> None:
    file = tmp_path / "samples_task_2026-01-01T10-00-00.1.jsonl"
    file.write_text(f"{json.dumps(GOOD)}\n{sample}\n")
    with pytest.raises(DataError, match="line 2: "):
        opened(file)
    assert "line 2" in wrong("report", file, "-o", tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_an_empty_file_of_samples_is_one_clear_error(tmp_path: Path) -> None:
    file = tmp_path / "samples_task_2026-01-01T10-00-00.1.jsonl"
    file.write_text("\n")
    with pytest.raises(DataError, match="holds no sample"):
        opened(file)
