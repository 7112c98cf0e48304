"""drsow quality: the figures of the wing, in words and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import numpy as np
import pytest
from helpers.commands import drsow, wrong
from helpers.fakes import fake_annotator
from helpers.labelled import pairs_of
from helpers.preferences import candidates, pairs

from drsow_plugin.quality.calibration import calibrate, fit_temperature
from drsow_plugin.quality.labelled import open_labelled
from drsow_plugin.quality.rows import read_labelled


def test_all_figures_are_in_the_text_and_in_the_json(tmp_path: Path) -> None:
    chance = np.random.default_rng(8)
    margins = chance.normal(2, 9, 120)
    pairs_of(margins, chance.integers(-30, 30, 120)).to_parquet(tmp_path / "rows.parquet")
    name = str(tmp_path / "rows.parquet")
    found = drsow("quality", name, "--json", tmp_path / "q.json", "--resamples", "100")
    assert found.exit_code == 0, found.output
    values = json.loads((tmp_path / "q.json").read_text())
    temperature = fit_temperature(margins)
    assert values["calibration"]["temperature"] == pytest.approx(temperature)
    assert f"temperature         {temperature:.4g} nats" in found.stdout
    rows = read_labelled(open_labelled(name))
    again = calibrate(rows.pairs.margin, rows.pairs.prompt, resamples=100)
    assert values["calibration"]["ece"] == again.ece and f"ECE                 {again.ece:.3f}" in (
        found.stdout
    )
    slope = values["length"]["slope"]["value"]
    assert f"--margin-temperature {temperature:.4g} --length-slope {slope:.4g}" in found.stdout
    assert values["rows"] == "120 rows" and "within prompts" in found.stdout
    sample = drsow("quality", name, "--max-rows", "50", "--json", "-", "--resamples", "100")
    assert json.loads(sample.stdout)["rows"] == "a random sample of 50 of 120 rows"


def test_margins_that_say_nothing_say_so(tmp_path: Path) -> None:
    for margins, said in (([-1.0, -2.0, 1.0] * 5, "infinite"), ([1.0] * 15, "none: every pair")):
        pairs_of(margins).to_parquet(tmp_path / "rows.parquet")
        found = drsow("quality", tmp_path / "rows.parquet", "--resamples", "100")
        assert f"temperature         {said}" in found.stdout
        assert "--margin-temperature" not in found.stdout


def test_rows_without_labels_have_what_can_be_known(tmp_path: Path) -> None:
    for rows in (candidates(9), [{"prompt": f"q {n}", "response": "a " * n} for n in range(1, 9)]):
        annotator = fake_annotator()
        data = annotator.run(datasets.Dataset.from_list(rows), cache_dir=str(tmp_path / "cache"))
        data.to_parquet(tmp_path / "rows.parquet")
        found = drsow("quality", tmp_path / "rows.parquet", "--resamples", "100")
        assert found.exit_code == 0 and "not known: of no pair" in found.stdout


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    datasets.Dataset.from_list(pairs(2)).to_parquet(tmp_path / "plain.parquet")
    plain = tmp_path / "plain.parquet"
    assert "holds no labelled rows" in wrong("quality", plain)
    assert "folds is at least 2 and resamples" in wrong("quality", plain, "--resamples", "5")
    assert "seed is a whole number" in wrong("quality", plain, "--seed", "-1")
