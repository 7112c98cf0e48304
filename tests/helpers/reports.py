"""A report with everything in it, as the card is made from."""

from __future__ import annotations

from typing import Any

from helpers.hub_server import READER, TOKEN

REPO = "tester/labelled"


def report(**changes: Any) -> dict[str, Any]:
    """Return the plain values of a report with everything in it."""
    side = {"source": "org/strong", "revision": "abc123", "dtype": "bfloat16", "adapter": None}
    side |= {"architecture": "LlamaForCausalLM", "template": "tokenizer", "max_length": 8192}
    local = {
        "source": "/home/someone/models/weak",
        "sha256": {"model.safetensors": "0123456789abcdef"},
    }
    counted = {
        "rows": 4,
        "scored": 4,
        "pairs": 3,
        "dropped": {"tie": 1, "bad row": 0},
        "swapped": 0,
    }
    counted |= {
        "accuracy": {"value": 0.612, "stderr": 0.021, "n": 440, "ties": 0},
        "longer": {"value": 0.57, "stderr": 0.02, "n": 440},
        "margin_quantiles": {"0.05": 0.1, "0.5": 1.0, "0.95": 2.0},
        "length_correlation": 0.31,
    }
    return {
        "kind": "pairs",
        "input": "org/source",
        "command": f"drsow annotate org/source --token {TOKEN}",
        "created": "2026-11-23",
        "fingerprint": "f" * 64,
        "options": {
            "strong": "org/strong",
            "token": TOKEN,
            "note": f"made with {READER}",
            "seed": 0,
        },
        "pair": {
            "strong": {**side, "template_sha256": "e5878d42c1903b9f"},
            "weak": {**side, "revision": None, **local, "template": "none"},
            "scoring": {
                "reduction": "sum",
                "end_of_turn": True,
                "overflow": "error",
                "max_length": None,
            },
            "versions": {"python": "3.11", "torch": "2.13.0"},
        },
        "annotation": {"select": None, "min_margin": 0.0, "relabel": "swap", "drop": False},
        "columns": {"drsow_margin": "reward of chosen | minus rejected, nats"},
        "domains": [
            {"name": "chat", "description": "Talk", "instruction": "Be ```kind```.", "examples": []}
        ],
        "splits": {"train": {**counted, "groups": {"chat": counted}}},
        **changes,
    }
