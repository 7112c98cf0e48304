"""LLMBar: 419 pairs judged for following the instruction, which the package ships."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

import datasets

from drsow_plugin.harness.benchmarks.loading import Splits, normalised

METADATA: frozenset[str] = frozenset()
URL = "https://github.com/princeton-nlp/LLMBar"


def load(subset: str, **_metadata: Any) -> Splits:
    """Load one of the five sets."""
    file = resources.files("drsow_plugin.tasks") / "llmbar.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if row["subset"] == subset]
    return {"test": normalised(datasets.Dataset.from_list(rows), "llmbar", domain="chat")}
