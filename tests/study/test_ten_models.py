"""The example that makes ten models of one checkpoint, with a tiny one in its place."""

from __future__ import annotations

import gzip
import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.commands import drsow, write
from helpers.preferences import pairs

EXAMPLE = Path(__file__).parents[2] / "examples" / "study"


def read(file: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(file).read_text(encoding="utf-8").splitlines()]


@pytest.mark.slow
def test_ten_models_are_made_of_one_and_studied(
    tmp_path: Path, strong: str, cache: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def run(name: str, *arguments: str) -> None:
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        runpy.run_path(str(EXAMPLE / name), run_name="__main__")

    # the rows: what is studied is never trained on, and all of it is in the files
    both = [{**row, "prompt": [{"role": "user", "content": row["prompt"]}]} for row in pairs(20)]
    helpful = str(write(tmp_path / "helpful.jsonl", both))
    other = [
        {**r, "prompt": [*r["prompt"], r["prompt"][0] | {"role": "assistant"}, *r["prompt"]]}
        for r in both
    ]
    harmless = tmp_path / "harmless.jsonl.gz"
    with gzip.open(harmless, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in other)
    run("make_rows.py", helpful, str(harmless), "--base", strong, "--max-length", "200")
    studied, trained, llmbar = read("hh-rlhf.jsonl"), read("train.jsonl"), read("llmbar.jsonl")
    assert {row["subset"] for row in studied} == {"hh-helpful", "hh-harmless"}
    assert len(studied) + len(trained) == 40
    first = [{row["prompt"][0]["content"] for row in rows} for rows in (studied, trained)]
    assert first[0] and first[1] and not first[0] & first[1]
    assert 10 < len(llmbar) < 419

    # the models: a second call makes none again
    make = ["--base", strong, "--data", "train.jsonl", "--output", "models", "--max-length", "200"]
    run("make_models.py", *make, "--batch", "2", "--pairs", "4")
    made = {file: file.stat().st_mtime_ns for file in Path("models").rglob("*.*")}
    run("make_models.py", *make, "--batch", "2", "--pairs", "4")
    assert made == {file: file.stat().st_mtime_ns for file in Path("models").rglob("*.*")}

    # the study
    config = yaml.safe_load((EXAMPLE / "ten_models.yaml").read_text(encoding="utf-8"))
    for model in config["models"].values():
        model["source"] = strong if model["source"] == "demo" else model["source"]
    Path("study.yaml").write_text(yaml.safe_dump(config | {"resamples": 100}, sort_keys=False))
    write(tmp_path / "llmbar.jsonl", llmbar[:8])
    result = drsow("study", "--config", "study.yaml")
    assert result.exit_code == 0, result.output
    rows = 8 + len(studied)
    assert f"{rows} of {rows} rows, 10 models (10 scored now), 90 ordered pairs" in result.stdout
    report = json.loads(Path("ten-models/study.json").read_text())
    assert report["failed"] == {} and len(report["laws"]) == 2
    nats = {model["name"]: model["loglikelihood"] for model in report["models"]}
    assert len(set(nats.values())) == 10  # no two are the same

    # the page: nothing is computed again, and what is around the section stays
    page = Path("page.md")
    page.write_text("before\n<!-- ten models: begin -->\nformer\n<!-- ten models: end -->\nafter\n")
    run("write_page.py", "page.md", "--config", "study.yaml")
    text = page.read_text(encoding="utf-8")
    assert (
        text.startswith("before\n<!--") and text.endswith("-->\nafter\n") and "former" not in text
    )
    for part, rows in (("llmbar", 8), ("hh-rlhf", len(studied))):
        report = json.loads(Path(f"ten-models-{part}/study.json").read_text())
        assert report["rows"] == rows and all(not model["scored"] for model in report["models"])
        assert f"{100 * report['choice']['accuracy']['value']:.1f} [" in text
        assert (Path("page") / f"{part}-accuracy.png").read_bytes()[:4] == b"\x89PNG"
    assert all((tmp_path / name).is_file() for name in _pictures(text))


def _pictures(text: str) -> list[str]:
    return [part.partition(")")[0] for part in text.split("](")[1:]]
