"""A plugin with two domains and a router, and prompts and rows for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import datasets

PLUGIN = """
from drsow_plugin import Domain, Router, hookimpl

def turn(role, content):
    return {"role": role, "content": content}

LAW = Domain(
    "law", "About law.", instruction="Be exact.", shots=1,
    examples=[[turn("user", f"Why {n}?"), turn("assistant", f"So {n}.")] for n in range(4)],
)
STRONG = Domain("strong-only", "For the strong model.", instruction="Be strong.", side="strong")

def route(prompts):
    return [next((n for n in ("law", "strong-only") if n in p.text), None) for p in prompts]

@hookimpl
def drsow_domains():
    return [LAW, STRONG]

@hookimpl
def drsow_routers():
    return [Router("mine", route)]
"""

PROMPTS = ["Is it law?", "A strong-only one.", "Neither.", "More law.", "Write a Python function."]
RESPONSES = ["Yes.", "No, it is not.", "Maybe so.", "Some more of it.", "    return 1\n"]


def pairs(number: int = 12) -> datasets.Dataset:
    rows = [
        {
            "prompt": f"{PROMPTS[n % 5]} ({n})",
            "chosen": RESPONSES[n % 5],
            "rejected": "Something else.",
            "kind": ["law", "strong-only", "", "law", "reasoning"][n % 5],
        }
        for n in range(number)
    ]
    import datasets

    return datasets.Dataset.from_list(rows)
