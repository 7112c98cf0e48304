"""Results as files of evaluation stores, read and checked by the stores' own code."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from helpers import rewarding
from helpers.benchmark_rows import write
from helpers.fakes import fake_pair
from helpers.harness import Scorer, metadata_argument, run
from helpers.wheels import unpacked
from huggingface_hub import parse_eval_result_entries
from lm_eval.utils import handle_non_serializable

from drsow_plugin import ConfigError, DataError, DrSoWLM
from drsow_plugin.cli import main
from drsow_plugin.harness.exporting import export


def saved(results: dict[str, Any], folder: Path, model: str, **config: Any) -> str:
    """Write results as lm-eval's tracker does."""
    folder.mkdir(parents=True, exist_ok=True)
    results["config"] |= {"model": model, **config}
    results["date"] = 1795963661.676301
    path = folder / "results_2026-11-29T14-47-58.438096.json"
    path.write_text(json.dumps(results, default=handle_non_serializable))
    return str(path)


@pytest.fixture(scope="module")
def validation() -> Iterator[ModuleType]:
    """Import the store's own validator out of its wheel, which asks for Python 3.12."""
    library = unpacked("every-eval-ever==0.3.0", "--python-version", "3.12")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(library))
        # Its helpers fetch leaderboards too, with packages that are not here.
        helpers = ModuleType("every_eval_ever.helpers")
        helpers.__path__ = [str(library / "every_eval_ever/helpers")]
        patch.setitem(sys.modules, "every_eval_ever.helpers", helpers)
        from every_eval_ever.validator import validation_core  # type: ignore[import-not-found]

        yield validation_core
    for name in [name for name in sys.modules if name.partition(".")[0] == "every_eval_ever"]:
        del sys.modules[name]


def checked(validation: ModuleType, store: Path) -> dict[str, Any]:
    """Return the records of a store by their benchmarks, all found valid and without a warning."""
    found = {}
    for path in sorted(store.rglob("*.json")):
        place = path.relative_to(store).as_posix()
        report = validation.validate_file(path, repo_path=place, run_semantic_checks=True)
        assert (report.valid, report.errors, report.warnings) == (True, [], [])
        found[place.split("/")[1]] = json.loads(path.read_text())
    return found


@pytest.mark.slow
def test_records_of_a_pair_are_valid_and_say_what_was_run(
    validation: ModuleType, tmp_path: Path
) -> None:
    _, metadata = write("rewardbench", tmp_path)
    lm = DrSoWLM(**fake_pair(max_length=4096))
    results = run(lm, ["rewardbench", "llmbar_natural"], metadata=metadata)
    file = saved(results, tmp_path / "out", "drsow")
    said = {"model_id": "me/pair", "organization": "My Lab"}
    files, left = export(file, str(tmp_path / "store"), **said)
    again, _ = export(str(tmp_path / "out"), str(tmp_path / "store"), **said)
    assert files == again and len(left) == 1 and "rewardbench score" in left[0]
    found = checked(validation, tmp_path / "store")
    assert {*found} == {"rewardbench", "llmbar_natural"}
    record = found["rewardbench"]
    assert record["model_info"]["id"] == "me/pair"
    details = record["model_info"]["additional_details"]
    assert details["fingerprint"] == results["config"]["drsow"]["fingerprint"]
    assert json.loads(details["scoring"])["reduction"] == "sum"
    by_id = {result["evaluation_result_id"]: result for result in record["evaluation_results"]}
    chat = results["results"]["rewardbench_chat"]
    margin = by_id["rewardbench_chat:margin"]
    assert margin["score_details"]["score"] == chat["margin,none"]
    assert margin["metric_config"]["metric_unit"] == "nats"
    assert by_id["rewardbench_chat:ties"]["metric_config"]["lower_is_better"]
    assert by_id["rewardbench:acc"]["score_details"]["score"] == pytest.approx(
        results["groups"]["rewardbench"]["acc,none"]
    )
    easy = by_id["rewardbench_chat:alpacaeval-easy/acc"]
    assert easy["evaluation_name"] == "rewardbench_chat.alpacaeval-easy"
    assert not any("score" in name.split(":")[1] for name in by_id)  # partial
    for result in record["evaluation_results"]:
        assert result["source_data"]["source_type"] == "other"  # a copy, not the Hub's
        assert result["source_data"]["additional_details"]["copy_of"] == "allenai/reward-bench"
    assert str(tmp_path) not in json.dumps(found)
    (natural,) = [
        result
        for result in found["llmbar_natural"]["evaluation_results"]
        if result["evaluation_result_id"] == "llmbar_natural:acc"
    ]
    assert natural["source_data"]["url"] == ["https://github.com/princeton-nlp/LLMBar"]
    uncertainty = natural["score_details"]["uncertainty"]
    accuracy = results["results"]["llmbar_natural"]["acc,none"]
    error = math.sqrt(accuracy * (1 - accuracy) / 99)
    assert uncertainty["num_samples"] == 100
    ends = [uncertainty["confidence_interval"][end] for end in ("lower", "upper")]
    assert ends == results["results"]["llmbar_natural"]["acc_interval,none"]
    assert uncertainty["standard_error"]["value"] == pytest.approx(error)


