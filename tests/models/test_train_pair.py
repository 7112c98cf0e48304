"""The recipe of examples/train_pair.py: what it trains is the reward, on rows that it may read."""

from __future__ import annotations

import gzip
import json
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import measure_pair
import pair_network
import pair_rows
import pytest
import torch
import train_pair
from helpers import tiny_gguf
from pair_rows import Row
from safetensors.torch import load_file

from drsow_plugin import DrSoW, LanguageModel
from drsow_plugin.hashing import file_sha256
from drsow_plugin.models import demo
from drsow_plugin.prompts import Messages, Preference


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_gguf.save(tmp_path_factory.mktemp("demo") / demo.FILE_NAME, context=8192)


@pytest.fixture(autouse=True)
def tiny_demo(gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a llama of two layers in the place of the demo model."""
    monkeypatch.setattr(demo, "SHA256", file_sha256(gguf))
    monkeypatch.setenv("DRSOW_CACHE", str(gguf.parent))


def pair(question: str, *more: str) -> Preference:
    turns = [question, *more]
    roles = ["user", "assistant"] * len(turns)
    prompt = [{"role": r, "content": t} for r, t in zip(roles, turns, strict=False)]
    return Preference(Messages(prompt), "It is 7.", "I will not tell you, whatever you say.")


def pairs_of_part(part: str, count: int) -> list[Preference]:
    found = (pair(f"Name the number {n}.", "Why?", "Because!") for n in range(1000))
    return [p for p in found if pair_rows.part_of(p) == part][:count]


def written(path: Path, pairs: list[Preference]) -> Path:
    rows = [{"prompt": p.prompt, "chosen": p.chosen, "rejected": p.rejected} for p in pairs]
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return path


def test_conversations_that_begin_alike_are_in_one_part() -> None:
    parts = Counter(pair_rows.part_of(pair(f"Question {n}")) for n in range(2000))
    assert parts["train"] == pytest.approx(1400, abs=80)
    assert parts["tune"] == pytest.approx(200, abs=50)
    for n in range(20):
        longer = pair(f"Question {n}", "An answer.", "Another question?")
        assert pair_rows.part_of(longer) == pair_rows.part_of(pair(f"Question {n}"))


def test_rows_are_tokens_of_both_sides_without_those_of_the_last_part(tmp_path: Path) -> None:
    file = written(
        tmp_path / "some.jsonl.gz", pairs_of_part("train", 2) + pairs_of_part("final", 2)
    )
    rows = pair_rows.read_rows([file], pair_rows.Limits())
    assert [row.part for row in rows] == ["train", "train"]
    short = pair_rows.read_rows([file], pair_rows.Limits(prompt_tokens=40))
    assert len(short[0].strong.prompt) < len(rows[0].strong.prompt)
    assert pair_rows.read_rows([file], pair_rows.Limits(response_tokens=5)) == []


FEW = train_pair.Settings(
    first_layer=1, rank=2, epochs=4, groups=1, learning_rate=0.02, rounded=False
)


def some(path: Path) -> tuple[list[Preference], Path]:
    pairs = pairs_of_part("train", 6) + pairs_of_part("tune", 2)
    return pairs, written(path / "some.jsonl.gz", pairs)


def margins_of(drsow: DrSoW, pairs: list[Preference]) -> list[float]:
    prompts = [p.prompt for p in pairs]
    chosen = drsow.score(prompts, [p.chosen for p in pairs])
    rejected = drsow.score(prompts, [p.rejected for p in pairs])
    return [c.reward - r.reward for c, r in zip(chosen, rejected, strict=True)]  # type: ignore[operator]


def in_order(examples: list[train_pair.Example], rows: list[Row]) -> list[train_pair.Example]:
    by_row = {example.row: example for example in examples}
    return [by_row[row] for row in rows]


@pytest.mark.slow
def test_what_is_trained_is_the_reward_of_the_pair(tmp_path: Path) -> None:
    pairs, file = some(tmp_path)
    rows = pair_rows.read_rows([file], FEW)
    network = pair_network.Network()
    group = in_order(train_pair.prepare(network, rows, FEW), rows)
    with torch.inference_mode():
        rewards = train_pair.rewards(network, group, FEW)
        with pair_network.rounding(True):
            rounded = train_pair.rewards(network, group, FEW)
        apo = train_pair.losses(network, group, replace(FEW, loss="apo-zero"))
    margins = rewards[:, 0] - rewards[:, 1]
    assert 0 < float((rewards - rounded).abs().max()) < 0.3

    plain = margins_of(DrSoW("demo", "demo", weak_template="none"), pairs)
    assert margins.tolist() == pytest.approx(plain, abs=5e-4)
    expected = [1 - 1 / (1 + math.exp(-0.1 * c)) + 1 / (1 + math.exp(-0.1 * r)) for c, r in rewards]
    assert apo.tolist() == pytest.approx(expected, abs=1e-5)

    output = tmp_path / "adapter"
    train_pair.main([str(output), str(file)], FEW)
    weights = load_file(output / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float16}
    assert {name.split("layers.")[1][:2] for name in weights} == {"1."}
    assert str(Path.home()) not in (output / "adapter_config.json").read_text(encoding="utf-8")
    with_adapter = DrSoW("demo", "demo", weak_template="none", strong_adapter=str(output))
    trained = margins_of(with_adapter, pairs)
    assert all(after > before + 1 for after, before in zip(trained, plain, strict=True))


@pytest.mark.slow
def test_two_sides_fine_tuned_on_either_response_are_a_pair(tmp_path: Path) -> None:
    pairs, file = some(tmp_path)
    rows = pair_rows.read_rows([file], FEW)
    network = pair_network.Network()
    settings = replace(FEW, loss="sft-chosen")
    group = in_order(train_pair.prepare(network, rows, settings), rows)
    chat = LanguageModel("demo")
    for loss, side in (("sft-chosen", "chosen"), ("sft-rejected", "rejected")):
        with torch.inference_mode():
            found = train_pair.losses(network, group, replace(settings, loss=loss))
        scored = chat.logprobs([p.prompt for p in pairs], [getattr(p, side) for p in pairs])
        expected = [-s.total / s.num_tokens for s in scored]
        assert found.tolist() == pytest.approx(expected, abs=1e-4)
        train_pair.main([str(tmp_path / loss), str(file), "--loss", loss], FEW)
    adapters = {
        "strong_adapter": str(tmp_path / "sft-chosen"),
        "weak_adapter": str(tmp_path / "sft-rejected"),
    }
    tuned = margins_of(DrSoW("demo", "demo", **adapters), pairs)
    assert all(margin > 5 for margin in tuned)  # of a model over itself it is 0


def test_training_goes_on_from_an_adapter_over_what_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, file = some(tmp_path)
    first = tmp_path / "first"
    train_pair.main([str(first), str(file), "--loss", "sft-chosen"], FEW)
    capsys.readouterr()
    more = ["--loss", "pair", "--weak", "start", "--start", str(first)]
    train_pair.main([str(tmp_path / "second"), str(file), *more], FEW)
    before, *_, after = capsys.readouterr().out.splitlines()
    assert before == "before training: some.jsonl.gz, 2 rows, loss 0.6931, right 0.000 +- 0.000"
    assert "right 1.000" in after


@pytest.mark.slow
def test_what_is_measured_is_the_margin_of_each_reward(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(measure_pair.llmbar_rows()) == 100
    pairs, file = some(tmp_path)
    rows = pair_rows.read_rows([file], measure_pair.LIMITS)
    exact = [replace(row, source=measure_pair.LLMBAR) for row in rows]
    chat, plain = (measure_pair.margins(exact, name) for name in ("chat", "plain"))
    expected = margins_of(DrSoW("demo", "demo", weak_template="none"), pairs)
    assert (chat - plain).tolist() == pytest.approx(expected, abs=5e-4)
    assert measure_pair.accuracy(torch.tensor([3.0, 0.0, -1.0, 2.0])) == "62.5 ± 24.2"

    monkeypatch.setattr(measure_pair, "llmbar_rows", lambda: exact[:3])
    measure_pair.main([str(file)])
    head, _, *lines = capsys.readouterr().out.splitlines()
    assert head == "| reward | some.jsonl.gz (2) | llmbar-natural (3) |"
    found = {line.split(" | ")[0][2:]: line for line in lines}
    assert list(found) == ["chat", "plain", "chat over plain", "plain over chat"]
    tune = torch.tensor([m for m, row in zip(expected, rows, strict=True) if row.part == "tune"])
    assert measure_pair.accuracy(tune) in found["chat over plain"]
    assert measure_pair.accuracy(torch.tensor(expected[:3])) in found["chat over plain"]
