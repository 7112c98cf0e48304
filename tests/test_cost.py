"""What makes a test slow is counted, so that no slow one gets into `make quick`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from helpers.cost import Cost, too_much

from drsow_plugin.models.demo import SHA256


def test_a_process_counts_by_what_it_imports() -> None:
    before = Cost.so_far()
    subprocess.run([sys.executable, "-c", "import json"], check=True)
    assert too_much(before, Cost.so_far()) is None


@pytest.mark.slow
def test_a_process_with_torch_in_it_counts_as_slow() -> None:
    before = Cost.so_far()
    subprocess.run([sys.executable, "-c", "import torch"], check=True)
    assert "processes that it starts" in str(too_much(before, Cost.so_far()))


@pytest.mark.slow
def test_the_demo_model_counts_as_slow(tmp_path: Path) -> None:
    before = Cost.so_far()
    (tmp_path / f"{SHA256[:32]}-config").write_text("{}")
    assert too_much(before, Cost.so_far()) == "it opens the demo model"
