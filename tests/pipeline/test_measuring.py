"""What a policy's answers are worth, against plain transformers in float64 and our own scorers."""

from __future__ import annotations

import functools
import gc
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
import transformers as tf
from helpers import rewarding, tiny
from helpers.oracle import token_logprobs

from drsow_plugin import ConfigError, DataError, DrSoW, generate
from drsow_plugin.models.language_model import LanguageModel
from drsow_plugin.models.reward_model import RewardModel
from drsow_plugin.pipeline import measuring
from drsow_plugin.pipeline.evaluation import Evaluation, parse_evaluation
from drsow_plugin.study import passes
from drsow_plugin.study.passes import Measured

LONG = "long " * 600  # more than the 512 tokens that the tiny models read
ANSWERS: list[tuple[Any, list[tuple[str, str]]]] = [
    ("What is the capital of France?", [("It is Paris.", "ok"), ("It is Par", "cut")]),
    ("Say nothing.", [("", "ok"), ("", "cut")]),
    (
        [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Add 2 and 2."}],
        [("Ça va: 4\n", "ok"), ("Ça va: 4\n", "duplicate")],
    ),
]
PAIRS = [
    {"prompt": f"Question {n}?", "chosen": f"The fox {n} jumps.", "rejected": f"A dog {n}"}
    for n in range(5)
]


@pytest.fixture(scope="module", autouse=True)
def collected() -> Iterator[None]:
    """Let collections of garbage leave out what was imported, which takes longer than all else."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny.save(tmp_path_factory.mktemp("policy"), seed=3)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny.save(tmp_path_factory.mktemp("start"), seed=4)


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> str:
    return rewarding.save(tmp_path_factory.mktemp("judge"))


def rows(answers: Sequence[tuple[Any, Sequence[tuple[str, str]]]]) -> datasets.Dataset:
    """Return what ``drsow generate`` writes, of texts and their status."""
    return datasets.Dataset.from_list(
        [
            {
                "prompt": messages_of(prompt),
                "responses": [text for text, _ in of],
                "response_tokens": [len(text) for text, _ in of],
                "response_status": [status for _, status in of],
                "problem": None if of else "too long: it was",
            }
            for prompt, of in answers
        ]
    )


def messages_of(prompt: Any) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt


def measured(data: datasets.Dataset, cache: Path, pairs: Any = None, **options: Any) -> Evaluation:
    labelled = None if pairs is None else datasets.Dataset.from_list(pairs)
    return measuring.evaluate(data, parse_evaluation(options), options, labelled, cache)


@functools.cache
def plain(folder: str) -> tuple[Any, Any]:
    model = tf.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
    return model, tf.AutoTokenizer.from_pretrained(folder)


def oracle(folder: str, prompt: Any, text: str, *, ended: bool = True) -> float:
    """Return log p of a text, in float64, with its end of turn where it was ended."""
    model, tokenizer = plain(folder)
    asked = tokenizer.apply_chat_template(
        messages_of(prompt), add_generation_prompt=True, tokenize=True, return_dict=True
    )["input_ids"]
    said = tokenizer(text, add_special_tokens=False)["input_ids"]
    end = [tokenizer.convert_tokens_to_ids("<|im_end|>")] if ended else []
    return sum(token_logprobs(model, asked, [*said, *end]))


def difference(policy: str, start: str, prompt: Any, text: str, *, ended: bool = True) -> float:
    of = (oracle(folder, prompt, text, ended=ended) for folder in (policy, start))
    return next(of) - next(of)


def test_a_divergence_is_that_of_plain_transformers_over_the_tokens_that_were_sampled(
    policy: str, start: str, tmp_path: Path
) -> None:
    found = measured(rows(ANSWERS), tmp_path, policy=policy, start=start)
    expected = [
        difference(policy, start, prompt, text, ended=status != "cut")
        for prompt, of in ANSWERS
        for text, status in of
    ]
    assert [answer.divergence for answer in found.answers] == pytest.approx(expected, abs=1e-4)
    assert expected[3] == 0 and abs(expected[2]) > 0.01  # the end of a turn is all of an answer
    assert [answer.number for answer in found.answers] == [0, 1] * 3
    assert [answer.cut for answer in found.answers] == [False, True, False, True, False, False]
    texts = [text for _, of in ANSWERS for text, _ in of]
    assert [answer.characters for answer in found.answers] == [*map(len, texts)]
    assert [answer.tokens for answer in found.answers] == [*map(len, texts)]
    keys = [answer.prompt for answer in found.answers]
    assert keys[::2] == keys[1::2] and len(set(keys)) == 3
    assert found.left_out == {} and found.pairs == ()
    assert {answer.judge for answer in found.answers} == {None}


def test_a_divergence_over_its_own_samples_is_the_policys(
    policy: str, start: str, tmp_path: Path
) -> None:
    """Of one token each, whose divergence can be summed over the vocabulary."""
    data = datasets.Dataset.from_list([{"prompt": "Say it."}])
    options: dict[str, Any] = {
        "max_tokens": 1,
        "temperature": 1.0,
        "candidates": 400,
        "max_cut": 1,
        "top_k": 0,
    }
    made, _ = generate(data, policy, cache_dir=str(tmp_path), **options)
    found = measured(made, tmp_path, policy=policy, start=start)
    tables, tokenizer = [], plain(policy)[1]
    for folder in (policy, start):
        asked = tokenizer.apply_chat_template(
            messages_of("Say it."), add_generation_prompt=True, return_dict=True
        )["input_ids"]
        with torch.no_grad():
            tables.append(plain(folder)[0](torch.tensor([asked])).logits[0, -1].log_softmax(-1))
    known = {}
    for token in range(len(tokenizer)):
        text = tokenizer.decode([token], skip_special_tokens=True)
        if tokenizer(text, add_special_tokens=False)["input_ids"] == [token]:
            known[text] = (tables[0][token] - tables[1][token]).item()
    texts = made[0]["responses"]
    kept = [(text, a) for text, a in zip(texts, found.answers, strict=True) if text in known]
    assert len(kept) > 200
    for text, answer in kept:
        assert answer.divergence == pytest.approx(known[text], abs=1e-4)


def test_margins_of_pairs_are_those_of_plain_transformers(
    policy: str, start: str, tmp_path: Path
) -> None:
    data = rows([*ANSWERS, (PAIRS[0]["prompt"], [("Yes.", "ok"), (LONG, "cut")])])
    found = measured(data, tmp_path, PAIRS, policy=policy, start=start)
    expected = [
        difference(policy, start, row["prompt"], row["chosen"])
        - difference(policy, start, row["prompt"], row["rejected"])
        for row in PAIRS
    ]
    assert [pair.margin for pair in found.pairs] == pytest.approx(expected, abs=2e-4)
    longer = [len(row["chosen"]) - len(row["rejected"]) for row in PAIRS]
    assert [pair.longer for pair in found.pairs] == longer
    assert len({pair.prompt for pair in found.pairs}) == 5
    assert found.pairs[0].prompt == found.answers[6].prompt  # they are to one prompt
    assert len(found.answers) == 8 and found.answers[7].divergence is None
    file = tmp_path / "measured.json"
    file.write_text(found.json(), encoding="utf-8")
    assert Evaluation.read(file) == found
    assert found.options == {"policy": policy, "start": start}


def test_a_judge_and_a_pair_say_what_they_say_alone(
    judge: str, strong: str, weak: str, tmp_path: Path
) -> None:
    found = measured(rows(ANSWERS), tmp_path, judge=judge, strong=strong, weak=weak)
    asked = [(messages_of(prompt), text) for prompt, of in ANSWERS for text, _ in of]
    prompts, texts = [prompt for prompt, _ in asked], [text for _, text in asked]
    judged = [answer.judge for answer in found.answers]
    assert judged == pytest.approx(RewardModel(judge).score(prompts, texts), abs=1e-5)
    assert judged == pytest.approx(rewarding.plain(judge, asked), abs=1e-4)
    rewards = [answer.reward for answer in found.answers]
    alone = [reward.reward for reward in DrSoW(strong, weak).score(prompts, texts)]
    assert rewards == pytest.approx(alone, abs=1e-5)
    assert rewards == pytest.approx(
        [difference(strong, weak, prompt, text) for prompt, text in asked], abs=1e-4
    )


def test_the_options_of_a_judge_and_a_pair_count(
    judge: str, strong: str, weak: str, tmp_path: Path
) -> None:
    options = {"judge": judge, "judge_add_special_tokens": False}
    pair = {"strong": strong, "weak": weak, "end_of_turn": "false"}
    data = rows(ANSWERS[:1])
    found = measured(data, tmp_path, **options, **pair)
    asked = [(messages_of(ANSWERS[0][0]), text) for text, _ in ANSWERS[0][1]]
    assert [answer.judge for answer in found.answers] == pytest.approx(
        rewarding.plain(judge, asked, card=False), abs=1e-4
    )
    assert [answer.reward for answer in found.answers] == pytest.approx(
        [difference(strong, weak, prompt, text, ended=False) for prompt, text in asked], abs=1e-4
    )


@pytest.mark.slow
@pytest.mark.fault(
    "rows",
    "answers of a policy that are missing, or too long for what measures them",
    "counted as left out; the others keep their figures",
)
def test_what_cannot_be_measured_is_counted_and_moves_nothing(
    policy: str, start: str, judge: str, strong: str, weak: str, tmp_path: Path
) -> None:
    answers = [("Nobody answers.", []), ("First?", [(LONG, "cut"), ("Yes.", "ok")]), *ANSWERS]
    models = {"policy": policy, "start": start, "judge": judge, "strong": strong, "weak": weak}
    pairs = [PAIRS[0], {**PAIRS[1], "chosen": LONG}, *PAIRS[2:]]
    found = measured(rows(answers), tmp_path, pairs, **models)
    usual = measured(rows(ANSWERS), tmp_path, PAIRS, **models)
    assert (found.answers[0].judge, found.answers[0].reward) == (None, None)
    assert found.answers[0].divergence is None and found.answers[0].characters == len(LONG)
    assert found.answers[1].divergence == pytest.approx(
        difference(policy, start, "First?", "Yes."), abs=1e-4
    )
    for name in ("judge", "reward", "divergence"):
        values, kept = ([getattr(a, name) for a in of.answers] for of in (found, usual))
        assert values[2:] == pytest.approx(kept, abs=1e-4)
    assert [pair.margin for pair in found.pairs] == pytest.approx(
        [usual.pairs[n].margin for n in (0, 2, 3, 4)], abs=1e-4
    )
    assert found.left_out == {
        "prompts without an answer": 1,
        "answers without judge": 1,
        "answers without reward": 1,
        "answers without divergence": 1,
        "pairs, policy: too long": 1,
        "pairs, start: too long": 1,
    }
    assert "1 prompts without an answer" in str(found) and usual.left_out == {}


def test_what_generate_wrote_of_prompts_that_it_could_not_read_is_left_out(
    policy: str, start: str, tmp_path: Path
) -> None:
    data = datasets.Dataset.from_list([{"prompt": p} for p in ("Tell me.", None, "Go on.", LONG)])
    made, report = generate(data, policy, cache_dir=str(tmp_path), max_tokens=4, max_cut=1)
    found = measured(made, tmp_path, policy=policy, start=start)
    assert sum(report.splits["train"].without.values()) == 2
    assert found.left_out == {"prompts without an answer": 2}
    written = [text for row in made for text in row["responses"]]
    assert [answer.characters for answer in found.answers] == [*map(len, written)]
    tokens = [count for row in made for count in row["response_tokens"]]
    assert [answer.tokens for answer in found.answers] == tokens


def test_nothing_is_measured_of_what_is_no_answer(policy: str, start: str, tmp_path: Path) -> None:
    models = {"policy": policy, "start": start}
    with pytest.raises(DataError, match="No prompt has an answer"):
        measured(rows([("Nobody?", [])]), tmp_path, **models)
    data = rows(ANSWERS)
    for name in ("responses", "response_tokens", "response_status", "prompt"):
        with pytest.raises(DataError, match=f"no column '{name}', only .*drsow generate"):
            measured(data.remove_columns(name), tmp_path, **models)
    with pytest.raises(DataError, match=r"repeat|twice"):
        measured(datasets.concatenate_datasets([data, data]), tmp_path, **models)


def test_a_prompt_column_of_another_name(judge: str, tmp_path: Path) -> None:
    named = rows(ANSWERS[:1]).rename_column("prompt", "asked")
    found = measured(named, tmp_path, prompt_column="asked", judge=judge)
    assert found.answers == measured(rows(ANSWERS[:1]), tmp_path, judge=judge).answers


@pytest.mark.slow
def test_the_start_is_read_once_for_all_policies(
    policy: str, start: str, strong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Measured] = []
    usual = passes.measure

    def watched(*arguments: Any) -> Measured:
        seen.append(usual(*arguments))
        return seen[-1]

    monkeypatch.setattr(measuring, "measure", watched)
    data = rows(ANSWERS[:1])
    first = measured(data, tmp_path, PAIRS, policy=policy, start=start)
    other = measured(data, tmp_path, PAIRS, policy=strong, start=start)
    again = measured(data, tmp_path, PAIRS, policy=policy, start=start)
    assert [[model.scored for model in one.models] for one in seen] == [[10, 10], [10, 0], [0, 0]]
    assert again.pairs == first.pairs != other.pairs


def test_all_models_are_looked_at_before_any_computes(
    policy: str, start: str, judge: str, strong: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def late(*_: Any, **__: Any) -> Any:
        raise AssertionError("a model computes before all of them are opened")

    monkeypatch.setattr(RewardModel, "score", late)
    monkeypatch.setattr(DrSoW, "score", late)
    monkeypatch.setattr(LanguageModel, "logprobs", late)
    monkeypatch.setattr(measuring, "measure", late)
    gone = str(tmp_path / "gone")
    models = {"policy": policy, "start": start, "judge": judge, "strong": strong, "weak": start}
    for name in models:
        with pytest.raises(ConfigError, match="gone"):
            measured(rows(ANSWERS), tmp_path, PAIRS, **{**models, name: gone})


def test_without_a_policy_pairs_say_what_the_judge_is_worth(judge: str, tmp_path: Path) -> None:
    long = {"prompt": LONG, "chosen": "a", "rejected": "b"}
    found = measured(rows(ANSWERS), tmp_path, [*PAIRS, long], judge=judge)
    scored = [
        RewardModel(judge).score([pair["prompt"]] * 2, [pair["chosen"], pair["rejected"]])
        for pair in PAIRS
    ]
    assert [pair.margin for pair in found.pairs] == [None] * len(PAIRS)
    assert [pair.judge for pair in found.pairs] == pytest.approx(
        [chosen - rejected for chosen, rejected in scored],
        abs=1e-5,  # type: ignore[operator]
    )
    assert found.left_out["pairs without judge"] == 1


def test_pairs_need_a_policy_or_a_judge(policy: str, start: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="by a policy over its start, or by a judge"):
        measured(rows(ANSWERS), tmp_path, PAIRS, strong=policy, weak=start)


def changed(**fields: Any) -> Mapping[str, Any]:
    answer = {"prompt": "p", "number": 0, "judge": None, "reward": None, "divergence": None}
    whole = {**answer, "tokens": 1, "characters": 1, "cut": False}
    return {"kind": "evaluation", "options": {}, "answers": [whole], "pairs": [], **fields}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"3",
        b"null",
        b"\xff\xfe",
        json.dumps(changed(kind="prompts")).encode(),
        json.dumps(changed(answers=[{"prompt": "p"}])).encode(),
        json.dumps(changed(answers=None)).encode(),
        json.dumps(changed(pairs=[{"margin": 1, "more": 2}])).encode(),
        json.dumps(changed(more=1)).encode(),
        json.dumps({"kind": "evaluation"}).encode(),
    ],
)
def test_something_else_is_not_read(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "measured.json"
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"measured\.json is not what drsow evaluate wrote"):
        Evaluation.read(file)
    file.write_text(json.dumps(changed()), encoding="utf-8")
    assert Evaluation.read(file).answers[0].prompt == "p"


def test_a_file_that_is_not_there_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not what drsow evaluate wrote"):
        Evaluation.read(tmp_path / "none.json")
