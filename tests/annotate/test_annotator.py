"""The annotator under ``datasets.map``: columns, shapes, caches, processes."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import datasets
import pytest
from datasets.fingerprint import Hasher
from helpers import tiny
from helpers.fakes import fake_annotator
from helpers.labelling import label
from helpers.preferences import USER, WORDS, candidates, pairs, turn

from drsow_plugin import Annotator, ConfigError, DataError, DrSoW
from drsow_plugin.annotate import scorer
from drsow_plugin.config.pair import parse_pair


def test_pairs_get_rewards_and_a_margin(strong: str, weak: str) -> None:
    rows = pairs()
    labelled = label(rows, Annotator(strong, weak))
    drsow = DrSoW(strong, weak)
    for side in ("chosen", "rejected"):
        expected = drsow.score([row["prompt"] for row in rows], [row[side] for row in rows])
        for row, reward in zip(labelled, expected, strict=True):
            assert row[f"drsow_{side}_reward"] == pytest.approx(reward.reward, abs=1e-4)
            assert row[f"drsow_{side}_weak_logprob"] == pytest.approx(reward.weak_logprob, abs=1e-4)
            assert row[f"drsow_{side}_strong_tokens"] == reward.strong_tokens
    for row, given in zip(labelled, rows, strict=True):
        assert {name: row[name] for name in given} == given
        difference = row["drsow_chosen_reward"] - row["drsow_rejected_reward"]
        assert row["drsow_margin"] == difference
        assert row["drsow_status"] == "ok"
        texts = (given["chosen"], given["rejected"])
        assert ("tokenised apart" in row["drsow_notes"]) == (WORDS[4] in texts)


def test_swapping_puts_the_higher_reward_first_and_says_so() -> None:
    kept = label(pairs(), fake_annotator())
    swapped = label(pairs(), fake_annotator(relabel="swap"))
    assert 0 < sum(swapped["drsow_swapped"]) < len(swapped)
    for before, after in zip(kept, swapped, strict=True):
        assert after["drsow_margin"] == abs(before["drsow_margin"])
        assert after["drsow_swapped"] == (before["drsow_margin"] < 0)
        first, second = ("chosen", "rejected")[:: -1 if after["drsow_swapped"] else 1]
        assert (after["chosen"], after["rejected"]) == (before[first], before[second])


def test_every_shape_of_a_pair_gives_the_same_rewards() -> None:
    prompt, good, bad = [USER], "It is quick.", "A dog."
    shapes = {
        "messages": {"prompt": prompt, "chosen": turn(good), "rejected": turn(bad)},
        "implicit": {"chosen": prompt + turn(good), "rejected": prompt + turn(bad)},
        "text": {"prompt": USER["content"], "chosen": good, "rejected": bad},
        "hh": {"prompt": prompt, "chosen": good, "rejected": bad},
        "ultrafeedback": {
            "prompt": USER["content"],
            "chosen": prompt + turn(good),
            "rejected": prompt + turn(bad),
        },
    }
    annotator = fake_annotator()
    rows = {name: label([row], annotator)[0] for name, row in shapes.items()}
    assert len({row["drsow_margin"] for row in rows.values()}) == 1
    for name in ("messages", "implicit", "text"):
        assert {k: rows[name][k] for k in shapes[name]} == shapes[name]
    for name in ("hh", "ultrafeedback"):  # two shapes in a row, which TRL does not take
        assert {k: rows[name][k] for k in shapes["messages"]} == shapes["messages"]
    forced = label([shapes["text"]], fake_annotator(messages=True))[0]
    assert {k: forced[k] for k in shapes["messages"]} == shapes["messages"]


def test_what_candidates_continue_becomes_part_of_them() -> None:
    named = {**USER, "name": "Ada"}
    row = {"prompt": [named, {**turn("It is")[0], "name": None}], "responses": [" a", " dog."]}
    labelled = label([row], fake_annotator())[0]
    assert [{k: m[k] for k in USER} for m in labelled["prompt"]] == [USER]
    texts = {labelled[name][0]["content"] for name in ("chosen", "rejected")}
    assert texts == {"It is a", "It is dog."}
    assert "only role and content were written" in labelled["drsow_notes"]


def test_what_a_response_continues_becomes_part_of_it() -> None:
    row = {"prompt": [USER, *turn("It is")], "chosen": " quick.", "rejected": " a dog."}
    labelled = label([row], fake_annotator(relabel="swap"))[0]
    assert labelled["prompt"] == [USER]
    texts = {labelled[name][0]["content"] for name in ("chosen", "rejected")}
    assert texts == {"It is quick.", "It is a dog."}


@pytest.mark.parametrize("select", ["best_vs_random", "best_vs_worst", "best_vs_median"])
def test_candidates_become_pairs(select: Any) -> None:
    labelled = label(candidates(), fake_annotator(select=select))
    for row, given in zip(labelled, candidates(), strict=True):
        assert row["responses"] == given["responses"]
        assert row["prompt"] == [{"role": "user", "content": given["prompt"]}]
        rewards = row["drsow_rewards"]
        best, other = row["drsow_chosen_index"], row["drsow_rejected_index"]
        assert rewards[best] == max(rewards) == row["chosen_score"]
        assert row["chosen"] == turn(given["responses"][best])
        assert row["rejected"] == turn(given["responses"][other])
        assert row["drsow_margin"] == rewards[best] - rewards[other] > 0
        if select == "best_vs_worst":
            assert rewards[other] == min(rewards)


def test_candidates_as_text_keep_the_prompt() -> None:
    renamed = [{"instruction": r["prompt"], "generations": r["responses"]} for r in candidates()]
    row = label(renamed, fake_annotator(messages=False))[0]
    assert row["prompt"] == row["instruction"] == "Question 0?"
    assert row["chosen"] in row["generations"]


def test_the_order_of_rows_and_how_they_are_sharded_do_not_matter(strong: str, weak: str) -> None:
    annotator = Annotator(strong, weak, batch_size=1)
    forth = label(candidates(), annotator, batch_size=3)
    back = label(candidates()[::-1], annotator, batch_size=7)
    assert list(forth) == list(back)[::-1]


def test_single_responses_get_a_reward() -> None:
    rows = [{"prompt": [USER], "response": text, "tools": None} for text in WORDS]
    labelled = label(rows, fake_annotator(prefix="r_", token_logprobs=True))
    for row in labelled:
        assert row["r_reward"] == row["r_strong_logprob"] - row["r_weak_logprob"]
        for side in ("strong", "weak"):
            values = row[f"r_{side}_token_logprobs"]
            assert len(values) == row[f"r_{side}_tokens"]
            assert sum(values) == pytest.approx(row[f"r_{side}_logprob"], abs=1e-9)


@pytest.mark.fault(
    "rows",
    "texts that are missing, endless, or no valid Unicode",
    "null with a reason; the others are labelled as without them",
)
def test_bad_rows_say_why_and_do_not_stop_the_others() -> None:
    rows = pairs(9)
    rows[0]["chosen"] = None
    rows[1]["chosen"] = "lazy " * 600
    rows[2]["prompt"] = "\ud83d"
    good = rows[3:]
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    labelled = fake_annotator()(columns)
    assert isinstance(labelled, dict)
    statuses = labelled["drsow_status"]
    assert statuses[0].startswith("bad row: ") and "NoneType" in statuses[0]
    assert statuses[1].startswith("too long: chosen: ")
    assert "not valid Unicode" in statuses[2]
    assert labelled["drsow_margin"][:3] == [None] * 3
    assert labelled["drsow_rejected_reward"][1] is not None
    alone = label(good, fake_annotator())
    assert labelled["drsow_margin"][3:] == list(alone["drsow_margin"])
    with pytest.raises(DataError, match=r"row 0: .*on_error=null"):
        fake_annotator(on_error="raise")(columns)


@pytest.mark.fault(
    "rows",
    "a conversation on which the template fails or runs for ever",
    "null with a reason; the others are labelled as without it",
)
@pytest.mark.parametrize("fault", ["{{ 1 // 0 }}", "{{ nothing.at.all }}", "{{ again() }}"])
def test_a_row_that_a_template_trips_over_does_not_stop_the_others(
    tmp_path: Path, fault: str
) -> None:
    again = "{% macro again() %}{{ again() }}{% endmacro %}"
    condition = "{% for m in messages %}{% if 'boom' in m['content'] %}"
    template = tmp_path / "t.jinja"
    template.write_text(f"{again}{condition}{fault}{{% endif %}}{{% endfor %}}{tiny.CHATML}")
    rows = pairs(4)
    rows[1]["prompt"] = "boom"
    when = {"when": datetime.datetime(2024, 1, 1), "role": "user", "content": "Question 0?"}
    rows = [{**row, "prompt": [{**when, "content": row["prompt"]}]} for row in rows]
    data = datasets.Dataset.from_list(rows)
    annotator = fake_annotator(weak_template=str(template))
    labelled = annotator.run(data, cache_dir=str(tmp_path / "cache"), keep_unusable=True)
    assert [s.partition(":")[0] for s in labelled["drsow_status"]] == ["ok", "bad row", "ok", "ok"]
    assert "template" in labelled["drsow_status"][1]
    alone = fake_annotator().run(data, cache_dir=str(tmp_path / "cache"))
    assert labelled["drsow_margin"][2:] == alone["drsow_margin"][2:]


def test_what_may_not_be_read_as_it_was_meant_is_in_the_notes() -> None:
    rows = [
        {"prompt": [{"role": "human", "content": "Hi"}], "response": "a"},
        {"prompt": [{"role": "user", "content": ""}], "response": ""},
        {"prompt": [{**USER, "content": "\n\nHuman: Hi\n\nAssistant:"}], "response": "a"},
        {"prompt": [USER], "response": "a"},
    ]
    odd, empty, dialogue, fine = label(rows, fake_annotator())["drsow_notes"]
    assert "'human' is none that chat templates know" in odd
    assert "the prompt is empty" in empty and "the response is empty" in empty
    assert "'Human:'" in dialogue and fine == ""


def test_a_split_that_could_not_be_written_is_refused_before_any_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(DrSoW, "score_rows", lambda *_a, **_k: pytest.fail("models were used"))
    data = datasets.DatasetDict({"train-v2": datasets.Dataset.from_list(pairs(2))})
    with pytest.raises(DataError, match=r"'train-v2' cannot be written"):
        fake_annotator().run(data)


def test_a_missing_candidate_leaves_the_others_to_be_paired() -> None:
    rows = [{"prompt": "q", "responses": ["a", None, "b"]}, {"prompt": "q", "responses": [None]}]
    first, second = label(rows, fake_annotator())
    assert first["drsow_status"] == "partial: bad row: response 1: missing"
    assert first["drsow_rewards"][1] is None and {0, 2} == {
        first["drsow_chosen_index"],
        first["drsow_rejected_index"],
    }
    assert second["drsow_status"].startswith("bad row: response 0: missing")
    assert second["chosen"] is None and second["drsow_margin"] is None


def test_a_first_batch_without_any_value_does_not_fix_the_type() -> None:
    rows = pairs(8)
    for row in rows[:4]:
        row["chosen"] = "lazy " * 600
    labelled = label(rows, fake_annotator())
    assert labelled.features["drsow_margin"] == datasets.Value("float64")
    assert [margin is None for margin in labelled["drsow_margin"]] == [True] * 4 + [False] * 4
    removed = label(rows, fake_annotator(), remove_columns=["id"])
    assert list(removed) == list(labelled.remove_columns(["id"]))
    assert removed.features == labelled.remove_columns(["id"]).features
    same = label(candidates(8), fake_annotator(min_margin=1e9))
    assert same.features["chosen"] == same.features["prompt"]
    assert set(same["drsow_status"]) == {"margin below min_margin"}


def test_streams_and_formats_are_labelled_alike() -> None:
    data = datasets.Dataset.from_list(pairs())
    annotator = fake_annotator(relabel="swap")
    plain = list(data.map(annotator, batched=True, batch_size=4))
    stream = data.to_iterable_dataset().map(annotator, batched=True, batch_size=4)
    assert list(stream) == plain
    numpy = data.with_format("numpy").map(annotator, batched=True, batch_size=4)
    assert list(numpy.with_format(None)) == plain
    for form in ("pandas", "arrow"):
        with pytest.raises(DataError, match=r"with_format\(None\)"):
            data.with_format(form).map(annotator, batched=True)
    both = datasets.DatasetDict(a=data, b=data.select(range(4)))
    assert list(both.map(annotator, batched=True, batch_size=4)["b"]) == plain[:4]
    removed = data.map(annotator, batched=True, batch_size=4, remove_columns=["id"])
    assert "id" not in removed.column_names


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"text": "a"}], "cannot be read as preference data"),
        ([{**pairs()[0], "drsow_margin": 1.0}], "columns that would be written: drsow_margin"),
        ([{**candidates()[0], "chosen": "a"}], "columns that would be written: chosen"),
    ],
)
def test_columns_are_checked_before_weights_are_loaded(
    strong: str, weak: str, rows: list[dict[str, Any]], message: str, monkeypatch: Any
) -> None:
    monkeypatch.setattr(DrSoW, "score_rows", lambda *_a, **_k: pytest.fail("models were loaded"))
    for use in (lambda a: label(rows, a), lambda a: a.run(datasets.Dataset.from_list(rows))):
        with pytest.raises(DataError, match=message):
            use(Annotator(strong, weak))


@pytest.mark.parametrize("row", [pairs()[0], {"prompt": [USER, USER], "chosen": turn("a")}])
def test_a_map_without_batches_is_told_so(row: dict[str, Any]) -> None:
    row = {"rejected": turn("b"), **row}
    with pytest.raises(DataError, match="batched=True"):
        datasets.Dataset.from_list([row]).map(fake_annotator())


def test_an_option_that_is_wrong_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'select'"):
        fake_annotator(selct="best_vs_worst")  # type: ignore[call-arg]


def test_a_process_takes_the_device_of_its_rank(
    strong: str, weak: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scorer, "device_names", lambda: ["cuda:0", "cuda:1", "cuda:2"])
    pair = parse_pair({"strong": strong, "weak": weak, "weak_device": "cpu"})
    placed = scorer.place(pair, 5)
    assert (placed.strong.device, placed.weak.device) == ("cuda:2", "cpu")


def test_the_hash_changes_with_all_that_changes_a_label(
    tmp_path: Path, strong: str, weak: str
) -> None:
    other = tiny.save(tmp_path / "other", seed=3)
    changes: list[dict[str, Any]] = [
        {},
        {"weak": other},
        {"weak_template": "none"},
        {"dtype": "bfloat16"},
        {"reduction": "mean"},
        {"end_of_turn": False},
        {"overflow": "skip"},
        {"max_length": 100},
        {"attn_implementation": "eager"},
        {"select": "best_vs_worst"},
        {"min_margin": 1.0},
        {"seed": 1},
        {"relabel": "swap"},
        {"messages": True},
        {"token_logprobs": True},
        {"on_error": "raise"},
        {"prefix": "x_"},
    ]
    hashes = [
        Hasher.hash(Annotator(**{"strong": strong, "weak": weak, **change})) for change in changes
    ]
    assert len(set(hashes)) == len(changes)
    assert Hasher.hash(Annotator(strong, weak)) == hashes[0]


def test_the_fingerprint_is_of_contents_and_not_of_places(
    tmp_path: Path, strong: str, weak: str
) -> None:
    import shutil

    moved = tmp_path / "elsewhere"
    shutil.copytree(weak, moved)
    original = Annotator(strong, weak).fingerprint
    assert Annotator(strong, str(moved)).fingerprint == original
    config = moved / "config.json"
    config.write_text(config.read_text().replace('"rope_theta": 10000.0', '"rope_theta": 9999.0'))
    assert Annotator(strong, str(moved)).fingerprint != original
