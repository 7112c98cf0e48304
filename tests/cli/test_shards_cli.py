"""``drsow annotate --shard`` and ``drsow merge``: what one run writes, by several."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from helpers.commands import drsow, write, wrong
from helpers.preferences import candidates, pairs

from drsow_plugin import DrSoW

pytestmark = pytest.mark.usefixtures("cache")


def files(out: Path) -> dict[str, bytes]:
    beside = [out] if out.is_file() else []
    found = [f for f in (*out.rglob("*"), *out.parent.glob(f"{out.name}.*")) if f.is_file()]
    return {str(f.relative_to(out.parent)): f.read_bytes() for f in (*beside, *found)}


@pytest.mark.parametrize("name", ["out", "out.jsonl"])
@pytest.mark.slow
def test_shards_that_are_merged_are_the_output_of_one_run(
    tmp_path: Path, models: list[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "rows.jsonl", candidates(11))
    options = [*models, "--shard-rows", "3"]
    (tmp_path / "one").mkdir()
    assert drsow("annotate", "rows.jsonl", tmp_path / "one" / name, *options).exit_code == 0
    expected = files(tmp_path / "one" / name)
    command = ["annotate", "rows.jsonl", tmp_path / name, *options]
    for number in (2, 1):
        result = drsow(*command, f"--shard={number}/2", "--cache-dir", tmp_path / str(number))
        assert result.exit_code == 0, result.output
        part = tmp_path / f"{name}.shards" / f"0000{number}-of-00002"
        assert result.stdout.endswith(f"Wrote {part}\n")
    assert not (tmp_path / name / "report.json").exists()
    for _ in range(2):  # which may be repeated
        result = drsow("merge", tmp_path / name)
        assert result.exit_code == 0, result.output
        assert f"Wrote {tmp_path / name}; " in result.stdout
        merged = {n: b for n, b in files(tmp_path / name).items() if ".shards" not in n}
        for file in ("report.json", "drsow.yaml"):  # where each kept its scores
            (key,) = [n for n in merged if n.endswith(file)]
            loads = json.loads if file == "report.json" else yaml.safe_load
            assert _plain(loads(merged.pop(key))) == _plain(loads(expected[key]))
        assert merged == {n: b for n, b in expected.items() if n in merged}
        assert len(merged) == len(expected) - 2
    again = drsow(
        "annotate", "--config", next(tmp_path.glob("out*/drsow.yaml"), f"{name}.drsow.yaml")
    )
    assert again.exit_code == 0, again.output


def _plain(report: dict[str, object]) -> dict[str, object]:
    kept = {n: v for n, v in report.items() if n not in ("options", "cache_dir", "output")}
    options = report.get("options")
    return kept | ({"options": _plain(options)} if isinstance(options, dict) else {})


def test_mistakes_about_shards_are_told_before_any_row_is_scored(
    tmp_path: Path, models: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DrSoW, "score_rows", lambda *_a, **_k: pytest.fail("models were used"))
    file, out = write(tmp_path / "rows.jsonl", pairs()), tmp_path / "out"
    run = ("annotate", file, out, *models)
    for value in ("0/4", "5/4", "x", "3"):
        assert f"from 1/16 to 16/16, got '{value}'" in wrong(*run, "--shard", value)
    push = ("annotate", file, "me/data", *models, "--push", "--shard", "1/2")
    monkeypatch.setattr("drsow_plugin.publishing.publish.check_target", lambda *_a, **_k: None)
    assert "no effect with --push" in wrong(*push)
    folder = tmp_path / "out.shards/00001-of-00002"
    folder.mkdir(parents=True)
    inside = write(folder / "rows.jsonl", pairs())
    part = ("annotate", inside, out, *models, "--shard", "1/2")
    assert "one is inside the other" in wrong(*part)
    mine = ("annotate", file, out, *models, "--shard", "1/2")
    assert "holds other things" in wrong(*mine)
    inside.unlink()
    assert "There are no shards" in wrong("merge", tmp_path / "other")
    assert "Shard 1 of 2 is missing, or not finished" in wrong("merge", out)
    assert not out.exists()


def test_a_shard_is_not_published(tmp_path: Path, models: list[str]) -> None:
    file, out = write(tmp_path / "rows.jsonl", pairs()), tmp_path / "out"
    assert drsow("annotate", file, out, *models, "--shard", "1/1").exit_code == 0
    shard = tmp_path / "out.shards/00001-of-00001"
    said = wrong("publish", shard, "me/data", "--dry-run", tmp_path / "card")
    assert "This is shard 1/1 of a data set. Merge all of them first" in said
