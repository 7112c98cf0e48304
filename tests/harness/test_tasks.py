"""The tasks, run by lm-eval itself."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import datasets
import pytest
from helpers import tiny
from helpers.fakes import fake_pair
from helpers.harness import NEXT, Scorer, run
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from lm_eval.utils import handle_non_serializable, make_table

from drsow_plugin import DataError, DrSoW, DrSoWLM, tasks_path
from drsow_plugin.harness.benchmarks import preference
from drsow_plugin.harness.benchmarks.rewardbench import WEIGHTS, is_complete
from drsow_plugin.harness.context import ChatContext
from drsow_plugin.harness.subsets import Partial

LLMBAR = {
    "llmbar_natural": 100,
    "llmbar_adver_neighbor": 134,
    "llmbar_adver_gptinst": 92,
    "llmbar_adver_gptout": 47,
    "llmbar_adver_manual": 46,
}


def test_llmbar_has_its_419_pairs_and_pools_them() -> None:
    results = run(Scorer(len), ["llmbar"])
    assert {n: results["n-samples"][n]["effective"] for n in LLMBAR} == LLMBAR
    wins = sum(results["results"][name]["acc,none"] * size for name, size in LLMBAR.items())
    assert results["groups"]["llmbar"]["acc,none"] == pytest.approx(wins / 419)
    # Choosing by length is choosing by length, up to pairs of the same length.
    longer = results["groups"]["llmbar"]["acc_longer,none"]
    assert longer == pytest.approx(results["groups"]["llmbar"]["acc_tie_half,none"])
    assert results["results"]["llmbar_natural"]["acc_longer,none"] == 0.565
    assert results["results"]["llmbar_natural"]["acc,none"] == 0.56
    assert results["results"]["llmbar_natural"]["ties,none"] == 1


def test_a_tie_loses_and_counts_half_side_by_side(preference_file: Path) -> None:
    scores = {"Paris.": -1.0, "A dog.": -2.5, "    return a + b": -3.0, "I will not.": -1.0}
    results = run(
        Scorer(lambda response: scores.get(response, 0.0)),
        ["preference"],
        metadata={"data": str(preference_file)},
    )["results"]["preference"]
    assert results["acc,none"] == pytest.approx(1 / 3)
    assert results["acc_tie_half,none"] == pytest.approx(0.5)
    assert results["acc_longer,none"] == pytest.approx((0.5 + 1 + 0.5) / 3)
    assert results["ties,none"] == 1 and results["overflow,none"] == 0
    assert results["margin,none"] == pytest.approx((1.5 - 2.0 + 0.0) / 3)


def rewardbench_rows(leave_out: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """As many rows as RewardBench has; a third of each subset's are won by length."""
    sizes = {name: n for section in WEIGHTS.values() for name, n in section.items()}
    sizes |= {"math-prm": 447}
    return [
        {
            "prompt": f"{subset} {i}",
            "chosen": "chosen" if i % 3 else "chosen longer",
            "rejected": "rejected" if i % 7 else "chosen",
            "subset": subset,
            "id": i,
        }
        for subset, size in sizes.items()
        for i in range(size)
        if subset not in leave_out
    ]


def few_but(rows: list[dict[str, Any]], section: str = "") -> list[dict[str, Any]]:
    """Return all rows of a section, and every twentieth of the others."""
    whole = WEIGHTS.get(section, {})
    return [row for row in rows if row["subset"] in whole or row["id"] % 20 == 0]


def save(rows: list[dict[str, Any]], folder: Path) -> dict[str, str]:
    datasets.Dataset.from_list(rows).to_parquet(folder / "rewardbench.parquet")
    return {"data": str(folder / "rewardbench.parquet")}


@pytest.mark.slow
def test_rewardbench_is_the_official_formula(tmp_path: Path) -> None:
    rows = rewardbench_rows()
    assert len(rows) == 2985
    results = run(Scorer(len), ["rewardbench"], metadata=save(rows, tmp_path))
    wins: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        wins[row["subset"]].append(float(len(row["chosen"]) > len(row["rejected"])))
    accuracy = {subset: sum(w) / len(w) for subset, w in wins.items()}
    scores = []
    for section, weights in WEIGHTS.items():
        expected = sum(accuracy[s] * n for s, n in weights.items()) / sum(weights.values())
        got = results["results"][f"rewardbench_{section}"]
        assert got["score,none"] == pytest.approx(expected, abs=1e-12)
        assert got["subsets_missing,none"] == 0
        scores.append(expected)
        for subset in weights:
            assert got[f"{subset}/acc,none"] == pytest.approx(accuracy[subset])
            assert f"{subset}/acc_longer,none" in got and f"{subset}/acc_tie_half,none" in got
    assert results["groups"]["rewardbench"]["score,none"] == pytest.approx(sum(scores) / 4)
    table = make_table(results)
    assert "math-prm/acc" in table and "partial" not in table


