"""Prompts in two parts: none in both, the same whatever the order, with all that stands beside."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import pytest
from helpers.commands import drsow, write, wrong

from drsow_plugin import ConfigError, DataError
from drsow_plugin.data.loading import load_data
from drsow_plugin.errors import StorageError
from drsow_plugin.pipeline.splitting import Split, split_prompts

PROMPTS = [f"Prompt {n}, with\u2028a 'line' and \"more\"\n" for n in range(30)]


def table(prompts: Sequence[Any], **columns: Sequence[Any]) -> datasets.Dataset:
    given = {"prompt": list(prompts), **{name: list(of) for name, of in columns.items()}}
    return datasets.Dataset.from_dict(given)


def messages(*texts: str) -> list[dict[str, str]]:
    roles = ("user", "assistant")
    return [{"role": roles[n % 2], "content": text} for n, text in enumerate(texts)]


def read(folder: Path, part: str) -> list[dict[str, Any]]:
    return [*load_data([str(folder / f"{part}.jsonl")])]


def run(
    data: datasets.Dataset, folder: Path, held_out: int = 7, column: str = "prompt", **more: Any
) -> tuple[Split, list[dict[str, Any]], list[dict[str, Any]]]:
    split = split_prompts(data, folder, held_out, column, **{"unique": False, **more})
    return split, read(folder, "train"), read(folder, "held_out")


def test_each_prompt_goes_to_one_part_in_the_order_of_the_data(tmp_path: Path) -> None:
    split, train, held = run(table(PROMPTS), tmp_path)
    assert split == Split(train=23, held_out=7, repeats=0, unreadable=0)
    texts = [[row["prompt"] for row in part] for part in (train, held)]
    assert [*map(len, texts)] == [23, 7] and sorted([*texts[0], *texts[1]]) == sorted(PROMPTS)
    assert all(part == [prompt for prompt in PROMPTS if prompt in part] for part in texts)


def test_held_out_are_the_prompts_with_the_smallest_hashes(tmp_path: Path) -> None:
    def sha256(prompt: str) -> str:
        plain = json.dumps([{"content": prompt, "role": "user"}], sort_keys=True)
        return hashlib.sha256(plain.encode()).hexdigest()

    _, _, held = run(table(PROMPTS), tmp_path)
    assert {row["prompt"] for row in held} == set(sorted(PROMPTS, key=sha256)[:7])


def test_neither_the_order_nor_more_prompts_change_much(tmp_path: Path) -> None:
    _, _, held = run(table(PROMPTS), tmp_path / "a")
    texts = {row["prompt"] for row in held}
    _, _, other = run(table(PROMPTS[::-1]), tmp_path / "b")
    assert {row["prompt"] for row in other} == texts
    _, train, _ = run(table([*PROMPTS, "one more"]), tmp_path / "c")
    assert len({row["prompt"] for row in train} & texts) <= 1
    _, _, more = run(table(PROMPTS), tmp_path / "d", held_out=9)
    assert texts < {row["prompt"] for row in more}


def test_repeats_are_refused_or_left_out(tmp_path: Path) -> None:
    data = table([*PROMPTS[:9], PROMPTS[2], PROMPTS[0]], n=range(11))
    with pytest.raises(DataError, match=r"prompts repeat \(row 9 repeats row 2; row 10 repeats"):
        split_prompts(data, tmp_path / "none", 3, "prompt", unique=False)
    assert not (tmp_path / "none").exists()
    split, train, held = run(data, tmp_path, held_out=3, unique=True)
    assert split == Split(train=6, held_out=3, repeats=2, unreadable=0)
    assert sorted(row["n"] for row in [*train, *held]) == [*range(9)]
    assert str(split) == "6 prompts to train on, 3 held out; left out: 2 repeats"


def test_a_text_and_a_message_that_say_the_same_are_one_prompt(tmp_path: Path) -> None:
    texts = write(tmp_path / "texts.jsonl", [{"prompt": text} for text in PROMPTS[:6]])
    chats = [{"prompt": messages(text)} for text in PROMPTS[:6]]
    run(load_data([str(texts)]), tmp_path / "texts", held_out=2)
    run(datasets.Dataset.from_list(chats), tmp_path / "chats", held_out=2)
    held = [row["prompt"] for row in read(tmp_path / "texts", "held_out")]
    same = [row["prompt"] for row in read(tmp_path / "chats", "held_out")]
    assert same == [messages(text) for text in held]


@pytest.mark.fault("rows", "prompts that cannot be read, in data to split", "left out, and counted")
def test_what_cannot_be_read_is_left_out_and_counted(tmp_path: Path) -> None:
    split, train, held = run(table([None, *PROMPTS[:8], None]), tmp_path, held_out=3)
    assert split == Split(train=5, held_out=3, repeats=0, unreadable=2)
    assert None not in [row["prompt"] for row in [*train, *held]]
    assert str(split) == "5 prompts to train on, 3 held out; left out: 2 unreadable"
    empty = [{"prompt": messages("a")}, {"prompt": []}, {"prompt": messages("b")}]
    split, _, _ = run(datasets.Dataset.from_list(empty), tmp_path / "empty", held_out=1)
    assert split == Split(train=1, held_out=1, repeats=0, unreadable=1)


@pytest.mark.parametrize("held_out", [4, 5, 100])
def test_something_is_left_to_train_on(tmp_path: Path, held_out: int) -> None:
    data = table([*PROMPTS[:4], PROMPTS[0]])
    with pytest.raises(ConfigError, match=rf"held_out={held_out} leaves nothing .* 4 prompts"):
        split_prompts(data, tmp_path / "out", held_out, "prompt", unique=True)
    assert not (tmp_path / "out").exists()
    split, _, _ = run(data, tmp_path / "out", held_out=3, unique=True)
    assert (split.train, split.held_out) == (1, 3)


def test_a_column_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no column 'question', only prompt"):
        split_prompts(table(PROMPTS), tmp_path, 3, "question", unique=True)


def test_rows_keep_all_of_their_columns(tmp_path: Path) -> None:
    count = len(PROMPTS)
    columns: dict[str, Any] = {
        "number": range(count),
        "score": [None if n % 5 == 0 else n / 7 for n in range(count)],
        "tags": [[f"t{n}", "ü"] for n in range(count)],
        "meta": [{"source": f"s{n}", "page": None if n % 2 else n} for n in range(count)],
        "good": [n % 3 == 0 for n in range(count)],
    }
    data = table(PROMPTS, **columns).rename_column("prompt", "question")
    _, train, held = run(data, tmp_path, column="question")
    rows = sorted([*train, *held], key=lambda row: row["number"])
    assert rows == [*data]


def test_prompts_of_messages_read_back_the_same(tmp_path: Path) -> None:
    texts = [messages(f"a {n}", f"b\n{n} 你好", f"c {n}") for n in range(6)]
    data = datasets.Dataset.from_list([{"prompt": prompt} for prompt in texts])
    _, train, held = run(data, tmp_path, held_out=2)
    assert [row["prompt"] for row in [*train, *held]] == [
        prompt for part in (train, held) for prompt in texts if {"prompt": prompt} in part
    ]
    assert len(train) + len(held) == 6


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_json_has_no_word_for_becomes_null(tmp_path: Path, value: float) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    data = table(PROMPTS[:5], score=[0.5, value, 1.5, 2.5, 3.5])
    split_prompts(data, tmp_path, 2, "prompt", unique=False)
    for part in ("train", "held_out"):
        for line in (tmp_path / f"{part}.jsonl").read_text(encoding="utf-8").split("\n")[:-1]:
            json.loads(line, parse_constant=refuse)
    scores = [row["score"] for part in ("train", "held_out") for row in read(tmp_path, part)]
    assert sorted(scores, key=str) == [0.5, 1.5, 2.5, 3.5, None]


def test_a_folder_that_cannot_be_one_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match=r"file is a file\. Give a new folder"):
        split_prompts(table(PROMPTS), tmp_path / "file", 3, "prompt", unique=True)
    with pytest.raises(StorageError, match=r"below cannot be written: .*Make room"):
        split_prompts(table(PROMPTS), tmp_path / "file" / "below", 3, "prompt", unique=True)


def test_nothing_is_written_over(tmp_path: Path) -> None:
    file = write(tmp_path / "train.jsonl", [{"prompt": text} for text in PROMPTS])
    before = file.read_bytes()
    said = wrong("split", file, tmp_path, "--held-out", 5)
    assert f"{tmp_path} is not empty. Give a new folder as OUTPUT" in said
    assert file.read_bytes() == before and [*tmp_path.iterdir()] == [file]


def test_the_command(tmp_path: Path) -> None:
    file = write(tmp_path / "prompts.jsonl", [{"prompt": text} for text in [*PROMPTS, PROMPTS[3]]])
    folder = tmp_path / "out"
    said = wrong("split", file, folder, "--held-out", 5)
    assert "prompts repeat (row 30 repeats row 3)" in said
    made = drsow("split", file, folder, "--held-out", 5, "--unique", "true")
    assert made.exit_code == 0, made.output
    assert "25 prompts to train on, 5 held out; left out: 1 repeats" in made.stdout
    assert f"Wrote {folder}" in made.stdout and len(read(folder, "held_out")) == 5
    few = drsow("split", file, tmp_path / "few", "--held-out", 5, "--limit", 10)
    assert "5 prompts to train on, 5 held out" in few.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "Say how many prompts are held out, with --held-out NUMBER"),
        (["--held-out", "0"], "held_out is a whole number of at least 1, got '0'"),
        (["--held-out", "half"], "held_out is a whole number"),
        (["--held-out", "1", "--unique", "perhaps"], "unique"),
        (["--held-out", "1", "--limit", "-1"], "limit is a whole number"),
        (["--held-out", "1", "--data-split", "test"], "data_split=test says nothing"),
        (["--held-out", "2"], "leaves nothing to train on: there are 2 prompts"),
    ],
)
def test_the_command_with_wrong_input(tmp_path: Path, words: list[str], message: str) -> None:
    file = write(tmp_path / "prompts.jsonl", [{"prompt": text} for text in PROMPTS[:2]])
    assert message in wrong("split", file, tmp_path / "out", *words)
    assert not (tmp_path / "out").exists()


def test_the_command_takes_one_split_of_a_data_set(tmp_path: Path) -> None:
    parts = datasets.DatasetDict({"train": table(PROMPTS), "test": table(PROMPTS[:3])})
    parts.save_to_disk(str(tmp_path / "saved"))
    said = wrong("split", tmp_path / "saved", tmp_path / "out", "--held-out", 1)
    assert "The data has the splits train, test. Name the one to read with --data-split" in said
    assert "Give PROMPTS and OUTPUT" in wrong("split", tmp_path / "saved", "--held-out", 1)