@pytest.mark.slow
@pytest.mark.usefixtures("own_tasks")
def test_the_command_exports_what_the_command_measured(
    validation: ModuleType, tmp_path: Path
) -> None:
    trained = rewarding.save(tmp_path / "trained")
    _, metadata = write("rewardbench2", tmp_path)
    arguments = ["--model", "reward", "--model_args", f"pretrained={trained}"]
    arguments += ["--tasks", "rewardbench2", "--metadata", metadata_argument(metadata["data"])]
    out, store = str(tmp_path / "out"), str(tmp_path / "store")
    measured = CliRunner().invoke(main, ["eval", *arguments, "--output_path", out])
    assert measured.exit_code == 0, measured.output
    who = ["--organization", "My Lab", "--relationship", "first_party"]
    refused = CliRunner().invoke(main, ["export", out, store, *who])
    assert refused.exit_code == 1
    assert "trained has no name that others know it by. Give one with --model-id" in refused.output
    done = CliRunner().invoke(main, ["export", out, store, *who, "--model-id", "me/trained"])
    assert done.exit_code == 0, done.output
    assert "Left out rewardbench2: " in done.output and "Wrote 1 file into" in done.output
    (record,) = checked(validation, tmp_path / "store").values()
    assert record["source_metadata"]["evaluator_relationship"] == "first_party"
    details = record["model_info"]["additional_details"]
    assert (details["model"], details["lm_eval_model"]) == ("trained", "reward")
    assert "metric_unit" not in {
        key
        for result in record["evaluation_results"]
        if result["metric_config"]["metric_name"] == "margin"
        for key in result["metric_config"]
    }


def hub_run(folder: Path, **changes: Any) -> str:
    """Write results of a whole benchmark and of another on a part of its rows."""
    scores = {"score,none": 0.625, "score_stderr,none": "N/A", "score_longer,none": 0.5}
    results = {
        "results": {
            "rm_bench": {"alias": "rm_bench", **scores},
            "rewardbench2": {"score,none": "partial", "Ties/score,none": 0.25},
            "preference": {"acc,none": 0.75},
            "ppe_preference": {"acc,none": 0.5, "acc_stderr,none": 0.01},
        },
        "configs": {
            "rm_bench": {"metadata": {"version": 1.0, "data_revision": "main"}},
            "ppe_preference": {"metadata": changes.pop("metadata", {})},
        },
        "n-samples": {"rm_bench": {"original": 1327, "effective": 1327}},
        "config": {"model_args": "pretrained=Org/Name,dtype=bfloat16", "limit": None},
        "lm_eval_version": "0.4.13",
    }
    return saved(results, folder, "hf", **changes)


def test_the_hub_gets_the_scores_of_whole_benchmarks(tmp_path: Path) -> None:
    files, left = export(
        hub_run(tmp_path),
        str(tmp_path / "model"),
        format="hub",
        organization="My Lab",
        task_ids={"rm_bench": "default"},
    )
    names = [path.relative_to(tmp_path / "model").as_posix() for path in files]
    assert names == [".eval_results/rm_bench.yaml", ".eval_results/ppe_preference.yaml"]
    (entry,) = parse_eval_result_entries(yaml.safe_load(files[0].read_text()))
    assert (entry.dataset_id, entry.task_id) == ("THU-KEG/RM-Bench", "default")
    assert entry.value == 0.625 and entry.dataset_revision == "main"
    assert entry.date == "2026-11-29T14:47:41+00:00"
    assert entry.notes == "score, Org/Name, lm-eval 0.4.13 with drsow-plugin"
    assert left == [
        "rewardbench2: no score, as rows are missing",
        "preference: no benchmark on the Hub",
    ]