@pytest.mark.slow
def test_sections_without_all_their_subsets_are_partial(tmp_path: Path) -> None:
    rows = few_but(rewardbench_rows(leave_out=("mt-bench-easy", "math-prm")), "safety")
    results = run(Scorer(len), ["rewardbench"], metadata=save(rows, tmp_path))
    chat = results["results"]["rewardbench_chat"]
    assert isinstance(chat["score,none"], Partial)
    assert '"score,none": "partial"' in json.dumps(chat, default=handle_non_serializable)
    assert chat["subsets_missing,none"] == 1
    assert "mt-bench-easy/acc,none" not in chat and "mt-bench-med/acc,none" in chat
    assert results["results"]["rewardbench_safety"]["score,none"] > 0
    assert isinstance(results["groups"]["rewardbench"]["score,none"], Partial)
    for table in (make_table(results), make_table(results, "groups")):
        scores = [line for line in table.splitlines() if "|score " in line]
        assert any("partial" in line for line in scores)
        assert not any("nan" in line for line in scores)


def test_a_section_with_the_right_total_and_wrong_subsets_is_not_complete() -> None:
    right = [name for name, n in WEIGHTS["chat"].items() for _ in range(n)]
    assert is_complete("chat", right)
    assert not is_complete("chat", [right[0], *right[1:-1], right[0]])


def test_a_limited_run_is_partial_too(tmp_path: Path) -> None:
    metadata = save(rewardbench_rows(), tmp_path)
    results = run(Scorer(len), ["rewardbench_safety"], metadata=metadata, limit=50)
    assert isinstance(results["results"]["rewardbench_safety"]["donotanswer/acc,none"], Partial)
    assert isinstance(results["results"]["rewardbench_safety"]["score,none"], Partial)


def test_a_section_with_no_row_counts_for_nothing(tmp_path: Path) -> None:
    rows = few_but([row for row in rewardbench_rows() if row["subset"] not in WEIGHTS["safety"]])
    results = run(Scorer(len), ["rewardbench"], metadata=save(rows, tmp_path))
    safety = results["results"]["rewardbench_safety"]
    assert isinstance(safety["score,none"], Partial) and safety["subsets_missing,none"] == 5
    assert not any(name.startswith(("acc", "margin", "donotanswer")) for name in safety)
    wins = [len(row["chosen"]) > len(row["rejected"]) for row in rows]
    assert results["groups"]["rewardbench"]["acc,none"] == pytest.approx(sum(wins) / len(wins))
    assert isinstance(results["groups"]["rewardbench"]["score,none"], Partial)


def test_rewards_are_the_same_with_and_without_the_chat_template_flag(
    preference_file: Path,
) -> None:
    lm = DrSoWLM(**fake_pair())
    runs = [
        run(
            lm,
            ["preference"],
            metadata={"data": str(preference_file)},
            apply_chat_template=flag,
            system_instruction=system,
            log_samples=True,
        )
        for system in (None, "Write a short answer.")
        for flag in (False, True)
    ]
    resps = [[sample["filtered_resps"] for sample in r["samples"]["preference"]] for r in runs]
    assert resps[0] == resps[1] and resps[2] == resps[3]
    assert resps[0] != resps[2]
    expected = lm.drsow.score(["What is the capital of France?"] * 2, ["Paris.", "A dog."])
    for got, want in zip(resps[0][0], expected, strict=True):
        reward, _ = got[0] if NEXT else got
        assert reward == pytest.approx(want.reward, abs=1e-5)


def test_another_model_reads_the_prompt_as_plain_text(preference_file: Path) -> None:
    scorer = Scorer(len)
    run(scorer, ["preference"], metadata={"data": str(preference_file)})
    assert scorer.contexts[0] == "What is the capital of France?\n\n"
    assert isinstance(scorer.contexts[0], ChatContext)
    assert scorer.contexts[0].messages[0]["role"] == "user"


