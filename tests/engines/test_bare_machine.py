"""What is for a GPU runs where little else than torch, transformers and pytest is installed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from helpers.bare import bare

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def test_tests_for_a_gpu_are_collected_where_only_torch_and_transformers_are() -> None:
    listed = bare(
        "pytest",
        *("-o", "addopts=", "-p", "no:cacheprovider", "-m", "gpu", "--collect-only", "-q"),
        "tests/engines",
    )
    found = set(re.findall(r"^tests/engines/(\w+)\.py::", listed, re.MULTILINE))
    marked = {
        path.stem
        for path in (ROOT / "tests").rglob("test_*.py")
        if re.search(r"^(from helpers.devices import|@pytest\.mark\.gpu)", path.read_text(), re.M)
    }
    assert found == marked


def test_the_same_tests_run_there_on_a_cpu() -> None:
    """Its free memory is told by psutil; that of a GPU by torch."""
    ran = bare(
        "pytest",
        *("-o", "addopts=", "-p", "no:cacheprovider", "-m", "not gpu", "-q"),
        "tests/engines/test_devices.py",
        also=("psutil",),
    )
    assert re.search(r"^\d\d+ passed", ran, re.MULTILINE)
