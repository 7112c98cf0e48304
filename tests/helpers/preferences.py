"""Small preference data."""

from __future__ import annotations

from typing import Any

USER = {"role": "user", "content": "The quick brown fox?"}

WORDS = ["Paris.", "It is the capital of France.", "a lazy dog", "naïve 你好", "    return a + b\n"]


def turn(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def pairs(count: int = 10) -> list[dict[str, Any]]:
    return [
        {
            "prompt": f"Question {n}?",
            "chosen": WORDS[n % 5],
            "rejected": WORDS[(n + 1 + n // 5) % 5],
            "id": n,
        }
        for n in range(count)
    ]


def candidates(count: int = 10) -> list[dict[str, Any]]:
    return [
        {"prompt": f"Question {n}?", "responses": [f"{word} {n}" for word in WORDS[: 2 + n % 4]]}
        for n in range(count)
    ]
