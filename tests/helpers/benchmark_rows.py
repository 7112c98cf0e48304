"""A few rows of each benchmark in its published schema, and the tasks that read them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PROMPT, GOOD, BAD, WORSE = "Name a prime number.", "It is 11.", "A lazy dog.", "No"
_TRANSCRIPT = f"\n\nHuman: {PROMPT}\n\nAssistant: "
_PPE_KINDS = ("hard_prompt", "easy_prompt", "if_prompt", "is_code", "math_prompt")
_SIDES = {"response_A": BAD, "response_B": GOOD, "label": "B>A"}
_RMB = {"conversation_input": [{"role": "user", "content": PROMPT, "language": "English"}]}


def _answer(text: str) -> dict[str, str]:
    return {"llm_name": "model", "answer": text}


def _judged(model: str) -> list[dict[str, Any]]:
    row = {"pair_id": "1", "source": "mmlu-pro-law", "question": PROMPT, "response_model": model}
    return [{**row, **_SIDES}]


def _two(prompt: str = PROMPT, **more: Any) -> dict[str, Any]:
    return {"prompt": prompt, "chosen": GOOD, "rejected": BAD, **more}


LLMBAR = ["natural", *(f"adver_{name}" for name in ("neighbor", "gptinst", "gptout", "manual"))]
SECTIONS = {
    "chat": "alpacaeval-easy",
    "chat_hard": "llmbar-natural",
    "safety": "donotanswer",
    "reasoning": "hep-go",
}
BENCHMARKS: dict[str, tuple[list[str], list[dict[str, Any]]]] = {
    "preference": (["preference"], [_two(), _two("Name a colour.")]),
    "best_of_n": (
        ["best_of_n"],
        [{"prompt": PROMPT, "responses": [BAD, GOOD, WORSE], "ratings": [2, 5, 1]}],
    ),
    "rewardbench": (
        [f"rewardbench_{section}" for section in SECTIONS],
        [_two(subset=subset, id=n) for n, subset in enumerate(SECTIONS.values())],
    ),
    "rewardbench2": (
        ["rewardbench2"],
        [
            {"id": id, "prompt": PROMPT, "chosen": chosen, "rejected": [BAD, WORSE, "Never."]}
            | {"num_correct": len(chosen), "subset": subset}
            for id, subset, chosen in [
                ("0", "Math", [GOOD]),
                ("tied:1", "Ties", [GOOD, "It is 13."]),
                ("ref:1", "Ties", [GOOD]),
            ]
        ],
    ),
    "rm_bench": (
        ["rm_bench"],
        [
            {"id": "1", "prompt": PROMPT, "domain": "safety-refuse"}
            | {side: [text, f"{text} So.", f"**{text}**"] for side, text in sides}
            for sides in [(("chosen", GOOD), ("rejected", BAD))]
        ],
    ),
    "judgebench_gpt": (["judgebench_gpt"], _judged("gpt-4o-2024-05-13")),
    "judgebench_claude": (["judgebench_claude"], _judged("claude-3-5-sonnet-20240620")),
    "m_rewardbench": (["m_rewardbench"], [_two(source="hep-go", language="deu", id=1)]),
    "rmb_pairwise": (
        ["rmb_pairwise"],
        [
            {**_RMB, "pair_uid": "1", "chosen": _answer(GOOD), "reject": _answer(BAD)}
            | {"category_path": "Pairwise_set/Helpfulness/Code/Documentation"}
        ],
    ),
    "rmb_bon": (
        ["rmb_bon"],
        [
            {**_RMB, "bon_uid": "1", "bon_best": _answer(GOOD)}
            | {"loser_list": [_answer(BAD), _answer(WORSE)]}
            | {"category_path": "BoN_set/Harmlessness/S1"}
        ],
    ),
    "ppe": (
        ["ppe_preference"],
        [
            {"question_id": "1", "prompt": PROMPT, "response_1": BAD, "response_2": GOOD}
            | {"winner": "model_b", **dict.fromkeys(_PPE_KINDS, True)}
        ],
    ),
    "hh_rlhf": (
        ["hh_rlhf_helpful", "hh_rlhf_harmless"],
        [{"chosen": _TRANSCRIPT + GOOD, "rejected": _TRANSCRIPT + BAD}],
    ),
    "llmbar": ([f"llmbar_{name}" for name in LLMBAR], []),
}
"""By a name the tasks and the rows of a file; LLMBar comes with the package."""


def write(name: str, folder: Path) -> tuple[Sequence[str], dict[str, str]]:
    """Write the rows of a benchmark and return its tasks and what names the file."""
    tasks, rows = BENCHMARKS[name]
    if not rows:
        return tasks, {}
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tasks, {"data": str(path)}
