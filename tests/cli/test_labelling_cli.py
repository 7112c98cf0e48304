"""The commands annotate, score and publish, as a user types them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import datasets
import pytest
import yaml
from click.testing import CliRunner
from helpers.commands import drsow, write, wrong
from helpers.hub_server import TOKEN, HubServer
from helpers.preferences import candidates, pairs
from huggingface_hub import constants

from drsow_plugin import Annotator, DrSoW
from drsow_plugin.annotate.options import LABEL_OPTIONS
from drsow_plugin.cli import main
from drsow_plugin.config.model import SIDE_OPTIONS
from drsow_plugin.config.pair import OPTIONS
from drsow_plugin.data.loading import load_data

pytestmark = pytest.mark.usefixtures("cache")


def test_a_folder_holds_rows_report_options_and_pictures(
    tmp_path: Path, models: list[str], strong: str, weak: str
) -> None:
    file = write(tmp_path / "rows.jsonl", candidates())
    out = tmp_path / "labelled"
    result = drsow("annotate", file, out, *models, "--select", "best_vs_worst")
    assert result.exit_code == 0, result.output
    assert "pairs             10" in result.stdout and f"Wrote {out}" in result.stdout
    loaded = datasets.load_dataset(str(out), cache_dir=str(tmp_path / "hf"))
    expected = Annotator(strong, weak, select="best_vs_worst").run(
        datasets.Dataset.from_list(candidates()), cache_dir=str(tmp_path / "python")
    )
    assert list(loaded) == ["train"] and list(loaded["train"]) == list(expected)
    report = json.loads((out / "report.json").read_text())
    assert report["splits"]["train"]["pairs"] == 10 and report["input"] == str(file)
    assert not list((tmp_path / "cache").glob("labelled/*"))  # the rows are in the output
    for name in ("margins.png", "lengths.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_the_file_of_options_repeats_the_run_from_anywhere(
    tmp_path: Path, models: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "rows.jsonl", pairs())
    shutil.copytree(models[1], tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    models[1] = "model"
    options = ["--weak_template", "none", "--relabel", "swap", "--shard-rows", "3"]
    assert drsow("annotate", "rows.jsonl", "out", *models, *options).exit_code == 0
    before = datasets.Dataset.from_parquet(str(next(Path("out/data").iterdir())))
    config = yaml.safe_load(Path("out/drsow.yaml").read_text())
    assert config["weak_template"] == "none" and config["relabel"] == "swap"
    monkeypatch.chdir("/")
    copy = tmp_path / "again.yaml"
    copy.write_text(yaml.safe_dump({**config, "output": str(tmp_path / "again")}))
    result = drsow("annotate", "--config", copy)
    assert result.exit_code == 0, result.output
    after = datasets.Dataset.from_parquet(str(next((tmp_path / "again/data").iterdir())))
    assert list(after) == list(before)
    repeated = yaml.safe_load((tmp_path / "again/drsow.yaml").read_text())
    assert repeated == {**config, "output": str(tmp_path / "again")}
    # The command line goes before the file.
    drsow("annotate", "--config", copy, "--relabel", "keep", tmp_path / "kept.parquet")
    kept = datasets.Dataset.from_parquet(str(tmp_path / "kept.parquet"))
    assert "drsow_swapped" not in kept.column_names


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
@pytest.mark.slow
def test_a_single_file_with_the_rest_beside_it(
    tmp_path: Path, models: list[str], suffix: str, strong: str, weak: str
) -> None:
    file = write(tmp_path / "rows.jsonl", pairs())
    out = tmp_path / f"labelled.{suffix}"
    for _ in range(2):  # its own output may be written again
        assert drsow("annotate", file, out, *models).exit_code == 0
    assert {f.name for f in tmp_path.glob("labelled*")} == {
        f"labelled.{suffix}",
        *(f"{out.name}.{n}" for n in ("report.json", "drsow.yaml", "margins.png", "lengths.png")),
    }
    reader = "json" if suffix == "jsonl" else suffix
    rows = datasets.load_dataset(reader, data_files=str(out), split="train")
    expected = Annotator(strong, weak).run(
        datasets.Dataset.from_list(pairs()), cache_dir=str(tmp_path / "python")
    )
    assert list(rows) == list(expected)  # no digit is lost


@pytest.mark.slow
def test_every_kind_of_input(tmp_path: Path, models: list[str]) -> None:
    data = datasets.Dataset.from_list(pairs())
    data.to_parquet(tmp_path / "a.parquet")
    data.to_csv(tmp_path / "a.csv")
    data.save_to_disk(tmp_path / "saved")
    datasets.DatasetDict(x=data, y=data.select([0])).save_to_disk(tmp_path / "splits")
    one, two = write(tmp_path / "1.jsonl", pairs(4)), write(tmp_path / "2.jsonl", pairs(3))
    inputs: list[tuple[list[object], int]] = [
        ([tmp_path / "a.parquet"], 10),
        ([tmp_path / "a.csv"], 10),
        ([tmp_path / "saved"], 10),
        ([one, two], 7),
        ([tmp_path / "splits", "--data-split", "y"], 1),
    ]
    for number, (given, rows) in enumerate(inputs):
        paths = [g for g in given if isinstance(g, Path)]
        out = tmp_path / f"{number}.parquet"
        result = drsow("annotate", *paths, out, *given[len(paths) :], *models)
        assert result.exit_code == 0, result.output
        assert len(datasets.Dataset.from_parquet(str(out))) == rows
    assert drsow("annotate", tmp_path / "splits", tmp_path / "both", *models).exit_code == 0
    loaded = datasets.load_dataset(str(tmp_path / "both"), cache_dir=str(tmp_path / "hf"))
    assert {name: len(split) for name, split in loaded.items()} == {"x": 10, "y": 1}


@pytest.mark.slow
def test_a_part_is_labelled_and_names_like_patterns_are_read_again(
    tmp_path: Path, models: list[str]
) -> None:
    write(tmp_path / "rows1.jsonl", pairs(9))
    file = write(tmp_path / "rows[1].jsonl", pairs(4))
    for out in (tmp_path / "out[1].jsonl", tmp_path / "out[1]"):
        assert drsow("annotate", file, out, *models, "--limit", "3").exit_code == 0
        assert load_data([str(out)])["id"] == [0, 1, 2]
        beside = out if out.is_dir() else tmp_path
        options = next(beside.glob("*drsow.yaml")).read_text()
        assert yaml.safe_load(options)["limit"] in (3, "3")
    data = datasets.Dataset.from_list(pairs(4))
    datasets.DatasetDict(x=data, y=data.select([0])).save_to_disk(tmp_path / "splits")
    out = tmp_path / "both"
    assert drsow("annotate", tmp_path / "splits", out, *models, "--limit", "2").exit_code == 0
    assert {n: len(split) for n, split in load_data([str(out)]).items()} == {"x": 2, "y": 1}
    assert "limit is a whole number" in wrong("annotate", file, out, *models, "--limit", "0")


def test_mistakes_are_told_before_any_model_is_opened(
    tmp_path: Path, models: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DrSoW, "score_rows", lambda *_a, **_k: pytest.fail("models were used"))
    file, out = write(tmp_path / "rows.jsonl", pairs()), tmp_path / "out"
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("mine")
    (tmp_path / "mine.parquet").write_text("mine")
    (tmp_path / "bad.yaml").write_text("strnog: demo")
    (tmp_path / "list.yaml").write_text("- strong")
    splits = datasets.Dataset.from_list(pairs())
    datasets.DatasetDict(a=splits, b=splits).save_to_disk(tmp_path / "splits")
    splits.save_to_disk(tmp_path / "saved")
    (tmp_path / "twice.yaml").write_text("weak-template: none\nweak_template: tokenizer")
    assert "twice" in wrong("annotate", "--config", tmp_path / "twice.yaml")
    assert "Give INPUT and OUTPUT" in wrong("annotate", file, *models)
    assert "No strong model was given" in wrong("annotate", file, out)
    assert "best_vs_worst" in wrong("annotate", file, out, *models, "--select", "worst")
    assert "holds other things" in wrong("annotate", file, other, *models)
    assert "did not write it" in wrong("annotate", file, tmp_path / "mine.parquet", *models)
    assert ".parquet or a .jsonl" in wrong("annotate", file, tmp_path / "x.csv", *models)
    assert ".parquet or a .jsonl" in wrong("annotate", file, tmp_path / "x.txt", *models)
    assert "no effect without --push" in wrong("annotate", file, out, *models, "--license", "mit")
    assert "Did you mean 'strong'" in wrong("annotate", "--config", tmp_path / "bad.yaml")
    assert "holds a list" in wrong("annotate", "--config", tmp_path / "list.yaml")
    assert "cannot be read" in wrong("annotate", "--config", tmp_path / "none.yaml")
    assert "neither a file" in wrong("annotate", "no/such-data", out, *models)
    assert "no such file" in wrong("annotate", "no/such.jsonl", out, *models)
    for option in ("--data-split", "--data-name"):
        message = wrong("annotate", tmp_path / "saved", out, *models, option, "nope")
        assert "says nothing" in message
    assert "no split 'c', only a, b" in wrong(
        "annotate", tmp_path / "splits", out, *models, "--data-split", "c"
    )
    assert not out.exists()
    message = wrong("annotate", tmp_path / "splits", tmp_path / "x.parquet", *models)
    assert "--data-split" in message
    column = ("--chosen-column", "choosen")
    assert "Did you mean 'chosen'" in wrong("annotate", file, out, *models, *column)
    assert (tmp_path / "mine.parquet").read_text() == "mine"


@pytest.mark.slow
def test_the_output_is_never_the_input_nor_inside_of_it(tmp_path: Path, models: list[str]) -> None:
    file = write(tmp_path / "rows.jsonl", pairs())
    labelled = tmp_path / "labelled"
    assert drsow("annotate", file, labelled, *models).exit_code == 0
    prefix = ("--prefix", "x_", *models)
    for output in (labelled, labelled / "again"):
        assert "are one, or one is inside" in wrong("annotate", labelled, output, *prefix)
    rows = next((labelled / "data").iterdir())
    assert "are one, or one is inside" in wrong("annotate", rows, labelled, *prefix)
    beside = tmp_path / "labelled.jsonl"
    assert drsow("annotate", file, beside, *models).exit_code == 0
    before = beside.read_bytes()
    assert "are one, or one is inside" in wrong("annotate", beside, beside, *prefix)
    assert beside.read_bytes() == before
    # What was written as rows.parquet says nothing of rows.jsonl.
    assert drsow("annotate", beside, tmp_path / "rows.parquet", *prefix).exit_code == 0
    assert "did not write it" in wrong("annotate", beside, file, *prefix)


@pytest.mark.slow
def test_another_kind_into_the_same_folder_leaves_nothing_of_the_former(
    tmp_path: Path, models: list[str]
) -> None:
    file, out = write(tmp_path / "1.jsonl", pairs()), tmp_path / "out"
    assert drsow("annotate", file, out, *models).exit_code == 0
    (out / "data" / "mine.parquet").write_bytes(b"mine")
    write(file, [{"prompt": "q", "response": "a b"}] * 2)
    assert drsow("annotate", file, out, *models).exit_code == 0
    assert not (out / "margins.png").exists() and (out / "lengths.png").exists()
    assert {f.name for f in (out / "data").iterdir()} == {
        "mine.parquet",
        "train-00000-of-00001.parquet",
    }
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "report.json").write_text("{}")
    assert "holds other things" in wrong("annotate", file, tmp_path / "other", *models)


def test_json_lines_hold_what_json_can_hold(tmp_path: Path, models: list[str]) -> None:
    data = datasets.Dataset.from_list([{**row, "score": float("nan")} for row in pairs(2)])
    data.save_to_disk(tmp_path / "nan")
    out = tmp_path / "out.jsonl"
    assert drsow("annotate", tmp_path / "nan", out, *models).exit_code == 0
    for line in out.read_text().splitlines():
        assert json.loads(line, parse_constant=pytest.fail)["score"] is None
    data.add_column("raw", [b"a", b"b"]).save_to_disk(tmp_path / "bytes")
    message = wrong("annotate", tmp_path / "bytes", tmp_path / "bytes.jsonl", *models)
    assert "'raw'" in message and "cannot be written as JSON" in message


def test_the_help_names_every_option() -> None:
    text = drsow("annotate", "--help").stdout
    sided = {name for name in OPTIONS if name.startswith(("strong_", "weak_"))}
    sided |= {f"router_{name}" for name in SIDE_OPTIONS}
    for name in {*OPTIONS, *LABEL_OPTIONS} - sided:
        assert f"--{name.replace('_', '-')} " in text
    for name in sided:
        assert drsow("annotate", f"--{name}").stderr.strip().endswith("requires an argument.")


def test_score_reads_and_writes_lines(models: list[str], strong: str, weak: str) -> None:
    lines = [
        json.dumps({"id": "\ud800", "prompt": "Say it.", "response": "It is quick."}),
        "not json",
        json.dumps({"prompt": "Say it."}),
        json.dumps({"prompt": [{"role": "user", "content": "Say it."}], "response": "naïve"}),
        json.dumps({"prompt": "Say it.", "response": "lazy " * 600}),
        json.dumps({"prompt": "Say it.", "response": "a", "reward": "mine"}),
    ]
    arguments = ("--rows", 2, "--token-logprobs", "true")
    stdin = "\n".join(lines).encode() + b'\n{"prompt": "\xff"}\n\n'
    result = CliRunner().invoke(main, ["score", *models, *map(str, arguments)], input=stdin)
    assert result.exit_code == 3, result.output
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    expected = DrSoW(strong, weak).score(["Say it."] * 2, ["It is quick.", "naïve"])
    assert rows[0]["id"] == "\ud800" and rows[0]["prompt"] == rows[2]["prompt"] == "Say it."
    assert rows[1]["reason"].startswith("bad row: line 2: not JSON") and "prompt" not in rows[1]
    assert rows[4]["response"] == "lazy " * 600 and rows[5]["reward"] is None
    assert rows[0]["reward"] == pytest.approx(expected[0].reward, abs=1e-4)
    assert rows[3]["reward"] == pytest.approx(expected[1].reward, abs=1e-4)
    assert sum(rows[3]["weak_token_logprobs"]) == pytest.approx(rows[3]["weak_logprob"], abs=1e-9)
    reasons = [row["reason"] and row["reason"].partition(":")[0] for row in rows]
    assert reasons == [None, "bad row", "bad row", None, "too long", "bad row", "bad row"]
    assert "5 of 7 responses have no reward" in result.stderr
    assert rows[0]["notes"] == rows[3]["notes"] == []


@pytest.mark.slow
def test_publish_and_push(
    tmp_path: Path, models: list[str], server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, out = write(tmp_path / "rows.jsonl", candidates()), tmp_path / "out"
    assert drsow("annotate", file, out, *models).exit_code == 0
    result = drsow("publish", out, "tester/one", "--license", "cc-by-4.0", "--language", "en")
    assert result.exit_code == 0 and f"{server.url}/datasets/tester/one" in result.stdout
    pushed = drsow("annotate", file, "tester/two", "--push", "--public", *models)
    assert pushed.exit_code == 0, pushed.output
    one, two = (server.repositories[f"tester/{name}"] for name in ("one", "two"))
    assert one.private and not two.private
    for repository in (one, two):
        files = repository.files()
        assert {"README.md", "drsow/drsow.yaml", "drsow/margins.png"} <= set(files)
        written = b"".join(content for n, content in files.items() if n != ".gitattributes")
        assert TOKEN.encode() not in written and str(tmp_path).encode() not in written
        assert str(Path(models[1]).parent).encode() not in written
    loaded = datasets.load_dataset("tester/one", split="train")
    assert len(loaded) == 10 and b"license: cc-by-4.0" in one.files()["README.md"]
    assert "is public" in wrong("annotate", file, "tester/two", "--push", *models)
    assert "is no folder" in wrong("publish", tmp_path / "none", "tester/one")
    assert "rows.jsonl.report.json" in wrong("publish", file, "tester/one")
    assert "report.json" in wrong("publish", tmp_path / "cache", "tester/one")
    dry = drsow("publish", out, "tester/one", "--dry-run", tmp_path / "card")
    assert dry.exit_code == 0 and f"Wrote {tmp_path / 'card'}" in dry.stdout
    assert (tmp_path / "card/README.md").is_file() and (
        tmp_path / "card/drsow/margins.png"
    ).is_file()
    monkeypatch.setenv("HF_TOKEN", "hf_" + "wrong" * 5)
    for name in ("score", "from_config"):
        monkeypatch.setattr(DrSoW, name, lambda *_a, **_k: pytest.fail("models were used"))
    assert "hf auth login" in wrong("annotate", file, "tester/three", "--push", *models)
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    message = wrong("annotate", file, "tester/three", "--push", *models)
    assert message.startswith("Error: Publishing needs a token")