@pytest.mark.parametrize("changes", [{"limit": 10.0}, {"metadata": {"data": "ppe.jsonl"}}])
def test_the_hub_gets_no_accuracy_of_what_may_be_a_part(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    files, left = export(
        hub_run(tmp_path, **changes), str(tmp_path / "m"), format="hub", organization="L"
    )
    assert [path.name for path in files] == ["rm_bench.yaml"]
    assert "ppe_preference: run with --limit, or on a copy that may be a part" in left


def test_records_of_a_single_model_have_its_name_and_the_hubs_data(tmp_path: Path) -> None:
    files, _ = export(hub_run(tmp_path), str(tmp_path / "store"), organization="My Lab")
    (file,) = [path for path in files if "rm_bench" in str(path)]
    record = json.loads(file.read_text())
    info = record["model_info"]
    assert info["id"] == "Org/Name" and info["additional_details"]["dtype"] == "bfloat16"
    assert info["additional_details"]["model_availability"] == "open_weights"
    source = record["evaluation_results"][0]["source_data"]
    assert (source["hf_repo"], source["hf_split"]) == ("THU-KEG/RM-Bench", "train")
    assert source["samples_number"] == 1327


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("{}", "is no results file of lm-eval"),
        ('{"config": {"model": "hf"}, "results": [], "date": 1}', "is no results file of lm-eval"),
    ],
)
def test_what_is_no_results_file_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "results_x.json").write_text(content)
    with pytest.raises(DataError, match=message):
        export(str(tmp_path), str(tmp_path / "store"), organization="L")


def test_nothing_to_export_and_names_that_are_none_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"has no results_….json"):
        export(str(tmp_path / "empty"), str(tmp_path / "store"), organization="L")
    file = hub_run(tmp_path)
    for said, message in [
        ({"model_id": "no-slash"}, "--model-id is ORGANIZATION/NAME, got 'no-slash'"),
        ({"organization": " "}, "--organization says who ran the evaluation"),
    ]:
        with pytest.raises(ConfigError, match=message):
            export(file, str(tmp_path / "store"), **{"organization": "L", **said})
    results = json.loads(Path(file).read_text())
    results["results"] = {"rewardbench2": {"score,none": "partial"}}
    saved(results, tmp_path / "partial", "hf")
    with pytest.raises(DataError, match="can be exported: rewardbench2: rewardbench2 score"):
        export(str(tmp_path / "partial"), str(tmp_path / "store"), organization="L")
    assert not (tmp_path / "store").exists()
    other = json.loads(Path(file).read_text())
    other["results"]["rm_bench"]["score,none"] = 0.1
    saved(other, tmp_path / "two" / "a", "hf")
    hub_run(tmp_path / "two" / "b")
    with pytest.raises(DataError, match=r"holds two runs for .eval_results/rm_bench.yaml"):
        export(str(tmp_path / "two"), str(tmp_path / "s"), format="hub", organization="L")


def test_a_task_id_that_is_none_is_refused(tmp_path: Path) -> None:
    arguments = [hub_run(tmp_path), str(tmp_path / "s"), "--organization", "L", "--task-id", "x"]
    result = CliRunner().invoke(main, ["export", *arguments])
    assert result.exit_code == 1 and "--task-id is TASK=ID, got 'x'" in result.output


def test_metrics_that_are_no_numbers_are_left_out(tmp_path: Path) -> None:
    rows = [{"prompt": "Q", "chosen": "a", "rejected": "b"}]
    path = tmp_path / "p.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    results = run(Scorer(lambda _: math.nan), ["preference"], metadata={"data": str(path)})
    results["config"] |= {"model_args": ""}
    file = saved(results, tmp_path, "dummy")
    files, left = export(file, str(tmp_path / "s"), model_id="a/b", organization="L")
    assert left == [
        "preference: preference margin (of rows that are not all there, or not a number)"
    ]
    names = [
        r["metric_config"]["metric_name"]
        for r in json.loads(files[0].read_text())["evaluation_results"]
    ]
    assert "margin" not in names and "overflow" in names
