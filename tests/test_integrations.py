"""What docs/trainers.md shows for verl and its_hub does what their own code asks of it."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from helpers import tiny
from helpers.fakes import fake_pair
from helpers.pages import blocks
from helpers.serving import serving
from helpers.wheels import module_of, unpacked

from drsow_plugin import DrSoW, rewards

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[1] / "docs" / "trainers.md"
USER = {"role": "user", "content": "Name a prime."}
ANSWERS = ["Seven.", "A cat.", "Nine, I think.", "Seven."]


def snippet(name: str, folder: Path) -> ModuleType:
    """Import a file that the page shows."""
    (text,) = [block.text for block in blocks(PAGE) if block.file == name]
    (folder / name).write_text(text, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(name.removesuffix(".py"), folder / name)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(sys.version_info < (3, 11), reason="its_hub needs Python 3.11")
def test_its_hub_takes_the_answer_with_the_highest_reward(tmp_path: Path) -> None:
    library = unpacked("its_hub==1.2.0")
    with module_of(library, "its_hub.core.algorithms.bon") as bon:
        drsow = DrSoW(**fake_pair())
        model = snippet("drsow_its_hub.py", tmp_path).DrSoWRewardModel(drsow)

        class Orchestrator:
            async def agenerate(self, *_: object, **__: object) -> list[dict[str, str]]:
                return [{"role": "assistant", "content": text} for text in answers]

        answers = [*ANSWERS, "too long " * 600]
        best = asyncio.run(
            bon.BestOfN(model, Orchestrator()).ainfer(None, "Name a prime.", 5, False)
        )
    expected = [reward.reward for reward in drsow.score([[USER]] * 4, ANSWERS)]
    assert best.scores == [*expected, float("-inf")]
    assert best.the_one["content"] == ANSWERS[expected.index(max(expected))]  # type: ignore[type-var]


@pytest.fixture
def verl_base(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """Import the class that reward managers have as their base; ray and omegaconf are not here."""
    name = "verl.experimental.reward_loop.reward_manager.base"
    omegaconf, verl_ray = ModuleType("omegaconf"), ModuleType("verl.utils.ray_utils")
    omegaconf.DictConfig = dict  # type: ignore[attr-defined]
    verl_ray.get_event_loop = asyncio.new_event_loop  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "omegaconf", omegaconf)
    monkeypatch.setitem(sys.modules, "verl.utils.ray_utils", verl_ray)
    library = unpacked("verl==0.9.1")
    with module_of(library, name, **{"verl": {"DataProto": list}}) as module:
        yield module


def batch(text: str, tokenizer: Any) -> list[SimpleNamespace]:
    """Return one sample as verl's rollout hands it on: padded, its prompt as messages."""
    ids = tokenizer(text)["input_ids"]
    mask = [0, 1, 1, *[1] * len(ids), 0, 0]
    return [
        SimpleNamespace(
            batch={
                "responses": torch.tensor([*ids, 0, 0]),
                "attention_mask": torch.tensor(mask),
            },
            non_tensor_batch={"raw_prompt": [USER]},
        )
    ]


def test_a_reward_manager_of_verl_asks_the_server(
    tmp_path: Path, verl_base: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = tiny.tokenizer("gpt2")
    with serving() as url:
        monkeypatch.setenv(rewards.VARIABLE, url)
        made = snippet("drsow_verl.py", tmp_path).DrSoWRewardManager
        assert issubclass(made, verl_base.RewardManagerBase)
        manager = made({}, tokenizer, None, reward_router_address=None, reward_model_tokenizer=None)
        result = asyncio.run(manager.run_single(batch("Seven.", tokenizer)))
        with pytest.raises(ValueError, match="has no reward"):
            asyncio.run(manager.run_single(batch("too long " * 600, tokenizer)))
    manager.loop.close()
    (expected,) = DrSoW(**fake_pair()).score([[USER]], ["Seven."])
    assert result == {"reward_score": expected.reward, "reward_extra_info": {}}
