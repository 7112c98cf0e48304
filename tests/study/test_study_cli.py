"""The commands study and pairs, as a user types them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.commands import drsow, write, wrong
from helpers.preferences import pairs

from drsow_plugin.annotate.options import LABEL_OPTIONS
from drsow_plugin.study.known import known_pairs, markdown_table
from drsow_plugin.study.options import STUDY_OPTIONS

ROOT = Path(__file__).parents[2]


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: None) -> Path:
    monkeypatch.setenv("DRSOW_PAIRS", str(tmp_path / "own" / "pairs.jsonl"))
    return write(tmp_path / "rows.jsonl", pairs(12))


@pytest.mark.slow
def test_a_study_is_written_and_its_best_pair_recorded(
    rows: Path, tmp_path: Path, strong: str, weak: str
) -> None:
    out = tmp_path / "out"
    models = ["--model", f"a={strong}", "--model", f"b={weak},template=none,cost=2"]
    result = drsow("study", rows, out, *models, "--resamples", 100, "--record")
    assert result.exit_code == 0, result.output
    assert "12 of 12 rows, 2 models (2 scored now), 2 ordered pairs" in result.stdout
    assert "The best of 2 ordered pairs is " in result.stdout
    values = json.loads((out / "study.json").read_text())
    assert values["models"][1]["options"] == {"source": weak, "template": "none"}
    again = drsow("study", rows, out, *models, "--resamples", 100)
    assert again.exit_code == 0 and "2 models (0 scored now)" in again.stdout
    (line,) = (tmp_path / "own" / "pairs.jsonl").read_text().splitlines()
    recorded = json.loads(line)
    assert recorded["accuracy"] == round(100 * values["choice"]["accuracy"]["value"], 2)
    assert recorded["rows"] == 12 and recorded["data"] == str(rows)
    assert {recorded["strong"], recorded["weak"]} == {strong, f"{weak},template=none"}
    shown = drsow("pairs", "--memory", "1GB").stdout
    assert f"{recorded['strong']} over {recorded['weak']}" in shown


@pytest.mark.slow
def test_a_file_says_all_of_it(rows: Path, tmp_path: Path, strong: str, weak: str) -> None:
    config = {
        "input": str(rows),
        "output": str(tmp_path / "out"),
        "models": {"a": strong, "b": {"source": weak, "scores": {"MMLU": 1}, "memory": "1GB"}},
        "resamples": 100,
    }
    file = tmp_path / "study.yaml"
    file.write_text(json.dumps(config))
    said = wrong("study", "--config", file)
    assert "The score 'MMLU' has no value for the model 'a'" in said
    scored = {"a": {"source": strong, "scores": {"MMLU": 2}}}
    plain = {"plain": {"source": strong, "template": "none", "scores": {"MMLU": 0}}}
    config["models"] = {**config["models"], **scored, **plain}  # type: ignore[dict-item]
    file.write_text(json.dumps(config))
    result = drsow("study", "--config", file, "--memory", "10GB", "--limit", 6)
    assert result.exit_code == 0, result.output
    assert "gap in MMLU: " in result.stdout and "6 of 6 rows" in result.stdout


def test_code_of_a_model_in_a_file_does_not_run_unasked(
    rows: Path, tmp_path: Path, strong: str
) -> None:
    file = tmp_path / "study.yaml"
    model = {"source": strong, "trust_remote_code": True}
    file.write_text(json.dumps({"models": {"a": strong, "odd": model}}))
    said = wrong("study", rows, tmp_path / "out", "--config", file)
    assert "would run code: " in said and "for the model odd" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{rows}"], "at least two models"),
        (["--model", "a=demo", "--model", "b=demo,template=none", "{out}"], "Give INPUT and"),
        (
            ["--task", "llmbar", "{rows}", "--model", "a=x", "--model", "b=y", "{out}"],
            "Give INPUT and OUTPUT, or OUTPUT and --task",
        ),
        (["--model", "a=demo", "--model", "a=x", "{rows}", "{out}"], "'a' is given twice"),
        (["--model", "a=demo", "--model", "b=demo", "{rows}", "{out}"], "are the same model"),
        (["--model", "a", "{rows}", "{out}"], "write NAME=SOURCE"),
    ],
)
def test_what_is_wrong_is_said_before_a_model_is_opened(
    rows: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    places = {"rows": rows, "out": tmp_path / "out"}
    assert message in wrong("study", *(text.format(**places) for text in arguments))
    assert not (tmp_path / "out").exists()


def test_a_folder_of_another_study_is_refused_before_a_model_is_scored(
    rows: Path, tmp_path: Path, strong: str, weak: str
) -> None:
    models = ["--model", f"a={strong}", "--model", f"b={weak}", "--resamples", 100]
    assert drsow("study", rows, tmp_path / "out", *models).exit_code == 0
    other = write(tmp_path / "other.jsonl", pairs(13))
    kept = len(list(tmp_path.rglob("*.parquet")))
    said = wrong("study", other, tmp_path / "out", *models)
    assert "holds a study of other rows" in said
    assert len(list(tmp_path.rglob("*.parquet"))) == kept


def test_the_help_says_what_the_declarations_say() -> None:
    said = " ".join(drsow("study", "--help").stdout.replace("-\n", "-").split())
    for declared in (*STUDY_OPTIONS.values(), LABEL_OPTIONS["group_column"]):
        text = " ".join(declared.help.replace("`", "").split())
        assert text.replace("- ", "-") in said.replace("- ", "-")


def test_pairs_are_filtered_by_the_memory_of_their_weights(rows: Path) -> None:
    everything, small = drsow("pairs").stdout, drsow("pairs", "--memory", "8GB").stdout
    assert "Nous-Hermes-2-Mistral-7B-DPO" in everything and "Nous-Hermes" not in small
    assert "stablelm-2-zephyr-1_6b over " in small and "left out: larger" in small
    assert "memory is a size" in wrong("pairs", "--memory", "lots")


def test_a_file_of_pairs_that_is_broken_is_told(rows: Path, tmp_path: Path) -> None:
    file = tmp_path / "own" / "pairs.jsonl"
    file.parent.mkdir()
    for line in ("{", "[]", '{"strong": "a"}', '{"accuracy": "x"}'):
        file.write_text(f"\n{line}\n")
        assert "line 2 is no pair" in wrong("pairs")
    file.write_bytes(b"\xff")
    assert "cannot be read" in wrong("pairs")


def test_the_page_on_models_shows_the_pairs_that_the_package_knows() -> None:
    page = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    assert str(markdown_table(known_pairs())) in page
    for pair in known_pairs():
        assert pair.memory and pair.memory > 0 and 0 < pair.accuracy < 100
        if pair.sections:
            mean = sum(pair.sections.values()) / len(pair.sections)
            assert pair.accuracy == pytest.approx(mean, abs=0.06)
