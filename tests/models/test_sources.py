"""What is read of a model without its weights."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from helpers import tiny

WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None  # any import of it fails
from drsow_plugin.config.model import parse_model
from drsow_plugin.models import converted, demo
from drsow_plugin.models.sources import load_config, load_tokenizer, locate, read_template
config = parse_model("strong", sys.argv[1], {})
source = locate("strong", config)
tokenizer = load_tokenizer("strong", config, source)
print(load_config("strong", config, source).model_type, tokenizer("a").input_ids)
print(read_template("strong", config, tokenizer))
"""


@pytest.mark.slow
def test_tokenizer_template_and_configuration_are_read_without_torch(tmp_path: Path) -> None:
    folder = tiny.save(tmp_path)
    command = [sys.executable, "-c", WITHOUT_TORCH, folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first, template = done.stdout.split("\n", 1)
    tokenizer = tiny.tokenizer("gpt2_bos", "chatml")
    assert first == f"llama {tokenizer('a').input_ids}"
    assert template.rstrip("\n") == tokenizer.get_chat_template().rstrip("\n")
