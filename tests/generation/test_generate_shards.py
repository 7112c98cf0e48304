"""drsow generate --shard and drsow merge: what one run writes, by several."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import datasets
import pytest
from helpers import tiny
from helpers.commands import drsow, write, wrong

from drsow_plugin import DataError, generate
from drsow_plugin.annotate.outputs import open_output
from drsow_plugin.annotate.parts.part import Part
from drsow_plugin.annotate.parts.together import find_parts
from drsow_plugin.generation.parts import merge_responses, plan_prompts
from drsow_plugin.models.sampling import WeightSampler

WORDS = ["--candidates", "2", "--max-tokens", "4", "--max-cut", "1", "--temperature", "1"]


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny.save(tmp_path_factory.mktemp("policy"), seed=3)


def prompts(count: int = 50) -> list[dict[str, Any]]:
    """Return prompts of which some cannot be answered."""
    rows: list[dict[str, Any]] = [{"prompt": f"Tell me about {n}.", "n": n} for n in range(count)]
    rows[3]["prompt"], rows[12]["prompt"] = None, "long " * 600
    return rows


def asked(folder: Path, policy: str, *words: str, shard: str | None = None) -> str:
    """Answer prompts.jsonl, with a cache of its own, and return what is said."""
    cache = folder / f"cache-{(shard or 'one').replace('/', '-')}"
    more = [] if shard is None else ["--shard", shard]
    run = ("generate", folder / "prompts.jsonl", folder / "out.jsonl", "--policy", policy)
    result = drsow(*run, *(words or WORDS), *more, "--cache-dir", cache)
    assert result.exit_code == 0, result.output
    return result.stdout


def files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.glob("out.jsonl*") if file.is_file()}


@pytest.mark.parametrize("of", [3, 5])
def test_shards_that_are_merged_are_the_output_of_one_run(
    tmp_path: Path, policy: str, of: int
) -> None:
    one = tmp_path / "one"
    one.mkdir()
    for folder in (one, tmp_path):
        write(folder / "prompts.jsonl", prompts())
    asked(one, policy)
    for number in range(of, 0, -1):
        said = asked(tmp_path, policy, shard=f"{number}/{of}")
        assert said.endswith(f"Wrote {tmp_path / f'out.jsonl.shards/0000{number}-of-0000{of}'}\n")
    assert not (tmp_path / "out.jsonl").exists()
    for _ in range(2):  # which may be repeated
        result = drsow("merge", tmp_path / "out.jsonl")
        assert result.exit_code == 0, result.output
        merged, whole = files(tmp_path), files(one)
        reports = [json.loads(f.pop("out.jsonl.report.json")) for f in (merged, whole)]
        assert [report["output"].pop("source") != "" for report in reports] == [True, True]
        assert reports[0] == reports[1]
        assert merged == whole and {*whole} == {"out.jsonl", "out.jsonl.drsow.yaml"}
    assert (
        "96 responses to 48 prompts" in result.output and "1 bad row, 1 too long" in result.output
    )


def test_splits_are_divided_as_one_and_put_together_again(tmp_path: Path, policy: str) -> None:
    data = datasets.DatasetDict(
        a=datasets.Dataset.from_list(prompts(45)), b=datasets.Dataset.from_list(prompts(41)[38:])
    )
    options = {"candidates": 1, "max_tokens": 3, "max_cut": 1, "cache_dir": str(tmp_path / "one")}
    whole, expected = generate(data, policy, **options)
    for number in (1, 2):
        options["cache_dir"] = str(tmp_path / str(number))
        made, report = generate(data, policy, shard=(number, 2), **options)
        output = open_output(tmp_path / "shards" / str(number))
        with output.reserved("x") as folder:
            output.write(made, report, folder)
        assert report.shard is not None and report.shard["all_rows"] == {"a": 45, "b": 3}
    merged = merge_responses(find_parts(tmp_path / "shards"), tmp_path / "rows")
    assert {name: list(split) for name, split in merged.data.items()} == {
        name: list(split) for name, split in whole.items()
    }
    assert merged.report == expected


def test_shards_have_as_many_prompts_and_find_what_one_run_has_kept(
    tmp_path: Path, policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = datasets.Dataset.from_list(prompts(130))
    rows = [plan_prompts({"train": data}, Part(n, 4)).rows["train"] for n in (1, 2, 3, 4)]
    assert [r for part in rows for r in part] == [*range(130)]
    assert all(part.start % 16 == 0 and 30 <= len(part) <= 36 for part in rows)
    options = {"candidates": 1, "max_tokens": 2, "max_cut": 1, "cache_dir": str(tmp_path)}
    whole, _ = generate(data, policy, **options)
    monkeypatch.setattr(WeightSampler, "sample", lambda *_a: pytest.fail("sampled again"))
    third, _ = generate(data, policy, shard="3/4", **options)
    assert list(third) == [whole[index] for index in rows[2]]


def test_prompts_that_repeat_in_another_shard_are_refused(tmp_path: Path, policy: str) -> None:
    rows = prompts(40)
    rows[39]["prompt"] = rows[0]["prompt"]
    write(tmp_path / "prompts.jsonl", rows)
    run = ("generate", tmp_path / "prompts.jsonl", tmp_path / "out", "--policy", policy)
    for shard in ("1/2", "2/2"):
        assert "row 39 repeats row 0" in wrong(*run, *WORDS, "--shard", shard)
    assert not (tmp_path / "out.shards").exists() or not list(tmp_path.glob("out.shards/*/data"))


@pytest.mark.fault(
    "shard",
    "shards of prompts (`drsow generate --shard`) are missing, there twice, or of other settings",
    "one line that says which and how they differ; nothing is merged",
)
def test_shards_that_do_not_belong_together_are_refused(tmp_path: Path, policy: str) -> None:
    write(tmp_path / "prompts.jsonl", prompts())
    out, second = tmp_path / "out.jsonl", tmp_path / "out.jsonl.shards/00002-of-00002"
    asked(tmp_path, policy, shard="1/2")
    assert "Shard 2 of 2 is missing, or not finished. Run the same" in wrong("merge", out)
    asked(tmp_path, policy, *WORDS[:-1], "0.5", shard="2/2")
    said = wrong("merge", out)
    assert "other options: sampling is {'temperature': 1.0} and {'temperature': 0.5}" in said
    other = tiny.save(tmp_path / "other", seed=4)
    asked(tmp_path, other, *WORDS, shard="2/2")
    assert "policy is {'fingerprint': " in wrong("merge", out)
    shutil.rmtree(second)
    write(tmp_path / "prompts.jsonl", prompts(49))
    asked(tmp_path, policy, shard="2/2")
    assert "are of different data" in wrong("merge", out)
    shutil.copytree(second, second.with_name("copy"))
    assert "Shard 2/2 is there twice" in wrong("merge", out)
    shutil.rmtree(second.with_name("copy"))
    (file,) = second.glob("data/*.parquet")
    file.write_bytes(file.read_bytes() + b"x")
    assert "was changed since its report was written" in wrong("merge", out)
    assert not out.exists()


def test_labels_and_responses_are_not_merged(tmp_path: Path, policy: str, strong: str) -> None:
    write(tmp_path / "prompts.jsonl", prompts(20))
    asked(tmp_path, policy, shard="1/2")
    pairs = [{"prompt": f"{n}", "chosen": "a b", "rejected": "b"} for n in range(4)]
    run = ("annotate", write(tmp_path / "pairs.jsonl", pairs), tmp_path / "out.jsonl")
    models = ("--strong", strong, "--weak", policy, "--cache-dir", tmp_path / "cache")
    assert drsow(*run, *models, "--shard", "2/2").exit_code == 0
    assert "00002-of-00002/report.json of 'drsow generate'" in wrong(
        "merge", tmp_path / "out.jsonl"
    )


def test_a_whole_output_is_no_shard(tmp_path: Path, policy: str) -> None:
    write(tmp_path / "prompts.jsonl", prompts(20))
    run = ("generate", tmp_path / "prompts.jsonl", tmp_path / "whole", "--policy", policy, *WORDS)
    assert drsow(*run, "--cache-dir", tmp_path / "cache").exit_code == 0
    with pytest.raises(DataError, match=r"no shard of one.*'drsow generate --shard'"):
        merge_responses([tmp_path / "whole"], tmp_path / "rows")