def test_hf_compares_the_models_own_likelihood(tmp_path: Path, preference_file: Path) -> None:
    # A tokenizer that adds no BOS of its own: hf would write it before the template's text.
    strong, weak = (tiny.save(tmp_path / s, seed=i, kind="bytes") for i, s in enumerate("sw"))
    lm = HFLM(pretrained=strong, device="cpu", dtype="float32")
    metadata = {"data": str(preference_file)}
    chat, plain = (
        run(lm, ["preference"], metadata=metadata, apply_chat_template=flag, log_samples=True)
        for flag in (True, False)
    )
    assert math.isfinite(plain["results"]["preference"]["margin,none"])
    # Its boundary differs from ours by the prompt's last newline, which a margin cancels.
    drsow = DrSoW(strong, weak, end_of_turn=False)
    for sample in chat["samples"]["preference"]:
        doc = sample["doc"]
        if doc["chosen"].startswith(" "):
            continue  # the newline merges with the indentation: hf scores other tokens
        ours = drsow.score([doc["prompt"]] * 2, [doc["chosen"], doc["rejected"]])
        assert ours[0].strong_logprob is not None and ours[1].strong_logprob is not None
        margin = ours[0].strong_logprob - ours[1].strong_logprob
        assert sample["margin"] == pytest.approx(margin, abs=1e-4)


def test_lm_evals_own_tasks_run_too(tmp_path: Path) -> None:
    (tmp_path / "docs.jsonl").write_text('{"q": "The capital of France?", "a": "Paris"}\n' * 2)
    (tmp_path / "own.yaml").write_text(
        f"""
task: own
dataset_path: json
dataset_kwargs: {{data_files: {{test: {tmp_path}/docs.jsonl}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{q}}}}"
doc_to_choice: ["Paris", "a dog"]
doc_to_target: 0
"""
    )
    manager = TaskManager(include_path=str(tmp_path), include_defaults=False)
    lm = DrSoWLM(**fake_pair())
    for flag in (False, True):
        results = simple_evaluate(
            model=lm, tasks=["own"], task_manager=manager, apply_chat_template=flag
        )
        assert results is not None and results["results"]["own"]["acc,none"] in (0.0, 1.0)


SHAPES: dict[str, list[dict[str, Any]]] = {
    "explicit strings": [{"prompt": "Q?", "chosen": "yes", "rejected": "no"}],
    "implicit strings": [{"chosen": "Q? yes", "rejected": "Q? no"}],
    "explicit messages": [
        {
            "prompt": [{"role": "user", "content": "Q?"}],
            "chosen": [{"role": "assistant", "content": "yes"}],
            "rejected": [{"role": "assistant", "content": "no"}],
        }
    ],
    "implicit messages": [
        {
            "chosen": [
                {"role": "user", "content": "Q?"},
                {"role": "assistant", "content": "yes"},
            ],
            "rejected": [
                {"role": "user", "content": "Q?"},
                {"role": "assistant", "content": "no"},
            ],
        }
    ],
}


@pytest.mark.parametrize("ending", ["parquet", "jsonl", "saved", "json"])
@pytest.mark.parametrize("shape", SHAPES)
def test_preference_data_in_every_shape_and_format(tmp_path: Path, shape: str, ending: str) -> None:
    rows = datasets.Dataset.from_list(SHAPES[shape] * 2)
    path = tmp_path / f"data.{ending}"
    if ending == "parquet":
        rows.to_parquet(path)
    elif ending == "saved":
        datasets.DatasetDict({"train": rows}).save_to_disk(str(path))
    else:
        rows.to_json(path, lines=ending == "jsonl")
    seen: list[tuple[Any, str]] = []

    class Spy(Scorer):
        def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
            seen.extend((request.args[0].messages, request.args[1]) for request in requests)
            return super().loglikelihood(requests)

    results = run(Spy(len), ["preference"], metadata={"data": str(path)})
    assert results["results"]["preference"]["sample_len"] == 2
    # For strings without a prompt column the space before a response belongs to it, as in TRL.
    space = " " if shape == "implicit strings" else ""
    messages = [{"role": "user", "content": "Q?"}]
    assert seen[:2] == [(messages, f"{space}yes"), (messages, f"{space}no")]


