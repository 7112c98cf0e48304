from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test may reach for the Hub by accident
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
import tiny
import torch

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def strong(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny.save(tmp_path_factory.mktemp("strong"), seed=1)


@pytest.fixture(scope="session")
def weak(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny.save(tmp_path_factory.mktemp("weak"), seed=2)


@pytest.fixture
def preference_file(tmp_path: Path) -> Path:
    file = tmp_path / "preferences.jsonl"
    file.write_text(
        '{"prompt": "What is the capital of France?", "chosen": "Paris.", "rejected": "A dog."}\n'
        '{"prompt": "Add two numbers.", "chosen": "    return a + b", "rejected": "I will not."}\n'
        '{"prompt": "Say it.", "chosen": "same", "rejected": "same"}\n',
        encoding="utf-8",
    )
    return file
