"""What OpenRLHF and slime send is answered as they take it, by OpenRLHF's own code."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import aiohttp
import pytest
from helpers import tiny
from helpers.fakes import fake_pair
from helpers.serving import ask, metric, serving
from helpers.wheels import module_of, unpacked

from drsow_plugin import DrSoW
from drsow_plugin.serving.turns import UNFINISHED

KEY = "0123456789abcdef0123456789abcdef"
MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 < 3?"}]
TOKENIZER = tiny.tokenizer("gpt2")
PROMPT = TOKENIZER.apply_chat_template(MESSAGES, tokenize=False, add_generation_prompt=True)
MODES: dict[str, dict[str, Any]] = {
    "messages": {"prompts": "messages", "prompts_template": "chatml"},
    "rendered": {"prompts": "rendered"},
}


def expected(mode: str, text: str) -> float:
    """Return the reward of the conversation, however a trainer has sent it."""
    if mode == "messages":
        (reward,) = DrSoW(**fake_pair()).score([MESSAGES], [text])
    else:
        options = {"template": "rendered", "control_tokens": "parse", "end_of_turn": False}
        (reward,) = DrSoW(**fake_pair(**options)).score([PROMPT], [f"{text}<|im_end|>"])
    assert reward.reward is not None
    return reward.reward


@pytest.fixture(scope="module")
def agent() -> Iterator[ModuleType]:
    library = unpacked(
        *("openrlhf==0.11.2", "--python-version", "3.11", "--platform", "manylinux1_x86_64")
    )
    with module_of(library, "openrlhf.utils.agent") as module:
        yield module


class Policy:
    """Answers as vLLM does, with the token ids of a text."""

    def __init__(self, text: str) -> None:
        self.ids = TOKENIZER(text)["input_ids"]

    async def generate(self, *_: object, **__: object) -> SimpleNamespace:
        output = SimpleNamespace(token_ids=self.ids, finish_reason="stop", logprobs=None)
        return SimpleNamespace(outputs=[output])


async def rollouts(agent: ModuleType, url: str, texts: list[str]) -> list[dict[str, Any]]:
    """Generate and reward with OpenRLHF's own executor: one query a request, all at once."""
    executor = agent.SingleTurnAgentExecutor(url)
    sampling = SimpleNamespace(max_tokens=64, logprobs=None)
    runs = (
        executor.execute(PROMPT, "label", sampling, 512, TOKENIZER, Policy(text)) for text in texts
    )
    return await asyncio.gather(*runs)


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_openrlhf_gets_the_rewards_of_its_rollouts(agent: ModuleType, mode: str) -> None:
    texts = [f"Yes, {number}." for number in range(64)]
    with serving(key=KEY, **MODES[mode]) as url:
        address = f"{url}/openrlhf".replace("//", f"//drsow:{KEY}@")
        outputs = asyncio.run(rollouts(agent, address, [f"{text}<|im_end|>" for text in texts]))
    for text, output in zip(texts, outputs, strict=True):
        assert output["reward"] == output["scores"] == [pytest.approx(expected(mode, text))]
        logs = output["extra_logs"]
        (ratio,) = [
            a - b for a, b in zip(logs["strong_logprob"], logs["weak_logprob"], strict=True)
        ]
        assert ratio == pytest.approx(output["reward"][0])


@pytest.mark.slow
def test_openrlhf_gets_an_error_where_a_row_has_no_reward(
    agent: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def at_once(_seconds: float) -> None: ...

    monkeypatch.setattr(agent, "asyncio", SimpleNamespace(**{**vars(asyncio), "sleep": at_once}))
    with serving(**MODES["messages"], max_length=16) as url:
        (output,) = asyncio.run(rollouts(agent, f"{url}/openrlhf", ["Yes.<|im_end|>"]))
        assert output["reward"] is output["scores"] is None
        assert metric(url, 'drsow_requests_total{code="422",path="/openrlhf"}') == 5  # its tries


async def remote_rm(url: str, sample: dict[str, Any]) -> Any:
    """Ask as slime's ``slime/rollout/rm_hub/__init__.py`` does; it is on no package index."""
    async with aiohttp.ClientSession() as session, session.post(url, json=sample) as response:
        response.raise_for_status()
        return await response.json()


@pytest.mark.parametrize("mode", MODES)
def test_slime_gets_a_bare_number(mode: str) -> None:
    sample = {"prompt": PROMPT, "response": "Yes.<|im_end|>", "label": "yes"}
    with serving(**MODES[mode]) as url:
        assert asyncio.run(remote_rm(f"{url}/slime", sample)) == expected(mode, "Yes.")


def test_slime_may_send_messages() -> None:
    sample = {"prompt": MESSAGES, "response": "Yes.", "label": None}
    with serving(**MODES["messages"]) as url:
        assert asyncio.run(remote_rm(f"{url}/slime", sample)) == expected("messages", "Yes.")
    with serving(**MODES["rendered"]) as url:
        answer = ask(f"{url}/slime", sample)
        assert answer.code == 422 and "with --prompts rendered a prompt is a text" in answer.error


def test_slime_gets_an_error_where_there_is_no_reward() -> None:
    sample = {"prompt": PROMPT, "response": "Yes." * 900, "label": None}
    with (
        serving(**MODES["messages"]) as url,
        pytest.raises(aiohttp.ClientResponseError, match="422"),
    ):
        asyncio.run(remote_rm(f"{url}/slime", sample))


TWO = {"query": [PROMPT + "Yes.", PROMPT + "No."], "prompts": [PROMPT] * 2, "labels": [None] * 2}


@pytest.mark.parametrize(
    ("path", "change", "code", "said"),
    [
        ("openrlhf", {"query": [PROMPT, PROMPT[1:]]}, 422, "does not begin with its prompt"),
        ("openrlhf", {"query": [PROMPT]}, 400, "1 queries and 2 prompts"),
        ("openrlhf", {"query": [PROMPT, 5]}, 400, "texts"),
        ("openrlhf", {"query": "a"}, 400, "'query' is a list"),
        ("openrlhf", {"query": ["ab", "a"], "prompts": ["a"] * 2}, 422, "row 0 has no reward: bad"),
        ("slime", {}, 400, "no 'prompt'; it has ['labels', 'prompts', 'query']"),
        ("slime", {"prompt": "Hi", "response": ""}, 422, "the prompt is not one of chatml"),
        ("slime", {"prompt": PROMPT, "response": 7}, 422, "a response is a string, got int"),
    ],
)
def test_what_cannot_be_taken_apart_is_an_error(
    path: str, change: dict[str, Any], code: int, said: str
) -> None:
    with serving(**MODES["messages"]) as url:
        answer = ask(f"{url}/{path}", {**TWO, **change})
        assert answer.code == code and said in answer.error, answer


def test_several_queries_have_their_rewards_in_order() -> None:
    with serving(**MODES["messages"]) as url:
        answer = ask(f"{url}/openrlhf", TWO).body
        assert answer["rewards"] == [expected("messages", text) for text in ("Yes.", "No.")]
        rows = {"prompts": [PROMPT], "responses": ["Yes."]}
        assert ask(f"{url}/v1/rewards", rows).body["rewards"][0]["notes"][0] == UNFINISHED


def test_without_a_word_on_prompts_trainers_are_refused() -> None:
    with serving() as url:
        for path in ("openrlhf", "slime"):
            answer = ask(f"{url}/{path}", {**TWO, "prompt": PROMPT, "response": "Yes."})
            assert answer.code == 400 and "--prompts rendered, or --prompts" in answer.error