def test_reasoning_beside_a_response_is_said_and_tool_calls_are_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def load(**more: Any) -> Any:
        turns = [{"role": "assistant", "content": "a", **more}]
        row = {"prompt": "q", "chosen": turns, "rejected": [{**turns[0], "content": "b"}]}
        path = tmp_path / "data.jsonl"
        path.write_text(json.dumps(row) + "\n", encoding="utf-8")
        return preference.load(data=str(path))["test"]

    assert load()["chosen"] == ["a"] and not caplog.messages
    assert load(reasoning_content="Hm.")["chosen"] == ["a"]
    assert "in 1 of 1 rows the response has a 'reasoning_content'" in caplog.text
    with pytest.raises(DataError, match="row 0, chosen: the response has tool calls"):
        load(tool_calls=[{"function": {"name": "look"}}])


def test_column_names_can_be_given(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text('{"question": "Q?", "good": "yes", "bad": "no"}\n')
    metadata = {
        "data": str(tmp_path / "d.jsonl"),
        "prompt_column": "question",
        "chosen_column": "good",
        "rejected_column": "bad",
    }
    results = run(Scorer(len), ["preference"], metadata=metadata)
    assert results["results"]["preference"]["acc,none"] == 1.0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ('{"prompt": "Q?", "chosen": "yes"}\n', "no column 'rejected'; it has 'prompt', 'chosen'"),
        (
            '{"prompt": "Q", "chosen": "a", "rejected": "b"}\n'
            '{"prompt": null, "chosen": "a", "rejected": "b"}\n',
            "row 1: the prompt is missing",
        ),
        ('{"prompt": "Q?", "chosen": "yes", "rejected": null}\n', "row 0: chosen and rejected"),
        ('{"chosen": "yes", "rejected": "no"}\n', "no common beginning"),
        ("{ not json\n", "cannot be read as json"),
    ],
)
def test_data_that_cannot_be_used_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "d.jsonl").write_text(content)
    with pytest.raises(DataError, match=message):
        run(Scorer(len), ["preference"], metadata={"data": str(tmp_path / "d.jsonl")})


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"data_splt": "x"}, "Unknown name in --metadata 'data_splt'. Did you mean 'data_split'"),
        ({"data_split": "nope"}, "is a file, where data_split=nope says nothing"),
        ({"data_name": "nope"}, "is a file, where data_name=nope says nothing"),
    ],
)
def test_metadata_that_would_be_ignored_is_refused(
    preference_file: Path, metadata: dict[str, str], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        run(Scorer(len), ["preference"], metadata={"data": str(preference_file), **metadata})


def test_a_file_that_is_not_what_its_ending_says(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl.gz").write_bytes(b"not gzip")
    with pytest.raises(DataError, match="cannot be read as json"):
        run(Scorer(len), ["preference"], metadata={"data": str(tmp_path / "d.jsonl.gz")})


def test_the_rows_are_in_the_records(preference_file: Path) -> None:
    def recorded() -> str:
        results = run(Scorer(len), ["preference"], metadata={"data": str(preference_file)})
        return str(results["configs"]["preference"]["metadata"]["data_sha256"])

    before = recorded()
    assert recorded() == before and len(before) == 64
    preference_file.write_text(preference_file.read_text().replace("Paris", "Rome"))
    assert recorded() != before


def test_no_data_named_says_how_to_name_it() -> None:
    with pytest.raises(DataError, match="--metadata data=FILE"):
        run(Scorer(len), ["preference"])


def test_two_splits_ask_for_one(tmp_path: Path) -> None:
    rows = datasets.Dataset.from_list(SHAPES["explicit strings"])
    datasets.DatasetDict({"train": rows, "test": rows}).save_to_disk(str(tmp_path / "d"))
    with pytest.raises(DataError, match="splits test, train"):
        run(Scorer(len), ["preference"], metadata={"data": str(tmp_path / "d")})
    metadata = {"data": str(tmp_path / "d"), "data_split": "train"}
    assert run(Scorer(len), ["preference"], metadata=metadata)["results"]


def test_the_shipped_pairs_are_well_formed() -> None:
    lines = (Path(tasks_path()) / "llmbar.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert len(rows) == len({(row["subset"], row["id"]) for row in rows}) == 419
    assert all(row["chosen"] != row["rejected"] and row["prompt"] for row in rows)
